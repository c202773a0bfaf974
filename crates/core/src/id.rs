//! Names that users and machines give to things, as parsed types.
//!
//! An id that exists is valid: it is one path component, it has no `..`, and it is at most
//! [`MAX_LENGTH`] bytes. So an id may be used in a path, a URL or a process title unchecked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest id, in bytes; Airflow's limit.
pub const MAX_LENGTH: usize = 250;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an id cannot be empty")]
    Empty,
    #[error("an id has at most {MAX_LENGTH} bytes, this one has {0}")]
    TooLong(usize),
    #[error("`{text}` is not an id: `{found}` is not allowed, use {allowed}")]
    Character { text: String, found: char, allowed: &'static str },
    #[error("`{0}` is not an id: it cannot contain `..`, nor begin or end with `.`")]
    Dots(String),
}

fn check(text: &str, allowed: &'static str, ok: impl Fn(char) -> bool) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_LENGTH {
        return Err(IdError::TooLong(text.len()));
    }
    if let Some(found) = text.chars().find(|c| !ok(*c)) {
        return Err(IdError::Character { text: text.to_owned(), found, allowed });
    }
    if text.contains("..") || text.starts_with('.') || text.ends_with('.') {
        return Err(IdError::Dots(text.to_owned()));
    }
    Ok(())
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $allowed:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Parses an id; the error says which character is wrong and what is allowed.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check(text, $allowed, $ok)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
    };
}

text_id!(
    /// The name of a workflow, unique on a server.
    WorkflowId,
    "letters, digits, `_`, `-` and `.`",
    plain
);
text_id!(
    /// The full name of a task in its workflow; a task in a group is `group.task`.
    TaskId,
    "letters, digits, `_`, `-` and `.`",
    plain
);
text_id!(
    /// The name of a run, unique in its workflow: `manual__…`, `scheduled__…`, `backfill__…`, or one that the user gave.
    RunId,
    "letters, digits and `_ - . ~ : + @`",
    |c| plain(c) || matches!(c, '~' | ':' | '+' | '@')
);

/// The number of a run in its store. It counts up, so it orders runs by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunKey(pub i64);

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The map index of an instance that is not mapped, or not yet.
pub const UNMAPPED: i32 = -1;

/// One attempt of one task instance of one run. `number` is the fencing number: it grows with every
/// launch, and a report that carries an older one is dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    pub run: RunKey,
    pub task: TaskId,
    /// [`UNMAPPED`], or the index in the mapped list from 0.
    pub map_index: i32,
    /// From 1.
    pub number: u32,
}

impl AttemptId {
    /// The name of the attempt inside its run, good as one path component: `task.2` or `task[7].2`.
    pub fn local_name(&self) -> String {
        if self.map_index == UNMAPPED {
            format!("{}.{}", self.task, self.number)
        } else {
            format!("{}[{}].{}", self.task, self.map_index, self.number)
        }
    }
}

/// `42/task.2`: unique in a store, and stable over restarts.
impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.local_name())
    }
}

impl FromStr for AttemptId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (run, local) = text.split_once('/')?;
            let (task, number) = local.rsplit_once('.')?;
            let (task, map_index) = match task.strip_suffix(']').and_then(|t| t.rsplit_once('[')) {
                Some((task, index)) => (task, index.parse().ok()?),
                None => (task, UNMAPPED),
            };
            Some(AttemptId {
                run: RunKey(run.parse().ok()?),
                task: TaskId::new(task).ok()?,
                map_index,
                number: number.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("`{text}` is not the id of an attempt"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_always_a_safe_path_component() {
        for bad in ["", "a/b", "..", "a..b", ".hidden", "a.", "a b", "ä", "a\0", "-\n"] {
            assert!(TaskId::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "A-1_b", "group.task", "-x"] {
            assert_eq!(TaskId::new(good).unwrap().as_str(), good);
        }
        assert!(TaskId::new(&"x".repeat(251)).is_err());
        assert!(RunId::new("manual__2026-01-02T03:04:05+00:00").is_ok());
    }

    #[test]
    fn an_attempt_id_survives_its_text_form() {
        for (map_index, number) in [(UNMAPPED, 1), (0, 2), (41, 30)] {
            let id = AttemptId { run: RunKey(42), task: TaskId::new("g.t-1").unwrap(), map_index, number };
            assert_eq!(id.to_string().parse::<AttemptId>().unwrap(), id);
        }
    }
}
