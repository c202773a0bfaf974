//! What ends a run before its tasks have: the first failure, and time.
//!
//! Invariant: what the native language can say of it is written as it always was, `fail_fast` and `timeout`.

use jiff::SignedDuration;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// What the first task that fails for good does to the rest of the run. `finally` tasks and teardowns run all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// What does not need it goes on.
    #[default]
    GoOn,
    /// Nothing new begins. What has begun goes on to its end, with its retries.
    Drain,
    /// The others are ended.
    Stop,
}

impl Serialize for OnFailure {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            OnFailure::GoOn => to.serialize_bool(false),
            OnFailure::Stop => to.serialize_bool(true),
            OnFailure::Drain => to.serialize_str("drain"),
        }
    }
}

/// How long a run and its parts may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the start of the run to its forced end.
    pub run: Option<SignedDuration>,
    /// That end is the end of `finally` tasks and teardowns too; else they still run after it.
    pub ends_finally: bool,
    /// From the start of the run to the forced end of all tasks but the `finally` ones and teardowns.
    pub tasks: Option<SignedDuration>,
    /// From the start of the first `finally` task to the forced end of all of them.
    pub finally: Option<SignedDuration>,
}

impl Serialize for Timeouts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Timeouts { run, ends_finally, tasks, finally } = self;
        if !ends_finally && tasks.is_none() && finally.is_none() {
            return run.serialize(to);
        }
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("run", run)?;
        map.serialize_entry("ends_finally", ends_finally)?;
        map.serialize_entry("tasks", tasks)?;
        map.serialize_entry("finally", finally)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_native_language_can_say_is_written_as_ever() {
        let hour = Some(SignedDuration::from_hours(1));
        let run = |run| Timeouts { run, ..Timeouts::default() };
        assert_eq!(json!(&OnFailure::GoOn), json!(false));
        assert_eq!(json!(&OnFailure::Stop), json!(true));
        assert_eq!(json!(&OnFailure::Drain), json!("drain"));
        assert_eq!(json!(&run(None)), json!(null));
        assert_eq!(json!(&run(hour)), json!(hour));
        let all = Timeouts { tasks: hour, ..run(None) };
        assert_eq!(json!(&all), json!({"run": null, "ends_finally": false, "tasks": hour, "finally": null}));
    }
}
