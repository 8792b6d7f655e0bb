//! A tensor's bytes out of its file, past the page cache where the file system lets us.

use std::{
    collections::BTreeMap,
    fs::File,
    num::NonZeroU64,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{Advice, Mode, OFlags, fadvise, open},
    io::{Errno, pread},
};

use super::{PlacedTensor, Placement, ReadError};

/// Offsets, lengths and addresses of direct I/O are multiples of this on every common device.
pub(super) const SECTOR_BYTES: usize = 4096;

/// A file, opened in both ways.
pub(super) struct Source {
    buffered: File,
    direct: Option<File>,
    /// It was told that the page cache is used after all.
    is_told: AtomicBool,
}

/// Part of a tensor in its file.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) tensor: &'a PlacedTensor,
    /// From the start of the file.
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

/// All files of a placement, by name.
pub(super) fn open_all(
    directory: &Path,
    placement: &Placement,
) -> Result<BTreeMap<Arc<str>, Source>, ReadError> {
    let mut sources = BTreeMap::new();
    for tensor in &placement.tensors {
        if sources.contains_key(&tensor.file) {
            continue;
        }
        let path = directory.join(&*tensor.file);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let buffered = open(&path, flags, Mode::empty())
            .map_err(|source| ReadError::Open { file: tensor.file.to_string(), source })?;
        let direct = match open(&path, flags | OFlags::DIRECT, Mode::empty()) {
            Ok(direct) => Some(direct.into()),
            Err(reason) => {
                tracing::info!(file = &*tensor.file, %reason, "weights are read through the page cache");
                None
            }
        };
        let source = Source { buffered: buffered.into(), direct, is_told: AtomicBool::new(false) };
        sources.insert(Arc::clone(&tensor.file), source);
    }
    Ok(sources)
}

impl Source {
    /// Reads a span into a buffer that is two sectors larger, and begins at one. Tells where in it the span lies.
    pub(super) fn read(&self, span: Span<'_>, buffer: &mut [u8]) -> Result<Range<usize>, ReadError> {
        let Span { tensor, offset, bytes } = span;
        let failed = |source| ReadError::Read {
            tensor: tensor.name.clone(),
            file: tensor.file.to_string(),
            offset,
            source,
        };
        if let Some(direct) = &self.direct {
            #[expect(clippy::cast_possible_truncation, reason = "less than a sector")]
            let lead = (offset % SECTOR_BYTES as u64) as usize;
            let wanted = lead + bytes;
            let aligned = &mut buffer[..wanted.next_multiple_of(SECTOR_BYTES)];
            match read_up_to(direct, aligned, wanted, offset - lead as u64) {
                Ok(got) if got >= wanted => return Ok(lead..wanted),
                // Refused by the device, memory that a device cannot write to, or a short read that ended off a sector: the other
                // way says what is wrong.
                Ok(_) => self.tell(tensor, "a short read"),
                Err(reason @ (Errno::INVAL | Errno::FAULT)) => self.tell(tensor, &reason.to_string()),
                Err(source) => return Err(failed(source)),
            }
        }
        let got = read_up_to(&self.buffered, &mut buffer[..bytes], bytes, offset).map_err(failed)?;
        // Advice: where it is refused the kernel reclaims the pages later by itself.
        let _ = fadvise(&self.buffered, offset, NonZeroU64::new(bytes as u64), Advice::DontNeed);
        if got < bytes {
            let (name, file) = (tensor.name.clone(), tensor.file.to_string());
            return Err(ReadError::Truncated { tensor: name, file, end: offset + got as u64 });
        }
        Ok(0..bytes)
    }

    /// Once for a file: its load is slower than it could be, and takes the page cache's memory for a while.
    fn tell(&self, tensor: &PlacedTensor, reason: &str) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(file = &*tensor.file, reason, "direct reads are refused: the page cache is used");
        }
    }
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
