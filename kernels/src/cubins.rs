//! Machine code of all kernels for some chips, as one run of bytes.
//!
//! ```text
//! sparkherd kernels 1␊
//! <SHA-256 of the sources>␊
//! sm_121a attention.cu 51280 attention_bf16 attention_combine …␊<51280 bytes>
//! sm_121a embed.cu …
//! ```

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::compile::{Architecture, COMPILE_OPTIONS, CompileError, Compiler};
use crate::resources::Resources;
use crate::sources::{HEADERS, SOURCES, Source};

const FIRST_LINE: &str = "sparkherd kernels 1";

/// What this program was built with: `SPARKHERD_KERNELS` of its build script, or nothing.
const EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.bundle"));

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CubinsError {
    #[error("it does not begin as kernels do")]
    NotKernels,
    #[error("kernels end inside {0}")]
    Truncated(String),
    #[error("line {0:?} names no chip, source, length and kernels")]
    Line(String),
    #[error("kernels were made from other sources: {got}, not {wanted}")]
    OtherSources { got: String, wanted: String },
}

/// The kernels of one chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubins {
    pub architecture: String,
    pub modules: Vec<CubinModule>,
}

/// A source's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CubinModule {
    pub source: String,
    pub kernels: Vec<String>,
    pub bytes: Vec<u8>,
}

/// SHA-256 of everything that kernels are made from but the compiler.
pub fn sources_digest() -> String {
    let mut digest = Sha256::new();
    for Source { name, text } in HEADERS.iter().chain(SOURCES) {
        // Lengths keep two files from being one.
        digest.update(format!("{name} {}\n{text}", text.len()));
    }
    digest.update(COMPILE_OPTIONS.join("\n"));
    digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

impl Cubins {
    /// All sources, with what their kernels take.
    pub fn compile(
        compiler: &Compiler,
        architecture: Architecture,
    ) -> Result<(Self, Vec<Resources>), CompileError> {
        let (mut modules, mut resources) = (Vec::new(), Vec::new());
        for source in SOURCES {
            let cubin = compiler.compile(source, architecture)?;
            let kernels: Vec<_> = cubin.resources.iter().map(|resources| resources.kernel.clone()).collect();
            if kernels.is_empty() {
                return Err(CompileError::NoKernels { source_name: source.name, architecture });
            }
            modules.push(CubinModule { source: source.name.to_owned(), kernels, bytes: cubin.bytes });
            resources.extend(cubin.resources);
        }
        Ok((Self { architecture: architecture.name.to_owned(), modules }, resources))
    }

    /// Those this program was built with for a chip.
    pub fn embedded(architecture: &str) -> Result<Option<Self>, CubinsError> {
        if EMBEDDED.is_empty() { Ok(None) } else { Self::decode(EMBEDDED, architecture) }
    }

    pub fn encode(chips: &[Self]) -> Vec<u8> {
        let mut bytes = format!("{FIRST_LINE}\n{}\n", sources_digest()).into_bytes();
        for Self { architecture, modules } in chips {
            for CubinModule { source, kernels, bytes: code } in modules {
                let line = format!("{architecture} {source} {} {}\n", code.len(), kernels.join(" "));
                bytes.extend_from_slice(line.as_bytes());
                bytes.extend_from_slice(code);
            }
        }
        bytes
    }

    /// Those of one chip; none if it is not among them.
    pub fn decode(bytes: &[u8], architecture: &str) -> Result<Option<Self>, CubinsError> {
        let (first, rest) = line(bytes).ok_or(CubinsError::NotKernels)?;
        if first != FIRST_LINE {
            return Err(CubinsError::NotKernels);
        }
        let (got, mut rest) = line(rest).ok_or_else(|| CubinsError::Truncated("the digest".to_owned()))?;
        let wanted = sources_digest();
        if got != wanted {
            return Err(CubinsError::OtherSources { got: got.to_owned(), wanted });
        }
        let mut modules = Vec::new();
        while !rest.is_empty() {
            let (text, after) = line(rest).ok_or_else(|| CubinsError::Truncated("a line".to_owned()))?;
            let mut words = text.split(' ');
            let (Some(chip), Some(source), Some(length)) = (words.next(), words.next(), words.next()) else {
                return Err(CubinsError::Line(text.to_owned()));
            };
            let length: usize = length.parse().map_err(|_| CubinsError::Line(text.to_owned()))?;
            let truncated = || CubinsError::Truncated(format!("{source} of {chip}"));
            let (code, after) = after.split_at_checked(length).ok_or_else(truncated)?;
            if chip == architecture {
                let kernels = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
                modules.push(CubinModule { source: source.to_owned(), kernels, bytes: code.to_vec() });
            }
            rest = after;
        }
        let found = !modules.is_empty();
        Ok(found.then(|| Self { architecture: architecture.to_owned(), modules }))
    }
}

/// Up to the end of the line, and what comes after it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::{CubinModule, Cubins, CubinsError};

    fn chip(architecture: &str) -> Cubins {
        let module = |source: &str, kernels: &[&str], bytes: &[u8]| CubinModule {
            source: source.to_owned(),
            kernels: kernels.iter().map(|kernel| (*kernel).to_owned()).collect(),
            bytes: bytes.to_vec(),
        };
        let modules =
            vec![module("add.cu", &["add", "add_bias"], b"\x7fELF\n12\n"), module("none.cu", &[], b"")];
        Cubins { architecture: architecture.to_owned(), modules }
    }

    #[test]
    fn what_was_written_is_read_for_each_chip() {
        let bytes = Cubins::encode(&[chip("sm_90a"), chip("sm_121a")]);
        for name in ["sm_90a", "sm_121a"] {
            assert_eq!(Cubins::decode(&bytes, name).unwrap(), Some(chip(name)));
        }
        assert_eq!(Cubins::decode(&bytes, "sm_80").unwrap(), None);
    }

    #[test]
    fn what_is_cut_or_foreign_is_an_error() {
        let Cubins { architecture, modules } = chip("sm_90a");
        let of = |count: usize| {
            let modules = modules[..count].to_vec();
            Cubins::encode(&[Cubins { architecture: architecture.clone(), modules }])
        };
        // Behind a whole module there may be another or none.
        let whole = [of(0).len(), of(1).len(), of(2).len()];
        let bytes = of(2);
        for end in 0..bytes.len() {
            let cut = Cubins::decode(&bytes[..end], "sm_90a");
            assert_eq!(cut.is_ok(), whole.contains(&end), "{end} bytes: {cut:?}");
        }
        assert_eq!(Cubins::decode(b"\x7fELF\n", "sm_90a"), Err(CubinsError::NotKernels));
        let other = b"sparkherd kernels 1\nabc\n";
        assert!(matches!(Cubins::decode(other, "sm_90a"), Err(CubinsError::OtherSources { .. })));
    }
}
