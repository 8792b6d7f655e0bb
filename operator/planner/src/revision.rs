use sha2::{Digest, Sha256};
use sparkherd_checkpoint::Requantize;

use crate::NodeName;
use crate::snapshot::{DeploymentSpec, KvDtypeChoice};

/// Hex digits of a revision: 64 bits, of which one lab uses some thousands.
const REVISION_HEX: usize = 16;
/// Hex digits in a replica's name (api.md).
const REPLICA_HEX: usize = 10;
/// Hex digits in a Model's name: sources of one namespace only.
const MODEL_HEX: usize = 10;
/// Bytes of a source that are kept readable in its Model's name.
const MODEL_SLUG_BYTES: usize = 40;

/// Hash of what needs a new engine: the spec's fields as the user wrote them, absent ones skipped (so that a new field or a
/// new default restarts nothing), and the digest of the weights.
pub(crate) fn revision(spec: &DeploymentSpec, weights_digest: &str) -> String {
    let kv_dtype = spec.kv_dtype.map(|choice| match choice {
        KvDtypeChoice::Auto => "auto",
        KvDtypeChoice::Bf16 => "bf16",
        KvDtypeChoice::Fp8 => "fp8",
    });
    let requantize = spec.requantize.map(|choice| match choice {
        Requantize::None => "none",
        Requantize::Int8 => "int8",
    });
    let fields = [
        ("model", Some(spec.model.clone())),
        ("context", spec.context.map(|tokens| tokens.to_string())),
        ("concurrency", spec.concurrency.map(|sequences| sequences.to_string())),
        ("kvCache.tokens", spec.kv_tokens.map(|tokens| tokens.to_string())),
        ("kvCache.dtype", kv_dtype.map(str::to_owned)),
        ("weights.requantize", requantize.map(str::to_owned)),
        ("memory", spec.memory_bytes.map(|bytes| bytes.to_string())),
        ("digest", Some(weights_digest.to_owned())),
    ];
    let written: Vec<String> =
        fields.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect();
    hex_of_parts(&written.iter().map(String::as_str).collect::<Vec<_>>(), REVISION_HEX)
}

/// Name of the only replica of a revision on a node: creation is idempotent because of it (I2).
pub fn replica_name(deployment: &str, deployment_uid: &str, revision: &str, node: &NodeName) -> String {
    format!("{deployment}-{}", hex_of_parts(&[deployment_uid, revision, node.as_str()], REPLICA_HEX))
}

/// Name of the Model that the operator makes for a source: the end of the source to read, a hash to be one. `wider` adds
/// digits, for a name that something else has taken.
pub(crate) fn model_name(source: &str, wider: usize) -> String {
    let base = source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let mut slug = String::new();
    for character in base.chars().take(MODEL_SLUG_BYTES) {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            slug.push(character);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    let slug = if slug.is_empty() { "model" } else { slug };
    format!("{slug}-{}", hex_of_parts(&[source], MODEL_HEX + wider))
}

/// First hex digits of the SHA-256 of the parts, each with its length before it: no two lists of parts read the same.
fn hex_of_parts(parts: &[&str], digits: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let hash = hasher.finalize();
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).take(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::spec;

    #[test]
    fn only_what_needs_a_new_engine_changes_the_revision() {
        let base = spec("file:///m");
        let first = revision(&base, "d1");
        let same = [
            DeploymentSpec { replicas: 7, ..base.clone() },
            DeploymentSpec { drain_seconds: 7, ..base.clone() },
            DeploymentSpec { served_names: vec!["x".into()], ..base.clone() },
        ];
        for spec in same {
            assert_eq!(revision(&spec, "d1"), first);
        }
        let other = [
            DeploymentSpec { model: "file:///n".into(), ..base.clone() },
            DeploymentSpec { context: Some(512), ..base.clone() },
            DeploymentSpec { concurrency: Some(512), ..base.clone() },
            DeploymentSpec { kv_tokens: Some(512), ..base.clone() },
            DeploymentSpec { kv_dtype: Some(KvDtypeChoice::Auto), ..base.clone() },
            DeploymentSpec { requantize: Some(Requantize::Int8), ..base.clone() },
            DeploymentSpec { memory_bytes: Some(512), ..base.clone() },
        ];
        let mut seen = vec![first.clone(), revision(&base, "d2")];
        seen.extend(other.iter().map(|spec| revision(spec, "d1")));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 9, "{seen:?}");
        assert_eq!(first.len(), REVISION_HEX);
    }

    #[test]
    fn a_replicas_name_follows_deployment_revision_and_node() {
        let name = replica_name("coder", "uid", "rev", &NodeName::new("spark-1"));
        assert!(name.starts_with("coder-") && name.len() == "coder-".len() + 10, "{name}");
        for other in [
            replica_name("coder", "uid2", "rev", &NodeName::new("spark-1")),
            replica_name("coder", "uid", "rev2", &NodeName::new("spark-1")),
            replica_name("coder", "uid", "rev", &NodeName::new("spark-2")),
            replica_name("coder", "ui", "drev", &NodeName::new("spark-1")),
        ] {
            assert_ne!(name, other);
        }
    }

    #[test]
    fn a_models_name_is_a_dns_label() {
        for (source, slug) in [
            ("hf://openai/gpt-oss-20b", "gpt-oss-20b-"),
            ("file:///models/Ask Sparkherd/", "ask-sparkherd-"),
            ("https://host/a/B_c.gguf", "b-c-gguf-"),
            ("file:///…", "model-"),
            ("", "model-"),
        ] {
            let name = model_name(source, 0);
            assert!(name.starts_with(slug), "{source} gave {name}");
            assert_eq!(name.len(), slug.len() + MODEL_HEX);
        }
        assert_ne!(model_name("hf://a/x", 0), model_name("hf://b/x", 0));
    }
}
