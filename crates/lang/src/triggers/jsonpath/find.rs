//! What a path finds in an event.

use std::cmp::Ordering;

use serde_json::Value;

use super::parse::{Comparison, Operand, Path, Step};

/// What a path may begin with.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Root<'v> {
    pub body: &'v Value,
    pub header: &'v Value,
    pub extensions: &'v Value,
    pub context: &'v Value,
}

/// A path that comes by more values than this is refused: `..` over a large body may find each of them many times.
const MOST: usize = 200_000;

pub(in super::super) fn find<'v>(root: &Root<'v>, path: &Path) -> Result<Vec<&'v Value>, String> {
    let Some((Step::Field(name), rest)) = path.0.split_first() else { return Err("the path is empty".into()) };
    let start = match name.as_str() {
        "body" => root.body,
        "header" => root.header,
        "extensions" => root.extensions,
        _ => root.context,
    };
    let mut left = MOST;
    walk(vec![start], rest, &mut left)
}

fn walk<'v>(mut values: Vec<&'v Value>, steps: &[Step], left: &mut usize) -> Result<Vec<&'v Value>, String> {
    for step in steps {
        values = one(&values, step, left)?;
    }
    Ok(values)
}

fn spend(left: &mut usize, values: usize) -> Result<(), String> {
    *left = left.checked_sub(values).ok_or("the path comes by too many values")?;
    Ok(())
}

fn one<'v>(values: &[&'v Value], step: &Step, left: &mut usize) -> Result<Vec<&'v Value>, String> {
    spend(left, values.len())?;
    let mut found = Vec::new();
    match step {
        Step::Field(name) => {
            found.extend(values.iter().filter_map(|value| value.as_object()?.get(name)));
            if found.is_empty() {
                return Err(format!("`{name}` is not found"));
            }
        }
        Step::All => {
            for value in values {
                found.extend(children(value));
            }
            spend(left, found.len())?;
        }
        Step::Descend => {
            for value in values {
                descend(value, &mut found, left)?;
            }
        }
        Step::Index(index) => {
            for value in values {
                let items = list(value)?;
                let at = if *index < 0 { index + items.len() as i64 } else { *index };
                let item = usize::try_from(at).ok().and_then(|at| items.get(at));
                found
                    .push(item.ok_or_else(|| format!("`[{index}]` is not there: the list has {} items", items.len()))?);
            }
        }
        Step::Slice { from, to, step } => {
            for value in values {
                found.extend(slice(list(value)?, *from, *to, *step)?);
            }
        }
        Step::Union(steps) => {
            for value in values {
                for step in steps {
                    found.extend(one(&[value], step, left)?);
                }
            }
        }
        Step::Filter(operand, comparison) => {
            for value in values {
                for item in list(value)? {
                    if holds(item, operand, comparison.as_ref(), left)? {
                        found.push(item);
                    }
                }
            }
        }
    }
    Ok(found)
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| "what stands before the brackets is no list".into())
}

/// In the order of a list; values of an object in the order of their names.
fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            entries.into_iter().map(|(_, value)| value).collect()
        }
        _ => Vec::new(),
    }
}

fn descend<'v>(value: &'v Value, found: &mut Vec<&'v Value>, left: &mut usize) -> Result<(), String> {
    spend(left, 1)?;
    found.push(value);
    children(value).into_iter().try_for_each(|child| descend(child, found, left))
}

fn slice(items: &[Value], from: Option<i64>, to: Option<i64>, step: Option<i64>) -> Result<Vec<&Value>, String> {
    let length = items.len() as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
    let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(length)));
    let step = usize::try_from(step.unwrap_or(1)).ok().filter(|step| *step > 0);
    let step = step.ok_or("the step of a range must be at least 1")?;
    if from == to {
        return Ok(Vec::new());
    }
    if from > to {
        return Err("the range begins behind its end".into());
    }
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok()).and_then(|(from, to)| items.get(from..to));
    let range = range.ok_or_else(|| format!("the range is not there: the list has {length} items"))?;
    Ok(range.iter().step_by(step).collect())
}

fn holds(
    item: &Value,
    operand: &Operand,
    comparison: Option<&(Comparison, Operand)>,
    left: &mut usize,
) -> Result<bool, String> {
    let Some((comparison, other)) = comparison else {
        return match operand {
            Operand::Path(steps) => Ok(walk(vec![item], steps, left).is_ok_and(|found| !found.is_empty())),
            Operand::Constant(_) => Ok(true),
        };
    };
    // An item without the field does not fit; that others have it is what filters are for.
    let (Some(one), Some(other)) = (value_of(item, operand, left), value_of(item, other, left)) else {
        return Ok(false);
    };
    let order = match (&one, &other) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    };
    let ordered = matches!((&one, &other), (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)));
    Ok(match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::Unequal => order != Some(Ordering::Equal),
        Comparison::Less => ordered && order == Some(Ordering::Less),
        Comparison::AtMost => ordered && order.is_some_and(Ordering::is_le),
        Comparison::More => ordered && order == Some(Ordering::Greater),
        Comparison::AtLeast => ordered && order.is_some_and(Ordering::is_ge),
    })
}

fn value_of(item: &Value, operand: &Operand, left: &mut usize) -> Option<Value> {
    match operand {
        Operand::Constant(value) => Some(value.clone()),
        Operand::Path(steps) => walk(vec![item], steps, left).ok()?.first().map(|value| (*value).clone()),
    }
}
