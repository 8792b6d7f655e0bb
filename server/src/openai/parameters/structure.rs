//! What the text of an answer must be: `response_format`, and vLLM's `structured_outputs` and its older names.

use serde_json::value::RawValue;
use sparkherd_engine::GrammarSource;

use super::super::ApiError;
use super::super::fields::Fields;

/// A form for an answer, and the parameter that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Structure {
    pub(crate) param: &'static str,
    pub(crate) source: GrammarSource,
}

/// Ways to ask for a form; a request uses one at most.
const PARAMS: [(&str, Form); 5] = [
    ("guided_choice", Form::Choice),
    ("guided_grammar", Form::Lark),
    ("guided_json", Form::Json),
    ("guided_regex", Form::Regex),
    ("structured_outputs", Form::Any),
];

#[derive(Clone, Copy, Debug)]
enum Form {
    Choice,
    Lark,
    Json,
    Regex,
    /// An object with one of the others in it.
    Any,
}

pub(super) fn take_structure(fields: &mut Fields<'_>) -> Result<Option<Structure>, ApiError> {
    let mut structure = take_response_format(fields)?;
    for (param, form) in PARAMS {
        let source = match form {
            Form::Any => take_structured_outputs(fields)?,
            form => take_form(fields, param, form)?,
        };
        let Some(source) = source else { continue };
        if let Some(Structure { param: other, .. }) = structure {
            return Err(fields.invalid(param, format!("left out beside '{other}'")));
        }
        structure = Some(Structure { param, source });
    }
    Ok(structure)
}

/// `text`, `json_object`, or `json_schema` with a schema, which is kept to whether it says `strict` or not.
fn take_response_format(fields: &mut Fields<'_>) -> Result<Option<Structure>, ApiError> {
    let param = "response_format";
    let Some(raw) = fields.take_raw(param) else { return Ok(None) };
    let mut format = Fields::of_value(&fields.path(param), raw)?;
    let kind: String = format.take_required("type", "a string")?;
    let schema: Option<&RawValue> = format.take("json_schema", "an object")?;
    let source = match kind.as_str() {
        "text" => return Ok(None),
        "json_object" => GrammarSource::JsonObject,
        "json_schema" => {
            let path = format.path("json_schema");
            let schema = schema.ok_or_else(|| ApiError::Missing { param: path.clone() })?;
            let mut schema = Fields::of_value(&path, schema)?;
            schema.take_flag("strict")?;
            for name in ["name", "description"] {
                schema.take::<String>(name, "a string")?;
            }
            GrammarSource::JsonSchema(
                schema.take_required::<&RawValue>("schema", "a JSON schema")?.get().to_owned(),
            )
        }
        _ => return Err(format.invalid("type", "\"text\", \"json_object\" or \"json_schema\"")),
    };
    Ok(Some(Structure { param, source }))
}

fn take_structured_outputs(fields: &mut Fields<'_>) -> Result<Option<GrammarSource>, ApiError> {
    let param = "structured_outputs";
    let Some(raw) = fields.take_raw(param) else { return Ok(None) };
    let mut outputs = Fields::of_value(&fields.path(param), raw)?;
    let json_object = outputs.take_flag("json_object")?.then_some(GrammarSource::JsonObject);
    let named =
        [("choice", Form::Choice), ("grammar", Form::Lark), ("json", Form::Json), ("regex", Form::Regex)];
    let named = named.into_iter().map(|(name, form)| take_form(&mut outputs, name, form));
    let named: Vec<Option<GrammarSource>> = named.collect::<Result<_, _>>()?;
    let mut sources = named.into_iter().chain([json_object]).flatten();
    match (sources.next(), sources.next(), outputs.left_over().next()) {
        (_, _, Some(param)) => Err(ApiError::Unsupported { param, allowed: "null" }),
        (Some(source), None, None) => Ok(Some(source)),
        _ => Err(fields
            .invalid(param, "an object with one of 'json', 'json_object', 'regex', 'choice' and 'grammar'")),
    }
}

fn take_form(fields: &mut Fields<'_>, name: &str, form: Form) -> Result<Option<GrammarSource>, ApiError> {
    let source = match form {
        Form::Choice => fields.take(name, "an array of strings")?.map(GrammarSource::Choice),
        Form::Lark => {
            fields.take(name, "a grammar in llguidance's Lark, as a string")?.map(GrammarSource::Lark)
        }
        Form::Regex => fields.take(name, "a regular expression, as a string")?.map(GrammarSource::Regex),
        // The schema itself, or its text.
        Form::Json => fields.take_raw(name).map(|raw| {
            let text = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
            GrammarSource::JsonSchema(text)
        }),
        Form::Any => None,
    };
    Ok(source)
}
