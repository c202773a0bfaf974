//! Values, what makes two of them equal or ordered, and JSON.
//!
//! Numbers of all three kinds lie on one line: `1`, `1u` and `1.0` are equal, also as keys of maps. Values share what
//! they hold, so a copy costs nothing; a walk over a value may cost much more than it took to make, and is counted.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::budget::Budget;
use super::fault::Problem;
use super::types::Type;

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<Vec<Value>>),
    Map(Arc<BTreeMap<Key, Value>>),
    Timestamp(Timestamp),
    /// In nanoseconds.
    Duration(i64),
    Type(Type),
}

/// A key of a map.
#[derive(Debug, Clone)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

impl Key {
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Key::Bool(value) => (0, i128::from(*value), ""),
            Key::Int(value) => (1, i128::from(*value), ""),
            Key::Uint(value) => (1, i128::from(*value), ""),
            Key::String(value) => (2, 0, value),
        }
    }

    pub fn value(&self) -> Value {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(value) => Value::String(Arc::clone(value)),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// Names and texts, as keys.
impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key::String(text.into())
    }
}

/// The largest whole number up to which JSON's numbers are exact.
const LARGEST_EXACT: i64 = (1 << 53) - 1;

impl Value {
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::String(text.into())
    }

    pub fn list(items: Vec<Value>) -> Value {
        Value::List(Arc::new(items))
    }

    /// A map with strings as keys.
    pub fn map<'k>(entries: impl IntoIterator<Item = (&'k str, Value)>) -> Value {
        Value::Map(Arc::new(entries.into_iter().map(|(key, value)| (Key::from(key), value)).collect()))
    }

    pub fn kind(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::Type(_) => Type::Type,
        }
    }

    /// The name of its kind; nothing is made for it.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self {
            Value::List(_) => "list",
            Value::Map(_) => "map",
            other => other.kind().name(),
        }
    }

    /// JSON has one kind of number: they become doubles.
    pub fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Value::text(text.as_str()),
            serde_json::Value::Array(items) => Value::list(items.iter().map(Value::from_json).collect()),
            serde_json::Value::Object(map) => Value::Map(Arc::new(
                map.iter().map(|(key, value)| (Key::from(key.as_str()), Value::from_json(value))).collect(),
            )),
        }
    }

    /// As JSON: whole numbers that JSON's readers could not hold become strings, bytes become base64.
    pub(crate) fn to_json(&self, budget: &mut Budget) -> Result<serde_json::Value, Problem> {
        use base64::Engine as _;
        budget.step()?;
        Ok(match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(number) if number.unsigned_abs() <= LARGEST_EXACT as u64 => (*number).into(),
            Value::Int(number) => number.to_string().into(),
            Value::Uint(number) if *number <= LARGEST_EXACT as u64 => (*number).into(),
            Value::Uint(number) => number.to_string().into(),
            // A double that is a whole number is written as one, like every writer of JSON from JavaScript on does it.
            Value::Double(number) if number.fract() == 0.0 && number.abs() <= LARGEST_EXACT as f64 => {
                (*number as i64).into()
            }
            Value::Double(number) => match serde_json::Number::from_f64(*number) {
                Some(number) => serde_json::Value::Number(number),
                None if number.is_nan() => "NaN".into(),
                None if *number > 0.0 => "Infinity".into(),
                None => "-Infinity".into(),
            },
            Value::String(text) => {
                budget.size(text.len())?;
                text.to_string().into()
            }
            Value::Bytes(bytes) => {
                budget.size(bytes.len())?;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Value::List(items) => {
                serde_json::Value::Array(items.iter().map(|item| item.to_json(budget)).collect::<Result<_, _>>()?)
            }
            Value::Map(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries.iter() {
                    let key = match key {
                        Key::Bool(value) => value.to_string(),
                        Key::Int(value) => value.to_string(),
                        Key::Uint(value) => value.to_string(),
                        Key::String(value) => {
                            budget.size(value.len())?;
                            value.to_string()
                        }
                    };
                    map.insert(key, value.to_json(budget)?);
                }
                serde_json::Value::Object(map)
            }
            Value::Timestamp(_) | Value::Duration(_) => match super::functions::convert::to_text(self) {
                Some(text) => text.into(),
                None => serde_json::Value::Null,
            },
            Value::Type(kind) => return Err(Problem::value(format!("the type `{kind}` is nothing in JSON"))),
        })
    }

    /// As a key of a map; a double only if it is a whole number.
    pub(crate) fn as_key(&self) -> Option<Key> {
        Some(match self {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) => Key::Int(*value),
            Value::Uint(value) => Key::Uint(*value),
            Value::String(value) => Key::String(Arc::clone(value)),
            Value::Double(value) if value.fract() == 0.0 => {
                // The casts stop at the ends of their range; such a number is no key.
                if *value >= 0.0 && *value < 18_446_744_073_709_551_616.0 {
                    Key::Uint(*value as u64)
                } else if *value < 0.0 && *value >= -9_223_372_036_854_775_808.0 {
                    Key::Int(*value as i64)
                } else {
                    return None;
                }
            }
            _ => return None,
        })
    }

    /// Values of different kinds are not equal, numbers aside.
    pub(crate) fn equals(&self, other: &Value, budget: &mut Budget) -> Result<bool, Problem> {
        budget.step()?;
        Ok(match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => {
                budget.size(a.len().min(b.len()))?;
                a == b
            }
            (Value::Bytes(a), Value::Bytes(b)) => {
                budget.size(a.len().min(b.len()))?;
                a == b
            }
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(a), Value::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for ((a_key, a), (b_key, b)) in a.iter().zip(b.iter()) {
                    if a_key != b_key || !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => number_order(self, other) == Some(Some(Ordering::Equal)),
        })
    }

    /// Which comes first; values of two kinds, and lists and maps, have no order.
    pub(crate) fn order(&self, other: &Value, budget: &mut Budget) -> Result<Ordering, Problem> {
        Ok(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => {
                budget.size(a.len().min(b.len()))?;
                a.cmp(b)
            }
            (Value::Bytes(a), Value::Bytes(b)) => {
                budget.size(a.len().min(b.len()))?;
                a.cmp(b)
            }
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            _ => match number_order(self, other) {
                Some(Some(order)) => order,
                Some(None) => return Err(Problem::value("what is not a number (NaN) has no order")),
                None => {
                    return Err(Problem::overload(format!(
                        "{} and {} have no order",
                        self.kind_name(),
                        other.kind_name()
                    )));
                }
            },
        })
    }
}

/// The order of two numbers of any kinds: `None` if they are not numbers, `Some(None)` if one is NaN.
fn number_order(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    enum Number {
        Whole(i128),
        Double(f64),
    }
    let number = |value: &Value| match value {
        Value::Int(number) => Some(Number::Whole(i128::from(*number))),
        Value::Uint(number) => Some(Number::Whole(i128::from(*number))),
        Value::Double(number) => Some(Number::Double(*number)),
        _ => None,
    };
    Some(match (number(a)?, number(b)?) {
        (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(&b)),
        (Number::Double(a), Number::Double(b)) => a.partial_cmp(&b),
        (Number::Whole(a), Number::Double(b)) => whole_and_double(a, b),
        (Number::Double(a), Number::Whole(b)) => whole_and_double(b, a).map(Ordering::reverse),
    })
}

/// Exactly, also where a double has no digits left for a whole number.
fn whole_and_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Casts stop at the ends of i128, beyond which no whole number of 64 bits is.
    let floor = double.floor();
    Some(match whole.cmp(&(floor as i128)) {
        Ordering::Equal if double > floor => Ordering::Less,
        order => order,
    })
}
