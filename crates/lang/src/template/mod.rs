//! Templates: Jinja (minijinja) over the data of a run.
//!
//! A text without `{{`, `{%` or `{# ` is no template and is never touched. A text that is one expression in braces
//! keeps the type of its value; any other text is filled in. An undefined name is an error, found before the run
//! wherever that can be. A template has a budget of steps and of output, so it ends.

mod analysis;
mod context;
mod date;
mod environment;
mod evaluate;
mod filters;
mod names;
pub mod notice;
pub(crate) mod roots;
mod values;

pub(crate) use analysis::{Analysis, Reference, analyse};
pub use context::Rendering;
pub use evaluate::Evaluator;
pub(crate) use values::from_json;

use serde_json::Value;

/// The variables and connections of the server, looked up when a template asks for one.
pub trait Variables: Send + Sync {
    /// The value of a variable; `None` if there is none of that name.
    fn get(&self, name: &str) -> Option<Value>;

    /// The fields of a connection as an object, without those that are not set. What is secret stands there as a
    /// reference to it. `None` if there is none of that name; the error says why it cannot be read.
    fn connection(&self, id: &str) -> Option<Result<Value, String>> {
        let _ = id;
        None
    }
}

impl<F: Fn(&str) -> Option<Value> + Send + Sync> Variables for F {
    fn get(&self, name: &str) -> Option<Value> {
        self(name)
    }
}

/// Is there anything to render in the text?
pub fn is_template(text: &str) -> bool {
    // One pass over the text: most texts have no brace at all.
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        rest = &rest[at + 1..];
        if rest.starts_with(['{', '%']) || rest.starts_with("# ") {
            return true;
        }
    }
    false
}

/// The expression of a condition: what stands in its braces, or the text itself if it has none. `None` for a text
/// that mixes both.
pub(crate) fn as_expression(text: &str) -> Option<String> {
    if !is_template(text) {
        return Some(text.trim().to_owned());
    }
    analyse(text).ok()?.whole
}

/// What counts as false in a condition: `false`, 0, null, nothing inside, and the texts `""`, `"0"`, `"false"`,
/// `"null"` and `"none"` in any case.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => {
            let text = text.trim();
            !(text.is_empty()
                || text == "0"
                || ["false", "null", "none"].iter().any(|word| text.eq_ignore_ascii_case(word)))
        }
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Renders every template inside a value.
pub fn render_value(value: &Value, rendering: &Rendering<'_>) -> Result<Value, String> {
    rendering.value(value)
}

/// Renders a text.
pub fn render_text(text: &str, rendering: &Rendering<'_>) -> Result<String, String> {
    rendering.text(text)
}
