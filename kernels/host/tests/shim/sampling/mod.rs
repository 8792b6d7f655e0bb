//! Tokens chosen by the kernels, against the host's `Sampler`.

mod cases;

use std::env;

use sparkherd_engine::backend::cuda::{Cuda, CudaLimits, SamplingLimits};
use sparkherd_engine::backend::{Activation, Answer, Backend as _, KvShape, TokenRow};
use sparkherd_engine::sample::{Chosen, SampleError, Sampler, TokenMask, TokenRequest, TokenRequests};
use sparkherd_engine::{Choice, Sampling};
use sparkherd_footprint::KvDtype;
use sparkherd_kernels_host::ShimDevice;

use cases::{All, Row, Settings};
use sparkherd_engine::backend::cases::Random;

/// Of log-probabilities: kernels take logarithms of sums of f32, and the likeliest of these are 20 nats above those that are told,
/// which f32 has to 1e-6.
const LOGPROB_BOUND: f32 = 3e-6;
/// More than any of these cases needs.
const WORDS: usize = 1 << 16;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A backend whose workspace is these rows.
fn backend(rows: &[Row], sampling: SamplingLimits) -> (Cuda<ShimDevice>, Activation) {
    let logits = Activation { offset: 0, rows: rows.len(), columns: rows[0].logits.len() };
    let elements = logits.rows * logits.columns;
    let kv = KvShape { layers: 0, blocks: 0, kv_heads: 1, head_dim: 1, dtype: KvDtype::Bf16 };
    let limits = CudaLimits {
        weights_bytes: 0,
        workspace_bytes: elements * size_of::<f32>(),
        numbers_bytes: 0,
        transfer_elements: elements,
        recorded_rows: 0,
        attention: None,
        sampling: Some(sampling),
    };
    let mut backend = Cuda::new(crate::device(), kv, limits).unwrap();
    let values: Vec<f32> = rows.iter().flat_map(|row| row.logits.iter().copied()).collect();
    backend.write(logits, &values).unwrap();
    (backend, logits)
}

/// What is chosen, and the logits that come back; the device has them as before.
fn answer(
    rows: &[Row],
    sampling: SamplingLimits,
    requests: &mut dyn TokenRequests,
) -> (Vec<Choice>, Vec<f32>) {
    let (mut backend, logits) = backend(rows, sampling);
    let token_rows: Vec<TokenRow> = (0..rows.len()).map(|row| TokenRow { sequence: row, row }).collect();
    let mut chosen = vec![None; rows.len()];
    let hidden = logits.first(0);
    let args = Answer { logits, hidden, rows: &token_rows, requests, chosen: &mut chosen };
    let rest = backend.answer(args).unwrap()[0].to_vec();
    for (index, row) in rows.iter().enumerate() {
        let at = Activation { offset: index * logits.columns, rows: 1, ..logits };
        assert_eq!(bits(backend.read(at).unwrap()), bits(&row.logits), "{} is changed", row.name);
    }
    (chosen, rest)
}

fn on_shim(rows: &[Row]) -> Vec<Result<Chosen, SampleError>> {
    let limits = SamplingLimits { requests: rows.len(), words: WORDS + rows.len() * rows[0].logits.len() };
    let (chosen, rest) = answer(rows, limits, &mut All(rows));
    assert!(rest.is_empty(), "logits of rows that were chosen of");
    chosen.into_iter().map(|choice| choice.unwrap()).collect()
}

fn on_host(row: &Row) -> Result<Chosen, SampleError> {
    row.request().choose(&mut Sampler::default(), &row.logits)
}

/// The same token, the same likeliest ones, and log-probabilities within the bound.
fn is_same(got: &Result<Chosen, SampleError>, wanted: &Result<Chosen, SampleError>) -> bool {
    let (Ok(got), Ok(wanted)) = (got, wanted) else { return got == wanted };
    let near = |got: f32, wanted: f32| (got - wanted).abs() <= LOGPROB_BOUND;
    let same_logprobs = match (&got.logprob, &wanted.logprob) {
        (Some(got), Some(wanted)) => {
            got.token == wanted.token
                && near(got.logprob, wanted.logprob)
                && got.top.len() == wanted.top.len()
                && got
                    .top
                    .iter()
                    .zip(&wanted.top)
                    .all(|(got, wanted)| got.0 == wanted.0 && near(got.1, wanted.1))
        }
        (got, wanted) => got.is_none() && wanted.is_none(),
    };
    got.token == wanted.token && same_logprobs
}

/// How many there were.
fn compare(rows: &[Row]) -> usize {
    let wrong: Vec<String> = on_shim(rows)
        .iter()
        .zip(rows)
        .filter_map(|(got, row)| {
            let wanted = on_host(row);
            (!is_same(got, &wanted)).then(|| format!("{}: {got:?} is not {wanted:?}", row.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}: {:#?}", wrong.len(), rows.len(), &wrong[..wrong.len().min(9)]);
    rows.len()
}

/// Weights are added up with 44 bits behind the point here and as f64 on the host, with `top_p` in another order: a draw differs
/// where it is that near to the border between two tokens, which is expected in one of 10^8.
#[test]
fn every_choice_is_the_hosts() {
    let named = env::var("SPARKHERD_KERNELS_CASES").unwrap_or_default();
    let mut compared = 0;
    for mut rows in cases::all() {
        rows.retain(|row| row.name.contains(&named));
        compared += if rows.is_empty() { 0 } else { compare(&rows) };
    }
    assert!(compared > 0, "no case is named {named:?}");
    println!("{compared} choices agree");
}

#[test]
fn what_cannot_be_chosen_is_the_same_error() {
    const NAN: f32 = f32::NAN;
    const INFINITY: f32 = f32::INFINITY;
    let mask = |tokens: &[u32]| Some(tokens.iter().copied().collect::<TokenMask>());
    let greedy = Settings::default;
    let drawn = || Settings { sampling: Sampling { temperature: 1.0, ..Sampling::default() }, ..greedy() };
    let huge = Sampling { repetition_penalty: 0.01, ..Sampling::default() };
    let huge = Settings { sampling: huge, prompt: vec![1, 2], ..greedy() };
    let rows = [
        ("not a number", drawn(), [1.0, 2.0, NAN, NAN]),
        ("not a number, not allowed", Settings { mask: mask(&[0]), ..greedy() }, [1.0, 2.0, 3.0, NAN]),
        ("not a number beside infinity", greedy(), [INFINITY, 2.0, 3.0, -NAN]),
        ("infinity", drawn(), [1.0, INFINITY, 0.0, 0.0]),
        ("nothing finite", greedy(), [-INFINITY; 4]),
        ("all banned", Settings { banned: vec![0, 1, 2, 3], ..drawn() }, [0.0; 4]),
        (
            "all allowed are banned and impossible",
            Settings { banned: vec![1], mask: mask(&[1]), ..greedy() },
            [0.0, -INFINITY, 1.0, 2.0],
        ),
        ("penalised beyond f32", huge.clone(), [1.0, 3e38, 2e38, 0.0]),
        (
            "penalised beyond f32 among two",
            Settings { mask: mask(&[0, 2]), ..huge.clone() },
            [1.0, 3e38, 2e38, 0.0],
        ),
        (
            "penalised beyond f32, not allowed",
            Settings { mask: mask(&[0, 3]), ..huge },
            [1.0, 3e38, 2e38, 0.0],
        ),
        ("steep", drawn(), [3e38, -3e38, 3e38, 0.0]),
    ];
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|(name, settings, logits)| settings.of(name.to_owned(), logits.to_vec()))
        .collect();
    compare(&rows);
    let errors = on_shim(&rows).iter().filter(|choice| choice.is_err()).count();
    assert_eq!(errors, 9, "of all but the last two");
}

/// Asks of every row but these.
struct AllBut<'a>(&'a [Row], &'a [usize]);

impl TokenRequests for AllBut<'_> {
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>> {
        (!self.1.contains(&sequence)).then(|| self.0[sequence].request())
    }
}

#[test]
fn rows_that_are_not_covered_come_back_as_logits() {
    let mut random = Random::new(6);
    let rows: Vec<Row> = (0..7)
        .map(|row| {
            // Sixty words of a mask, and twenty of each request.
            let mask = (row == 4).then(|| (0..60 * 32).collect());
            let settings = Settings { mask, ..Settings::default() };
            settings.of(format!("row {row}"), random.values(100))
        })
        .collect();
    let came_back = |limits: SamplingLimits, not_asked: &[usize], expected: &[usize]| {
        let (chosen, rest) = answer(&rows, limits, &mut AllBut(&rows, not_asked));
        let wanted: Vec<f32> = expected.iter().flat_map(|row| rows[*row].logits.iter().copied()).collect();
        assert_eq!(rest, wanted, "{expected:?} were not chosen of");
        for (index, choice) in chosen.iter().enumerate() {
            let wanted = (!expected.contains(&index)).then(|| on_host(&rows[index]));
            assert_eq!(*choice, wanted, "row {index}");
        }
    };
    came_back(SamplingLimits { requests: 7, words: 200 }, &[], &[]);
    came_back(SamplingLimits { requests: 7, words: 200 }, &[0, 1, 5], &[0, 1, 5]);
    came_back(SamplingLimits { requests: 7, words: 199 }, &[3], &[3, 4]);
    came_back(SamplingLimits { requests: 5, words: 500 }, &[], &[5, 6]);
    came_back(SamplingLimits { requests: 7, words: 139 }, &[], &[0, 1, 2, 3, 4, 5, 6]);
    came_back(SamplingLimits { requests: 7, words: 500 }, &[0, 1, 2, 3, 4, 5, 6], &[0, 1, 2, 3, 4, 5, 6]);
}
