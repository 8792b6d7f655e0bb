//! Reading tensors straight into their arena.
//!
//! Several threads take chunks from one queue. With direct I/O a chunk goes through a thread's aligned buffer and the page
//! cache stays out of it: a cache filled with a model of half the memory would be taken from the model itself. Where the
//! file system refuses direct I/O the page cache is used and its pages are given back to the kernel.

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

use rustix::{
    fs::{Advice, Mode, OFlags, fadvise, open},
    io::{Errno, pread},
};
use thiserror::Error;

use super::{
    PlacedTensor, Placement,
    rows::{RowGroup, group, place},
};
use crate::backend::arena::{Arena, ArenaError};

/// One NVMe device needs a few requests in flight to reach its rate.
const THREADS: usize = 4;
/// Large enough that the rate no longer grows with it, small enough that progress is smooth.
const CHUNK_BYTES: usize = 4 << 20;
/// Offsets, lengths and addresses of direct I/O are multiples of this on every common device.
const SECTOR_BYTES: usize = 4096;

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("arena of {got} bytes cannot hold weights of {wanted}")]
    Arena { got: usize, wanted: u64 },
    #[error("no memory for read buffers: {0}")]
    Buffer(#[from] ArenaError),
    #[error("cannot open {file}: {source}")]
    Open { file: String, source: Errno },
    #[error("cannot read tensor {tensor} from {file} at byte {offset}: {source}")]
    Read { tensor: String, file: String, offset: u64, source: Errno },
    #[error("{file} ends at byte {end}, inside tensor {tensor}")]
    Truncated { tensor: String, file: String, end: u64 },
}

/// A file, opened in both ways.
struct Source {
    buffered: File,
    direct: Option<File>,
}

/// Part of a tensor and its place in the arena.
struct Chunk<'a> {
    tensor: &'a PlacedTensor,
    /// From the start of the file.
    offset: u64,
    file_bytes: usize,
    to: &'a mut [u8],
}

/// Bytes of a tensor's chunks, in the file and in the arena: any number where they are copied, else whole groups of rows.
fn chunk_bytes(tensor: &PlacedTensor) -> RowGroup {
    match group(tensor) {
        None => RowGroup { file_bytes: CHUNK_BYTES, arena_bytes: CHUNK_BYTES },
        Some(RowGroup { file_bytes, arena_bytes }) => {
            let groups = (CHUNK_BYTES / file_bytes).max(1);
            RowGroup { file_bytes: groups * file_bytes, arena_bytes: groups * arena_bytes }
        }
    }
}

/// Reads all tensors and calls `done` with the bytes of each finished chunk. The first error ends it.
pub fn read(
    directory: &Path,
    placement: &Placement,
    arena: &mut Arena,
    done: &mut dyn FnMut(u64),
) -> Result<(), ReadError> {
    if arena.bytes() as u64 != placement.arena_bytes {
        return Err(ReadError::Arena { got: arena.bytes(), wanted: placement.arena_bytes });
    }
    let sources = open_all(directory, placement)?;
    let largest = placement.tensors.iter().map(|tensor| chunk_bytes(tensor).file_bytes).max();
    let buffer_bytes = largest.unwrap_or(0) + 2 * SECTOR_BYTES;
    let queue = Mutex::new(chunks(placement, arena.as_mut_slice()).into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (results, finished) = channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let results = results.clone();
            let (next, sources) = (&next, &sources);
            scope.spawn(move || reader(next, sources, buffer_bytes, &results));
        }
        drop(results);
        // Leaving early drops the receiver, and with it every reader ends at its next chunk.
        finished.into_iter().try_for_each(|result| result.map(|bytes| done(bytes as u64)))
    })
}

fn open_all(directory: &Path, placement: &Placement) -> Result<BTreeMap<Arc<str>, Source>, ReadError> {
    let mut sources = BTreeMap::new();
    for tensor in &placement.tensors {
        if sources.contains_key(&tensor.file) {
            continue;
        }
        let path = directory.join(&*tensor.file);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let buffered = open(&path, flags, Mode::empty())
            .map_err(|source| ReadError::Open { file: tensor.file.to_string(), source })?;
        let direct = open(&path, flags | OFlags::DIRECT, Mode::empty()).ok();
        sources.insert(
            Arc::clone(&tensor.file),
            Source { buffered: buffered.into(), direct: direct.map(File::from) },
        );
    }
    Ok(sources)
}

/// Cuts the arena into the tensors' chunks. Tensors lie in it in order, with padding between.
fn chunks<'a>(placement: &'a Placement, arena: &'a mut [u8]) -> Vec<Chunk<'a>> {
    let mut chunks = Vec::new();
    let (mut rest, mut rest_start) = (arena, 0);
    for tensor in &placement.tensors {
        let (_, from_tensor) = rest.split_at_mut(tensor.weight.offset_bytes - rest_start);
        let (to, after) = from_tensor.split_at_mut(tensor.bytes);
        (rest, rest_start) = (after, tensor.weight.offset_bytes + tensor.bytes);
        let mut offset = tensor.file_offset_bytes;
        let chunk = chunk_bytes(tensor);
        let mut rest_bytes = tensor.file_bytes;
        for to in to.chunks_mut(chunk.arena_bytes) {
            let file_bytes = chunk.file_bytes.min(rest_bytes);
            chunks.push(Chunk { tensor, offset, file_bytes, to });
            rest_bytes -= file_bytes;
            offset += file_bytes as u64;
        }
    }
    chunks
}

fn reader<'a>(
    next: &(dyn Fn() -> Option<Chunk<'a>> + Sync),
    sources: &BTreeMap<Arc<str>, Source>,
    buffer_bytes: usize,
    results: &Sender<Result<usize, ReadError>>,
) {
    let mut buffer = match Arena::map(buffer_bytes) {
        Ok(buffer) => buffer,
        Err(error) => {
            // A closed channel means that another reader has failed first.
            let _ = results.send(Err(error.into()));
            return;
        }
    };
    while let Some(chunk) = next() {
        let Some(source) = sources.get(&chunk.tensor.file) else { continue };
        let bytes = chunk.file_bytes;
        let result = read_chunk(source, chunk, buffer.as_mut_slice()).map(|()| bytes);
        if results.send(result).is_err() {
            return;
        }
    }
}

fn read_chunk(source: &Source, chunk: Chunk<'_>, buffer: &mut [u8]) -> Result<(), ReadError> {
    let Chunk { tensor, offset, file_bytes: bytes, to } = chunk;
    let failed = |source| ReadError::Read {
        tensor: tensor.name.clone(),
        file: tensor.file.to_string(),
        offset,
        source,
    };
    if let Some(direct) = &source.direct {
        #[expect(clippy::cast_possible_truncation, reason = "less than a sector")]
        let lead = (offset % SECTOR_BYTES as u64) as usize;
        let wanted = lead + bytes;
        let aligned = &mut buffer[..wanted.next_multiple_of(SECTOR_BYTES)];
        match read_up_to(direct, aligned, wanted, offset - lead as u64) {
            Ok(got) if got >= wanted => {
                place(tensor, &aligned[lead..wanted], to);
                return Ok(());
            }
            // Refused by the device, or a short read that ended off a sector: the other way says what is wrong.
            Ok(_) | Err(Errno::INVAL) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    let wanted = bytes;
    let from = &mut buffer[..wanted];
    let got = read_up_to(&source.buffered, from, wanted, offset).map_err(failed)?;
    place(tensor, from, to);
    // Advice: where it is refused the kernel reclaims the pages later by itself.
    let _ = fadvise(&source.buffered, offset, std::num::NonZeroU64::new(wanted as u64), Advice::DontNeed);
    if got < wanted {
        let (name, file) = (tensor.name.clone(), tensor.file.to_string());
        return Err(ReadError::Truncated { tensor: name, file, end: offset + got as u64 });
    }
    Ok(())
}

/// Reads until `wanted` bytes are there, the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], wanted: usize, offset: u64) -> Result<usize, Errno> {
    let mut got = 0;
    while got < wanted {
        match pread(file, &mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(bytes) => got += bytes,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
