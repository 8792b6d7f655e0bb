//! What a process gives up before it looks at a stranger's bytes.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{UnshareFlags, set_no_new_privs};
use serde::Serialize;

/// The largest header, index and tokenizer parsed at once take under 500 MiB; the rest is the program itself.
const ADDRESS_SPACE_BYTES: u64 = 1 << 30;

/// Parsing the largest files takes about 2 s.
const CPU_SECONDS: u64 = 20;

/// The answer goes to standard output, which may be a file; nothing else is written.
const WRITTEN_BYTES: u64 = 4 << 20;

/// Standard streams, the root, and the one file that is open at a time, with room for what the runtime keeps.
const OPEN_FILES: u64 = 16;

/// The newest rule set we know; an older kernel applies what it has.
const LANDLOCK: ABI = ABI::V6;

/// What the kernel granted. Anything it lacks is a weaker sandbox, not a failure: the parsers are safe code and the limits
/// always hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sandbox {
    /// Limits of address space, CPU time, written bytes and open files.
    limits: bool,
    /// No program this process starts can gain rights.
    no_new_privileges: bool,
    /// A network namespace without interfaces.
    no_network: bool,
    /// Landlock: only the root is readable, no TCP.
    files: FileAccess,
}

/// How far Landlock is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum FileAccess {
    RootOnly,
    /// An older kernel: only the root is readable, not all other actions are covered.
    RootOnlyPartly,
    /// The kernel has no Landlock.
    Unrestricted,
}

/// Restricts this thread, which must be the process's only one.
pub(crate) fn enter(root: BorrowedFd<'_>) -> Sandbox {
    let no_new_privileges = set_no_new_privs(true).is_ok();
    // Before the limits: it creates a file descriptor or two of its own.
    let no_network = leave_network();
    let files = match restrict_files(root).map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => FileAccess::RootOnly,
        Ok(RulesetStatus::PartiallyEnforced) => FileAccess::RootOnlyPartly,
        Ok(RulesetStatus::NotEnforced) | Err(_) => FileAccess::Unrestricted,
    };
    Sandbox { limits: limit_resources(), no_new_privileges, no_network, files }
}

fn limit_resources() -> bool {
    let limits = [
        (Resource::As, ADDRESS_SPACE_BYTES),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Fsize, WRITTEN_BYTES),
        (Resource::Nofile, OPEN_FILES),
        // A core file would hold what was read.
        (Resource::Core, 0),
    ];
    limits.into_iter().all(|(resource, limit)| {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).is_ok()
    })
}

/// Root may unshare the network; anybody else may, where the kernel lets users make namespaces.
fn leave_network() -> bool {
    unshare(UnshareFlags::NEWNET).is_ok() || unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).is_ok()
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "rustix marks unsharing of file descriptor tables as unsafe, and with it the call"
    )]
    // SAFETY: no flag given here unshares the table of file descriptors, the one unsharing that can break I/O safety.
    unsafe {
        rustix::thread::unshare_unsafe(flags)
    }
}

fn restrict_files(root: BorrowedFd<'_>) -> Result<RestrictionStatus, RulesetError> {
    let readable: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rule(PathBeneath::new(root, readable))?
        .restrict_self()
}
