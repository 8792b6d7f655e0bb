use sparkherd_footprint::Footprint;

use super::Pool;

/// Bytes by the pool they lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolBytes {
    /// Of the host's memory; of all there is where the GPU shares it.
    pub host: u64,
    /// Of memory that only the GPU has.
    pub device: u64,
}

impl PoolBytes {
    pub const fn host(host: u64) -> Self {
        Self { host, device: 0 }
    }

    pub const fn total(self) -> u64 {
        self.host.saturating_add(self.device)
    }

    pub const fn plus(self, other: Self) -> Self {
        Self { host: self.host.saturating_add(other.host), device: self.device.saturating_add(other.device) }
    }

    pub const fn minus(self, other: Self) -> Self {
        Self { host: self.host.saturating_sub(other.host), device: self.device.saturating_sub(other.device) }
    }

    /// In each pool at least as much.
    pub const fn covers(self, other: Self) -> bool {
        self.host >= other.host && self.device >= other.device
    }
}

/// The memory engines may take of, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// The host's; where `device` is `None`, all there is.
    pub host: Pool,
    /// The GPU's, where it has memory of its own and engines use it.
    pub device: Option<Pool>,
}

impl Pools {
    /// What a footprint takes of each.
    pub const fn shares(&self, footprint: &Footprint) -> PoolBytes {
        match self.device {
            None => PoolBytes::host(footprint.total_bytes()),
            Some(_) => PoolBytes { host: footprint.host_bytes, device: footprint.device_bytes },
        }
    }

    /// What engines mostly take: its `allocatable` goes with a refusal, and the planner waits for it to grow.
    pub const fn chief(&self) -> Pool {
        match self.device {
            None => self.host,
            Some(device) => device,
        }
    }

    /// Available, and held by our engines.
    pub fn unclaimed(&self) -> PoolBytes {
        let of = |pool: Pool| pool.available_bytes.saturating_add(pool.held_bytes);
        PoolBytes { host: of(self.host), device: self.device.map_or(0, of) }
    }

    pub fn grain(&self) -> PoolBytes {
        let device = self.device.as_ref().map_or(0, Pool::grain_bytes);
        PoolBytes { host: self.host.grain_bytes(), device }
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_footprint::{Footprint, Parts};

    use super::{Pool, PoolBytes, Pools};

    #[test]
    fn a_footprint_falls_apart_only_where_the_gpu_has_memory() {
        let footprint = Footprint { device_bytes: 7, host_bytes: 2, parts: Parts::default() };
        let unified = Pools::default();
        let split = Pools { device: Some(Pool::default()), ..unified };
        assert_eq!(unified.shares(&footprint), PoolBytes { host: 9, device: 0 });
        assert_eq!(split.shares(&footprint), PoolBytes { host: 2, device: 7 });
    }

    #[test]
    fn one_pool_does_not_make_up_for_the_other() {
        let floor = PoolBytes { host: 5, device: 5 };
        assert!(floor.covers(floor));
        assert!(!PoolBytes { host: 100, device: 4 }.covers(floor));
        assert!(!PoolBytes { host: 4, device: 100 }.covers(floor));
    }
}
