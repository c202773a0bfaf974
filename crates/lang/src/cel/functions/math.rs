//! Functions of numbers that Tekton's triggers have beyond the language.

use std::cmp::Ordering;

use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::Value;
use super::{Row, int_of, list_of};

pub(crate) const ROWS: &[Row] = &[
    ("math.greatest(list(dyn)) -> dyn", |m, a| extreme(m, a, Ordering::Greater)),
    ("math.least(list(dyn)) -> dyn", |m, a| extreme(m, a, Ordering::Less)),
    ("math.ceil(double) -> double", |_, a| double(a, f64::ceil)),
    ("math.floor(double) -> double", |_, a| double(a, f64::floor)),
    ("math.round(double) -> double", |_, a| double(a, f64::round)),
    ("math.trunc(double) -> double", |_, a| double(a, f64::trunc)),
    ("math.sqrt(double) -> double", |_, a| double(a, f64::sqrt)),
    ("math.sqrt(int) -> double", |_, a| Ok(Value::Double((int_of(a, 0)? as f64).sqrt()))),
    ("math.isInf(double) -> bool", |_, a| test(a, f64::is_infinite)),
    ("math.isNaN(double) -> bool", |_, a| test(a, f64::is_nan)),
    ("math.isFinite(double) -> bool", |_, a| test(a, f64::is_finite)),
    ("math.abs(double) -> double", |_, a| double(a, f64::abs)),
    ("math.abs(int) -> int", |_, a| {
        let overflow = || Problem::value("int overflow: the result is out of range");
        Ok(Value::Int(int_of(a, 0)?.checked_abs().ok_or_else(overflow)?))
    }),
    ("math.abs(uint) -> uint", |_, a| Ok(a[0].clone())),
    ("math.sign(double) -> double", |_, a| double(a, |n| if n == 0.0 || n.is_nan() { n } else { n.signum() })),
    ("math.sign(int) -> int", |_, a| Ok(Value::Int(int_of(a, 0)?.signum()))),
    ("math.sign(uint) -> uint", |_, a| match a[0] {
        Value::Uint(number) => Ok(Value::Uint(number.min(1))),
        _ => Err(Problem::overload("`math.sign` takes a number")),
    }),
    ("math.bitAnd(int,int) -> int", |_, a| Ok(Value::Int(int_of(a, 0)? & int_of(a, 1)?))),
    ("math.bitOr(int,int) -> int", |_, a| Ok(Value::Int(int_of(a, 0)? | int_of(a, 1)?))),
    ("math.bitXor(int,int) -> int", |_, a| Ok(Value::Int(int_of(a, 0)? ^ int_of(a, 1)?))),
    ("math.bitNot(int) -> int", |_, a| Ok(Value::Int(!int_of(a, 0)?))),
    ("math.bitShiftLeft(int,int) -> int", |_, a| shifted(a, |n, by| ((n as u64) << by) as i64)),
    ("math.bitShiftRight(int,int) -> int", |_, a| shifted(a, |n, by| ((n as u64) >> by) as i64)),
];

fn extreme(machine: &mut Machine<'_>, args: &[Value], wanted: Ordering) -> Result<Value, Problem> {
    let mut best: Option<&Value> = None;
    for value in list_of(args, 0)?.iter() {
        if !matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_)) {
            return Err(Problem::overload(format!("numbers are compared, and this is {}", value.kind_name())));
        }
        best = Some(match best {
            Some(best) if value.order(best, &mut machine.budget)? != wanted => best,
            _ => value,
        });
    }
    best.cloned().ok_or_else(|| Problem::value("an empty list has no greatest and no least"))
}

fn number(args: &[Value]) -> Result<f64, Problem> {
    match args[0] {
        Value::Double(number) => Ok(number),
        _ => Err(Problem::overload("a double is expected")),
    }
}

fn double(args: &[Value], of: fn(f64) -> f64) -> Result<Value, Problem> {
    number(args).map(of).map(Value::Double)
}

fn test(args: &[Value], of: fn(f64) -> bool) -> Result<Value, Problem> {
    number(args).map(of).map(Value::Bool)
}

/// Bits that leave at an end are lost; by 64 and more all of them.
fn shifted(args: &[Value], of: fn(i64, u32) -> i64) -> Result<Value, Problem> {
    let (number, by) = (int_of(args, 0)?, int_of(args, 1)?);
    let by = u32::try_from(by.min(64)).map_err(|_| Problem::value("bits cannot be shifted by a negative number"))?;
    Ok(Value::Int(if by >= 64 { 0 } else { of(number, by) }))
}
