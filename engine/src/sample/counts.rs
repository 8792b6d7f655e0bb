/// The tokens a request has seen, and how often its answer has each.
///
/// Sparse: 8 bytes for each *different* token, so a request whose prompt fills a context of 8 thousand takes at most 64 KiB
/// and 32 of them 2 MiB, whatever the vocabulary; a dense table of 128 thousand would take 16 MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Sorted by token; the second is the number of times in the answer, 0 for a token of the prompt only.
    entries: Vec<(u32, u32)>,
}

impl TokenCounts {
    pub fn of_prompt(prompt: &[u32]) -> Self {
        let mut entries: Vec<(u32, u32)> = prompt.iter().map(|token| (*token, 0)).collect();
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        Self { entries }
    }

    /// Counts a token of the answer.
    pub fn add(&mut self, token: u32) {
        match self.entries.binary_search_by_key(&token, |(token, _)| *token) {
            Ok(index) => self.entries[index].1 += 1,
            Err(index) => self.entries.insert(index, (token, 1)),
        }
    }

    /// Tokens in order, with their counts in the answer.
    pub fn entries(&self) -> &[(u32, u32)] {
        &self.entries
    }
}
