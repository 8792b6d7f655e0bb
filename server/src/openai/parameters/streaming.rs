use super::super::ApiError;
use super::super::fields::Fields;

/// How an answer is streamed: which of its events tell usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamUsage {
    Never,
    /// One after all choices, which has no choice; those before have `"usage": null`.
    AtTheEnd,
    /// Each has that of its choice so far, as vLLM tells it.
    Continuous {
        and_at_the_end: bool,
    },
}

/// `None`: the answer comes whole.
pub(super) fn take_streaming(fields: &mut Fields<'_>) -> Result<Option<StreamUsage>, ApiError> {
    let streams = fields.take_flag("stream")?;
    let usage = match fields.take_raw("stream_options") {
        None => StreamUsage::Never,
        Some(_) if !streams => {
            return Err(fields.invalid("stream_options", "left out unless 'stream' is true"));
        }
        Some(options) => {
            let mut options = Fields::of_value(&fields.path("stream_options"), options)?;
            // Padding against eavesdroppers who count bytes: OpenAI's own, and this server is for one lab's network.
            options.take_flag("include_obfuscation")?;
            let continuous = options.take_flag("continuous_usage_stats")?;
            match (continuous, options.take_flag("include_usage")?) {
                (false, false) => StreamUsage::Never,
                (false, true) => StreamUsage::AtTheEnd,
                (true, and_at_the_end) => StreamUsage::Continuous { and_at_the_end },
            }
        }
    };
    Ok(streams.then_some(usage))
}
