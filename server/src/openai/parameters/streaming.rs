use super::super::ApiError;
use super::super::fields::Fields;

/// How an answer is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streaming {
    /// Events carry `"usage": null` until the last, which has it and no choices.
    pub(crate) include_usage: bool,
}

/// `None`: the answer comes whole.
pub(super) fn take_streaming(fields: &mut Fields<'_>) -> Result<Option<Streaming>, ApiError> {
    let streams = fields.take_flag("stream")?;
    let include_usage = match fields.take_raw("stream_options") {
        None => false,
        Some(_) if !streams => {
            return Err(fields.invalid("stream_options", "left out unless 'stream' is true"));
        }
        Some(options) => {
            let mut options = Fields::of_value(&fields.path("stream_options"), options)?;
            // Padding against eavesdroppers who count bytes: OpenAI's own, and this server is for one lab's network.
            options.take_flag("include_obfuscation")?;
            if options.take_flag("continuous_usage_stats")? {
                let param = options.path("continuous_usage_stats");
                return Err(ApiError::Unsupported { param, allowed: "false" });
            }
            options.take_flag("include_usage")?
        }
    };
    Ok(streams.then_some(Streaming { include_usage }))
}
