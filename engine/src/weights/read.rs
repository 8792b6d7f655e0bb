//! Reading tensors to where they go: straight into their arena, or into buffers that a device copies from by itself.
//!
//! ```text
//! host:   file ─ O_DIRECT ─► a thread's buffer ─ placed ─► arena
//! device: file ─ O_DIRECT ─► pinned buffer ─ DMA ─► device               bytes that stay as they are: no copy by the CPU
//!         file ─ O_DIRECT ─► a thread's buffer ─ placed ─► its other one ─► pinned buffers ─ DMA ─► device
//! ```
//!
//! Several threads take chunks from one queue. Direct I/O keeps the page cache out of it: a cache filled with a model of half the
//! memory would be taken from the model itself. Where the file system refuses direct I/O the page cache is used and its pages are
//! given back to the kernel.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use rustix::io::Errno;
use sparkherd_kernels::HostBuffer;
use thiserror::Error;

use super::{
    PlacedTensor, Placement,
    rows::{RowGroup, group, place},
    source::{SECTOR_BYTES, Source, Span, open_all},
};
use crate::backend::{
    BackendError,
    arena::{Arena, ArenaError},
};

/// One NVMe device needs a few requests in flight to reach its rate.
const THREADS: usize = 4;
/// Large enough that the rate no longer grows with it, small enough that progress is smooth.
const CHUNK_BYTES: usize = 4 << 20;

/// Buffers of a device: one is filled by each thread, one is copied, and one waits between the two.
const BUFFERS: usize = THREADS + 2;
/// Bytes of each. A disk that has four requests of 2 MiB before it reads as fast as with larger ones, and what is pinned is
/// nobody else's.
const BUFFER_BYTES: usize = 2 << 20;
/// Pinned bytes of a load, which are given back at its end.
pub const WEIGHT_BUFFERS_BYTES: u64 = (BUFFERS * BUFFER_BYTES) as u64;
/// What of a file is read into one: its first and last sectors may hold others' bytes.
const SENT_BYTES: usize = BUFFER_BYTES - 2 * SECTOR_BYTES;

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

/// Memory that is not the host's.
pub trait WeightSink {
    /// Buffers aligned to sectors that weights are read into.
    fn buffers(&mut self, count: usize, bytes: usize) -> Result<Vec<HostBuffer>, BackendError>;

    /// Takes these bytes of a buffer to a place of the arena, and gives back a buffer that is free, if there is one.
    fn send(
        &mut self,
        place: usize,
        buffer: HostBuffer,
        bytes: Range<usize>,
    ) -> Result<Option<HostBuffer>, BackendError>;

    /// Waits until all is there.
    fn finish(&mut self) -> Result<(), BackendError>;
}

/// Where weights go.
pub enum Target<'a> {
    /// Memory of the host.
    Arena(&'a mut Arena),
    /// Memory that is not.
    Sent(&'a mut dyn WeightSink),
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
    span: Span<'a>,
    to: Place<'a>,
}

enum Place<'a> {
    Arena(&'a mut [u8]),
    /// Of the arena's bytes.
    Sent(Range<usize>),
}

/// What a reader has done.
struct Read {
    /// Of the file.
    file_bytes: usize,
    to_send: Option<Parcel>,
}

/// Bytes of a buffer, and where they begin in the arena.
struct Parcel {
    buffer: HostBuffer,
    bytes: Range<usize>,
    place: usize,
}

/// Bytes of a tensor's chunks, in the file and in the arena: as many as `whole` where they stay as they are, else whole groups of
/// rows.
fn chunk_bytes(tensor: &PlacedTensor, whole: usize) -> RowGroup {
    match group(tensor) {
        None => RowGroup { file_bytes: whole, arena_bytes: whole },
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
    let (give_back, ring) = channel();
    let (chunks, mut sink) = match target {
        Target::Arena(arena) => {
            if arena.bytes() as u64 != placement.arena_bytes {
                return Err(ReadError::Arena { got: arena.bytes(), wanted: placement.arena_bytes });
            }
            (arena_chunks(placement, arena.as_mut_slice()), None)
        }
        Target::Sent(sink) => {
            for buffer in sink.buffers(BUFFERS, BUFFER_BYTES)? {
                // Its other end is in this function.
                let _ = give_back.send(buffer);
            }
            (all_chunks(placement, SENT_BYTES), Some(sink))
        }
    };
    let scratch = Scratch::of(placement);
    let (queue, ring) = (Mutex::new(chunks.into_iter()), Mutex::new(ring));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (results, finished) = channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let reader = Reader { sources: &sources, ring: &ring, results: results.clone() };
            let next = &next;
            scope.spawn(move || reader.run(next, scratch));
        }
        drop(results);
        // Leaving early drops both channels' ends here, and with them every reader ends at its next chunk.
        let give_back = give_back;
        for result in finished {
            let Read { file_bytes, to_send } = result?;
            if let (Some(Parcel { buffer, bytes, place }), Some(sink)) = (to_send, sink.as_mut())
                && let Some(free) = sink.send(place, buffer, bytes)?
            {
                // A reader that has ended needs none.
                let _ = give_back.send(free);
            }
            done(file_bytes as u64);
        }
        Ok::<_, ReadError>(())
    })?;
    sink.map_or(Ok(()), |sink| Ok(sink.finish()?))
}

/// Cuts the arena into the tensors' chunks. Tensors lie in it in order, with padding between.
fn arena_chunks<'a>(placement: &'a Placement, arena: &'a mut [u8]) -> Vec<Chunk<'a>> {
    let mut chunks = all_chunks(placement, CHUNK_BYTES);
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
fn all_chunks(placement: &Placement, whole: usize) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    for tensor in &placement.tensors {
        let chunk = chunk_bytes(tensor, whole);
        let (mut offset, mut rest_bytes) = (tensor.file_offset_bytes, tensor.file_bytes);
        for start in (0..tensor.bytes).step_by(chunk.arena_bytes) {
            let bytes = chunk.file_bytes.min(rest_bytes);
            let end = tensor.bytes.min(start + chunk.arena_bytes);
            let first = tensor.weight.offset_bytes;
            let span = Span { tensor, offset, bytes };
            chunks.push(Chunk { span, to: Place::Sent(first + start..first + end) });
            rest_bytes -= bytes;
            offset += bytes as u64;
        }
    }
    chunks
}

/// Bytes of a thread's own buffers, of which only what is used is ever there.
#[derive(Clone, Copy)]
struct Scratch {
    read_bytes: usize,
    placed_bytes: usize,
}

impl Scratch {
    fn of(placement: &Placement) -> Self {
        let chunks = placement.tensors.iter().map(|tensor| chunk_bytes(tensor, CHUNK_BYTES));
        let (file, arena) = chunks
            .fold((0, 0), |(file, arena), chunk| (chunk.file_bytes.max(file), chunk.arena_bytes.max(arena)));
        Self { read_bytes: file + 2 * SECTOR_BYTES, placed_bytes: arena }
    }
}

struct Reader<'a> {
    sources: &'a BTreeMap<Arc<str>, Source>,
    /// The device's free buffers.
    ring: &'a Mutex<Receiver<HostBuffer>>,
    results: Sender<Result<Read, ReadError>>,
}

/// Nobody takes what is read any more: another reader has failed, or what was sent.
struct Unwanted;

impl Reader<'_> {
    fn run<'a>(&self, next: &(dyn Fn() -> Option<Chunk<'a>> + Sync), scratch: Scratch) {
        let arenas =
            Arena::map(scratch.read_bytes).and_then(|read| Ok((read, Arena::map(scratch.placed_bytes)?)));
        let (mut read, mut placed) = match arenas {
            Ok(arenas) => arenas,
            Err(error) => {
                // A closed channel means that another reader has failed first.
                let _ = self.results.send(Err(error.into()));
                return;
            }
        };
        while let Some(Chunk { span, to }) = next() {
            let Some(source) = self.sources.get(&span.tensor.file) else { continue };
            let went = match to {
                Place::Arena(to) => {
                    let read = read.as_mut_slice();
                    let done = source.read(span, read).map(|bytes| place(span.tensor, &read[bytes], to));
                    self.tell(done.map(|()| Read { file_bytes: span.bytes, to_send: None }))
                }
                Place::Sent(to) if group(span.tensor).is_none() => self.read_to_send(source, span, to.start),
                Place::Sent(to) => {
                    let placed = &mut placed.as_mut_slice()[..to.len()];
                    let read = read.as_mut_slice();
                    match source.read(span, read) {
                        Ok(bytes) => {
                            place(span.tensor, &read[bytes], placed);
                            self.send_placed(span.bytes, placed, to.start)
                        }
                        Err(error) => self.tell(Err(error)),
                    }
                }
            };
            if went.is_err() {
                return;
            }
        }
    }

    /// Straight into what the device copies from.
    fn read_to_send(&self, source: &Source, span: Span<'_>, place: usize) -> Result<(), Unwanted> {
        let mut buffer = self.free_buffer()?;
        let read = source.read(span, buffer.as_mut_slice());
        let to_send = |bytes| Some(Parcel { buffer, bytes, place });
        self.tell(read.map(|bytes| Read { file_bytes: span.bytes, to_send: to_send(bytes) }))
    }

    /// What is not as the file has it, in as many buffers as it takes; counted with the last.
    fn send_placed(&self, file_bytes: usize, placed: &[u8], place: usize) -> Result<(), Unwanted> {
        let mut start = 0;
        while start < placed.len() {
            let part = &placed[start..placed.len().min(start + BUFFER_BYTES)];
            let mut buffer = self.free_buffer()?;
            buffer.as_mut_slice()[..part.len()].copy_from_slice(part);
            let to_send = Some(Parcel { buffer, bytes: 0..part.len(), place: place + start });
            start += part.len();
            let file_bytes = if start == placed.len() { file_bytes } else { 0 };
            self.tell(Ok(Read { file_bytes, to_send }))?;
        }
        Ok(())
    }

    fn free_buffer(&self) -> Result<HostBuffer, Unwanted> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).recv().map_err(|_| Unwanted)
    }

    fn tell(&self, read: Result<Read, ReadError>) -> Result<(), Unwanted> {
        self.results.send(read).map_err(|_| Unwanted)
    }
}
