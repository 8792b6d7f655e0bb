use sparkherd_engine::Priority;

use super::super::ApiError;
use super::super::fields::Fields;

/// Longest name a client may give itself, its user or its part of the cache. It is hashed, not kept.
const NAME_BYTES_MAX: usize = 1024;

/// What a request says of who asks and how urgently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallerWishes {
    /// The client's own name for its user.
    pub(crate) user: Option<String>,
    /// Prompts are shared in the prefix cache only under the same salt.
    pub(crate) cache_salt: Option<String>,
    pub(crate) priority: Priority,
}

/// The tier of service that an answer names, where the request named one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServiceTier {
    Default,
    Flex,
}

/// Takes `user`, `safety_identifier`, `cache_salt`, `priority` and `service_tier`.
///
/// `flex` is OpenAI's word for work that can wait, a `priority` above 0 is vLLM's; either makes a request `Batch`.
pub(in super::super) fn take_caller(
    fields: &mut Fields<'_>,
) -> Result<(CallerWishes, Option<ServiceTier>), ApiError> {
    let safety_identifier = take_name(fields, "safety_identifier")?;
    let user = take_name(fields, "user")?.or(safety_identifier);
    let cache_salt = take_name(fields, "cache_salt")?;
    let priority: i64 = fields.take("priority", "a whole number")?.unwrap_or(0);
    let tier = take_service_tier(fields)?;
    let batch = priority > 0 || tier == Some(ServiceTier::Flex);
    let priority = if batch { Priority::Batch } else { Priority::Interactive };
    Ok((CallerWishes { user, cache_salt, priority }, tier))
}

fn take_name(fields: &mut Fields<'_>, name: &str) -> Result<Option<String>, ApiError> {
    let expected = format!("a string of at most {NAME_BYTES_MAX} bytes");
    let value: Option<String> = fields.take(name, &expected)?;
    if value.as_ref().is_some_and(|value| value.len() > NAME_BYTES_MAX) {
        return Err(fields.invalid(name, expected));
    }
    Ok(value.filter(|value| !value.is_empty()))
}

/// As OpenAI answers it: a tier that an account does not have is served as the default, and the answer says so.
fn take_service_tier(fields: &mut Fields<'_>) -> Result<Option<ServiceTier>, ApiError> {
    let expected = "\"auto\", \"default\", \"flex\", \"scale\" or \"priority\"";
    let tier: Option<String> = fields.take("service_tier", expected)?;
    match tier.as_deref() {
        None => Ok(None),
        Some("auto" | "default" | "scale" | "priority") => Ok(Some(ServiceTier::Default)),
        Some("flex") => Ok(Some(ServiceTier::Flex)),
        Some(_) => Err(fields.invalid("service_tier", expected)),
    }
}
