//! The library on this machine, whatever it is: it is asked and answers, and nothing panics.

use std::path::Path;

use sparkherd_gpu::{GpuPlace, GpuSource, Nvml};

#[test]
fn a_machine_with_or_without_a_gpu_answers() {
    let source = Nvml::open(GpuPlace::default());
    let has_driver = Path::new("/proc/driver/nvidia/version").exists();
    match source.read() {
        Ok(report) => assert!(report.driver.is_some(), "a driver that answers has a version: {report:?}"),
        Err(error) => assert!(has_driver || error.is_absence(), "no GPU is no fault: {error}"),
    }
}
