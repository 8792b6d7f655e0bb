use super::super::ApiError;
use super::super::ask::TextPrompt;
use super::super::fields::Fields;

/// One text or one list of tokens, or a list of either. Tried one after the other on the text: an untagged enum would first
/// build a tree 20 times the size of a long list.
pub(in super::super) fn take_prompts(
    fields: &mut Fields<'_>,
    name: &str,
) -> Result<Vec<TextPrompt>, ApiError> {
    let Some(raw) = fields.take_raw(name) else {
        return Err(ApiError::Missing { param: fields.path(name) });
    };
    let json = raw.get();
    let text = || serde_json::from_str(json).map(|text| vec![TextPrompt::Text(text)]);
    let tokens = || serde_json::from_str(json).map(|tokens| vec![TextPrompt::Tokens(tokens)]);
    let texts = || {
        let texts: serde_json::Result<Vec<String>> = serde_json::from_str(json);
        texts.map(|texts| texts.into_iter().map(TextPrompt::Text).collect())
    };
    let lists = || {
        let lists: serde_json::Result<Vec<Vec<u32>>> = serde_json::from_str(json);
        lists.map(|lists| lists.into_iter().map(TextPrompt::Tokens).collect())
    };
    let prompts: serde_json::Result<Vec<TextPrompt>> =
        text().or_else(|_| tokens()).or_else(|_| texts()).or_else(|_| lists());
    prompts.map_err(|_| {
        fields.invalid(
            name,
            "a string, an array of token numbers, an array of strings or an array of such arrays",
        )
    })
}
