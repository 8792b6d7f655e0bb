//! Memory that was freed and is still held: parsing a tokenizer leaves more than a hundred megabytes of it.

/// Gives freed pages of the allocator back to the kernel. The footprint counts what lives, and a process must not hold more
/// (I18); once after loading, as it walks the whole heap.
pub(crate) fn return_freed_pages() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a function of the C library")]
        // SAFETY: the signature is that of malloc_trim(3), which any thread may call at any time.
        unsafe extern "C" {
            safe fn malloc_trim(pad_bytes: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
}
