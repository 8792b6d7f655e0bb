//! Memory truth: what the machine has, what our engines hold of it, what may be promised.
//!
//! ```text
//! procfs ──► MemoryProbe ──► MemorySample {total, available, held by pid} ──(+ reserve)──► Pool ──► allocatable
//! ```
//!
//! CPU and GPU share one pool on a GB10, and on the CPU backend there is only host memory, so one `Unified` pool is all
//! this version knows. `MemAvailable` is the capacity: `MemFree` counts page cache as used.

mod pool;
mod probe;
mod reserve;

pub use pool::Pool;
pub use probe::{MemoryProbe, MemorySample, ProbeError, ProcessMemory};
pub use reserve::{Machine, default_reserve_bytes};
