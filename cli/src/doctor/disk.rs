//! How fast the disk of the store is past the page cache, as the loader reads it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FsWord, Mode, OFlags, fstatfs, fstatvfs, open, unlinkat};
use rustix::io::Errno;

use super::readings::DiskReading;

/// Written and read at most: well beyond the caches of drives, and seconds on a good one.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 30;

/// Less tells nothing.
const FILE_BYTES_MIN: u64 = 64 << 20;

/// One read or write: drives reach their rate from a few MiB on.
const BLOCK_BYTES: usize = 8 << 20;

/// Of addresses, positions and sizes past the cache: no drive asks for more.
const ALIGNMENT: usize = 4096;

/// Some drives of Sparks reach 2 GB/s with one stream and 4 to 6 with four.
const STREAMS: u64 = 4;

/// Neither writing nor reading takes longer on a slow disk; what was done until then counts.
const LIMIT: Duration = Duration::from_secs(8);

/// `statfs` of a file system that lies in memory.
const TMPFS: FsWord = 0x0102_1994;

/// With a file of `bytes_max` at most.
pub(super) fn measure(directory: &Path, bytes_max: u64) -> DiskReading {
    let place = || directory.to_owned();
    if !directory.is_dir() {
        return DiskReading::Missing { directory: place() };
    }
    let file = match create(directory) {
        Ok(file) => file,
        Err(Errno::INVAL) => return DiskReading::DirectRefused { directory: place() },
        Err(error) => return DiskReading::Failed { directory: place(), error: error.to_string() },
    };
    if fstatfs(&file).is_ok_and(|system| system.f_type == TMPFS) {
        return DiskReading::InMemory { directory: place() };
    }
    match write_and_read(&file, bytes_max) {
        Ok((bytes, write_bytes_per_second, read_bytes_per_second)) => {
            DiskReading::Measured { directory: place(), bytes, read_bytes_per_second, write_bytes_per_second }
        }
        Err(error) => DiskReading::Failed { directory: place(), error: error.to_string() },
    }
}

/// A file that has no name any more, so that it is gone whatever becomes of this process.
fn create(directory: &Path) -> Result<File, Errno> {
    let name = format!(".sparkherd-doctor-{}", std::process::id());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
    let folder = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let opened = rustix::fs::openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR);
    // A file system may make the file and refuse to open it so; one that was there before is somebody else's.
    if opened.as_ref().err() != Some(&Errno::EXIST) {
        let _ = unlinkat(&folder, &name, AtFlags::empty());
    }
    Ok(File::from(opened?))
}

/// Bytes, and bytes a second of writing and of reading them.
fn write_and_read(file: &File, bytes_max: u64) -> io::Result<(u64, f64, f64)> {
    let disk = fstatvfs(file)?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Never the last of it.
    let room_bytes = bytes_max.min(free_bytes / 4);
    if room_bytes < FILE_BYTES_MIN {
        return Err(io::Error::other("too little room to measure it"));
    }
    let mut memory = vec![0; BLOCK_BYTES + ALIGNMENT];
    let block = aligned(&mut memory)?;
    fill(block);
    let begin = Instant::now();
    let mut bytes = 0;
    while bytes + BLOCK_BYTES as u64 <= room_bytes && begin.elapsed() < LIMIT {
        file.write_all_at(block, bytes)?;
        bytes += BLOCK_BYTES as u64;
    }
    file.sync_data()?;
    let write_seconds = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let read_bytes = thread::scope(|scope| {
        let streams: Vec<_> =
            (0..STREAMS).map(|stream| scope.spawn(move || read(file, bytes, stream))).collect();
        let ended = |_| io::Error::other("a reading thread ended");
        streams.into_iter().map(|stream| stream.join().map_err(ended)?).sum::<io::Result<u64>>()
    })?;
    let read_seconds = begin.elapsed().as_secs_f64();
    Ok((bytes, bytes as f64 / write_seconds, read_bytes as f64 / read_seconds))
}

/// Reads every `STREAMS`th block, beginning with `stream`, and says how many bytes that were.
fn read(file: &File, bytes: u64, stream: u64) -> io::Result<u64> {
    let mut memory = vec![0; BLOCK_BYTES + ALIGNMENT];
    let block = aligned(&mut memory)?;
    let (begin, step) = (Instant::now(), BLOCK_BYTES as u64);
    let mut done = 0;
    let mut at = stream * step;
    while at + step <= bytes && begin.elapsed() < LIMIT {
        file.read_exact_at(block, at)?;
        done += step;
        at += STREAMS * step;
    }
    Ok(done)
}

fn aligned(memory: &mut [u8]) -> io::Result<&mut [u8]> {
    let offset = memory.as_ptr().align_offset(ALIGNMENT);
    offset
        .checked_add(BLOCK_BYTES)
        .and_then(|end| memory.get_mut(offset..end))
        .ok_or_else(|| io::Error::other("memory cannot be aligned"))
}

/// With what no file system can compress: a fixed sequence of Marsaglia's xorshift.
fn fill(block: &mut [u8]) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for word in block.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskReading, FILE_BYTES_MIN, measure};

    #[test]
    fn leaves_nothing_behind() {
        let store = tempfile::tempdir().unwrap();
        let reading = measure(store.path(), FILE_BYTES_MIN);
        let rated = match reading {
            DiskReading::Measured { bytes, read_bytes_per_second, write_bytes_per_second, .. } => {
                bytes > 0 && read_bytes_per_second > 0.0 && write_bytes_per_second > 0.0
            }
            DiskReading::DirectRefused { .. } | DiskReading::InMemory { .. } => true,
            DiskReading::Missing { .. } | DiskReading::Failed { .. } => false,
        };
        assert!(rated, "{reading:?}");
        assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
        assert!(matches!(measure(&store.path().join("none"), FILE_BYTES_MIN), DiskReading::Missing { .. }));
    }
}
