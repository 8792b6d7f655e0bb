use std::ffi::OsString;

/// What a child may see of the agent's environment: how to log, where programs lie and which GPUs are its own, never where the API
/// server is.
const KEPT: [&str; 5] = ["PATH", "RUST_LOG", "RUST_BACKTRACE", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"];

/// What children are told whatever the agent was told.
const SET: [(&str, &str); 2] = [
    // The driver loads all kernels with their module. By itself it would load each when it is first launched, and take memory then,
    // long after the engine has said that it is ready.
    ("CUDA_MODULE_LOADING", "EAGER"),
    // GPUs are numbered as NVML numbers them, by which the agent looks at them; CUDA's own order is by speed.
    ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
];

/// The environment of every child, out of the agent's own.
pub fn child_environment(own: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let kept = own.filter(|(name, _)| KEPT.iter().any(|kept| name == kept));
    kept.chain(SET.map(|(name, value)| (name.into(), value.into()))).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::child_environment;

    #[test]
    fn a_child_sees_its_gpus_and_not_the_api_server() {
        let own = [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("CUDA_VISIBLE_DEVICES", "1"),
            ("CUDA_MODULE_LOADING", "LAZY"),
        ];
        let own = own.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let wanted = [
            ("CUDA_VISIBLE_DEVICES", "1"),
            ("CUDA_MODULE_LOADING", "EAGER"),
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        ];
        let wanted = wanted.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        assert_eq!(child_environment(own.into_iter()), wanted);
    }
}
