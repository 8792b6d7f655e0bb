//! Reading tensors to where they go: straight into their arena, or through a ring of buffers to whoever sends them on.
//!
//! Several threads take chunks from one queue. With direct I/O a chunk goes through a thread's aligned buffer and the page
//! cache stays out of it: a cache filled with a model of half the memory would be taken from the model itself. Where the
//! file system refuses direct I/O the page cache is used and its pages are given back to the kernel.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
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
use crate::backend::{
    BackendError,
    arena::{Arena, ArenaError},
};

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
    #[error(transparent)]
    Sent(#[from] BackendError),
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

/// Takes bytes of weights, which are its own when it returns: their place in the arena, and they.
pub type SendBytes<'a> = dyn FnMut(usize, &[u8]) -> Result<(), BackendError> + 'a;

/// Where weights go.
pub enum Target<'a> {
    /// Memory of the host.
    Arena(&'a mut Arena),
    /// Memory that is not.
    Sent(&'a mut SendBytes<'a>),
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Arena(_) => "Arena",
            Self::Sent(_) => "Sent",
        })
    }
}

/// Part of a tensor and its place.
struct Chunk<'a> {
    tensor: &'a PlacedTensor,
    /// From the start of the file.
    offset: u64,
    file_bytes: usize,
    to: Place<'a>,
}

enum Place<'a> {
    Arena(&'a mut [u8]),
    /// Of the arena's bytes.
    Sent(Range<usize>),
}

/// A chunk that is read.
struct Read {
    file_bytes: usize,
    /// A buffer of the ring, and the place of its bytes in the arena.
    to_send: Option<(Arena, Range<usize>)>,
}

/// Buffers that chunks are sent from: one for each reader, and some that are being sent.
const RING_BUFFERS: usize = THREADS + 2;

/// The ring's free buffers.
type Ring = Mutex<Receiver<Arena>>;

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
    target: Target<'_>,
    done: &mut dyn FnMut(u64),
) -> Result<(), ReadError> {
    let sources = open_all(directory, placement)?;
    let chunk_bytes = placement.tensors.iter().map(chunk_bytes);
    let (file_bytes, arena_bytes) = chunk_bytes
        .fold((0, 0), |(file, arena), chunk| (chunk.file_bytes.max(file), chunk.arena_bytes.max(arena)));
    let buffer_bytes = file_bytes + 2 * SECTOR_BYTES;
    let (give_back, ring) = channel();
    let (chunks, mut send) = match target {
        Target::Arena(arena) => {
            if arena.bytes() as u64 != placement.arena_bytes {
                return Err(ReadError::Arena { got: arena.bytes(), wanted: placement.arena_bytes });
            }
            (arena_chunks(placement, arena.as_mut_slice()), None)
        }
        Target::Sent(send) => {
            for _ in 0..RING_BUFFERS {
                // Its other end is in this function.
                let _ = give_back.send(Arena::map(arena_bytes)?);
            }
            (sent_chunks(placement), Some(send))
        }
    };
    let (queue, ring) = (Mutex::new(chunks.into_iter()), Mutex::new(ring));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (results, finished) = channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let results = results.clone();
            let (next, sources, ring) = (&next, &sources, &ring);
            scope.spawn(move || reader(next, sources, ring, buffer_bytes, &results));
        }
        drop(results);
        // Leaving early drops both channels' ends here, and with them every reader ends at its next chunk.
        let give_back = give_back;
        for result in finished {
            let Read { file_bytes, to_send } = result?;
            if let (Some((buffer, place)), Some(send)) = (to_send, send.as_mut()) {
                send(place.start, &buffer.as_slice()[..place.len()])?;
                // A reader that has ended needs none.
                let _ = give_back.send(buffer);
            }
            done(file_bytes as u64);
        }
        Ok(())
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
fn arena_chunks<'a>(placement: &'a Placement, arena: &'a mut [u8]) -> Vec<Chunk<'a>> {
    let mut chunks = sent_chunks(placement);
    let (mut rest, mut rest_start) = (arena, 0);
    for Chunk { to, .. } in &mut chunks {
        let Place::Sent(place) = to else { continue };
        let (_, from_place) = rest.split_at_mut(place.start - rest_start);
        let (bytes, after) = from_place.split_at_mut(place.len());
        (rest, rest_start) = (after, place.end);
        *to = Place::Arena(bytes);
    }
    chunks
}

/// All tensors' chunks, in the order they lie in the arena.
fn sent_chunks(placement: &Placement) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    for tensor in &placement.tensors {
        let chunk = chunk_bytes(tensor);
        let (mut offset, mut rest_bytes) = (tensor.file_offset_bytes, tensor.file_bytes);
        for start in (0..tensor.bytes).step_by(chunk.arena_bytes) {
            let file_bytes = chunk.file_bytes.min(rest_bytes);
            let end = tensor.bytes.min(start + chunk.arena_bytes);
            let first = tensor.weight.offset_bytes;
            chunks.push(Chunk { tensor, offset, file_bytes, to: Place::Sent(first + start..first + end) });
            rest_bytes -= file_bytes;
            offset += file_bytes as u64;
        }
    }
    chunks
}

fn reader<'a>(
    next: &(dyn Fn() -> Option<Chunk<'a>> + Sync),
    sources: &BTreeMap<Arc<str>, Source>,
    ring: &Ring,
    buffer_bytes: usize,
    results: &Sender<Result<Read, ReadError>>,
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
        let Chunk { tensor, offset, file_bytes, to } = chunk;
        let read = match to {
            Place::Arena(to) => {
                let span = Span { tensor, offset, file_bytes };
                read_span(source, span, to, buffer.as_mut_slice())
                    .map(|()| Read { file_bytes, to_send: None })
            }
            Place::Sent(place) => {
                // The other end is dropped when nobody sends any more.
                let free = ring.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(mut free) = free else { return };
                let span = Span { tensor, offset, file_bytes };
                read_span(source, span, &mut free.as_mut_slice()[..place.len()], buffer.as_mut_slice())
                    .map(|()| Read { file_bytes, to_send: Some((free, place)) })
            }
        };
        if results.send(read).is_err() {
            return;
        }
    }
}

/// Part of a tensor in its file.
#[derive(Clone, Copy)]
struct Span<'a> {
    tensor: &'a PlacedTensor,
    offset: u64,
    file_bytes: usize,
}

/// Reads through `buffer` and places what was read.
fn read_span(source: &Source, span: Span<'_>, to: &mut [u8], buffer: &mut [u8]) -> Result<(), ReadError> {
    let Span { tensor, offset, file_bytes: bytes } = span;
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
