//! The memory that a model is judged against, pool by pool as an agent admits engines.

use serde::Serialize;
use sparkherd_footprint::Footprint;

const GIB: u64 = 1 << 30;

/// One pool.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "units are part of names")]
pub(super) struct Memory {
    pub(super) total_bytes: u64,
    pub(super) available_bytes: u64,
    pub(super) reserve_bytes: u64,
}

impl Memory {
    /// What engines may take now.
    pub(super) const fn room_bytes(&self) -> u64 {
        let available =
            if self.available_bytes < self.total_bytes { self.available_bytes } else { self.total_bytes };
        available.saturating_sub(self.reserve_bytes)
    }

    /// What a context is chosen for: a function of the machine, not of today's load.
    fn design_bytes(&self) -> u64 {
        let margin = GIB.max(self.total_bytes / 25);
        self.total_bytes.saturating_sub(self.reserve_bytes).saturating_sub(margin)
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    /// The host's; where `device_memory` is `None`, all there is.
    pub(super) memory: Memory,
    /// The GPU's, where it has memory of its own and engines use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device_memory: Option<Memory>,
}

/// What a footprint takes of one pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) memory: Memory,
    pub(super) bytes: u64,
}

impl Machine {
    /// Of each pool, that of the GPU first.
    pub(super) fn shares(&self, footprint: &Footprint) -> Vec<Share> {
        let Self { memory, device_memory } = *self;
        match device_memory {
            None => vec![Share { memory, bytes: footprint.total_bytes() }],
            Some(device) => {
                let device = Share { memory: device, bytes: footprint.device_bytes };
                vec![device, Share { memory, bytes: footprint.host_bytes }]
            }
        }
    }

    /// Whether engines may take so much now.
    pub(super) fn has_room_for(&self, footprint: &Footprint) -> bool {
        self.shares(footprint).iter().all(|share| share.bytes <= share.memory.room_bytes())
    }

    /// Whether it would fit a machine like this on which little else runs.
    pub(super) fn suits(&self, footprint: &Footprint) -> bool {
        self.shares(footprint).iter().all(|share| share.bytes <= share.memory.design_bytes())
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_footprint::{Footprint, Parts};

    use super::{GIB, Machine, Memory};

    #[test]
    fn one_pool_does_not_make_up_for_the_other() {
        let memory =
            |gib: u64| Memory { total_bytes: gib * GIB, available_bytes: gib * GIB, reserve_bytes: 2 * GIB };
        let fits = |host, device: Option<u64>| {
            let footprint =
                Footprint { device_bytes: 10 * GIB, host_bytes: 4 * GIB, parts: Parts::default() };
            let machine = Machine { memory: memory(host), device_memory: device.map(memory) };
            (machine.has_room_for(&footprint), machine.suits(&footprint))
        };
        // One pool for 14, then one for each part; the reserve is 2 and the margin 1.
        assert_eq!([fits(15, None), fits(16, None)], [(false, false), (true, false)]);
        assert_eq!(fits(17, None), (true, true));
        assert_eq!([fits(100, Some(11)), fits(5, Some(100))], [(false, false); 2]);
        assert_eq!([fits(6, Some(12)), fits(7, Some(13))], [(true, false), (true, true)]);
    }
}
