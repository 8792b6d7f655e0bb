//! Choosing tokens, and telling how likely they are.

use sparkherd_checkpoint::Dtype;
use sparkherd_kernels::{Device as _, Gpu, Logprobs, Sample, SampleRequest, SampleWords};

use super::noise::{Noise, numbers};
use super::{Bench, BenchError};
use crate::goal::Kind;
use crate::report::{Rate, Speed};

/// Of Qwen's models, the largest that are served.
const VOCABULARY: u32 = 151_936;
const ROWS: [u32; 2] = [1, 8];
/// OpenAI's largest number of likeliest tokens.
const TOP: u32 = SampleWords::TOP_LOGPROBS_MAX;

const GREEDY: SampleRequest<'static> = SampleRequest {
    row: 0,
    seed: 7,
    position: 9,
    temperature: 0.0,
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
    top_logprobs: Some(TOP),
};
/// The longest way: what is left of the likeliest is drawn from.
const DRAWN: SampleRequest<'static> = SampleRequest { temperature: 0.9, top_p: 0.9, top_k: 40, ..GREEDY };

pub(super) fn all(bench: &Bench<'_>) -> Result<Vec<Speed>, BenchError> {
    let vocabulary = bench.extent.size(VOCABULARY);
    let mut speeds = Vec::new();
    for rows in ROWS {
        let mut gpu = (bench.gpu)()?;
        let logits = Noise::new().matrix(&mut gpu, Dtype::F32, [rows, vocabulary])?;
        let results = gpu.allocate(rows as usize * SampleWords::RESULT_WORDS * size_of::<u32>())?;
        let mut line = |gpu: &mut Gpu, name, request, is_logprobs| {
            let words = words(request, rows);
            let words = numbers(gpu, &words)?;
            let sample = Sample { logits, words, results, requests: rows, logits_rows: rows, vocabulary };
            let took = bench.recorded_time(gpu, |gpu| {
                // SAFETY: the words are of as many requests, each of another row. Log-probabilities are of what was chosen when
                // the first line was measured.
                #[expect(unsafe_code, reason = "a launch whose words were made above")]
                let launched = unsafe {
                    if is_logprobs { Logprobs { of: sample }.launch(gpu) } else { sample.launch(gpu) }
                };
                Ok(launched?)
            })?;
            let bytes = f64::from(rows) * f64::from(vocabulary) * 4.0;
            let shape = format!("{rows} x {vocabulary}");
            let rate = Rate::of_bytes(bytes, took);
            speeds.push(bench.speed(name, shape, took, rate, Kind::Beside));
            Ok::<_, BenchError>(())
        };
        line(&mut gpu, "sample, greedy", GREEDY, false)?;
        line(&mut gpu, "sample, drawn", DRAWN, false)?;
        line(&mut gpu, "logprobs, 20 likeliest", GREEDY, true)?;
    }
    Ok(speeds)
}

/// One and the same request of each row.
fn words(request: SampleRequest<'_>, rows: u32) -> Vec<u32> {
    let mut memory = vec![0; rows as usize * SampleWords::REQUEST_WORDS];
    let mut words = SampleWords::new(&mut memory, rows as usize);
    for row in 0..rows {
        let is_taken = words.push(&SampleRequest { row, ..request });
        debug_assert!(is_taken, "a request without lists");
    }
    words.words().to_vec()
}
