use super::GgufError;

/// Longest text that is read: a chat template or a token. The longest templates have some 20 KB.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Bytes not read yet. Running out of them is [`GgufError::Truncated`], which asks for a longer prefix of the file.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, read: 0 }
    }

    /// Bytes read so far.
    pub(super) const fn position(&self) -> usize {
        self.read
    }

    /// The next `bytes` bytes.
    pub(super) fn take(&mut self, bytes: u64) -> Result<&'a [u8], GgufError> {
        let (taken, rest) = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| self.rest.split_at_checked(bytes))
            .ok_or(GgufError::Truncated)?;
        (self.rest, self.read) = (rest, self.read + taken.len());
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(GgufError::Truncated)?;
        (self.rest, self.read) = (rest, self.read + N);
        Ok(*taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length and so many bytes of UTF-8.
    pub(super) fn text(&mut self) -> Result<&'a str, GgufError> {
        let bytes = self.u64()?;
        if bytes > TEXT_BYTES_MAX {
            return Err(GgufError::TextTooLong { bytes, limit: TEXT_BYTES_MAX });
        }
        std::str::from_utf8(self.take(bytes)?).map_err(|_| GgufError::NotUtf8 { position: self.read })
    }
}
