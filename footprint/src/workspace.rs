use sparkherd_checkpoint::{Facts, TENSOR_ALIGNMENT_BYTES};

use crate::{BLOCK_TOKENS, Backend, FootprintError, Platform, Serving, step_tokens_max};

/// Kernels take rows in tiles of at most 16, the last of which is padded.
const PACKED_PADDING_ROWS: u64 = 15;

/// Blocks of a GPU that share one sequence's attention at most: with a key head each, 4 sequences of 8 key heads fill any chip.
pub const ATTENTION_SPLITS_MAX: u32 = 32;

/// Numbers that each token of a step has: itself, its slot, its position, where its sequence's blocks begin, its row if its hidden
/// state is wanted, and its part of what attention is told of a prompt: five numbers for 16 tokens at least.
const STEP_LISTS: u64 = 6;

/// Each list of a step's numbers begins at 16 bytes: as many as there are lists, and one more, of 4 numbers less one.
const STEP_LIST_PADDING: u64 = 8 * 3;

/// Of a GPU's requests to choose tokens: 32-bit words of one without its lists, of its answer, and of each token in its lists, as
/// kernels lay them out.
const SAMPLE_REQUEST_WORDS: u32 = 20;
const SAMPLE_RESULT_WORDS: u32 = 44;
const SAMPLE_CHANGE_WORDS: u32 = 3;

/// Tokens in the lists of a step's requests, for each sequence: the most biases and stop tokens that a request may have, and room
/// to look at three thousand different tokens of its prompt and answer. A step whose requests have more leaves those to the host.
pub const SAMPLE_CHANGES: u32 = 4096;

/// One scratch buffer of the engine: allocated once at load, reused by every layer and every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// How many values it holds.
    pub elements: u64,
    /// Bytes of one value.
    pub element_bytes: u64,
}

impl Buffer {
    /// A buffer of `f32`, or of words as large; `None` where the product of the dimensions leaves 64 bits.
    fn f32(dimensions: &[u64]) -> Option<Self> {
        let elements = dimensions.iter().try_fold(1_u64, |product, size| product.checked_mul(*size))?;
        Some(Self { elements, element_bytes: 4 })
    }

    /// Bytes it takes in the arena, padded so that the next buffer is aligned too.
    pub fn bytes(&self) -> Option<u64> {
        self.elements.checked_mul(self.element_bytes)?.checked_next_multiple_of(TENSOR_ALIGNMENT_BYTES)
    }
}

/// Every scratch buffer of a forward pass, by name. The engine allocates exactly these, so whoever needs another
/// buffer in a layer adds it here and the promise to the planner stays true.
///
/// Attention needs no scores here: it keeps a running softmax over blocks, in registers.
///
/// Shapes are row-major, rows first: `tokens` = [`step_tokens_max`], `logit_rows` = [`logit_rows_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Most tokens of one step, the rows of most buffers.
    pub tokens: u32,
    /// Most rows of one step whose logits are wanted, the rows of `last_hidden` and `logits`.
    pub logit_rows: u32,
    /// `[tokens, hidden_size]`: the residual stream.
    pub residual: Buffer,
    /// `[tokens, hidden_size]`: its normalised copy, and where the output projections write before they are added.
    pub normed: Buffer,
    /// `[tokens, attention_heads × head_dim]`
    pub query: Buffer,
    /// `[tokens, kv_heads × head_dim]`
    pub key: Buffer,
    /// `[tokens, kv_heads × head_dim]`
    pub value: Buffer,
    /// `[tokens, attention_heads × head_dim]`
    pub attention: Buffer,
    /// `[tokens, intermediate_size]`
    pub gate: Buffer,
    /// `[tokens, intermediate_size]`
    pub up: Buffer,
    /// `[tokens, head_dim]`: cosines, then sines, of each token's position; shared by all layers of a step.
    pub rope: Buffer,
    /// `[logit_rows, hidden_size]`: the rows whose logits are wanted.
    pub last_hidden: Buffer,
    /// `[logit_rows, vocab_size]`
    pub logits: Buffer,
    /// `[max(tokens, logit_rows) + padding, widest input]`: on CPU cores, the rows of one operation packed for its kernels; else empty.
    pub packed: Buffer,
    /// `[concurrency, query_heads, `[`ATTENTION_SPLITS_MAX`]`, head_dim + 2]`: on a GPU, what the blocks that share a long sequence
    /// find in their parts of it; else empty.
    pub partial: Buffer,
    /// `[`[`STEP_LISTS`]` lists of tokens + logit_rows + concurrency × blocks of a context]` of 32 bits: on a GPU, what a step is told
    /// in numbers; else empty.
    pub numbers: Buffer,
    /// `[concurrency]` requests to choose tokens, their lists, their masks of a bit for each token, and their answers, in words: on
    /// a GPU, where the tokens are chosen there; else empty.
    pub sampling: Buffer,
}

impl Workspace {
    /// Host bytes that what goes to a GPU and comes from it passes through: a step's numbers, and its answer or how that is to be
    /// chosen.
    pub fn transfer_bytes(&self) -> Option<u64> {
        let answer = self.logits.bytes()?.checked_add(self.residual.bytes()?)?;
        answer.max(self.sampling.bytes()?).checked_add(self.numbers.bytes()?)
    }

    /// All buffers with their names, in the order they lie in the arena.
    pub fn buffers(&self) -> [(&'static str, Buffer); 15] {
        [
            ("residual", self.residual),
            ("normed", self.normed),
            ("query", self.query),
            ("key", self.key),
            ("value", self.value),
            ("attention", self.attention),
            ("gate", self.gate),
            ("up", self.up),
            ("rope", self.rope),
            ("last_hidden", self.last_hidden),
            ("logits", self.logits),
            ("packed", self.packed),
            ("partial", self.partial),
            ("numbers", self.numbers),
            ("sampling", self.sampling),
        ]
    }

    /// Bytes of the arena that holds all buffers, each padded to [`TENSOR_ALIGNMENT_BYTES`].
    pub fn bytes(&self) -> Result<u64, FootprintError> {
        self.buffers()
            .iter()
            .try_fold(0_u64, |sum, (_, buffer)| sum.checked_add(buffer.bytes()?))
            .ok_or(FootprintError::TooLarge { part: "workspace" })
    }
}

/// Rows of logits that a step has room for: one for each sequence that samples, or several for a prompt whose tokens'
/// probabilities are wanted.
///
/// At 32 rows such a prompt goes forward at prefill's speed on a CPU and at a fair part of it on a GPU, and a vocabulary of
/// 128 thousand takes 16 MiB.
pub fn logit_rows_max(serving: &Serving) -> u32 {
    const PROMPT_ROWS: u32 = 32;
    serving.concurrency.max(PROMPT_ROWS)
}

/// The scratch buffers that the largest step of these settings needs.
pub fn workspace(facts: &Facts, serving: &Serving, platform: &Platform) -> Result<Workspace, FootprintError> {
    sized(facts, serving, platform).ok_or(FootprintError::TooLarge { part: "workspace" })
}

fn sized(facts: &Facts, serving: &Serving, platform: &Platform) -> Option<Workspace> {
    let step_tokens = step_tokens_max(serving, platform.backend);
    let tokens = u64::from(step_tokens);
    let logit_rows = u64::from(logit_rows_max(serving));
    let hidden = u64::from(facts.hidden_size);
    let intermediate = u64::from(facts.intermediate_size);
    let head = u64::from(facts.head_dim);
    let query_heads = u64::from(facts.attention_heads);
    let kv_heads = u64::from(facts.kv_heads);
    // Of a GPU: rows whose positions several blocks share, and whose tokens are chosen there.
    let (packed_rows, device_rows) = match platform.backend {
        Backend::Cpu => (tokens.max(logit_rows).checked_add(PACKED_PADDING_ROWS)?, 0),
        Backend::Cuda => (0, u64::from(serving.concurrency)),
    };
    let blocks = u64::from(serving.context).div_ceil(u64::from(BLOCK_TOKENS));
    let numbers = match platform.backend {
        Backend::Cpu => 0,
        Backend::Cuda => (STEP_LISTS * tokens + STEP_LIST_PADDING)
            .checked_add(logit_rows)?
            .checked_add(u64::from(serving.concurrency).checked_mul(blocks)?)?,
    };
    let widest_input = hidden.max(intermediate).max(query_heads.checked_mul(head)?);
    Some(Workspace {
        tokens: step_tokens,
        logit_rows: logit_rows_max(serving),
        residual: Buffer::f32(&[tokens, hidden])?,
        normed: Buffer::f32(&[tokens, hidden])?,
        query: Buffer::f32(&[tokens, query_heads, head])?,
        key: Buffer::f32(&[tokens, kv_heads, head])?,
        value: Buffer::f32(&[tokens, kv_heads, head])?,
        attention: Buffer::f32(&[tokens, query_heads, head])?,
        gate: Buffer::f32(&[tokens, intermediate])?,
        up: Buffer::f32(&[tokens, intermediate])?,
        rope: Buffer::f32(&[tokens, head])?,
        last_hidden: Buffer::f32(&[logit_rows, hidden])?,
        logits: Buffer::f32(&[logit_rows, u64::from(facts.vocab_size)])?,
        packed: Buffer::f32(&[packed_rows, widest_input])?,
        partial: Buffer::f32(&[
            device_rows,
            query_heads,
            u64::from(ATTENTION_SPLITS_MAX),
            head.checked_add(2)?,
        ])?,
        numbers: Buffer::f32(&[numbers])?,
        sampling: Buffer::f32(&[device_rows, sample_words(facts.vocab_size)])?,
    })
}

/// Words of one sequence in [`Workspace::sampling`].
fn sample_words(vocab_size: u32) -> u64 {
    let lists = SAMPLE_CHANGE_WORDS * SAMPLE_CHANGES;
    u64::from(SAMPLE_REQUEST_WORDS + SAMPLE_RESULT_WORDS + lists) + u64::from(vocab_size.div_ceil(u32::BITS))
}
