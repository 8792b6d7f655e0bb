//! Memory that was freed and is still held: parsing a tokenizer leaves more than a hundred megabytes of it.

/// Gives freed pages of the allocator back to the kernel. The footprint counts what lives, and a process must not hold more
/// (I18). After loading only, as it walks the whole heap.
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

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::fs;

    use super::return_freed_pages;

    const BLOCKS: usize = 1 << 16;
    const BLOCK_BYTES: usize = 4000;

    fn resident_pages() -> usize {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_lies_free_between_blocks_in_use_goes_back() {
        let mut blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1; BLOCK_BYTES]).collect();
        // One in a megabyte stays, so that the allocator cannot give anything back by itself.
        let mut index = 0;
        blocks.retain(|_| {
            index += 1;
            index % 256 == 0
        });
        let before = resident_pages();
        return_freed_pages();
        let returned = before.saturating_sub(resident_pages());
        assert!(returned > BLOCKS / 2, "{returned} pages of some {BLOCKS} came back");
        assert_eq!(blocks.len(), BLOCKS / 256);
    }
}
