//! One per Spark: admits, starts, watches and stops engines, and reports what it sees.
//!
//! ```text
//!            Desired (replicas bound here, models, own node)
//!                 │
//!   probe ──► observe ──► plan (pure) ──► execute ──► engine and inspect children
//!                 ▲                          │             │ events, exits
//!                 └──────────────────────────┴─────────────┘
//!                                  report (pure) ──► Observed (statuses)
//! ```
//!
//! Pure: `admission`, `backend`, `plan`, `engine` and `record` (the life of an engine and of a replica), `store::ModelCopy`, `report`,
//! `reexport`, and the guard's `Judge`. Thin: `memory::MemoryProbe`, `gpu_watch`, `supervise`, `store` (looks and the inspect child),
//! `kubernetes`, `admin`. The loop in `agent` and `pass` joins them. It works on with the API server away: engines keep
//! serving, what served may come back, nothing new starts.

mod admin;
mod admission;
mod agent;
mod backend;
mod bytes;
mod clock;
mod engine;
mod execute;
#[cfg(test)]
mod fixture;
mod gpu_watch;
mod guard;
mod health;
mod incarnation;
pub mod kubernetes;
mod machine;
mod measure;
mod memory;
mod metrics;
mod pass;
mod plan;
mod ports;
mod record;
mod reexport;
mod report;
mod source;
mod store;
mod supervise;
mod survey;
mod wanted;

pub use admin::{AdminError, bind as bind_admin};
pub use agent::{Agent, AgentConfig, AgentError};
pub use backend::{BackendError, BackendWish};
pub use bytes::readable;
pub use health::{EngineTarget, Health};
pub use memory::{
    DEVICE_RESERVE_BYTES, DeviceSample, Machine, Meminfo, MemoryProbe, MemorySample, ProbeError,
    ProcessMemory, default_reserve_bytes, free_block_bytes,
};
pub use metrics::Metrics;
pub use ports::{PortRange, PortRangeError};
pub use source::{AgentLink, Desired, Observed, SourceLink, link};
pub use supervise::child_environment;
pub use wanted::{ModelKey, ReplicaKey};
