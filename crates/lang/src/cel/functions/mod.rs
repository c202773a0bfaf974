//! The functions of the language, named by signatures.
//!
//! A signature is all that the check needs, and most of what the evaluation does: `string.split(string) -> list(string)`
//! is a function of a string, called after a dot. `~` in front: there at run time, when values are known, but refused
//! by the check, as comparing an `int` that is known to be one with a `double` is.

pub(crate) mod convert;
mod format;
pub(crate) mod lists;
mod math;
mod operators;
mod text;
mod time;
pub(crate) mod triggers;
mod url;

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Library;
use super::eval::Machine;
use super::fault::Problem;
use super::types::Type;
use super::value::Value;

pub(crate) type Run = fn(&mut Machine<'_>, &[Value]) -> Result<Value, Problem>;

/// A signature and what it does.
pub(crate) type Row = (&'static str, Run);

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub name: String,
    /// Called after a dot; the receiver is the first argument.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    pub run: Run,
    /// The check knows it too.
    pub checked: bool,
    signature: String,
}

#[derive(Debug)]
pub(crate) struct Table {
    by_name: HashMap<String, Vec<Overload>>,
}

impl Table {
    fn new(rows: impl IntoIterator<Item = (String, Run)>) -> Table {
        let mut by_name: HashMap<String, Vec<Overload>> = HashMap::new();
        for (signature, run) in rows {
            let Some(overload) = read(&signature, run) else {
                debug_assert!(false, "the signature `{signature}` cannot be read");
                continue;
            };
            by_name.entry(overload.name.clone()).or_default().push(overload);
        }
        Table { by_name }
    }

    pub fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub fn named(&'static self, name: &str, member: bool, args: usize) -> Vec<&'static Overload> {
        let all = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        all.iter().filter(|overload| overload.member == member && overload.args.len() == args).collect()
    }

    /// How a function may be called, for messages.
    pub fn signatures(&self, name: &str) -> Vec<String> {
        let all = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        all.iter().filter(|overload| overload.checked).map(|overload| format!("`{}`", overload.signature)).collect()
    }

    /// What people can have meant.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str).filter(|name| name.starts_with(char::is_alphabetic))
    }
}

pub(crate) fn table(library: Library) -> &'static Table {
    static STANDARD: OnceLock<Table> = OnceLock::new();
    static TRIGGERS: OnceLock<Table> = OnceLock::new();
    let standard = || {
        let fixed = [operators::ROWS, convert::ROWS, text::STANDARD, time::ROWS, lists::STANDARD];
        let fixed = fixed.into_iter().flatten().map(|(signature, run)| ((*signature).to_owned(), *run));
        operators::comparisons().chain(fixed).collect::<Vec<_>>()
    };
    match library {
        Library::Standard => STANDARD.get_or_init(|| Table::new(standard())),
        Library::Triggers => TRIGGERS.get_or_init(|| {
            let more = [text::EXTENSIONS, format::ROWS, lists::EXTENSIONS, math::ROWS, triggers::ROWS];
            let more = more.into_iter().flatten().map(|(signature, run)| ((*signature).to_owned(), *run));
            Table::new(standard().into_iter().chain(more))
        }),
    }
}

fn read(signature: &str, run: Run) -> Option<Overload> {
    let (checked, shown) = match signature.strip_prefix('~') {
        Some(rest) => (false, rest),
        None => (true, signature),
    };
    let (call, result) = shown.split_once(" -> ")?;
    let call = call.strip_suffix(')')?;
    let mut depth = 0;
    let open = call.char_indices().rev().find_map(|(at, c)| {
        match c {
            ')' => depth += 1,
            '(' if depth == 0 => return Some(at),
            '(' => depth -= 1,
            _ => {}
        }
        None
    })?;
    let (head, list) = (&call[..open], &call[open + 1..]);
    let receiver = head.rsplit_once('.').and_then(|(receiver, name)| Some((Type::read(receiver)?, name)));
    let member = receiver.is_some();
    let (mut args, name) = match receiver {
        Some((kind, name)) => (vec![kind], name),
        None => (Vec::new(), head),
    };
    for arg in split(list) {
        args.push(Type::read(arg)?);
    }
    let result = Type::read(result)?;
    Some(Overload { name: name.to_owned(), member, args, result, run, checked, signature: shown.to_owned() })
}

/// At commas that stand in no brackets.
fn split(list: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = list.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// Arguments that a signature has proved to be of their types; anything else is a fault, never a panic.
pub(crate) fn text_of(args: &[Value], n: usize) -> Result<&std::sync::Arc<str>, Problem> {
    match args.get(n) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Problem::overload("a string is expected")),
    }
}

pub(crate) fn int_of(args: &[Value], n: usize) -> Result<i64, Problem> {
    match args.get(n) {
        Some(Value::Int(number)) => Ok(*number),
        _ => Err(Problem::overload("an int is expected")),
    }
}

pub(crate) fn list_of(args: &[Value], n: usize) -> Result<&std::sync::Arc<Vec<Value>>, Problem> {
    match args.get(n) {
        Some(Value::List(items)) => Ok(items),
        _ => Err(Problem::overload("a list is expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature that cannot be read would leave its function out.
    #[test]
    fn every_signature_is_read() {
        let rows = [
            operators::ROWS,
            convert::ROWS,
            text::STANDARD,
            time::ROWS,
            lists::STANDARD,
            text::EXTENSIONS,
            format::ROWS,
            lists::EXTENSIONS,
            math::ROWS,
            triggers::ROWS,
        ];
        for (signature, run) in rows.into_iter().flatten() {
            assert!(read(signature, *run).is_some(), "{signature}");
        }
        for (signature, run) in operators::comparisons() {
            assert!(read(&signature, run).is_some(), "{signature}");
        }
        let split = table(Library::Triggers).named("split", true, 2);
        assert_eq!(split.len(), 1);
        assert_eq!(split[0].args, [Type::String, Type::String]);
        assert_eq!(split[0].result, Type::list(Type::String));
        assert!(table(Library::Standard).named("split", true, 2).is_empty());
    }
}
