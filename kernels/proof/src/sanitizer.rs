//! NVIDIA's checkers of what kernels do on a GPU, where they are installed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{Command, Output};

use crate::report::Check;

/// As it is installed with the toolkit.
pub const PROGRAM: &str = "compute-sanitizer";

/// Its tools, and what each looks for.
const TOOLS: [(&str, &str); 4] = [
    ("memcheck", "memory accesses, by compute-sanitizer"),
    ("racecheck", "races in shared memory, by compute-sanitizer"),
    ("synccheck", "barriers, by compute-sanitizer"),
    ("initcheck", "memory read before it is written, by compute-sanitizer"),
];
/// What it ends with if it has found something, and no program of ours does.
const FOUND: &str = "9";
/// Of its output, which ends with what it has counted.
const LINES: usize = 20;

/// Runs a program under each tool. Why nothing was checked, if the sanitizer cannot be started.
pub fn check(sanitizer: &OsStr, program: &Path, arguments: &[OsString]) -> Result<Vec<Check>, io::Error> {
    let checks = TOOLS.into_iter().map(|(tool, name)| {
        let output = command(sanitizer, tool, program, arguments).output()?;
        Ok(judged(tool, name, &output))
    });
    checks.collect()
}

fn command(sanitizer: &OsStr, tool: &str, program: &Path, arguments: &[OsString]) -> Command {
    let mut command = Command::new(sanitizer);
    command.args(["--tool", tool, "--error-exitcode", FOUND]).arg(program).args(arguments);
    command
}

fn judged(tool: &str, name: &'static str, output: &Output) -> Check {
    let Output { status, stdout, stderr } = output;
    if status.success() {
        return Check { name, passed: 1, wrong: Vec::new() };
    }
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let lines: Vec<&str> = text.iter().flat_map(|text| text.lines()).collect();
    let end = lines[lines.len().saturating_sub(LINES)..].iter().map(|line| (*line).to_owned());
    let how = format!("{tool} ended with {status}");
    Check { name, passed: 0, wrong: std::iter::once(how).chain(end).collect() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{ExitStatus, Output};

    use super::{TOOLS, check, command, judged};

    #[test]
    fn each_tool_sees_the_same_program() {
        for (tool, _) in TOOLS {
            let arguments = ["--part".into(), "operations".into()];
            let command = command("sanitizer".as_ref(), tool, "/proof".as_ref(), &arguments);
            let got: Vec<_> = command.get_args().collect();
            assert_eq!(got, ["--tool", tool, "--error-exitcode", "9", "/proof", "--part", "operations"]);
        }
    }

    #[test]
    fn what_a_tool_has_found_is_wrong() {
        let output = |code: i32| Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: (0..30).map(|line| line.to_string()).collect::<Vec<_>>().join("\n").into_bytes(),
            stderr: b"last".to_vec(),
        };
        let found = judged("racecheck", "races", &output(9));
        assert_eq!((found.passed, found.wrong.len()), (0, 21));
        let ends = [&found.wrong[0], &found.wrong[1], &found.wrong[20]];
        assert_eq!(ends, ["racecheck ended with exit status: 9", "11", "last"]);
        let nothing = judged("racecheck", "races", &output(0));
        assert_eq!((nothing.passed, nothing.wrong.len()), (1, 0));
    }

    #[test]
    fn where_there_is_none_nothing_was_checked() {
        assert!(check("/nowhere/sanitizer".as_ref(), "/proof".as_ref(), &[]).is_err());
    }
}
