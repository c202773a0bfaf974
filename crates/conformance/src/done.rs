//! What an attempt left.

use pitcrew_core::pod::{ContainerState, PodEnded, TerminationReason};
use pitcrew_exec::{Ended, LogRecord, LogStream};

pub struct Done {
    pub ended: Ended,
    pub log: Vec<LogRecord>,
}

impl Done {
    #[track_caller]
    pub fn pod(&self) -> &PodEnded {
        self.ended.pod.as_ref().unwrap_or_else(|| panic!("its end tells nothing of a pod: {}", self.story()))
    }

    /// What a container wrote to both streams, line by line; the sidecars are counted after the steps.
    pub fn lines(&self, container: u32) -> Vec<&str> {
        lines(&self.log, container)
    }

    /// What the backend itself said.
    pub fn told(&self) -> Vec<&str> {
        self.log.iter().filter(|r| r.stream == LogStream::System).map(|r| r.text.as_str()).collect()
    }

    /// Its end and the whole log as text, for messages.
    pub fn story(&self) -> String {
        let lines = self.log.iter().map(|r| format!("{}: {}\n", r.step, r.text)).collect::<String>();
        format!("{:?}\n{lines}", self.ended)
    }

    /// Exit code and reason of each container.
    #[track_caller]
    pub fn states(&self) -> Vec<(i32, TerminationReason)> {
        let state = |state: &ContainerState| match state {
            ContainerState::Terminated { exit_code, reason, .. } => (*exit_code, *reason),
            other => panic!("not terminated: {other:?}\n{}", self.story()),
        };
        self.pod().containers.iter().map(|container| state(&container.state)).collect()
    }

    #[track_caller]
    pub fn assert_success(&self) {
        assert!(self.ended.exit.is_success(), "{}", self.story());
    }
}

pub(crate) fn lines(log: &[LogRecord], container: u32) -> Vec<&str> {
    let of_container = |record: &&LogRecord| record.step == container && record.stream != LogStream::System;
    log.iter().filter(of_container).map(|record| record.text.as_str()).collect()
}
