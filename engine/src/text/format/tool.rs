use serde_json::Value;

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    /// JSON schema of the arguments. `None` is a function without any.
    pub parameters: Option<Value>,
    /// The arguments must follow the schema to the letter; otherwise what a grammar cannot express of it is let pass.
    pub strict: bool,
}

/// What the answer must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// Text only.
    None,
    /// What the model likes.
    #[default]
    Auto,
    /// At least one call.
    Required,
    /// A call of this function.
    Named(String),
}
