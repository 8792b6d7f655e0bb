use std::collections::BTreeSet;
use std::io;

use thiserror::Error;

use crate::header::{HEADER_LENGTH_BYTES, header_bytes};
use crate::inspection::{DIGEST_CONTENT_BYTES_MAX, DIGEST_PREFIX_BYTES, HashedFile, digest};
use crate::{
    ClaimError, ConfigError, Facts, GenerationConfig, GgufError, GgufTextError, HeaderError, IndexError,
    Inspection, ModelConfig, OutputHead, Refusal, RefusalReason, Shard, ShardMap, TensorIndex, gguf,
};

/// A checkpoint's directory, as much of it as reading headers needs. Implemented by whoever may touch files.
pub trait Files {
    /// Plain names of all entries of the directory.
    fn names(&self) -> io::Result<BTreeSet<String>>;
    /// Length of a file.
    fn bytes(&self, name: &str) -> io::Result<u64>;
    /// At most `limit` bytes of a file from `offset` on, fewer only where it ends.
    fn range(&self, name: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>>;
    /// The first `limit` bytes of a file, fewer only where it ends.
    fn prefix(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.range(name, 0, limit)
    }
}

/// A checkpoint whose headers have been read and agree with one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub config: ModelConfig,
    pub generation: GenerationConfig,
    pub index: TensorIndex,
    pub inspection: Inspection,
}

/// Why a directory is not a checkpoint that can be served.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("the directory cannot be read: {0}")]
    Directory(#[source] io::Error),
    #[error("{file} cannot be read: {source}")]
    Read { file: String, source: io::Error },
    #[error("{file} is missing")]
    Missing { file: &'static str },
    #[error("no safetensors weights, only pickle files ({file}), which can run code and are never opened")]
    PickleOnly { file: String },
    #[error(
        "both model.safetensors and model.safetensors.index.json are there; which one counts is not clear"
    )]
    TwoWeights,
    #[error("{file} has {bytes} bytes, more than the limit of {limit}")]
    TooLarge { file: String, bytes: u64, limit: u64 },
    #[error("{file}: {source}")]
    Config { file: String, source: ConfigError },
    #[error("model.safetensors.index.json: {0}")]
    Index(#[from] IndexError),
    #[error("{file}: {source}")]
    Header { file: String, source: HeaderError },
    #[error(
        "{others} GGUF files beside {file}; which one counts is not clear, and split models are not read"
    )]
    ManyGguf { file: String, others: usize },
    #[error("{file}: {source}")]
    Gguf { file: String, source: GgufError },
    #[error("tokenizer: {0}")]
    GgufText(#[from] GgufTextError),
    #[error("tensors do not match the configuration: {0}")]
    Claim(#[from] ClaimError),
}

impl CheckpointError {
    /// What the API calls it.
    pub const fn reason(&self) -> RefusalReason {
        match self {
            Self::Directory(_)
            | Self::Read { .. }
            | Self::Missing { .. }
            | Self::TwoWeights
            | Self::ManyGguf { .. }
            | Self::TooLarge { .. }
            | Self::Index(_) => RefusalReason::Unresolvable,
            Self::PickleOnly { .. } | Self::Claim(_) | Self::GgufText(_) => RefusalReason::UnsupportedModel,
            Self::Config { source, .. } => damage_or_unsupported(source.is_damage()),
            Self::Gguf { source, .. } => damage_or_unsupported(source.is_damage()),
            Self::Header { source, .. } => damage_or_unsupported(source.is_damage()),
        }
    }

    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.reason(), &self.to_string())
    }
}

const fn damage_or_unsupported(is_damage: bool) -> RefusalReason {
    if is_damage { RefusalReason::Unresolvable } else { RefusalReason::UnsupportedModel }
}

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files beside the above that change what a client gets: the chat template and the special tokens' texts.
const TEXT_FILES: [&str; 3] = ["chat_template.jinja", "special_tokens_map.json", "tokenizer_config.json"];

/// `config.json` and its like: the largest published ones, with label maps, stay below 1 MiB.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Index of the shards: 16 MiB hold more than 100 000 tensors.
const INDEX_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `tokenizer.json`: the largest published ones, of 260 000 tokens, take about 35 MiB; its parsed form stays in memory.
pub const TOKENIZER_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Checkpoint {
    /// Reads configuration and headers, checks them against each other, and digests what an engine will read.
    pub fn read(files: &impl Files) -> Result<Self, CheckpointError> {
        let names = files.names().map_err(CheckpointError::Directory)?;
        if !has_safetensors(&names)
            && let Some(file) = gguf::only_file(&names)?
        {
            return gguf::read(files, file);
        }
        let config_json = small_file(files, &names, CONFIG, CONFIG_BYTES_MAX)?;
        let mut config = ModelConfig::parse(&config_json)
            .map_err(|source| CheckpointError::Config { file: CONFIG.to_owned(), source })?;
        let generation = if names.contains(GENERATION) {
            let json = small_file(files, &names, GENERATION, CONFIG_BYTES_MAX)?;
            GenerationConfig::parse(&json, &config)
                .map_err(|source| CheckpointError::Config { file: GENERATION.to_owned(), source })?
        } else {
            GenerationConfig::of_config(&config)
        };
        let mut hashed = Vec::new();
        let (index, is_bare_decoder) = weights(files, &names, &mut hashed)?.with_decoder_prefix();
        if is_bare_decoder && config.head == OutputHead::Own {
            config.head = OutputHead::Absent;
        }
        let tokenizer_bytes = limited_bytes(files, &names, TOKENIZER, TOKENIZER_BYTES_MAX)?;
        let facts = Facts::new(&config, &index, tokenizer_bytes)?;
        let others = [CONFIG, GENERATION, TOKENIZER, INDEX].into_iter().chain(TEXT_FILES);
        for name in others.filter(|name| names.contains(*name)) {
            hashed.push(hash_file(files, name)?);
        }
        hashed.sort_by(|left, right| left.file.name.cmp(&right.file.name));
        let digest = digest(&hashed);
        let files = hashed.into_iter().map(|hashed| hashed.file).collect();
        Ok(Self { config, generation, index, inspection: Inspection { facts, files, digest } })
    }
}

/// Weights beside which a GGUF does not count.
pub(crate) fn has_safetensors(names: &BTreeSet<String>) -> bool {
    names.contains(SINGLE) || names.contains(INDEX)
}

/// The headers of all weight files.
fn weights(
    files: &impl Files,
    names: &BTreeSet<String>,
    hashed: &mut Vec<HashedFile>,
) -> Result<TensorIndex, CheckpointError> {
    match (names.contains(SINGLE), names.contains(INDEX)) {
        (true, true) => Err(CheckpointError::TwoWeights),
        (true, false) => Ok(TensorIndex::new(vec![shard(files, SINGLE, hashed)?], None)?),
        (false, true) => {
            let map = ShardMap::parse(&small_file(files, names, INDEX, INDEX_BYTES_MAX)?)?;
            let shards: Result<Vec<Shard>, CheckpointError> =
                map.files().into_iter().map(|name| shard(files, name, hashed)).collect();
            Ok(TensorIndex::new(shards?, Some(&map))?)
        }
        (false, false) => {
            let pickle = names.iter().find(|name| is_pickle(name));
            Err(pickle.map_or(CheckpointError::Missing { file: SINGLE }, |file| {
                CheckpointError::PickleOnly { file: crate::json::shown_name(file) }
            }))
        }
    }
}

fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt", ".pkl"].iter().any(|ending| name.ends_with(ending))
}

fn shard(files: &impl Files, name: &str, hashed: &mut Vec<HashedFile>) -> Result<Shard, CheckpointError> {
    let failed = |source| CheckpointError::Read { file: name.to_owned(), source };
    let refused = |source| CheckpointError::Header { file: name.to_owned(), source };
    let bytes = files.bytes(name).map_err(failed)?;
    let start = files.prefix(name, HEADER_LENGTH_BYTES).map_err(failed)?;
    let length =
        start.first_chunk::<8>().ok_or_else(|| refused(HeaderError::Truncated { file_bytes: bytes }))?;
    let header_end = HEADER_LENGTH_BYTES + header_bytes(*length, bytes).map_err(refused)?;
    let counted = if bytes <= DIGEST_CONTENT_BYTES_MAX { bytes } else { header_end };
    let prefix = files.prefix(name, counted).map_err(failed)?;
    let shard = Shard::parse(name, bytes, &prefix).map_err(refused)?;
    hashed.push(HashedFile::new(name, bytes, &prefix));
    Ok(shard)
}

fn hash_file(files: &impl Files, name: &str) -> Result<HashedFile, CheckpointError> {
    let failed = |source| CheckpointError::Read { file: name.to_owned(), source };
    let bytes = files.bytes(name).map_err(failed)?;
    let counted = if bytes <= DIGEST_CONTENT_BYTES_MAX { bytes } else { DIGEST_PREFIX_BYTES };
    let content = files.prefix(name, counted).map_err(failed)?;
    Ok(HashedFile::new(name, bytes, &content))
}

fn small_file(
    files: &impl Files,
    names: &BTreeSet<String>,
    name: &'static str,
    limit: u64,
) -> Result<Vec<u8>, CheckpointError> {
    let bytes = limited_bytes(files, names, name, limit)?;
    files.prefix(name, bytes).map_err(|source| CheckpointError::Read { file: name.to_owned(), source })
}

fn limited_bytes(
    files: &impl Files,
    names: &BTreeSet<String>,
    name: &'static str,
    limit: u64,
) -> Result<u64, CheckpointError> {
    if !names.contains(name) {
        return Err(CheckpointError::Missing { file: name });
    }
    let failed = |source| CheckpointError::Read { file: name.to_owned(), source };
    let bytes = files.bytes(name).map_err(failed)?;
    if bytes > limit {
        return Err(CheckpointError::TooLarge { file: name.to_owned(), bytes, limit });
    }
    Ok(bytes)
}
