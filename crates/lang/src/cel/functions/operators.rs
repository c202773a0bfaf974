//! Arithmetic, equality, order. Whole numbers that overflow are faults, as is dividing them by zero.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::Value;
use super::{Row, Run, convert};

pub(crate) const ROWS: &[Row] = &[
    ("_==_(A,A) -> bool", |m, a| Ok(Value::Bool(a[0].equals(&a[1], &mut m.budget)?))),
    ("_!=_(A,A) -> bool", |m, a| Ok(Value::Bool(!a[0].equals(&a[1], &mut m.budget)?))),
    ("_+_(int,int) -> int", add),
    ("_+_(uint,uint) -> uint", add),
    ("_+_(double,double) -> double", add),
    ("_+_(string,string) -> string", add),
    ("_+_(bytes,bytes) -> bytes", add),
    ("_+_(list(A),list(A)) -> list(A)", add),
    ("_+_(timestamp,duration) -> timestamp", add),
    ("_+_(duration,timestamp) -> timestamp", add),
    ("_+_(duration,duration) -> duration", add),
    ("_-_(int,int) -> int", subtract),
    ("_-_(uint,uint) -> uint", subtract),
    ("_-_(double,double) -> double", subtract),
    ("_-_(timestamp,duration) -> timestamp", subtract),
    ("_-_(timestamp,timestamp) -> duration", subtract),
    ("_-_(duration,duration) -> duration", subtract),
    ("_*_(int,int) -> int", multiply),
    ("_*_(uint,uint) -> uint", multiply),
    ("_*_(double,double) -> double", multiply),
    ("_/_(int,int) -> int", divide),
    ("_/_(uint,uint) -> uint", divide),
    ("_/_(double,double) -> double", divide),
    ("_%_(int,int) -> int", modulo),
    ("_%_(uint,uint) -> uint", modulo),
    ("-_(int) -> int", negate),
    ("-_(double) -> double", negate),
    ("!_(bool) -> bool", |_, a| match a {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(Problem::overload("`!` takes bool")),
    }),
];

const ORDERED: [&str; 8] = ["bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration"];
const NUMBERS: [&str; 3] = ["int", "uint", "double"];

/// `<` and its like: between values of one type, and at run time between all numbers.
pub(crate) fn comparisons() -> impl Iterator<Item = (String, Run)> {
    let operators: [(&str, Run); 4] = [
        ("_<_", |m, a| ordered(m, a, Ordering::is_lt)),
        ("_<=_", |m, a| ordered(m, a, Ordering::is_le)),
        ("_>_", |m, a| ordered(m, a, Ordering::is_gt)),
        ("_>=_", |m, a| ordered(m, a, Ordering::is_ge)),
    ];
    operators.into_iter().flat_map(|(name, run)| {
        let same = ORDERED.iter().map(move |kind| (format!("{name}({kind},{kind}) -> bool"), run));
        let crossed = NUMBERS.iter().flat_map(move |a| {
            let others = NUMBERS.iter().filter(move |b| a != *b);
            others.map(move |b| (format!("~{name}({a},{b}) -> bool"), run))
        });
        same.chain(crossed)
    })
}

fn ordered(machine: &mut Machine<'_>, args: &[Value], holds: fn(Ordering) -> bool) -> Result<Value, Problem> {
    Ok(Value::Bool(holds(args[0].order(&args[1], &mut machine.budget)?)))
}

fn overflow(what: &str) -> Problem {
    Problem::value(format!("{what} overflow: the result is out of range"))
}

fn unknown(operator: &str, args: &[Value]) -> Problem {
    let kinds: Vec<&str> = args.iter().map(Value::kind_name).collect();
    Problem::overload(format!("`{operator}` of ({})", kinds.join(", ")))
}

fn add(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_add(*b).ok_or_else(|| overflow("int"))?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_add(*b).ok_or_else(|| overflow("uint"))?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a + b),
        [Value::String(a), Value::String(b)] => {
            machine.budget.size(a.len() + b.len())?;
            Value::text(format!("{a}{b}"))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            machine.budget.size(a.len() + b.len())?;
            Value::Bytes([&**a, &**b].concat().into())
        }
        [Value::List(a), Value::List(b)] => {
            machine.budget.items(a.len() + b.len())?;
            Value::List(Arc::new(a.iter().chain(b.iter()).cloned().collect()))
        }
        [Value::Timestamp(at), Value::Duration(by)] | [Value::Duration(by), Value::Timestamp(at)] => {
            moved(*at, i128::from(*by))?
        }
        [Value::Duration(a), Value::Duration(b)] => {
            Value::Duration(a.checked_add(*b).ok_or_else(|| overflow("duration"))?)
        }
        _ => return Err(unknown("_+_", args)),
    })
}

fn subtract(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_sub(*b).ok_or_else(|| overflow("int"))?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_sub(*b).ok_or_else(|| overflow("uint"))?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a - b),
        [Value::Timestamp(at), Value::Duration(by)] => moved(*at, -i128::from(*by))?,
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            let between = a.as_nanosecond() - b.as_nanosecond();
            Value::Duration(i64::try_from(between).map_err(|_| overflow("duration"))?)
        }
        [Value::Duration(a), Value::Duration(b)] => {
            Value::Duration(a.checked_sub(*b).ok_or_else(|| overflow("duration"))?)
        }
        _ => return Err(unknown("_-_", args)),
    })
}

fn moved(at: Timestamp, nanoseconds: i128) -> Result<Value, Problem> {
    let wrong = || overflow("timestamp");
    let by = SignedDuration::from_nanos(i64::try_from(nanoseconds).map_err(|_| wrong())?);
    convert::timestamp(at.checked_add(by).map_err(|_| wrong())?)
}

fn multiply(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(match args {
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_mul(*b).ok_or_else(|| overflow("int"))?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_mul(*b).ok_or_else(|| overflow("uint"))?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a * b),
        _ => return Err(unknown("_*_", args)),
    })
}

fn divide(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let zero = || Problem::value("division by zero");
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return Err(zero()),
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_div(*b).ok_or_else(|| overflow("int"))?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_div(*b).ok_or_else(zero)?),
        [Value::Double(a), Value::Double(b)] => Value::Double(a / b),
        _ => return Err(unknown("_/_", args)),
    })
}

fn modulo(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let zero = || Problem::value("modulus by zero");
    Ok(match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => return Err(zero()),
        [Value::Int(a), Value::Int(b)] => Value::Int(a.checked_rem(*b).ok_or_else(|| overflow("int"))?),
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(a.checked_rem(*b).ok_or_else(zero)?),
        _ => return Err(unknown("_%_", args)),
    })
}

fn negate(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(match args {
        [Value::Int(a)] => Value::Int(a.checked_neg().ok_or_else(|| overflow("int"))?),
        [Value::Double(a)] => Value::Double(-a),
        _ => return Err(unknown("-_", args)),
    })
}
