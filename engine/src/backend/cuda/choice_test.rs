//! Tokens that the device chooses, against the host's [`Sampler`].

use sparkherd_kernels::Device;

use super::{Cuda, CudaLimits, SamplingLimits, SelfTestError};
use crate::{
    backend::{Activation, Answer, Backend as _, KvShape, TokenRow, cases::Random},
    request::{Ends, Sampling},
    sample::{Chosen, RequestSampler, Sampler, TokenMask, TokenRequest, TokenRequests},
};
use sparkherd_footprint::KvDtype;

/// No multiple of anything, and more than a block has threads.
const VOCABULARY: usize = 1501;
const REQUESTS: usize = 4;
/// Lists and masks of all requests, in words of 32 bits: 47 of each mask, and some hundred beside it.
const WORDS: usize = 4096;
/// Likeliest tokens that are told with each.
const TOP: u32 = 5;
/// Kernels take logarithms of sums of f32, of which the likeliest is some 20 nats above the least that is told.
const LOGPROB_BOUND: f32 = 1e-5;

struct Requests<'a> {
    samplers: &'a [RequestSampler; REQUESTS],
    mask: &'a TokenMask,
}

impl Requests<'_> {
    /// The last one's grammar allows half of all tokens.
    fn request(&self, index: usize) -> Option<TokenRequest<'_>> {
        let mask = (index + 1 == REQUESTS).then_some(self.mask);
        Some(self.samplers.get(index)?.next(mask))
    }
}

impl TokenRequests for Requests<'_> {
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>> {
        self.request(sequence)
    }
}

/// Greedy; with penalties; drawn from what several limits leave; drawn from what a grammar leaves. How many were compared.
pub(super) fn check(device: impl Device) -> Result<usize, SelfTestError> {
    let mut random = Random::new(17);
    let logits: Vec<f32> =
        (0..REQUESTS * VOCABULARY).map(|_| 5.0 * (random.value() + random.value())).collect();
    let mask: TokenMask = (0_u32..).take(VOCABULARY).filter(|_| random.below(2) == 0).collect();
    let samplers = samplers(&mut random);
    let mut requests = Requests { samplers: &samplers, mask: &mask };
    let got = chosen(device, &logits, &mut requests)?;
    for (index, (got, logits)) in got.iter().zip(logits.chunks_exact(VOCABULARY)).enumerate() {
        let wanted =
            requests.request(index).and_then(|request| request.choose(&mut Sampler::default(), logits).ok());
        if !is_same(got.as_ref(), wanted.as_ref()) {
            let case = format!("token of request {index}");
            return Err(SelfTestError::Choice {
                case,
                got: format!("{got:?}"),
                wanted: format!("{wanted:?}"),
            });
        }
    }
    Ok(REQUESTS)
}

fn samplers(random: &mut Random) -> [RequestSampler; REQUESTS] {
    let penalised = Sampling { repetition_penalty: 1.3, frequency_penalty: 0.4, ..Sampling::default() };
    let free = Sampling { temperature: 0.9, ..Sampling::default() };
    let limited = Sampling { top_k: 60, top_p: 0.9, min_p: 0.01, ..free.clone() };
    let prompt = random.tokens(40, VOCABULARY);
    [Sampling::default(), penalised, limited, free].map(|sampling| {
        let mut sampler =
            RequestSampler::new(&sampling, random.next_u64(), &prompt, &Ends::default(), &[], Some(TOP));
        random.tokens(20, VOCABULARY).into_iter().for_each(|token| sampler.observe(token));
        sampler
    })
}

fn chosen(
    device: impl Device,
    values: &[f32],
    requests: &mut Requests<'_>,
) -> Result<Vec<Option<Chosen>>, SelfTestError> {
    let logits = Activation { offset: 0, rows: REQUESTS, columns: VOCABULARY };
    let kv = KvShape { layers: 0, blocks: 0, kv_heads: 1, head_dim: 1, dtype: KvDtype::Bf16 };
    let limits = CudaLimits {
        weights_bytes: 0,
        workspace_bytes: size_of_val(values),
        numbers_bytes: 0,
        transfer_elements: values.len(),
        recorded_rows: 0,
        attention: None,
        sampling: Some(SamplingLimits { requests: REQUESTS, words: WORDS }),
    };
    let mut cuda = Cuda::new(device, kv, limits)?;
    cuda.write(logits, values)?;
    let rows: Vec<TokenRow> = (0..REQUESTS).map(|row| TokenRow { sequence: row, row }).collect();
    let mut chosen = vec![None; REQUESTS];
    cuda.answer(Answer { logits, hidden: logits.first(0), rows: &rows, requests, chosen: &mut chosen })?;
    Ok(chosen.into_iter().map(|choice| choice.and_then(Result::ok)).collect())
}

/// The same token, the same likeliest ones, and log-probabilities within the bound.
fn is_same(got: Option<&Chosen>, wanted: Option<&Chosen>) -> bool {
    let told = |chosen: &Chosen| {
        let logprob = chosen.logprob.as_ref()?;
        let all = std::iter::once((logprob.token, logprob.logprob)).chain(logprob.top.iter().copied());
        Some(all.collect::<Vec<_>>())
    };
    let (Some(got), Some(wanted)) = (got, wanted) else { return false };
    let (Some(got_told), Some(wanted_told)) = (told(got), told(wanted)) else { return false };
    got.token == wanted.token
        && got_told.len() == wanted_told.len()
        && got_told
            .iter()
            .zip(&wanted_told)
            .all(|(got, wanted)| got.0 == wanted.0 && (got.1 - wanted.1).abs() <= LOGPROB_BOUND)
}
