//! Log-probabilities that an answer tells: one request may ask for so many that they are counted before any is computed.

use sparkherd_engine::LogprobOptions;

use super::ApiError;

/// Probabilities that one answer tells, and that all answers of one account tell at once: each token's own and those of the
/// likeliest beside it. Chat keeps one as 8 bytes until it writes some 80 of text, completions as text from the first, with some
/// 150: 6 to 15 MiB. They are three others beside each of 16 thousand tokens, or twenty beside each of three thousand.
pub(crate) const TOLD_MAX: u32 = 1 << 16;

/// Those of a whole answer's own tokens that it has room for when its client does not say how long it may become: a quarter
/// of all there is for every account together, because most answers are far shorter.
const TOLD_UNASKED: u32 = 1 << 15;

/// What a request's answers tell.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    /// Lengths of its prompts.
    pub(super) prompts: Vec<u32>,
    /// Answers to each.
    pub(super) choices: u32,
    pub(super) logprobs: LogprobOptions,
    /// As asked.
    pub(super) max_tokens: Option<u32>,
    pub(super) min_tokens: u32,
    pub(super) context: u32,
    /// Whether an answer is kept until it is whole. In a stream only those of prompts are many at once.
    pub(super) whole: bool,
}

/// How many probabilities are told, and how long each answer may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) probabilities: u32,
    pub(super) max_tokens: u32,
}

impl Telling {
    pub(super) fn told(&self) -> Result<Told, ApiError> {
        let Self { ref prompts, choices, logprobs, max_tokens, min_tokens, context, whole } = *self;
        let LogprobOptions { sampled, prompt } = logprobs;
        let each = |top: Option<u32>| top.map_or(0, |top| u64::from(top) + 1);
        let choices = u64::from(choices);
        let answers = choices.saturating_mul(prompts.len() as u64);
        let sampled = if whole { each(sampled) } else { 0 };
        let unasked = match u64::from(TOLD_UNASKED).checked_div(answers.saturating_mul(sampled)) {
            Some(tokens) => u32::try_from(tokens).unwrap_or(u32::MAX).max(min_tokens).max(1),
            None => u32::MAX,
        };
        let max_tokens = max_tokens.unwrap_or(unasked).max(1);
        let of_prompt = |tokens: u32| {
            let answer = u64::from(max_tokens.min(context.saturating_sub(tokens)));
            let probabilities = (u64::from(tokens) * each(prompt)).saturating_add(answer * sampled);
            probabilities.saturating_mul(choices)
        };
        let count = prompts.iter().fold(0, |count: u64, tokens| count.saturating_add(of_prompt(*tokens)));
        let told = u32::try_from(count).ok().filter(|count| *count <= TOLD_MAX);
        let probabilities = told.ok_or_else(|| ApiError::Invalid {
            param: "logprobs".to_owned(),
            expected: format!(
                "such that an answer tells at most {TOLD_MAX} probabilities: this may tell {count}, which is (logprobs + 1) × \
                 choices × tokens, of the prompts where they are echoed and of 'max_tokens' where the answer is not streamed"
            ),
        })?;
        Ok(Told { probabilities, max_tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Telling {
        Telling {
            prompts: vec![100],
            choices: 1,
            logprobs: LogprobOptions { sampled: None, prompt: None },
            max_tokens: None,
            min_tokens: 0,
            context: 32_768,
            whole: true,
        }
    }

    const fn logprobs(sampled: Option<u32>, prompt: Option<u32>) -> LogprobOptions {
        LogprobOptions { sampled, prompt }
    }

    fn told(telling: &Telling) -> (u32, u32) {
        let Told { probabilities, max_tokens } = telling.told().unwrap();
        (probabilities, max_tokens)
    }

    #[test]
    fn probabilities_of_prompts_are_counted_before_they_are_computed() {
        assert_eq!(told(&Telling { prompts: vec![1 << 20; 16], choices: 8, ..plain() }), (0, u32::MAX));
        let judged = |prompts: Vec<u32>, choices, top| Telling {
            prompts,
            choices,
            logprobs: logprobs(None, Some(top)),
            max_tokens: Some(0),
            ..plain()
        };
        assert_eq!(told(&judged(vec![100, 28], 2, 0)), (256, 1));
        assert_eq!(told(&judged(vec![1024; 32], 1, 1)), (TOLD_MAX, 1));
        let refused = judged(vec![32_768; 16], 1, 20).told().unwrap_err().to_string();
        assert!(refused.contains("65536") && refused.contains("11010048"), "{refused}");
        assert!(judged(vec![u32::MAX], 8, 20).told().is_err());
    }

    #[test]
    fn those_of_a_whole_answer_are_counted_by_how_long_it_may_become() {
        let sampled = Telling { logprobs: logprobs(Some(20), None), max_tokens: Some(1000), ..plain() };
        assert_eq!(told(&sampled), (21_000, 1000));
        assert_eq!(told(&Telling { choices: 3, ..sampled.clone() }), (63_000, 1000));
        assert_eq!(
            told(&Telling { prompts: vec![32_758], ..sampled.clone() }),
            (210, 1000),
            "its context ends it"
        );
        let refused = Telling { choices: 4, ..sampled.clone() }.told().unwrap_err().to_string();
        assert!(refused.contains("84000"), "{refused}");
        // What is streamed is written as it comes.
        assert_eq!(told(&Telling { choices: 4, whole: false, ..sampled.clone() }), (0, 1000));
    }

    #[test]
    fn an_answer_of_no_length_has_room_for_a_part() {
        let unasked = Telling { logprobs: logprobs(Some(3), None), ..plain() };
        assert_eq!(told(&unasked), (TOLD_UNASKED, TOLD_UNASKED / 4));
        assert_eq!(told(&Telling { choices: 4, ..unasked.clone() }), (TOLD_UNASKED, TOLD_UNASKED / 16));
        assert_eq!(told(&Telling { min_tokens: 9000, ..unasked.clone() }), (36_000, 9000));
        assert_eq!(told(&Telling { whole: false, ..unasked.clone() }), (0, u32::MAX));
    }
}
