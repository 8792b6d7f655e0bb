//! What we ship is under Apache-2.0: every crate it is built from has to allow that, and some crates we do not want
//! whatever their licence.

use crate::cargo::{Metadata, Package};

/// Licences that ask for no more than their notice; MPL-2.0 asks for the source of changed files, and we change none.
const ALLOWED: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Names, and what is used instead.
const BANNED: [(&str, &str); 6] = [
    ("openssl", "rustls with ring needs no C library at run time"),
    ("openssl-sys", "rustls with ring needs no C library at run time"),
    ("native-tls", "rustls with ring needs no C library at run time"),
    ("aws-lc-rs", "one provider is enough, and ring builds without cmake"),
    ("serde_yaml", "archived; serde-saphyr (docs/decisions/0001)"),
    ("chrono", "jiff, as k8s-openapi does"),
];

/// The one source of packages; a git dependency has no releases to audit.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub fn offences(metadata: &Metadata) -> Vec<String> {
    metadata.packages.iter().filter_map(offence).collect()
}

fn offence(package: &Package) -> Option<String> {
    let source = package.source.as_ref()?;
    let Package { name, version, .. } = package;
    if source != SOURCE {
        return Some(format!("{name} {version} comes from {source}"));
    }
    if let Some((_, instead)) = BANNED.iter().find(|(banned, _)| banned == name) {
        return Some(format!("{name} is banned: {instead}"));
    }
    let Some(licence) = &package.license else { return Some(format!("{name} {version} names no licence")) };
    (!is_allowed(licence)).then(|| format!("{name} {version} is under {licence}"))
}

/// SPDX expressions: OR binds weaker than AND, parentheses group; the old `A/B` means OR.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) && rest.is_empty()
}

fn any_of(words: &mut &[&str]) -> bool {
    let mut allowed = all_of(words);
    while take(words, "OR") {
        allowed |= all_of(words);
    }
    allowed
}

fn all_of(words: &mut &[&str]) -> bool {
    let mut allowed = one(words);
    while take(words, "AND") {
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut &[&str]) -> bool {
    if take(words, "(") {
        return any_of(words) & take(words, ")");
    }
    let Some((name, rest)) = words.split_first() else { return false };
    *words = rest;
    if take(words, "WITH") {
        let Some((exception, rest)) = words.split_first() else { return false };
        *words = rest;
        return ALLOWED.contains(&format!("{name} WITH {exception}").as_str());
    }
    ALLOWED.contains(name)
}

fn take(words: &mut &[&str], wanted: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == wanted => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_defines_them() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
            "Apache-2.0 AND ISC",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR GPL-3.0-only) AND AGPL-3.0-only",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "MIT Apache-2.0",
            "(MIT",
        ] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }

    #[test]
    fn a_banned_crate_is_refused_whatever_its_licence() {
        let package = |name: &str, source: &str| Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: Some("MIT".into()),
            source: Some(source.into()),
            targets: Vec::new(),
        };
        assert!(offence(&package("half", SOURCE)).is_none());
        assert!(offence(&package("openssl", SOURCE)).is_some_and(|text| text.contains("rustls")));
        assert!(offence(&package("half", "git+https://example.org/half")).is_some());
    }
}
