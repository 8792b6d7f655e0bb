#![expect(unsafe_code, reason = "memory that something else has allocated")]

use std::fmt::Debug;
use std::ptr::NonNull;

/// Of memory that files are read into without the page cache: a sector of every common disk.
const PAGE_BYTES: usize = 4096;

/// Host memory that a device copies from, aligned to [`PAGE_BYTES`].
#[derive(Debug)]
pub struct HostBuffer {
    start: NonNull<u8>,
    bytes: usize,
    /// Frees it.
    _memory: Box<dyn Debug + Send>,
}

// SAFETY: the bytes are this one's alone, and what frees them may do so from any thread.
unsafe impl Send for HostBuffer {}

#[derive(Clone, Copy, Debug)]
#[repr(align(4096))]
struct Page {
    _bytes: [u8; PAGE_BYTES],
}

impl HostBuffer {
    /// # Safety
    ///
    /// From `start` on lie so many bytes, all of them written once, which are nobody else's until `memory` is dropped.
    pub(crate) unsafe fn new(start: NonNull<u8>, bytes: usize, memory: Box<dyn Debug + Send>) -> Self {
        Self { start, bytes, _memory: memory }
    }

    /// Zeroed memory of this process, of which devices know nothing.
    pub fn ordinary(bytes: usize) -> Self {
        let mut pages = vec![Page { _bytes: [0; PAGE_BYTES] }; bytes.div_ceil(PAGE_BYTES)];
        let start = NonNull::new(pages.as_mut_ptr().cast()).unwrap_or(NonNull::<Page>::dangling().cast());
        // SAFETY: the pages are at least so many bytes, and do not move with the box.
        unsafe { Self::new(start, bytes, Box::new(pages)) }
    }

    pub const fn as_slice(&self) -> &[u8] {
        // SAFETY: the word of `new`; the borrow keeps the memory.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    pub const fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else reads them meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::HostBuffer;

    #[test]
    fn ordinary_memory_is_aligned_and_zeroed() {
        for bytes in [0, 1, 4096, 5000] {
            let mut buffer = HostBuffer::ordinary(bytes);
            assert!(
                buffer.as_slice() == vec![0; bytes] && buffer.as_slice().as_ptr().addr().is_multiple_of(4096)
            );
            buffer.as_mut_slice().fill(7);
            assert_eq!(buffer.as_slice(), vec![7; bytes]);
        }
    }
}
