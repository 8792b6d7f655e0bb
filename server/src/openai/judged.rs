//! Probabilities of prompts' tokens: one request asks for so many that they are counted before anything is computed.

use tokio::sync::OwnedSemaphorePermit;

use super::ApiError;
use crate::service::Service;

/// Probabilities that requests may be told at once, all together: each token's own and those of the likeliest beside it. One is
/// about a hundred bytes from the engine to the answer's text, so that these are 12 MiB. They are three others beside each of
/// 32 thousand tokens, or one beside each of 64 prompts of a thousand.
pub(crate) const JUDGED_MAX: u32 = 1 << 17;

/// How many are asked for, of prompts of so many tokens, or that they are too many.
pub(super) fn judged_count(
    prompt_tokens: impl Iterator<Item = usize>,
    choices: u32,
    top: Option<u32>,
) -> Result<u32, ApiError> {
    let Some(top) = top else { return Ok(0) };
    let tokens: u64 = prompt_tokens.map(|tokens| u64::try_from(tokens).unwrap_or(u64::MAX)).sum();
    let count = tokens.saturating_mul(u64::from(choices)).saturating_mul(u64::from(top) + 1);
    u32::try_from(count).ok().filter(|count| *count <= JUDGED_MAX).ok_or_else(|| ApiError::Invalid {
        param: "logprobs".to_owned(),
        expected: format!(
            "such that at most {JUDGED_MAX} probabilities of prompt tokens are told in one answer: these prompts have \
             {count}, which is tokens × choices × (logprobs + 1)"
        ),
    })
}

/// Waits until so many may be told, or until requests under way are to be ended. The permit is held until they are written.
pub(super) async fn judge(service: &Service, count: u32) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    if count == 0 {
        return Ok(None);
    }
    service.room(service.judging(), count).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_prompts_are_counted_before_they_are_computed() {
        let count = |prompts: &[usize], choices, top| judged_count(prompts.iter().copied(), choices, top);
        assert_eq!(count(&[1 << 20; 16], 8, None), Ok(0));
        assert_eq!(count(&[100, 28], 2, Some(0)), Ok(256));
        assert_eq!(count(&[1024; 64], 1, Some(1)), Ok(JUDGED_MAX));
        let refused = count(&[32_768; 16], 1, Some(20)).unwrap_err().to_string();
        assert!(refused.contains("131072") && refused.contains("11010048"), "{refused}");
        assert!(count(&[usize::MAX], 8, Some(20)).is_err());
    }
}
