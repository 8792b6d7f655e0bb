/// What a kernel takes of a multiprocessor, by ptxas' word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    pub kernel: String,
    /// Of each thread.
    pub registers: u32,
    /// Registers that do not fit, written to memory and read back, of each thread.
    pub spill_bytes: u32,
    /// Local memory of each thread: arrays that are indexed by what is known only when it runs, and spilled registers.
    pub stack_bytes: u32,
    /// Of each block, dynamic ones not counted.
    pub shared_bytes: u32,
}

/// Reads the log of `--ptxas-options=-v`: for each kernel a line with its name, one about its stack, one about the rest.
pub(crate) fn parse_resources(log: &str) -> Vec<Resources> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            let kernel = name.split('\'').next().unwrap_or_default().to_owned();
            kernels.push(Resources { kernel, registers: 0, spill_bytes: 0, stack_bytes: 0, shared_bytes: 0 });
        }
        let Some(last) = kernels.last_mut() else { continue };
        if line.contains("stack frame") {
            last.stack_bytes = number_before(line, " bytes stack frame");
        }
        if line.contains("spill stores") {
            last.spill_bytes =
                number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        }
        if line.contains("Used ") {
            last.registers = number_before(line, " registers");
            last.shared_bytes = number_before(line, " bytes smem");
        }
    }
    kernels.sort_unstable();
    kernels
}

/// The number in front of these words; 0 where they are not there, as ptxas leaves out what is 0.
fn number_before(line: &str, words: &str) -> u32 {
    let before = line.split(words).next().filter(|before| before.len() < line.len());
    before.and_then(|before| before.rsplit([' ', ',']).next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Resources, parse_resources};

    #[test]
    fn a_log_is_read_kernel_by_kernel() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'rope' for 'sm_121a'\n\
                   ptxas info    : Function properties for rope\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 24 registers, used 0 barriers\n\
                   ptxas info    : Compiling entry function 'attention_bf16' for 'sm_121a'\n\
                   ptxas info    : Function properties for attention_bf16\n    8 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n\
                   ptxas info    : Used 115 registers, used 1 barriers, 33024 bytes smem\n";
        let of = |kernel: &str, registers, [spill_bytes, stack_bytes, shared_bytes]: [u32; 3]| Resources {
            kernel: kernel.to_owned(),
            registers,
            spill_bytes,
            stack_bytes,
            shared_bytes,
        };
        let wanted = [of("attention_bf16", 115, [32, 8, 33_024]), of("rope", 24, [0; 3])];
        assert_eq!(parse_resources(log), wanted);
    }
}
