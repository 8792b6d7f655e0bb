//! Grammars of whole answers, in llguidance's dialect of Lark.
//!
//! ```text
//! start: thought gap call ("\n" call){0,15}      tool_choice required or named
//! start: thought head body tail* TEXT            auto with strict functions: anything, but calls as they must be
//! start: thought gap answer                      response_format
//! start: thought gap (calls | answer)            response_format and auto
//! ```
//!
//! `thought` is there as [`ReasoningStart`] says. A marker that is a special token is written by its number, `<[128010]>`;
//! one that is not is text. Each function's schema is inlined as `%json {…}`, so its `$ref`s stay its own.

use serde_json::{Map, Value, json};

use super::{ChatFormat, Marker, ReasoningMarkers, ReasoningStart, Tool, ToolChoice, ToolMarkers};

/// Most calls of one forced answer: a weak model would call the same function until its tokens are used up.
const CALLS_MAX: u32 = 16;

/// New lines between thoughts and what follows: models write two.
const GAP: &str = r"/\n{1,2}/";

/// Any text.
const TEXT: &str = "/(?s:.*)/";

/// A grammar under construction.
struct Lark {
    rules: String,
}

impl ChatFormat {
    /// What forces the answer to be calls as `choice` and the schemas say, or forces at least the calls in it, if a
    /// function is strict. With an `answer`, an expression as in [`Self::after_reasoning`], `auto` is calls or that. `None` if
    /// nothing is to be forced.
    pub fn tool_grammar(
        &self,
        tools: &[Tool],
        choice: &ToolChoice,
        parallel: bool,
        start: ReasoningStart,
        answer: Option<&str>,
    ) -> Option<String> {
        let answer = answer.filter(|_| *choice == ToolChoice::Auto);
        let is_bound = answer.is_some() || tools.iter().any(|tool| tool.strict);
        let (tools, forced): (Vec<&Tool>, bool) = match choice {
            ToolChoice::None => return None,
            ToolChoice::Auto => (tools.iter().filter(|_| is_bound).collect(), answer.is_some()),
            ToolChoice::Required => (tools.iter().collect(), true),
            ToolChoice::Named(name) => (tools.iter().filter(|tool| tool.name == *name).collect(), true),
        };
        if tools.is_empty() {
            return None;
        }
        let mut lark = Lark { rules: String::new() };
        let more = if parallel { CALLS_MAX - 1 } else { 0 };
        let calls = match (self.tools, forced) {
            (ToolMarkers::Hermes { open, close }, _) => lark.hermes(open, close, forced, more),
            (ToolMarkers::Llama3Json { tag }, _) => lark.llama3(tag, forced),
            (ToolMarkers::Mistral { calls, arguments, .. }, _) => {
                lark.mistral(calls, arguments, forced, more)
            }
        };
        let thought = lark.thought(self.reasoning, start, forced);
        match answer {
            None => lark.rule("start", &format!("{thought}{calls}")),
            Some(answer) => {
                lark.rule("start", &format!("{thought}(({calls}) | answer)"));
                lark.rule("answer", answer);
            }
        }
        for (index, tool) in tools.iter().enumerate() {
            lark.tool(index, tool, self.tools);
        }
        let names: Vec<String> = (0..tools.len()).map(|index| format!("tool_{index}")).collect();
        lark.rule("tool", &names.join(" | "));
        Some(lark.rules)
    }

    /// A grammar of `answer` that applies once the thoughts are over; `None` if none come before it. `answer` is a Lark
    /// expression: `%json {…}`, `/…/`, `"a" | "b"`, or `%lark {…}` with a new line before the closing brace.
    pub fn after_reasoning(&self, answer: &str, start: ReasoningStart) -> Option<String> {
        let mut lark = Lark { rules: String::new() };
        let thought = lark.thought(self.reasoning, start, true);
        if thought.is_empty() {
            return None;
        }
        lark.rule("start", &format!("{thought}answer"));
        lark.rule("answer", answer);
        Some(lark.rules)
    }
}

impl Lark {
    fn rule(&mut self, name: &str, body: &str) {
        self.rules.extend([name, ": ", body, "\n"]);
    }

    /// The part before the answer, with a blank behind it; empty if there is none.
    fn thought(
        &mut self,
        markers: Option<ReasoningMarkers>,
        start: ReasoningStart,
        forced: bool,
    ) -> &'static str {
        let Some(ReasoningMarkers { open, close }) = markers else { return "" };
        let thought = match start {
            ReasoningStart::Answer => return "",
            ReasoningStart::Reasoning => "thought gap? ",
            // Free text may be a thought as well, and begins with the same characters.
            ReasoningStart::Undecided if !forced && open.special.is_none() => return "",
            ReasoningStart::Undecided => {
                self.rule("open", &marker(open));
                "(open thought gap?)? "
            }
        };
        match close.special {
            Some(_) => self.rule("thought", &format!("{TEXT} {}", marker(close))),
            None => self.rule(&format!("thought[suffix={}]", quoted(close.text)), TEXT),
        }
        self.rule("gap", GAP);
        thought
    }

    fn hermes(&mut self, open: Marker, close: Marker, forced: bool, more: u32) -> String {
        self.rule("body", &format!(r#""\n" tool "\n" {}"#, marker(close)));
        if forced {
            self.rule("call", &format!("{} body", marker(open)));
            return list("call", r#""\n" call"#, more);
        }
        self.free_text(open, "body", more)
    }

    /// Llama's templates do not know several calls at once.
    fn llama3(&mut self, tag: Marker, forced: bool) -> String {
        let tag = if tag.special.is_some() { format!("{}? ", marker(tag)) } else { String::new() };
        self.rule("call", &format!("{tag}tool"));
        if forced {
            return "call".to_owned();
        }
        self.rule("TEXT", r"/[^{](?s:.*)/");
        "(TEXT | call)".to_owned()
    }

    fn mistral(&mut self, calls: Marker, arguments: Option<Marker>, forced: bool, more: u32) -> String {
        let is_list = arguments.is_none();
        if is_list {
            self.rule("body", &format!(r#""[" {} "]""#, list("tool", r#"", " tool"#, more)));
        } else {
            self.rule("body", "tool");
        }
        let more = if is_list { 0 } else { more };
        if forced {
            self.rule("call", &format!("{} body", marker(calls)));
            return list("call", "call", more);
        }
        self.free_text(calls, "body", more)
    }

    /// Anything, in which `open` is followed by `body`.
    fn free_text(&mut self, open: Marker, body: &str, more: u32) -> String {
        self.rule("TEXT", TEXT);
        if open.special.is_some() {
            return format!("TEXT ({} {body} TEXT){{0,{}}}", marker(open), more + 1);
        }
        self.rule("head[lazy]", &format!("TEXT {}", quoted(open.text)));
        format!("(head {body}){{0,{}}} TEXT", more + 1)
    }

    /// One function's call.
    fn tool(&mut self, index: usize, tool: &Tool, markers: ToolMarkers) {
        let name = quoted(&tool.name);
        let arguments = format!("arguments_{index}");
        let call = if let ToolMarkers::Mistral { arguments: Some(separator), .. } = markers {
            format!("{name} {} {arguments}", marker(separator))
        } else {
            let key =
                if matches!(markers, ToolMarkers::Llama3Json { .. }) { "parameters" } else { "arguments" };
            let head = quoted(&format!("{{\"name\": {name}, \"{key}\": "));
            format!(r#"{head} {arguments} "}}""#)
        };
        self.rule(&format!("tool_{index}"), &call);
        self.rule(&arguments, &format!("%json {}", schema(tool)));
    }
}

fn list(first: &str, next: &str, more: u32) -> String {
    if more == 0 { first.to_owned() } else { format!("{first} ({next}){{0,{more}}}") }
}

fn marker(marker: Marker) -> String {
    match marker.special {
        Some(token) => format!("<[{token}]>"),
        None => quoted(marker.text),
    }
}

/// A string of Lark is one of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The schema of a function's arguments, which are an object, written as models are shown JSON: with one blank behind
/// commas and colons. (Free white space would let a weak model write it for ever.)
fn schema(tool: &Tool) -> Value {
    let given = match &tool.parameters {
        Some(Value::Object(given)) => given.clone(),
        Some(_) => Map::new(),
        None => Map::from_iter([
            ("properties".to_owned(), json!({})),
            ("additionalProperties".to_owned(), false.into()),
        ]),
    };
    let mut schema = given;
    schema.entry("type").or_insert_with(|| "object".into());
    let style = json!({
        "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "lenient": !tool.strict,
    });
    schema.insert("x-guidance".to_owned(), style);
    Value::Object(schema)
}
