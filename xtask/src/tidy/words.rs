//! Words that must not get into a commit: paths of the machine it was written on, and hosts of package registries
//! (cargo, go and pip know theirs from their own configuration, which differs from site to site).

use crate::checkout::TextFile;

const HOST_PATHS: [&str; 4] = ["/work/", "/root/", "/home/", "/tmp/"];
const REGISTRY_HOSTS: [&str; 9] = [
    "index.crates.io",
    "static.crates.io",
    "pypi.org",
    "pythonhosted.org",
    "proxy.golang.org",
    "sum.golang.org",
    "registry.npmjs.org",
    "deb.debian.org",
    "conda.anaconda.org",
];
/// This file has to spell them.
const THIS_FILE: &str = "xtask/src/tidy/words.rs";

pub fn offences(files: &[TextFile]) -> Vec<String> {
    let mut offences = Vec::new();
    for file in files.iter().filter(|file| !file.path.ends_with(THIS_FILE)) {
        for (number, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path.display(), number + 1);
            for path in HOST_PATHS.iter().filter(|path| has_absolute_path(line, path)) {
                offences.push(format!("{}: {path}… is a path of one machine", place()));
            }
            for host in REGISTRY_HOSTS.iter().filter(|host| line.contains(**host)) {
                offences
                    .push(format!("{}: {host} is a registry; leave it to the tool's configuration", place()));
            }
        }
    }
    offences
}

/// `a/work/b` and `$ROOT/tmp/x` are relative to something; `/work/b` is not.
fn has_absolute_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "_-.})*~".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_count() {
        let line = |text: &str| vec![TextFile { path: "a.md".into(), text: text.to_owned() }];
        assert_eq!(offences(&line("store: /work/models")).len(), 1);
        assert_eq!(offences(&line("see \"/tmp/x\"")).len(), 1);
        assert!(offences(&line("charts/work/x and {dir}/tmp/x")).is_empty());
        assert_eq!(offences(&line("GOPROXY=https://proxy.golang.org")).len(), 1);
    }
}
