//! HTTP surfaces over an engine, and the process that carries one.
//!
//! ```text
//!  client ─► connection ─► http (routes) ─► openai (wire ↔ Ask) ─► engine::ChatEngine ◄─ real handle | fake (script)
//!                    └ access, health, metrics, phase: one Service ◄─ child (config, commands, events) ◄─ agent
//! ```

mod access;
mod body;
pub mod child;
mod client;
mod connection;
mod engine;
pub mod fake;
pub mod front;
mod health;
mod http;
mod metrics;
mod openai;
mod phase;
mod real;
mod room;
mod route;
mod service;
mod tally;
mod unread;

pub use access::{AccessError, Audience};
pub use connection::ConnectionLimits;
pub use engine::{ChatEngine, EncodedChat, Place, PromptError};
pub use health::{Health, STALL_LIMIT, Verdict};
pub use http::{routes, serve};
pub use openai::{ApiError, PromptSize};
pub use phase::{Lifecycle, Phase};
pub use real::RealEngine;
pub use service::{Service, ServiceSettings};
