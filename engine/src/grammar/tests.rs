mod answers;
mod hostile;
mod schema;
mod vocabulary;

use std::path::Path;

use sparkherd_footprint::GrammarRoom;

use super::{Constraint, Grammar, GrammarCompiler, GrammarSource, MaskThreads, NextTokens};
use crate::{
    request::{ClientKey, Ends, Sampling},
    sample::{RequestSampler, Sampler, uniform},
    text::{Detokenizer, SpecialTokenText, Text},
};

/// Rows of the checkpoint's embedding, and of its tokenizer.
const VOCAB_SIZE: u32 = 323;

/// A byte-level vocabulary with a few merges.
fn text() -> Text {
    Text::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tiny-llama3-bf16")).unwrap()
}

/// A vocabulary, its compiler, and threads.
struct Bench {
    text: Text,
    vocab_size: u32,
    compiler: GrammarCompiler,
    threads: MaskThreads,
}

/// One of the checkpoint with merges.
fn bench() -> Bench {
    Bench::new(text(), VOCAB_SIZE)
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Complete,
    Length,
}

impl Bench {
    fn new(text: Text, vocab_size: u32) -> Self {
        let compiler = GrammarCompiler::new(&text, vocab_size, GrammarRoom::new(1, 4096)).unwrap();
        Self { text, vocab_size, compiler, threads: MaskThreads::start().unwrap() }
    }

    fn compile(&self, source: &GrammarSource) -> Grammar {
        self.compiler
            .compile(source, ClientKey::default())
            .unwrap_or_else(|error| panic!("{source:?}: {error}"))
    }

    /// What a model of noise answers that likes to close what it opened: else its strings are hundreds of tokens long.
    fn babble(&self, grammar: &Grammar, seed: u64, max_tokens: u64) -> (String, Ending) {
        let closing = ["\"", "}", "]"].map(|mark| self.text.encode(mark, false).unwrap()[0]);
        let ends = self.text.eos_token_ids().iter().copied();
        let sampling = Sampling {
            temperature: 1.0,
            logit_bias: closing.into_iter().chain(ends).map(|token| (token, 3.0)).collect(),
            ..Sampling::default()
        };
        let mut request = RequestSampler::new(&sampling, seed, &[1], &Ends::default(), &[], None);
        let mut constraint = Constraint::new(grammar);
        let (mut sampler, mut detokenizer) =
            (Sampler::default(), Detokenizer::new(&self.text, SpecialTokenText::Hidden, &[1]));
        let mut answer = String::new();
        let mut ending = Ending::Length;
        for position in 0..max_tokens {
            constraint.begin(&self.threads);
            let NextTokens::Of(mask) = constraint.next().unwrap() else {
                ending = Ending::Complete;
                break;
            };
            let logits: Vec<f32> = (0..u64::from(self.vocab_size))
                .map(|token| half::f16::from_f64(uniform(seed, position * 1000 + token)).to_f32() * 8.0 - 4.0)
                .collect();
            let token = request.choose(&mut sampler, &logits, Some(&mask)).unwrap().token;
            if self.text.eos_token_ids().contains(&token) {
                ending = Ending::Complete;
                break;
            }
            answer += &detokenizer.push(&self.text, token).unwrap();
            if constraint.accept(token).unwrap() {
                ending = Ending::Complete;
                break;
            }
        }
        (answer + &detokenizer.finish(&self.text).unwrap(), ending)
    }
}
