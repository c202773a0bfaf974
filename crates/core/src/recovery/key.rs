//! What recovery calls a job: the run's number and the task, `7/train`, and of a mapped task the index, `7/train[2]`. A gang is one
//! job, whatever it has of members.

use std::fmt;
use std::str::FromStr;

use crate::engine::{Run, Slot};
use crate::id::{RunKey, TaskId, UNMAPPED};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    pub run: RunKey,
    pub task: TaskId,
    /// `None`: a gang, or a task that is not mapped.
    pub index: Option<u32>,
}

impl JobKey {
    /// The job of an instance, or of the gang that it is a member of.
    pub fn of(run: &Run, slot: Slot) -> JobKey {
        let is_one = run.members(slot.task).is_some() || run.map_index(slot) == UNMAPPED;
        let task = run.workflow.task(slot.task).id.clone();
        JobKey { run: run.record.key, task, index: (!is_one).then_some(slot.index) }
    }

    /// The instance, or the first member of the gang, in its run.
    pub fn slot(&self, run: &Run) -> Option<Slot> {
        let task = run.workflow.find(self.task.as_str())?;
        match self.index {
            None if run.members(task).is_some() => Some(Slot::new(task, 0)),
            None => run.find(task, UNMAPPED),
            Some(_) if run.members(task).is_some() => None,
            Some(index) => run.find(task, i32::try_from(index).ok()?),
        }
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.task)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

/// A text that names no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no job: it is the number of a run, `/`, a task, and `[INDEX]` where the task is mapped")]
pub struct BadJob(pub String);

impl FromStr for JobKey {
    type Err = BadJob;

    fn from_str(text: &str) -> Result<Self, BadJob> {
        let parse = || {
            let (run, task) = text.split_once('/')?;
            let (task, index) = match task.split_once('[') {
                Some((task, index)) => (task, Some(index.strip_suffix(']')?.parse().ok()?)),
                None => (task, None),
            };
            Some(JobKey { run: RunKey(run.parse().ok()?), task: TaskId::new(task).ok()?, index })
        };
        // Only as it is written: two names of one job would be two jobs.
        parse().filter(|key| key.to_string() == text).ok_or_else(|| BadJob(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_is_written_and_in_no_other_way() {
        let key = |task: &str, index| JobKey { run: RunKey(7), task: TaskId::new(task).unwrap(), index };
        for (text, key) in [
            ("7/train", key("train", None)),
            ("7/train[0]", key("train", Some(0))),
            ("7/group.train[12]", key("group.train", Some(12))),
        ] {
            assert_eq!((key.to_string().as_str(), text.parse()), (text, Ok(key)));
        }
        for text in [
            "",
            "7",
            "7/",
            "/train",
            "x/train",
            "07/train",
            "7/train[",
            "7/train[]",
            "7/train[1",
            "7/train[01]",
            "7/train[-1]",
            "7/a b",
        ] {
            assert_eq!(text.parse::<JobKey>(), Err(BadJob(text.to_owned())));
        }
    }
}
