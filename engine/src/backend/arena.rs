#![expect(unsafe_code, reason = "an anonymous mapping is FFI, and its bytes are viewed as numbers")]
//! A run of host memory taken once and never grown.
//!
//! An anonymous mapping rather than a `Vec`: its size is exact, it is returned to the kernel whole, pages appear when
//! they are touched (so that loading can report what is held), and the kernel is asked for huge pages, without which
//! reading weights at memory speed spends a tenth of its time in the page-table walk.

use std::{ffi::c_void, num::NonZeroUsize, ptr::NonNull, slice};

use half::{bf16, f16};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use thiserror::Error;

/// Smallest page of every platform we run on is 4 KiB; larger pages are touched more than once, which costs nothing.
const PAGE_BYTES: usize = 4096;

#[derive(Debug, Error)]
#[error("cannot map {bytes} bytes of host memory: {source}")]
pub struct ArenaError {
    bytes: usize,
    source: rustix::io::Errno,
}

/// Numbers that may be read from any bytes.
pub trait Plain: Copy + sealed::Sealed {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for f32 {}
impl Plain for bf16 {}
impl Plain for f16 {}

mod sealed {
    /// Implemented only for types without padding for which every bit pattern is a value, aligned to a page or less.
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u32 {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// `bytes` of zeroed memory, aligned to a page.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the arena owns its mapping alone; access goes through `&self` and `&mut self` like a `Box<[u8]>`.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives only shared slices.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `bytes` without touching them. An arena of 0 bytes maps nothing.
    pub fn map(bytes: usize) -> Result<Self, ArenaError> {
        let Some(length) = NonZeroUsize::new(bytes) else {
            return Ok(Self { start: NonNull::<f32>::dangling().cast(), bytes: 0 });
        };
        // SAFETY: a private anonymous mapping at an address of the kernel's choice touches nobody's memory.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                length.get(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|source| ArenaError { bytes, source })?;
        // SAFETY: the range is the mapping just made. Huge pages are a wish: without them we are only slower.
        let _ = unsafe { madvise(start, bytes, Advice::LinuxHugepage) };
        let start =
            NonNull::new(start.cast::<u8>()).ok_or(ArenaError { bytes, source: rustix::io::Errno::NOMEM })?;
        Ok(Self { start, bytes })
    }

    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Touches every page, `chunk_bytes` at a time, and calls `touched` with the bytes of each chunk. Content is zeroed.
    pub fn populate(&mut self, chunk_bytes: usize, touched: &mut dyn FnMut(u64)) {
        for chunk in self.as_mut_slice::<u8>().chunks_mut(chunk_bytes.max(PAGE_BYTES)) {
            for page in chunk.chunks_mut(PAGE_BYTES) {
                page.fill(0);
            }
            touched(chunk.len() as u64);
        }
    }

    /// The arena as numbers; bytes at the end that make no whole one are left out.
    pub fn as_slice<T: Plain>(&self) -> &[T] {
        // SAFETY: `start` is page-aligned (or dangling and aligned, with length 0) and valid for `bytes`; every bit
        // pattern is a `T` (sealed); the borrow of `self` keeps the mapping.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast::<T>(), self.bytes / size_of::<T>()) }
    }

    /// As [`Arena::as_slice`], to write.
    pub fn as_mut_slice<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast::<T>(), self.bytes / size_of::<T>()) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the range is the mapping made in `map`, and no slice of it outlives `self`.
            let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.bytes) };
        }
    }
}
