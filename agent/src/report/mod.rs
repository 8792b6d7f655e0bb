//! Facts to statuses. Pure; every word an object's status says is made here.
//!
//! Statuses are compared with what was written last, so all that moves without meaning (live bytes, countdowns) is cut to
//! steps or left to the metrics: when nothing happens, nothing is written (I9).

mod condition;
mod model;
mod node;
mod replica;

pub use model::{ModelRole, model_status};
pub use node::{NodeView, node_status};
pub use replica::{ReplicaView, replica_status};
