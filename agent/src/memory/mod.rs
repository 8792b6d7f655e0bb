//! Memory truth: what the machine has, what our engines hold of it, what may be promised.
//!
//! ```text
//! procfs ──► MemoryProbe ──► MemorySample {total, available, held by pid} ──(+ reserve)──► Pool ──► allocatable
//! ```
//!
//! CPU and GPU share one pool on a GB10, and on the CPU backend there is only host memory, so one `Unified` pool is all
//! this version knows. `MemAvailable` is the capacity: `MemFree` counts page cache as used.

mod buddyinfo;
mod device;
mod meminfo;
mod pool;
mod pools;
mod probe;
mod reserve;

pub use buddyinfo::free_block_bytes;
pub use device::{DEVICE_RESERVE_BYTES, DeviceSample, engine_device_bytes};
pub use meminfo::Meminfo;
pub use pool::Pool;
pub use pools::{PoolBytes, Pools};
pub use probe::{MemoryProbe, MemorySample, ProbeError, ProcessMemory};
pub use reserve::{Machine, default_reserve_bytes};
