//! The Common Expression Language, as Tekton uses it: for `when` of pipelines, and for triggers.
//!
//! Text is lexed, parsed, and checked ([`Program::compile`]): names, and types as far as they are known. What remains
//! is evaluated ([`Program::run`]) under a budget, so every expression ends, whatever stands in it and whatever it is
//! given; nothing here does IO or reads a clock. Functions are named by signatures (`functions`), of which the check and
//! the evaluation read the same table. Values of JSON are doubles where they are numbers, as in Tekton:
//! `body.count == 2` holds, `body.count + 1` has no overload.

mod ast;
mod budget;
mod check;
mod eval;
pub mod fault;
mod functions;
mod lex;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;
pub mod types;
pub mod value;

pub use fault::{At, Fault, FaultKind};
pub use types::Type;
pub use value::{Key, Value};

/// Which functions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// Those of the language alone: what `when` has.
    Standard,
    /// With the extensions for strings, lists, sets, numbers and base64, and the functions of Tekton's triggers.
    Triggers,
}

/// What an expression is compiled for.
#[derive(Debug, Clone)]
pub struct Environment {
    pub library: Library,
    pub variables: Vec<(&'static str, Type)>,
}

impl Environment {
    /// No variables, and nothing beyond the language.
    pub fn standard() -> Environment {
        Environment { library: Library::Standard, variables: Vec::new() }
    }

    /// `body`, `header`, `extensions` and `requestURL` of an event, in this order.
    pub fn triggers() -> Environment {
        let map = || Type::map(Type::String, Type::Dyn);
        let variables = vec![("body", map()), ("header", map()), ("extensions", map()), ("requestURL", Type::String)];
        Environment { library: Library::Triggers, variables }
    }
}

/// Secrets that were fetched before an expression is evaluated.
pub trait Secrets {
    /// What a key of a secret of the trigger's namespace holds.
    fn get(&self, name: &str, key: &str) -> Option<&[u8]>;
}

/// There are none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn get(&self, _name: &str, _key: &str) -> Option<&[u8]> {
        None
    }
}

/// An expression that is right, as far as that can be known before it has values.
#[derive(Debug, Clone)]
pub struct Program {
    code: check::Code,
    kind: Type,
}

impl Program {
    pub fn compile(text: &str, environment: &Environment) -> Result<Program, Fault> {
        let expr = parse::parse(text)?;
        let (code, kind) = check::check(&expr, environment)?;
        Ok(Program { code, kind })
    }

    /// The type of its value, as far as it is known.
    pub fn kind(&self) -> &Type {
        &self.kind
    }

    /// The value; `variables` are those of the environment, in its order.
    pub fn run(&self, variables: &[Value], secrets: &dyn Secrets) -> Result<Value, Fault> {
        eval::Machine::new(variables, secrets).eval(&self.code)
    }

    /// The value as JSON.
    pub fn run_to_json(&self, variables: &[Value], secrets: &dyn Secrets) -> Result<serde_json::Value, Fault> {
        let mut machine = eval::Machine::new(variables, secrets);
        let value = machine.eval(&self.code)?;
        value.to_json(&mut machine.budget).map_err(|problem| problem.at(self.code.at))
    }

    /// The secrets that `compareSecret` names in plain text, as (name, key): those that must be fetched before.
    pub fn secrets(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        functions::triggers::secrets(&self.code, &mut found);
        found
    }
}

/// Whether a text is an expression that `when` may hold. Variables of Tekton may still stand in it, in quotes.
pub fn check_when(text: &str) -> Result<(), Fault> {
    condition(text).map(drop)
}

/// What a `when` comes to, once the variables of Tekton were replaced in it.
pub fn when(text: &str) -> Result<bool, Fault> {
    match condition(text)?.run(&[], &NoSecrets)? {
        Value::Bool(value) => Ok(value),
        other => Err(no_condition(other.kind_name())),
    }
}

fn condition(text: &str) -> Result<Program, Fault> {
    let program = Program::compile(text, &Environment::standard())?;
    if !program.kind.agrees(&Type::Bool) {
        return Err(no_condition(program.kind.name()));
    }
    Ok(program)
}

fn no_condition(kind: &str) -> Fault {
    let message = format!("a condition must come to true or false (bool), and this comes to {kind}");
    Fault::new(FaultKind::Check, At { line: 1, column: 1 }, message)
}
