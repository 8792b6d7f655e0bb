use super::random::Random;

/// Letters of which syllables are made.
const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
const VOWELS: &[u8] = b"aeiou";

/// Prompts of pronounceable nonsense: no two begin alike, so that no prefix cache can answer for them.
#[derive(Clone, Debug)]
pub(super) struct Prompts {
    random: Random,
    tokens: u32,
    repeated: Option<String>,
}

impl Prompts {
    /// Prompts of about `tokens` tokens. With `repeat` all are the same one.
    pub(super) fn new(seed: u64, tokens: u32, repeat: bool) -> Self {
        let mut prompts = Self { random: Random::new(seed), tokens, repeated: None };
        prompts.repeated = repeat.then(|| prompts.make());
        prompts
    }

    pub(super) fn next(&mut self) -> String {
        self.repeated.clone().unwrap_or_else(|| self.make())
    }

    /// A syllable of two letters and the space or syllable before it is about one token to the vocabularies in use.
    fn make(&mut self) -> String {
        let mut text = String::new();
        for syllable in 0..self.tokens.max(1) {
            if syllable > 0 && self.random.below(2) == 0 {
                text.push(' ');
            }
            for letters in [CONSONANTS, VOWELS] {
                let letter = usize::try_from(self.random.below(letters.len() as u64)).unwrap_or_default();
                text.extend(letters.get(letter).map(|letter| char::from(*letter)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn prompts_differ_from_their_beginning_and_are_seeded() {
        let take = |mut prompts: Prompts| (0..64).map(|_| prompts.next()).collect::<Vec<_>>();
        let all = take(Prompts::new(1, 40, false));
        // Shorter than one block of a prefix cache.
        let beginnings: BTreeSet<&str> = all.iter().map(|prompt| &prompt[..16]).collect();
        assert_eq!(beginnings.len(), all.len());
        assert_eq!(all, take(Prompts::new(1, 40, false)));
        assert_ne!(all, take(Prompts::new(2, 40, false)));
        let repeated: BTreeSet<String> = take(Prompts::new(1, 40, true)).into_iter().collect();
        assert_eq!(repeated.len(), 1);
    }
}
