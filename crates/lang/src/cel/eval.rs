//! Code to a value.
//!
//! `&&` and `||` absorb faults: a side that decides wins over one that has none, wherever it stands. So do `all` and
//! `exists`. Only a spent budget is never absorbed. The stack is as deep as the expression is high, which is bounded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use regex::Regex;

use super::Secrets;
use super::budget::Budget;
use super::check::{Code, Each, Op};
use super::fault::{At, Fault, FaultKind, Problem};
use super::functions::Overload;
use super::value::{Key, Value};

/// One evaluation.
pub(crate) struct Machine<'v> {
    pub globals: &'v [Value],
    pub secrets: &'v dyn Secrets,
    pub budget: Budget,
    locals: Vec<Value>,
    regexes: HashMap<Arc<str>, Regex>,
}

impl<'v> Machine<'v> {
    pub fn new(globals: &'v [Value], secrets: &'v dyn Secrets) -> Machine<'v> {
        Machine { globals, secrets, budget: Budget::default(), locals: Vec::new(), regexes: HashMap::new() }
    }

    /// The pattern, made once in an evaluation however often it is used.
    pub fn regex(&mut self, pattern: &Arc<str>) -> Result<Regex, Problem> {
        if let Some(regex) = self.regexes.get(pattern) {
            return Ok(regex.clone());
        }
        self.budget.items(1_000 + pattern.len())?;
        let regex = super::pattern::compile(pattern).map_err(Problem::value)?;
        self.regexes.insert(Arc::clone(pattern), regex.clone());
        Ok(regex)
    }

    pub fn eval(&mut self, code: &Code) -> Result<Value, Fault> {
        self.budget.step().map_err(|problem| problem.at(code.at))?;
        match &code.op {
            Op::Constant(value) => Ok(value.clone()),
            Op::Global(n) => Ok(self.globals[*n].clone()),
            Op::Local(n) => Ok(self.locals[*n].clone()),
            Op::Select { of, field } => self.select(code.at, of, field),
            Op::Has { of, field } => self.has(code.at, of, field),
            Op::Call { overloads, args } => self.call(code.at, overloads, args),
            Op::List(items) => {
                let items = items.iter().map(|item| self.eval(item)).collect::<Result<_, _>>()?;
                Ok(Value::list(items))
            }
            Op::Map(entries) => self.map(entries),
            Op::And(parts) => self.decide(parts, false),
            Op::Or(parts) => self.decide(parts, true),
            Op::If(parts) => {
                let condition = self.eval(&parts[0])?;
                let yes = truth(&condition).map_err(|problem| problem.at(parts[0].at))?;
                self.eval(&parts[if yes { 1 } else { 2 }])
            }
            Op::Each { what, over, filter, body } => self.each(*what, over, filter.as_deref(), body),
        }
    }

    fn select(&mut self, at: At, of: &Code, field: &Key) -> Result<Value, Fault> {
        let Value::Map(map) = self.eval(of)? else { return Err(no_fields(at)) };
        let Key::String(name) = field else { return Err(no_fields(at)) };
        map.get(field).cloned().ok_or_else(|| Problem::key(name).at(at))
    }

    fn has(&mut self, at: At, of: &Code, field: &Key) -> Result<Value, Fault> {
        match self.eval(of)? {
            Value::Map(map) => Ok(Value::Bool(map.contains_key(field))),
            _ => Err(no_fields(at)),
        }
    }

    fn call(&mut self, at: At, overloads: &[&'static Overload], args: &[Code]) -> Result<Value, Fault> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.eval(arg)?);
        }
        let fits = |overload: &&&'static Overload| overload.args.iter().zip(&values).all(|(takes, v)| takes.takes(v));
        let Some(overload) = overloads.iter().find(fits) else {
            let kinds: Vec<&str> = values.iter().map(Value::kind_name).collect();
            let name = overloads.first().map_or("", |overload| overload.name.as_str());
            return Err(Problem::overload(format!("`{name}` of ({})", kinds.join(", "))).at(at));
        };
        (overload.run)(self, &values).map_err(|problem| problem.at(at))
    }

    fn map(&mut self, entries: &[(Code, Code)]) -> Result<Value, Fault> {
        let mut map = BTreeMap::new();
        for (key_code, value_code) in entries {
            let key = match self.eval(key_code)? {
                Value::Double(_) => None,
                other => other.as_key(),
            };
            let wrong = |message: &str| Fault::new(FaultKind::Value, key_code.at, message);
            let key = key.ok_or_else(|| wrong("keys are string, int, uint or bool"))?;
            if map.insert(key, self.eval(value_code)?).is_some() {
                return Err(wrong("the key is there twice"));
            }
        }
        Ok(Value::Map(Arc::new(map)))
    }

    /// `||` if `winner`, else `&&`.
    fn decide(&mut self, parts: &[Code], winner: bool) -> Result<Value, Fault> {
        let mut fault = None;
        for part in parts {
            match self.eval(part).and_then(|value| truth(&value).map_err(|problem| problem.at(part.at))) {
                Ok(value) if value == winner => return Ok(Value::Bool(winner)),
                Ok(_) => {}
                Err(spent) if spent.kind == FaultKind::Budget => return Err(spent),
                Err(other) => fault = fault.or(Some(other)),
            }
        }
        fault.map_or(Ok(Value::Bool(!winner)), Err)
    }

    fn each(&mut self, what: Each, over: &Code, filter: Option<&Code>, body: &Code) -> Result<Value, Fault> {
        let items: Vec<Value> = match self.eval(over)? {
            Value::List(items) => items.to_vec(),
            Value::Map(map) => map.keys().map(Key::value).collect(),
            other => {
                let message = format!("{} has no items to walk over", other.kind_name());
                return Err(Problem::overload(message).at(over.at));
            }
        };
        self.budget.items(items.len()).map_err(|problem| problem.at(over.at))?;
        let mut fault = None;
        let mut count = 0_usize;
        let mut made: Vec<(Value, Value)> = Vec::new();
        for item in items {
            self.locals.push(item.clone());
            let found = self.item(what, filter, body);
            self.locals.pop();
            let value = match found {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(other) if matches!(what, Each::All | Each::Exists) && other.kind != FaultKind::Budget => {
                    fault = fault.or(Some(other));
                    continue;
                }
                Err(other) => return Err(other),
            };
            let holds = matches!(value, Value::Bool(true));
            match what {
                Each::All if !holds => return Ok(Value::Bool(false)),
                Each::Exists if holds => return Ok(Value::Bool(true)),
                Each::All | Each::Exists => {}
                Each::ExistsOne => count += usize::from(holds),
                Each::Filter if !holds => {}
                Each::Filter | Each::Map | Each::SortBy => made.push((item, value)),
            }
        }
        match (what, fault) {
            (Each::All | Each::Exists, Some(fault)) => Err(fault),
            (Each::All, None) => Ok(Value::Bool(true)),
            (Each::Exists, None) => Ok(Value::Bool(false)),
            (Each::ExistsOne, _) => Ok(Value::Bool(count == 1)),
            (Each::Map, _) => Ok(Value::list(made.into_iter().map(|(_, value)| value).collect())),
            (Each::Filter, _) => Ok(Value::list(made.into_iter().map(|(item, _)| item).collect())),
            (Each::SortBy, _) => {
                super::functions::lists::sort_by(made, &mut self.budget).map_err(|problem| problem.at(body.at))
            }
        }
    }

    /// What the body comes to for the item that is the innermost variable; `None` if the filter leaves it out.
    fn item(&mut self, what: Each, filter: Option<&Code>, body: &Code) -> Result<Option<Value>, Fault> {
        if let Some(filter) = filter {
            let value = self.eval(filter)?;
            if !truth(&value).map_err(|problem| problem.at(filter.at))? {
                return Ok(None);
            }
        }
        let value = self.eval(body)?;
        if !matches!(what, Each::Map | Each::SortBy) {
            truth(&value).map_err(|problem| problem.at(body.at))?;
        }
        Ok(Some(value))
    }
}

fn no_fields(at: At) -> Fault {
    Problem::overload("only maps have fields").at(at)
}

fn truth(value: &Value) -> Result<bool, Problem> {
    match value {
        Value::Bool(value) => Ok(*value),
        other => Err(Problem::overload(format!("a condition is bool, and this is {}", other.kind_name()))),
    }
}
