/// The tokens a grammar allows next. What lies past its end is not allowed: rows of logits may be longer than the
/// vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenMask {
    /// One bit per token, lowest bit first.
    words: Vec<u32>,
}

impl TokenMask {
    pub fn new(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// One bit per token, lowest first.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    pub fn allows(&self, token: u32) -> bool {
        let word = self.words.get((token / u32::BITS) as usize);
        word.is_some_and(|word| word >> (token % u32::BITS) & 1 == 1)
    }
}

impl FromIterator<u32> for TokenMask {
    fn from_iter<T: IntoIterator<Item = u32>>(tokens: T) -> Self {
        let mut words = Vec::new();
        for token in tokens {
            let index = (token / u32::BITS) as usize;
            if words.len() <= index {
                words.resize(index + 1, 0);
            }
            words[index] |= 1 << (token % u32::BITS);
        }
        Self { words }
    }
}
