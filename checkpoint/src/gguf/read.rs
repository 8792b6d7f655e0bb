//! A directory's GGUF file, from its header on.

use std::collections::BTreeSet;
use std::path::Path;

use super::{GGUF_HEADER_BYTES_MAX, GgufError, GgufText, Header, ROPE_FACTORS, config};
use crate::inspection::{DIGEST_CONTENT_BYTES_MAX, HashedFile, digest};
use crate::json::shown_name;
use crate::{
    Architecture, Checkpoint, CheckpointError, Dtype, Facts, Files, GenerationConfig, Inspection, RowOrder,
    TOKENIZER_BYTES_MAX, TensorIndex,
};

/// What is read of a file at first; most headers are shorter, and the others are read again with twice as much each time.
const FIRST_PREFIX_BYTES: u64 = 8 << 20;

/// The file's name, where a path is that of a GGUF.
pub fn gguf_file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str().filter(|name| name.strip_suffix(".gguf").is_some())
}

/// The one GGUF file among these names. Several are refused: which one is meant is not clear, and parts of a split model
/// are not read.
pub(crate) fn only_file(names: &BTreeSet<String>) -> Result<Option<&str>, CheckpointError> {
    let mut found = names.iter().filter(|name| name.strip_suffix(".gguf").is_some());
    match (found.next(), found.count()) {
        (None, _) => Ok(None),
        (Some(file), 0) => Ok(Some(file)),
        (Some(file), others) => Err(CheckpointError::ManyGguf { file: shown_name(file), others }),
    }
}

impl GgufText {
    /// Tokenizer and template of the directory's GGUF; `None` where its weights are not in one.
    pub fn read(files: &impl Files) -> Result<Option<Self>, CheckpointError> {
        let names = files.names().map_err(CheckpointError::Directory)?;
        if crate::read::has_safetensors(&names) {
            return Ok(None);
        }
        let Some(file) = only_file(&names)? else { return Ok(None) };
        let (header, _) = header(files, file)?;
        Ok(Some(header.metadata.text_files()?))
    }
}

pub(crate) fn read(files: &impl Files, file: &str) -> Result<Checkpoint, CheckpointError> {
    let (header, file_bytes) = header(files, file)?;
    let text = header.metadata.text_files()?;
    let tokenizer_bytes = text.tokenizer_json.len() as u64;
    if tokenizer_bytes > TOKENIZER_BYTES_MAX {
        let (file, limit) = (file.to_owned(), TOKENIZER_BYTES_MAX);
        return Err(CheckpointError::TooLarge { file, bytes: tokenizer_bytes, limit });
    }
    let Header { metadata, shard, bytes: header_bytes } = header;
    let mut index = TensorIndex::new(vec![shard], None)?;
    let rope_factors = rope_factors(files, file, &mut index)?;
    let config = config(&metadata, &index, rope_factors)
        .map_err(|source| CheckpointError::Config { file: file.to_owned(), source })?;
    if config.architecture == Architecture::Llama {
        index.order_rows(RowOrder::PairsAdjacent { head_dim: config.head_dim });
    }
    let facts = Facts::new(&config, &index, tokenizer_bytes)?;
    let counted = if file_bytes <= DIGEST_CONTENT_BYTES_MAX { file_bytes } else { header_bytes };
    let hashed = HashedFile::new(file, file_bytes, &prefix(files, file, counted)?);
    let digest = digest(std::slice::from_ref(&hashed));
    let inspection = Inspection { facts, files: vec![hashed.file], digest };
    Ok(Checkpoint { generation: GenerationConfig::of_config(&config), config, index, inspection })
}

/// The header and the file's length.
fn header(files: &impl Files, file: &str) -> Result<(Header, u64), CheckpointError> {
    let failed = |source| CheckpointError::Read { file: file.to_owned(), source };
    let file_bytes = files.bytes(file).map_err(failed)?;
    let mut limit = FIRST_PREFIX_BYTES;
    loop {
        match Header::parse(file, file_bytes, &prefix(files, file, limit)?) {
            Err(GgufError::Truncated) if limit < file_bytes && limit < GGUF_HEADER_BYTES_MAX => limit *= 2,
            parsed => {
                let refused = |source| CheckpointError::Gguf { file: file.to_owned(), source };
                return parsed.map(|header| (header, file_bytes)).map_err(refused);
            }
        }
    }
}

fn prefix(files: &impl Files, file: &str, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    files.prefix(file, limit).map_err(|source| CheckpointError::Read { file: file.to_owned(), source })
}

/// Takes the divisors of the rotation out of the tensors and reads them: they belong to the configuration.
fn rope_factors(
    files: &impl Files,
    file: &str,
    index: &mut TensorIndex,
) -> Result<Option<Vec<f32>>, CheckpointError> {
    let Some(tensor) = index.remove(ROPE_FACTORS) else { return Ok(None) };
    if tensor.dtype != Dtype::F32 || tensor.bytes > ROPE_FACTORS_BYTES_MAX {
        let source = GgufError::Dtype {
            tensor: shown_name(ROPE_FACTORS),
            dtype: format!("{} of {} bytes", tensor.dtype.name(), tensor.bytes),
        };
        return Err(CheckpointError::Gguf { file: file.to_owned(), source });
    }
    let bytes = files
        .range(file, tensor.offset_bytes, tensor.bytes)
        .map_err(|source| CheckpointError::Read { file: file.to_owned(), source })?;
    Ok(Some(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
}

/// One number for each pair of the widest head.
const ROPE_FACTORS_BYTES_MAX: u64 = 4096;
