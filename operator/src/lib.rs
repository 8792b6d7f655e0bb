//! The operator: brings what users want onto Sparks.
//!
//! ```text
//! watch ─► World ─► observe ─► Snapshot ─► planner::plan ─► Plan ─► apply ─► API server
//!  (stores)         (pure)                  (pure)           └────► status, events, metrics, /plan
//! ```
//!
//! One work key: any watch event marks the world dirty, and a pass plans all deployments at once, because node memory
//! couples them. `control` is the loop, `world` what was seen, `pending` our own writes that are not seen yet.
//! `local` carries plans out on a `World` in memory, for `sparkherd serve`.

mod admin;
mod apply;
mod call;
mod control;
mod events;
mod heartbeat;
mod local;
mod metrics;
pub mod observe;
mod pending;
mod retries;
mod status;
mod status_write;
mod watch;
mod world;

pub use control::{OperatorConfig, OperatorError, run};
pub use heartbeat::Heartbeats;
pub use local::{LocalCluster, Route};
pub use status::{deployment_status, node_reachable, replica_reachable};
pub use world::{Undecodable, World};
