/// What runs below us, as it names itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftwareStack<'a> {
    pub gpu_name: &'a str,
    /// Kernel release, as `uname -r` gives it.
    pub kernel: &'a str,
    /// What the kernel was started with.
    pub kernel_command_line: &'a str,
    pub driver: Option<&'a str>,
}

/// A version that others have had trouble with, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub what: String,
    pub advice: &'static str,
}

/// What to run instead: DGX OS 7.5's kernel, whose driver is of the same long-lived line as 7.2's.
const KNOWN_GOOD: &str = "move to kernel 6.17.0-1029-nvidia or later of 6.17, with driver 580 (DGX OS 7.5)";

/// Versions that one or two people each reported as broken on a GB10; elsewhere nobody has, so nothing is said there.
///
/// NVIDIA/open-gpu-kernel-modules issue 1358 (7.0.0-1019), NVIDIA's forum topic 366026 (6.17.0-1008), conselara.dev (590).
pub fn known_faults(stack: &SoftwareStack<'_>) -> Vec<Fault> {
    if !stack.gpu_name.contains("GB10") {
        return Vec::new();
    }
    let kernel = |release: &str| is_nvidia_kernel(stack.kernel, release);
    let mut faults = Vec::new();
    // Memory that a feature for kexec sets aside is given back as movable only: the driver cannot allocate from it.
    if kernel("7.0.0-1019")
        && !stack.kernel_command_line.split_ascii_whitespace().any(|word| word == "kho=off")
    {
        faults.push(Fault {
            what: format!("kernel {} refuses the driver memory (NV_ERR_NO_MEMORY)", stack.kernel),
            advice: "add kho=off to the kernel's command line, or stay on 6.17",
        });
    }
    if kernel("6.17.0-1008") {
        faults.push(Fault { what: format!("kernel {} panics on a GB10", stack.kernel), advice: KNOWN_GOOD });
    }
    if let Some(driver) = stack.driver.filter(|driver| driver.starts_with("590.")) {
        faults.push(Fault {
            what: format!("driver {driver} blocks for ever in CUDA graphs"),
            advice: "move to driver 580, the line DGX OS ships",
        });
    }
    faults
}

/// Ubuntu numbers the kernels of each flavour by themselves: only NVIDIA's are meant, of whatever page size.
fn is_nvidia_kernel(kernel: &str, release: &str) -> bool {
    kernel.strip_prefix(release).is_some_and(|flavour| flavour.starts_with("-nvidia"))
}

#[cfg(test)]
mod tests {
    use super::{SoftwareStack, known_faults};

    const SPARK: SoftwareStack<'static> = SoftwareStack {
        gpu_name: "NVIDIA GB10",
        kernel: "6.17.0-1029-nvidia",
        kernel_command_line: "BOOT_IMAGE=/boot/vmlinuz quiet",
        driver: Some("580.173.02"),
    };

    fn whats(stack: &SoftwareStack<'_>) -> Vec<String> {
        known_faults(stack).into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn names_each_version_that_is_known_to_be_broken() {
        let memory = ["kernel 7.0.0-1019-nvidia refuses the driver memory (NV_ERR_NO_MEMORY)"];
        assert_eq!(whats(&SoftwareStack { kernel: "7.0.0-1019-nvidia", ..SPARK }), memory);
        let panics = ["kernel 6.17.0-1008-nvidia-64k panics on a GB10"];
        assert_eq!(whats(&SoftwareStack { kernel: "6.17.0-1008-nvidia-64k", ..SPARK }), panics);
        let graphs = ["driver 590.44.01 blocks for ever in CUDA graphs"];
        assert_eq!(whats(&SoftwareStack { driver: Some("590.44.01"), ..SPARK }), graphs);
    }

    #[test]
    fn leaves_the_rest_in_peace() {
        let healed =
            SoftwareStack { kernel: "7.0.0-1019-nvidia", kernel_command_line: "quiet kho=off", ..SPARK };
        let others = [
            SPARK,
            SoftwareStack { driver: None, ..SPARK },
            SoftwareStack { driver: Some("5900.1"), ..SPARK },
            SoftwareStack { kernel: "6.17.0-1008-aws", ..SPARK },
            SoftwareStack { kernel: "6.17.0-10080-nvidia", ..SPARK },
            SoftwareStack { gpu_name: "NVIDIA H200", driver: Some("590.44.01"), ..SPARK },
            healed,
        ];
        for stack in others {
            assert_eq!(whats(&stack), Vec::<String>::new(), "{stack:?}");
        }
    }
}
