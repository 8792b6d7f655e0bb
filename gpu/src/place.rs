use std::ffi::OsString;

use crate::{Gpu, GpuReport};

/// The variable by which CUDA is told which GPUs to show.
pub const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// Which GPU engines compute on, as a command line and an environment name it.
///
/// CUDA counts the GPUs that `CUDA_VISIBLE_DEVICES` leaves, and engines are told to count them by their places on the PCI bus; so
/// does NVML count all of them. Both sides sort by those places. Whoever sets numbers there and starts a program of ours that is not
/// an engine has to set `CUDA_DEVICE_ORDER=PCI_BUS_ID` too: CUDA counts by speed otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuPlace {
    pub ordinal: u32,
    /// [`VISIBLE_DEVICES`], where it is set.
    pub visible: Option<String>,
}

impl GpuPlace {
    /// `visible`: what the environment has as [`VISIBLE_DEVICES`].
    pub fn new(ordinal: u32, visible: Option<OsString>) -> Self {
        Self { ordinal, visible: visible.map(|names| names.to_string_lossy().into_owned()) }
    }

    /// The report with this GPU first and the others behind it; with none where there is no such GPU.
    pub fn put_first(&self, mut report: GpuReport) -> GpuReport {
        report.gpus.sort_by(|one, other| one.bus_id.cmp(&other.bus_id));
        let seen = self.seen(&report.gpus);
        let chosen = usize::try_from(self.ordinal).ok().and_then(|ordinal| seen.get(ordinal).copied());
        match chosen {
            Some(index) => report.gpus[..=index].rotate_right(1),
            None => report.gpus.clear(),
        }
        report
    }

    /// Which of all GPUs CUDA shows, lowest bus first.
    fn seen(&self, gpus: &[Gpu]) -> Vec<usize> {
        let Some(visible) = &self.visible else { return (0..gpus.len()).collect() };
        // CUDA reads up to the first that names none (CUDA C++ Programming Guide, "CUDA Environment Variables").
        let named = visible.split(',').map_while(|name| named(gpus, name.trim()));
        let mut seen: Vec<usize> = named.collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }
}

/// By number, or by the beginning of its UUID. Parts of a GPU (MIG) are none.
fn named(gpus: &[Gpu], name: &str) -> Option<usize> {
    if let Ok(number) = name.parse::<usize>() {
        return (number < gpus.len()).then_some(number);
    }
    let begins = |gpu: &Gpu| gpu.uuid.as_deref().is_some_and(|uuid| uuid.starts_with(name));
    if name.starts_with("GPU-") { gpus.iter().position(begins) } else { None }
}

#[cfg(test)]
mod tests {
    use super::GpuPlace;
    use crate::{Gpu, GpuReport};

    /// The names of a machine's GPUs, the chosen one first. Their driver has them in no order.
    fn chosen(ordinal: u32, visible: Option<&str>) -> Vec<String> {
        let gpu = |name: &str, bus: &str| Gpu {
            name: Some(name.to_owned()),
            bus_id: Some(format!("00000000:{bus}:00.0")),
            uuid: Some(format!("GPU-{name}-11")),
            ..Gpu::default()
        };
        let gpus = vec![gpu("c", "81"), gpu("a", "01"), gpu("b", "41")];
        let place = GpuPlace { ordinal, visible: visible.map(str::to_owned) };
        let report = place.put_first(GpuReport { gpus, ..GpuReport::default() });
        report.gpus.into_iter().filter_map(|gpu| gpu.name).collect()
    }

    #[test]
    fn gpus_are_counted_by_their_places_on_the_bus() {
        assert_eq!(chosen(0, None), ["a", "b", "c"]);
        assert_eq!(chosen(1, None), ["b", "a", "c"]);
        assert_eq!(chosen(2, None), ["c", "a", "b"]);
        assert_eq!(chosen(3, None), [""; 0]);
    }

    #[test]
    fn what_cuda_does_not_show_is_not_counted() {
        assert_eq!(chosen(0, Some("2")), ["c", "a", "b"]);
        assert_eq!(chosen(1, Some("2,1"))[0], "c", "lowest bus first, whatever the order they are named in");
        assert_eq!(chosen(0, Some(" GPU-b"))[0], "b");
        assert_eq!(chosen(1, Some("0,7,1")), [""; 0], "names end where one names none");
        for none in ["", "-1", "MIG-GPU-a", "NoDevFiles"] {
            assert_eq!(chosen(0, Some(none)), [""; 0], "{none}");
        }
    }
}
