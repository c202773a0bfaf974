//! Types, and what of the library they fit: `dyn` is what is known only later, and fits everything.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    Type,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    /// `A` or `B` of a signature: the same wherever it stands.
    Param(u8),
}

/// The types that an expression can name; `list` and `map` aside.
pub(crate) const NAMED: [(&str, Type); 10] = [
    ("null_type", Type::Null),
    ("bool", Type::Bool),
    ("int", Type::Int),
    ("uint", Type::Uint),
    ("double", Type::Double),
    ("string", Type::String),
    ("bytes", Type::Bytes),
    ("google.protobuf.Timestamp", Type::Timestamp),
    ("google.protobuf.Duration", Type::Duration),
    ("type", Type::Type),
];

impl Type {
    pub fn list(of: Type) -> Type {
        Type::List(Box::new(of))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Box::new(key), Box::new(value))
    }

    /// The type without what is in it, as `type(x)` tells it.
    pub fn name(&self) -> &'static str {
        match self {
            Type::Dyn | Type::Param(_) => "dyn",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::Type => "type",
            Type::List(_) => "list",
            Type::Map(..) => "map",
        }
    }

    /// A type as signatures have it: `list(A)`, `map(string,dyn)`, `timestamp`.
    pub(crate) fn read(text: &str) -> Option<Type> {
        if let Some(of) = text.strip_prefix("list(").and_then(|rest| rest.strip_suffix(')')) {
            return Some(Type::list(Type::read(of)?));
        }
        if let Some(of) = text.strip_prefix("map(").and_then(|rest| rest.strip_suffix(')')) {
            let (key, value) = of.split_once(',')?;
            return Some(Type::map(Type::read(key)?, Type::read(value)?));
        }
        match text {
            "A" => return Some(Type::Param(0)),
            "B" => return Some(Type::Param(1)),
            "dyn" => return Some(Type::Dyn),
            "duration" => return Some(Type::Duration),
            "timestamp" => return Some(Type::Timestamp),
            _ => {}
        }
        NAMED.iter().find(|(name, _)| *name == text).map(|(_, kind)| kind.clone())
    }

    /// Whether a value of this kind fits what a signature takes; what is inside is not asked.
    pub(crate) fn takes(&self, value: &super::value::Value) -> bool {
        match self {
            Type::Dyn | Type::Param(_) => true,
            other => other.name() == value.kind_name(),
        }
    }

    /// Whether both may be the same type, as far as that is known.
    pub(crate) fn agrees(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(a), Type::List(b)) => a.agrees(b),
            (Type::Map(a, x), Type::Map(b, y)) => a.agrees(b) && x.agrees(y),
            (Type::Null, Type::Timestamp | Type::Duration) | (Type::Timestamp | Type::Duration, Type::Null) => true,
            (a, b) => a == b,
        }
    }

    /// Fits an argument into what a signature takes, and learns what its `A` and `B` are.
    pub(crate) fn unify(&self, argument: &Type, known: &mut [Option<Type>; 2]) -> bool {
        match (self, argument) {
            (Type::Param(n), found) => match &known[usize::from(*n)] {
                Some(before) if !before.agrees(found) => false,
                Some(before) => {
                    let joined = before.join(found);
                    known[usize::from(*n)] = Some(joined);
                    true
                }
                None => {
                    known[usize::from(*n)] = Some(found.clone());
                    true
                }
            },
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(a), Type::List(b)) => a.unify(b, known),
            (Type::Map(a, x), Type::Map(b, y)) => a.unify(b, known) && x.unify(y, known),
            (a, b) => a.agrees(b),
        }
    }

    /// With what was learnt of `A` and `B`.
    pub(crate) fn filled(&self, known: &[Option<Type>; 2]) -> Type {
        match self {
            Type::Param(n) => known[usize::from(*n)].clone().unwrap_or(Type::Dyn),
            Type::List(of) => Type::list(of.filled(known)),
            Type::Map(key, value) => Type::map(key.filled(known), value.filled(known)),
            other => other.clone(),
        }
    }

    /// What holds values of both.
    pub(crate) fn join(&self, other: &Type) -> Type {
        match (self, other) {
            (a, b) if a == b => a.clone(),
            (Type::List(a), Type::List(b)) => Type::list(a.join(b)),
            (Type::Map(a, x), Type::Map(b, y)) => Type::map(a.join(b), x.join(y)),
            _ => Type::Dyn,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            other => f.write_str(other.name()),
        }
    }
}
