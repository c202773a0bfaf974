//! The one Jinja environment: strict, without escaping, includes or macros, and with a budget.

use minijinja::machinery::Span;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, Output, State, UndefinedBehavior, Value};

use super::{filters, values};

/// Steps of the template engine for one text.
const FUEL: u64 = 1_000_000;
/// Bytes that one text may become.
pub const MAX_RENDERED: usize = 8 << 20;

/// Jinja's delimiters, except that a comment needs a space behind its `{#`: shells write `${#array}`.
pub fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .comment_delimiters("{# ", "#}")
        .keep_trailing_newline(true)
        .build()
        .expect("delimiters that differ")
}

pub fn new() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_syntax(syntax());
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_recursion_limit(64);
    env.set_fuel(Some(FUEL));
    env.set_formatter(print);
    filters::install(&mut env);
    env
}

/// Texts as they are, everything else as JSON: what a script can read again.
fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    use minijinja::value::ValueKind as Kind;
    match value.kind() {
        Kind::Seq | Kind::Map | Kind::Iterable | Kind::None => {
            let json = values::to_json(value).map_err(|why| Error::new(minijinja::ErrorKind::BadSerialization, why))?;
            out.write_str(&json.to_string()).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// A writer that ends a template whose output grows without end.
pub struct Limited<'o>(pub &'o mut Vec<u8>);

impl std::io::Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(std::io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn range(span: Span) -> std::ops::Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}
