//! Names and types before anything is evaluated: an [`Expr`] becomes [`Code`].
//!
//! The check is gradual: what is `dyn` is asked again when its value is known. So a wrong name or `'a' == 1` is told
//! where it is written, and a field of an event's body is whatever it turns out to be.

use super::Environment;
use super::ast::{Expr, Kind};
use super::fault::{At, Fault, FaultKind};
use super::functions::{Overload, Table, table};
use super::types::{NAMED, Type};
use super::value::{Key, Value};
use crate::diagnostic::did_you_mean;

/// An expression whose names are resolved.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub at: At,
    pub op: Op,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Constant(Value),
    /// A variable of the environment.
    Global(usize),
    /// A variable of a macro, counted from the outermost.
    Local(usize),
    Select {
        of: Box<Code>,
        field: Key,
    },
    Has {
        of: Box<Code>,
        field: Key,
    },
    Call {
        overloads: Vec<&'static Overload>,
        args: Vec<Code>,
    },
    List(Vec<Code>),
    Map(Vec<(Code, Code)>),
    And(Vec<Code>),
    Or(Vec<Code>),
    If(Box<[Code; 3]>),
    Each {
        what: Each,
        over: Box<Code>,
        filter: Option<Box<Code>>,
        body: Box<Code>,
    },
}

/// The macros that walk over a list, or over the keys of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Each {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    SortBy,
}

pub(crate) fn check(expr: &Expr, environment: &Environment) -> Result<(Code, Type), Fault> {
    let mut checker = Checker { environment, table: table(environment.library), locals: Vec::new() };
    checker.expr(expr)
}

struct Checker<'e> {
    environment: &'e Environment,
    table: &'static Table,
    locals: Vec<(String, Type)>,
}

impl Checker<'_> {
    fn expr(&mut self, expr: &Expr) -> Result<(Code, Type), Fault> {
        let at = expr.at;
        let (op, kind) = match &expr.kind {
            Kind::Constant(value) => (Op::Constant(value.clone()), value.kind()),
            Kind::Name { name, rooted } => self.name(at, name, *rooted)?,
            Kind::Select { of, field } => self.select(expr, of, field)?,
            Kind::Call { of: None, name, args } if name == "has" => self.has(at, args)?,
            Kind::Call { of: None, name, args } => self.global(at, name, args)?,
            Kind::Call { of: Some(of), name, args } => self.member(at, of, name, args)?,
            Kind::List(items) => {
                let (items, of) = self.items(items)?;
                (Op::List(items), Type::list(of))
            }
            Kind::Map(entries) => self.map(entries)?,
            Kind::And(parts) => (Op::And(self.conditions("_&&_", parts)?), Type::Bool),
            Kind::Or(parts) => (Op::Or(self.conditions("_||_", parts)?), Type::Bool),
            Kind::If(parts) => self.choice(at, parts)?,
        };
        Ok((Code { at, op }, kind))
    }

    /// Items of one list, and what holds all of them.
    fn items(&mut self, items: &[Expr]) -> Result<(Vec<Code>, Type), Fault> {
        let mut codes = Vec::with_capacity(items.len());
        let mut of: Option<Type> = None;
        for item in items {
            let (code, kind) = self.expr(item)?;
            of = Some(of.map_or_else(|| kind.clone(), |of| of.join(&kind)));
            codes.push(code);
        }
        Ok((codes, of.unwrap_or(Type::Dyn)))
    }

    fn map(&mut self, entries: &[(Expr, Expr)]) -> Result<(Op, Type), Fault> {
        let mut codes = Vec::with_capacity(entries.len());
        let (mut keys, mut values): (Option<Type>, Option<Type>) = (None, None);
        for (key, value) in entries {
            let (key_code, key_kind) = self.expr(key)?;
            if !matches!(key_kind, Type::Dyn | Type::Bool | Type::Int | Type::Uint | Type::String) {
                let message = format!("{key_kind} cannot be a key; keys are string, int, uint or bool");
                return Err(Fault::new(FaultKind::Check, key.at, message));
            }
            let (value_code, value_kind) = self.expr(value)?;
            keys = Some(keys.map_or_else(|| key_kind.clone(), |of| of.join(&key_kind)));
            values = Some(values.map_or_else(|| value_kind.clone(), |of| of.join(&value_kind)));
            codes.push((key_code, value_code));
        }
        Ok((Op::Map(codes), Type::map(keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn))))
    }

    fn conditions(&mut self, operator: &str, parts: &[Expr]) -> Result<Vec<Code>, Fault> {
        let mut codes = Vec::with_capacity(parts.len());
        for part in parts {
            codes.push(self.condition(operator, part)?);
        }
        Ok(codes)
    }

    fn condition(&mut self, operator: &str, part: &Expr) -> Result<Code, Fault> {
        let (code, kind) = self.expr(part)?;
        if !kind.agrees(&Type::Bool) {
            let message = format!("`{operator}` takes conditions (bool), and this is {kind}");
            return Err(Fault::new(FaultKind::Check, part.at, message));
        }
        Ok(code)
    }

    fn choice(&mut self, at: At, parts: &[Expr; 3]) -> Result<(Op, Type), Fault> {
        let condition = self.condition("_?_:_", &parts[0])?;
        let (yes, yes_kind) = self.expr(&parts[1])?;
        let (no, no_kind) = self.expr(&parts[2])?;
        if !yes_kind.agrees(&no_kind) {
            let message = format!("both sides of `? :` must be of one type, found {yes_kind} and {no_kind}");
            return Err(Fault::new(FaultKind::Check, at, message));
        }
        Ok((Op::If(Box::new([condition, yes, no])), yes_kind.join(&no_kind)))
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.locals.iter().rposition(|(local, _)| local == name)
    }

    fn is_variable(&self, name: &str) -> bool {
        self.local(name).is_some() || self.environment.variables.iter().any(|(known, _)| *known == name)
    }

    fn name(&self, at: At, name: &str, rooted: bool) -> Result<(Op, Type), Fault> {
        if let Some(local) = self.local(name).filter(|_| !rooted) {
            return Ok((Op::Local(local), self.locals[local].1.clone()));
        }
        if let Some(global) = self.environment.variables.iter().position(|(known, _)| *known == name) {
            return Ok((Op::Global(global), self.environment.variables[global].1.clone()));
        }
        if let Some(kind) = type_named(name) {
            return Ok((Op::Constant(Value::Type(kind)), Type::Type));
        }
        Err(self.undeclared(at, name))
    }

    fn undeclared(&self, at: At, name: &str) -> Fault {
        let known = self.environment.variables.iter().map(|(known, _)| *known);
        let names = known.chain(self.locals.iter().map(|(local, _)| local.as_str()));
        let hint = did_you_mean(name, names).unwrap_or_else(|| {
            if self.environment.variables.is_empty() {
                format!("there are no variables here; a text stands in quotes: '{name}'")
            } else {
                format!("a text stands in quotes: '{name}'")
            }
        });
        Fault::new(FaultKind::Check, at, format!("undeclared reference to `{name}`; {hint}"))
    }

    /// `a.b.c` if the expression is only names.
    fn dotted(expr: &Expr) -> Option<String> {
        match &expr.kind {
            Kind::Name { name, .. } => Some(name.clone()),
            Kind::Select { of, field } => Some(format!("{}.{field}", Checker::dotted(of)?)),
            _ => None,
        }
    }

    fn select(&mut self, whole: &Expr, of: &Expr, field: &str) -> Result<(Op, Type), Fault> {
        if let Some(kind) =
            Checker::dotted(whole).filter(|name| name.starts_with("google.")).and_then(|n| type_named(&n))
        {
            return Ok((Op::Constant(Value::Type(kind)), Type::Type));
        }
        let (code, kind) = self.expr(of)?;
        let value = self.field_of(whole.at, &kind, field)?;
        Ok((Op::Select { of: Box::new(code), field: Key::from(field) }, value))
    }

    /// The type of a field, if the type can have one.
    fn field_of(&self, at: At, kind: &Type, field: &str) -> Result<Type, Fault> {
        match kind {
            Type::Dyn => Ok(Type::Dyn),
            Type::Map(key, value) if key.agrees(&Type::String) => Ok((**value).clone()),
            _ => Err(Fault::new(FaultKind::Check, at, format!("{kind} has no fields, so no `{field}`"))),
        }
    }

    fn has(&mut self, at: At, args: &[Expr]) -> Result<(Op, Type), Fault> {
        let [Expr { kind: Kind::Select { of, field }, at: field_at, .. }] = args else {
            return Err(Fault::new(FaultKind::Check, at, "`has` takes one field: `has(a.b)`"));
        };
        let (code, kind) = self.expr(of)?;
        self.field_of(*field_at, &kind, field)?;
        Ok((Op::Has { of: Box::new(code), field: Key::from(field.as_str()) }, Type::Bool))
    }

    fn member(&mut self, at: At, of: &Expr, name: &str, args: &[Expr]) -> Result<(Op, Type), Fault> {
        // `math.abs(x)` is a function with a long name, unless something here is called `math`.
        if let Some(space) = Checker::dotted(of)
            && !self.is_variable(space.split('.').next().unwrap_or(""))
        {
            let full = format!("{space}.{name}");
            if self.table.knows(&full) {
                return self.global(at, &full, args);
            }
        }
        let sorts = self.environment.library == super::Library::Triggers;
        let what = match (name, args.len()) {
            ("all", 2) => Some(Each::All),
            ("exists", 2) => Some(Each::Exists),
            ("exists_one" | "existsOne", 2) => Some(Each::ExistsOne),
            ("map", 2 | 3) => Some(Each::Map),
            ("filter", 2) => Some(Each::Filter),
            ("sortBy", 2) if sorts => Some(Each::SortBy),
            _ => None,
        };
        if let Some(what) = what {
            return self.each(what, of, args);
        }
        let (receiver, kind) = self.expr(of)?;
        let mut codes = vec![receiver];
        let mut kinds = vec![kind];
        for arg in args {
            let (code, kind) = self.expr(arg)?;
            codes.push(code);
            kinds.push(kind);
        }
        self.call(at, name, true, codes, &kinds)
    }

    fn global(&mut self, at: At, name: &str, args: &[Expr]) -> Result<(Op, Type), Fault> {
        let mut codes = Vec::with_capacity(args.len());
        let mut kinds = Vec::with_capacity(args.len());
        for arg in args {
            let (code, kind) = self.expr(arg)?;
            codes.push(code);
            kinds.push(kind);
        }
        // These two take any number of arguments; their function takes them as a list.
        if matches!(name, "math.greatest" | "math.least") && (codes.len() > 1 || !matches!(kinds[..], [Type::List(_)]))
        {
            if let Some(odd) =
                kinds.iter().position(|kind| !matches!(kind, Type::Dyn | Type::Int | Type::Uint | Type::Double))
            {
                let message = format!("`{name}` takes numbers, and this is {}", kinds[odd]);
                return Err(Fault::new(FaultKind::Check, codes[odd].at, message));
            }
            let list = Code { at, op: Op::List(codes) };
            return self.call(at, name, false, vec![list], &[Type::list(Type::Dyn)]);
        }
        self.call(at, name, false, codes, &kinds)
    }

    fn call(&self, at: At, name: &str, member: bool, args: Vec<Code>, kinds: &[Type]) -> Result<(Op, Type), Fault> {
        let candidates = self.table.named(name, member, args.len());
        let mut result: Option<Type> = None;
        for overload in candidates.iter().filter(|overload| overload.checked) {
            let mut known = [None, None];
            if overload.args.iter().zip(kinds).all(|(takes, kind)| takes.unify(kind, &mut known)) {
                let kind = overload.result.filled(&known);
                result = Some(result.map_or_else(|| kind.clone(), |before| before.join(&kind)));
            }
        }
        match result {
            Some(kind) => Ok((Op::Call { overloads: candidates, args }, kind)),
            None => Err(self.no_overload(at, name, member, kinds)),
        }
    }

    fn no_overload(&self, at: At, name: &str, member: bool, kinds: &[Type]) -> Fault {
        let known = self.table.signatures(name);
        if known.is_empty() {
            let names = self.table.names();
            let hint = did_you_mean(name, names).map_or_else(String::new, |hint| format!("; {hint}"));
            return Fault::new(FaultKind::Check, at, format!("undeclared reference to the function `{name}`{hint}"));
        }
        let listed: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        let applied = match (member, listed.split_first()) {
            (true, Some((receiver, rest))) => format!("{receiver}.({})", rest.join(", ")),
            _ => format!("({})", listed.join(", ")),
        };
        let shown = if known.len() <= 6 { format!("; there is {}", known.join(", ")) } else { String::new() };
        let message = format!("found no matching overload for `{name}` applied to `{applied}`{shown}");
        Fault::new(FaultKind::Check, at, message)
    }

    fn each(&mut self, what: Each, over: &Expr, args: &[Expr]) -> Result<(Op, Type), Fault> {
        let Kind::Name { name, rooted: false } = &args[0].kind else {
            let message = "the first argument must be a new name, which stands for each item in turn";
            return Err(Fault::new(FaultKind::Check, args[0].at, message));
        };
        let (over_code, over_kind) = self.expr(over)?;
        let item = match &over_kind {
            Type::Dyn => Type::Dyn,
            Type::List(of) => (**of).clone(),
            Type::Map(key, _) => (**key).clone(),
            other => {
                let message = format!("this walks over a list or the keys of a map, and it is {other}");
                return Err(Fault::new(FaultKind::Check, over.at, message));
            }
        };
        self.locals.push((name.clone(), item.clone()));
        let inner = self.each_inner(what, args);
        self.locals.pop();
        let (filter, body, body_kind) = inner?;
        if !matches!(what, Each::Map | Each::SortBy) && !body_kind.agrees(&Type::Bool) {
            let message = format!("a condition (bool) belongs here, and this is {body_kind}");
            return Err(Fault::new(FaultKind::Check, body.at, message));
        }
        let kind = match what {
            Each::All | Each::Exists | Each::ExistsOne => Type::Bool,
            Each::Map => Type::list(body_kind),
            Each::Filter | Each::SortBy => Type::list(item),
        };
        let filter = filter.map(Box::new);
        Ok((Op::Each { what, over: Box::new(over_code), filter, body: Box::new(body) }, kind))
    }

    /// The condition of a `map` with three arguments, and the last argument with its type.
    fn each_inner(&mut self, what: Each, args: &[Expr]) -> Result<(Option<Code>, Code, Type), Fault> {
        let filter = match (what, args) {
            (Each::Map, [_, filter, _]) => Some(self.condition("map", filter)?),
            _ => None,
        };
        let (body, kind) = self.expr(&args[args.len() - 1])?;
        Ok((filter, body, kind))
    }
}

fn type_named(name: &str) -> Option<Type> {
    match name {
        "list" => Some(Type::list(Type::Dyn)),
        "map" => Some(Type::map(Type::Dyn, Type::Dyn)),
        _ => NAMED.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind.clone()),
    }
}
