//! What is asked of rows of logits and what is answered, as words: the structures of `cu/common/sampling.cuh`.

use crate::device::DeviceError;

/// What a token is chosen by, of one row of logits. Meaning and order are those of the engine's `Sampler`.
#[derive(Clone, Copy, Debug)]
pub struct SampleRequest<'a> {
    /// Of the logits.
    pub row: u32,
    pub seed: u64,
    pub position: u64,
    pub temperature: f32,
    pub top_p: f32,
    pub min_p: f32,
    pub top_k: u32,
    pub repetition: f32,
    pub presence: f32,
    pub frequency: f32,
    /// Whether logits may be changed, or tokens forbidden, even if no list has any.
    pub is_adjusted: bool,
    /// Ascending tokens, with what is added to each.
    pub biases: &'a [(u32, f32)],
    /// Ascending tokens of prompt and answer, with how often the answer has each.
    pub seen: &'a [(u32, u32)],
    /// Ascending tokens that may not be chosen.
    pub banned: &'a [u32],
    /// One bit per token, lowest first: the only tokens that may.
    pub mask: Option<&'a [u32]>,
    /// With the log-probability of the chosen token, and of so many likeliest.
    pub top_logprobs: Option<u32>,
}

/// Requests on their way to the device, in memory of a fixed size.
#[derive(Debug)]
pub struct SampleWords<'a> {
    words: &'a mut [u32],
    requests_max: usize,
    requests: usize,
    used: usize,
}

/// Chosen, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleOutcome {
    Chosen(u32),
    /// Of this token.
    NotANumber(u32),
    /// The largest of so many.
    NoFinite(u32),
    NothingAllowed,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug)]
pub struct SampleResult<'a> {
    words: &'a [u32],
}

/// Of `sampling.cuh`.
const NO_LOGPROBS: u32 = u32::MAX;
const IS_ADJUSTED: u32 = 1;
const IS_MASKED: u32 = 2;
/// Where a result has its parts.
const LOGPROB: usize = 3;
const TOP_TOKENS: usize = 4;

impl<'a> SampleWords<'a> {
    /// Of one request without its lists.
    pub const REQUEST_WORDS: usize = 20;
    /// Of one token of a list.
    pub const CHANGE_WORDS: usize = 3;
    /// Of one answer.
    pub const RESULT_WORDS: usize = TOP_TOKENS + 2 * Self::TOP_LOGPROBS_MAX as usize;
    /// OpenAI's bound, and the engine's.
    pub const TOP_LOGPROBS_MAX: u32 = 20;
    /// So many weights of 1, with 44 bits behind the point, add up to less than 64 bits hold.
    pub const VOCABULARY_MAX: u32 = 1 << 19;

    /// Room for so many requests, and with what is left of the words, for their lists and masks.
    pub fn new(words: &'a mut [u32], requests_max: usize) -> Self {
        let used = requests_max.saturating_mul(Self::REQUEST_WORDS);
        Self { words, requests_max, requests: 0, used }
    }

    /// Takes in one more request. False, and nothing is taken in, where there is no room, or where it is none that kernels
    /// answer.
    pub fn push(&mut self, request: &SampleRequest<'_>) -> bool {
        let Some(places) = self.places(request) else { return false };
        let mask = request.mask.unwrap_or_default();
        let (changes, mask_words) = self.words[self.used..places.end].split_at_mut(places.mask - self.used);
        mask_words.copy_from_slice(mask);
        let biases = request.biases.iter().map(|(token, bias)| (*token, bias.to_bits()));
        let banned = request.banned.iter().map(|token| (*token, 0));
        let tokens = biases.chain(request.seen.iter().copied()).chain(banned);
        for (change, (token, value)) in changes.as_chunks_mut().0.iter_mut().zip(tokens) {
            *change = [token, value, 0];
        }
        let start = self.requests * Self::REQUEST_WORDS;
        self.words[start..start + Self::REQUEST_WORDS].copy_from_slice(&places.header);
        self.requests += 1;
        self.used = places.end;
        true
    }

    /// How many there are.
    pub const fn requests(&self) -> usize {
        self.requests
    }

    /// What goes to the device.
    pub fn words(&self) -> &[u32] {
        self.words.get(..self.used).unwrap_or_default()
    }

    /// Where its parts would lie.
    fn places(&self, request: &SampleRequest<'_>) -> Option<Places> {
        let SampleRequest { biases, seen, banned, mask, top_logprobs, .. } = *request;
        let is_known = top_logprobs.is_none_or(|top| top <= Self::TOP_LOGPROBS_MAX);
        // One thread changes a token; two of a list would race.
        let ascends = biases.is_sorted_by(|(first, _), (second, _)| first < second)
            && seen.is_sorted_by(|(first, _), (second, _)| first < second)
            && banned.is_sorted_by(|first, second| first < second);
        if self.requests == self.requests_max || !is_known || !ascends {
            return None;
        }
        let changes = biases.len() + seen.len() + banned.len();
        let mask_start = self.used.checked_add(changes.checked_mul(Self::CHANGE_WORDS)?)?;
        let end = mask_start.checked_add(mask.map_or(0, <[u32]>::len))?;
        let header = header(request, u32::try_from(self.used).ok()?, u32::try_from(mask_start).ok()?)?;
        (end <= self.words.len()).then_some(Places { mask: mask_start, end, header })
    }
}

/// Of one request's parts.
struct Places {
    mask: usize,
    end: usize,
    header: [u32; SampleWords::REQUEST_WORDS],
}

/// `SampleRequest` of `sampling.cuh`; `None` where a list is longer than 32 bits count.
fn header(
    request: &SampleRequest<'_>,
    first_change: u32,
    first_mask_word: u32,
) -> Option<[u32; SampleWords::REQUEST_WORDS]> {
    let count = |count: usize| u32::try_from(count).ok();
    let ([seed_low, seed_high], [position_low, position_high]) =
        (halves(request.seed), halves(request.position));
    let is_masked = if request.mask.is_some() { IS_MASKED } else { 0 };
    let is_adjusted = if request.is_adjusted { IS_ADJUSTED } else { 0 };
    Some([
        seed_low,
        seed_high,
        position_low,
        position_high,
        request.row,
        is_masked | is_adjusted,
        request.temperature.to_bits(),
        request.top_p.to_bits(),
        request.min_p.to_bits(),
        request.top_k,
        request.repetition.to_bits(),
        request.presence.to_bits(),
        request.frequency.to_bits(),
        first_change,
        count(request.biases.len())?,
        count(request.seen.len())?,
        count(request.banned.len())?,
        first_mask_word,
        count(request.mask.map_or(0, <[u32]>::len))?,
        request.top_logprobs.unwrap_or(NO_LOGPROBS),
    ])
}

/// As the two words lie in memory.
fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    let [first, second] = [0, 4].map(|start| [0, 1, 2, 3].map(|byte| bytes[start + byte]));
    [u32::from_ne_bytes(first), u32::from_ne_bytes(second)]
}

impl<'a> SampleResult<'a> {
    /// Each of the results that were read back.
    pub fn all(words: &'a [u32]) -> impl ExactSizeIterator<Item = Self> {
        words.chunks_exact(SampleWords::RESULT_WORDS).map(|words| Self { words })
    }

    pub const fn outcome(&self) -> Result<SampleOutcome, DeviceError> {
        match *self.words {
            [0, token, ..] => Ok(SampleOutcome::Chosen(token)),
            [1, token, ..] => Ok(SampleOutcome::NotANumber(token)),
            [2, count, ..] => Ok(SampleOutcome::NoFinite(count)),
            [3, ..] => Ok(SampleOutcome::NothingAllowed),
            [kind, ..] => Err(unknown(kind as usize)),
            [] => Err(unknown(usize::MAX)),
        }
    }

    /// Of the chosen token, where it was asked for.
    pub fn logprob(&self) -> f32 {
        f32::from_bits(self.words[LOGPROB])
    }

    /// The likeliest tokens, likeliest first. Anything follows those that were asked for.
    pub fn top(&self) -> impl Iterator<Item = (u32, f32)> + use<'a> {
        let (tokens, logprobs) = self.words[TOP_TOKENS..].split_at(SampleWords::TOP_LOGPROBS_MAX as usize);
        let logprobs = logprobs.iter().map(|bits| f32::from_bits(*bits));
        tokens.iter().copied().zip(logprobs)
    }
}

const fn unknown(got: usize) -> DeviceError {
    DeviceError::Shape { kernel: "sample", what: "kind of an outcome", got, wanted: "0 to 3" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: SampleRequest<'static> = SampleRequest {
        row: 0,
        seed: 0x0102_0304_0506_0708,
        position: 9,
        temperature: 1.0,
        top_p: 1.0,
        min_p: 0.0,
        top_k: 0,
        repetition: 1.0,
        presence: 0.0,
        frequency: 0.0,
        is_adjusted: false,
        biases: &[],
        seen: &[],
        banned: &[],
        mask: None,
        top_logprobs: None,
    };

    #[test]
    fn what_does_not_fit_is_not_taken_in() {
        let mut memory = [0; 2 * SampleWords::REQUEST_WORDS + 7];
        let mut words = SampleWords::new(&mut memory, 2);
        let lists = SampleRequest { biases: &[(3, 0.5)], banned: &[3], mask: Some(&[5, 6]), ..REQUEST };
        assert!(!words.push(&lists), "two changes and two words of a mask are 8 words");
        assert!(words.push(&SampleRequest { mask: Some(&[5]), ..lists }));
        assert_eq!(words.words()[40..], [3, 0.5_f32.to_bits(), 0, 3, 0, 0, 5]);
        assert!(words.push(&REQUEST));
        assert!(!words.push(&REQUEST), "there is room for two requests");
        assert_eq!(words.requests(), 2);
    }

    #[test]
    fn what_kernels_do_not_answer_is_not_taken_in() {
        let mut memory = [0; 100];
        let mut words = SampleWords::new(&mut memory, 3);
        assert!(!words.push(&SampleRequest { banned: &[4, 4], ..REQUEST }));
        assert!(!words.push(&SampleRequest { biases: &[(4, 1.0), (2, 1.0)], ..REQUEST }));
        assert!(!words.push(&SampleRequest { seen: &[(4, 1), (4, 2)], ..REQUEST }));
        assert!(!words.push(&SampleRequest { top_logprobs: Some(21), ..REQUEST }));
        assert_eq!(words.requests(), 0);
    }

    #[test]
    fn memory_without_room_for_requests_takes_none() {
        let mut memory = [0; 19];
        let mut words = SampleWords::new(&mut memory, 1);
        assert!(!words.push(&REQUEST));
        assert!(words.words().is_empty());
    }

    #[test]
    fn an_outcome_that_no_kernel_writes_is_an_error() {
        let mut memory = [u32::MAX; SampleWords::RESULT_WORDS];
        assert!(SampleResult::all(&memory).next().unwrap().outcome().is_err());
        memory[0] = 3;
        assert_eq!(SampleResult::all(&memory).next().unwrap().outcome(), Ok(SampleOutcome::NothingAllowed));
    }
}
