#![expect(unsafe_code, reason = "threads write parts of one matrix that are disjoint but not contiguous")]
//! One output that several threads fill, each its own elements.

use std::{marker::PhantomData, ops::Range};

/// A mutable slice handed out in parts; the parts of different pieces of work must not meet.
#[derive(Debug)]
pub(super) struct SharedSlice<'a, T = f32> {
    start: *mut T,
    elements: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: access is `unsafe` and its contract is that no two threads use the same element.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), elements: slice.len(), borrow: PhantomData }
    }

    /// # Safety
    /// No other thread uses these elements, and this thread holds no other slice of them.
    #[expect(clippy::mut_from_ref, reason = "exclusive by contract")]
    pub(super) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.elements, "{range:?} of {}", self.elements);
        // SAFETY: in bounds by the check above, exclusive by contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
