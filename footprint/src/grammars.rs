/// Host bytes that structured answers may take; the engine refuses what is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrammarRoom {
    /// Compiled rules of all requests, those that wait included.
    pub rules_bytes: u64,
    /// What the answers that follow them have found out on their way.
    pub answers_bytes: u64,
    /// Compiling, which takes most for a moment.
    pub compiling_bytes: u64,
}

/// With few sequences, one grammar that takes much still has to fit.
const SEQUENCES_MIN: u32 = 16;

/// Measured with `llguidance` 1.9: the rules of 20 tools take 0.8 MiB, those of 100 2.8. Requests of the same tools share them.
const RULES_BYTES_PER_SEQUENCE: u64 = 512 << 10;

/// Measured in the same way: an answer takes 0.4 MiB under the rules of 20 tools, and 0.8 under those of 100.
const ANSWER_BYTES_PER_SEQUENCE: u64 = 576 << 10;

/// Host bytes for each token that the KV pool holds: an answer's parser remembers every byte of it, thoughts included, with 64
/// bytes (measured: 20 in a text, more in a row of numbers), and a token has about 4 of them.
pub const GRAMMAR_HOST_BYTES_PER_KV_TOKEN: u64 = 256;

/// Compiling takes some 1.7 kB a symbol for a moment, so this is for 4 thousand of them. Larger grammars, of which two may be
/// compiled at once, live for that moment on what rules and answers have not taken.
const COMPILING_BYTES: u64 = 7 << 20;

impl GrammarRoom {
    /// Room for so many sequences at once that hold so many tokens together.
    pub fn new(sequences: u32, kv_tokens: u64) -> Self {
        let sequences = u64::from(sequences.max(SEQUENCES_MIN));
        let answers_bytes = kv_tokens
            .saturating_mul(GRAMMAR_HOST_BYTES_PER_KV_TOKEN)
            .saturating_add(sequences * ANSWER_BYTES_PER_SEQUENCE);
        Self {
            rules_bytes: sequences * RULES_BYTES_PER_SEQUENCE,
            answers_bytes,
            compiling_bytes: COMPILING_BYTES,
        }
    }

    /// All of it; `None` where it is beyond counting.
    pub fn bytes(self) -> Option<u64> {
        let Self { rules_bytes, answers_bytes, compiling_bytes } = self;
        rules_bytes.checked_add(answers_bytes)?.checked_add(compiling_bytes)
    }
}
