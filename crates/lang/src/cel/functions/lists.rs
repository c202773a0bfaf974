//! Lists, maps and sets: members, items, and what Tekton's triggers have beyond the language.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::budget::Budget;
use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::{Key, Value};
use super::{Row, int_of, list_of};

pub(crate) const STANDARD: &[Row] = &[
    ("size(list(A)) -> int", size),
    ("list(A).size() -> int", size),
    ("size(map(A,B)) -> int", size),
    ("map(A,B).size() -> int", size),
    ("@in(A,list(A)) -> bool", within),
    ("@in(A,map(A,B)) -> bool", within),
    ("_[_](list(A),int) -> A", item),
    ("_[_](map(A,B),A) -> B", item),
    ("~_[_](list(A),double) -> A", item),
    ("~_[_](list(A),uint) -> A", item),
];

pub(crate) const EXTENSIONS: &[Row] = &[
    ("sets.contains(list(A),list(A)) -> bool", |m, a| all_in(m, list_of(a, 1)?, list_of(a, 0)?).map(Value::Bool)),
    ("sets.equivalent(list(A),list(A)) -> bool", |m, a| {
        let (one, other) = (list_of(a, 0)?, list_of(a, 1)?);
        Ok(Value::Bool(all_in(m, one, other)? && all_in(m, other, one)?))
    }),
    ("sets.intersects(list(A),list(A)) -> bool", |m, a| {
        let (one, other) = (list_of(a, 0)?, list_of(a, 1)?);
        for item in one.iter() {
            if is_in(m, item, other)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    ("list(A).slice(int,int) -> list(A)", slice),
    ("list(A).flatten() -> list(dyn)", flatten),
    ("list(A).flatten(int) -> list(dyn)", flatten),
    ("list(A).reverse() -> list(A)", |m, a| {
        m.budget.items(list_of(a, 0)?.len())?;
        Ok(Value::list(list_of(a, 0)?.iter().rev().cloned().collect()))
    }),
    ("list(A).distinct() -> list(A)", distinct),
    ("list(A).sort() -> list(A)", |m, a| {
        sort_by(list_of(a, 0)?.iter().map(|item| (item.clone(), item.clone())).collect(), &mut m.budget)
    }),
    ("lists.range(int) -> list(int)", |m, a| {
        let count = int_of(a, 0)?;
        let size = usize::try_from(count).map_err(|_| Problem::value("a range cannot have a negative size"))?;
        m.budget.items(size)?;
        Ok(Value::list((0..count).map(Value::Int).collect()))
    }),
];

fn size(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    match &args[0] {
        Value::List(items) => Ok(Value::Int(items.len() as i64)),
        Value::Map(entries) => Ok(Value::Int(entries.len() as i64)),
        other => Err(Problem::overload(format!("`size` of ({})", other.kind_name()))),
    }
}

fn is_in(machine: &mut Machine<'_>, item: &Value, list: &[Value]) -> Result<bool, Problem> {
    for other in list {
        if item.equals(other, &mut machine.budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn all_in(machine: &mut Machine<'_>, items: &[Value], list: &[Value]) -> Result<bool, Problem> {
    for item in items {
        if !is_in(machine, item, list)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn within(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    match &args[1] {
        Value::List(items) => is_in(machine, &args[0], items).map(Value::Bool),
        Value::Map(entries) => Ok(Value::Bool(args[0].as_key().is_some_and(|key| entries.contains_key(&key)))),
        other => Err(Problem::overload(format!("`in` of ({})", other.kind_name()))),
    }
}

fn item(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    match &args[0] {
        Value::Map(entries) => {
            let shown = || match &args[1] {
                Value::String(text) => text.to_string(),
                other => super::convert::to_text(other).unwrap_or_else(|| other.kind_name().into()),
            };
            let key = args[1].as_key().ok_or_else(|| Problem::key(shown()))?;
            entries.get(&key).cloned().ok_or_else(|| Problem::key(shown()))
        }
        Value::List(items) => {
            let index = match args[1].as_key() {
                Some(Key::Int(index)) => usize::try_from(index).ok(),
                Some(Key::Uint(index)) => usize::try_from(index).ok(),
                _ => return Err(Problem::overload(format!("`[]` of (list, {})", args[1].kind_name()))),
            };
            index.and_then(|index| items.get(index)).cloned().ok_or_else(|| {
                let shown = super::convert::to_text(&args[1]).unwrap_or_default();
                Problem::value(format!("index out of bounds: {shown}; the list has {} items", items.len()))
            })
        }
        other => Err(Problem::overload(format!("`[]` of ({})", other.kind_name()))),
    }
}

fn slice(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (items, from, to) = (list_of(args, 0)?, int_of(args, 1)?, int_of(args, 2)?);
    let wrong = || {
        let count = items.len();
        Problem::value(format!("slice({from}, {to}) is not within the list, which has {count} items"))
    };
    let range = usize::try_from(from).map_err(|_| wrong())?..usize::try_from(to).map_err(|_| wrong())?;
    let part = items.get(range).ok_or_else(wrong)?;
    machine.budget.items(part.len())?;
    Ok(Value::list(part.to_vec()))
}

fn flatten(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let depth = if args.len() > 1 { int_of(args, 1)? } else { 1 };
    if depth < 0 {
        return Err(Problem::value("the depth of `flatten` cannot be negative"));
    }
    let mut flat = Vec::new();
    flatten_into(machine, list_of(args, 0)?, depth, &mut flat)?;
    Ok(Value::list(flat))
}

fn flatten_into(machine: &mut Machine<'_>, items: &[Value], depth: i64, flat: &mut Vec<Value>) -> Result<(), Problem> {
    for item in items {
        machine.budget.step()?;
        match item {
            Value::List(inner) if depth > 0 => flatten_into(machine, inner, depth - 1, flat)?,
            other => flat.push(other.clone()),
        }
    }
    Ok(())
}

fn distinct(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let mut kept: Vec<Value> = Vec::new();
    for item in list_of(args, 0)?.iter() {
        if !is_in(machine, item, &kept)? {
            kept.push(item.clone());
        }
    }
    Ok(Value::list(kept))
}

/// The first of each pair, in the order of the second; all of those must be of one type that has an order.
pub(crate) fn sort_by(mut pairs: Vec<(Value, Value)>, budget: &mut Budget) -> Result<Value, Problem> {
    let mut problem = None;
    if let Some((_, first)) = pairs.first() {
        let kind = first.kind_name();
        let sortable = !matches!(first, Value::Null | Value::List(_) | Value::Map(_) | Value::Type(_));
        if !sortable || pairs.iter().any(|(_, by)| by.kind_name() != kind) {
            return Err(Problem::value("a list is sorted by values of one type that has an order"));
        }
    }
    // NaN is refused before, since a sort needs an order of all.
    if pairs.iter().any(|(_, by)| matches!(by, Value::Double(number) if number.is_nan())) {
        return Err(Problem::value("what is not a number (NaN) has no order"));
    }
    pairs.sort_by(|(_, a), (_, b)| {
        if problem.is_some() {
            return Ordering::Equal;
        }
        match budget.step().and_then(|()| a.order(b, budget)) {
            Ok(order) => order,
            Err(found) => {
                problem = Some(found);
                Ordering::Equal
            }
        }
    });
    match problem {
        Some(problem) => Err(problem),
        None => Ok(Value::List(Arc::new(pairs.into_iter().map(|(item, _)| item).collect()))),
    }
}
