//! What the driver in a container says, read out of the log: when steps began and ended, what they left as outputs.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pitcrew_exec::outputs::MAX_TOTAL;
use serde::{Deserialize, Serialize};

/// What was read so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Of each step that began, in order: its number, when it began, and when it ended and with which code.
    pub steps: Vec<Step>,
    /// A step that could not be started: its number, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<(usize, String)>,
    /// It said its last word, with this code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<i32>,
    /// Output files by name, in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// A step that began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub number: usize,
    pub began: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<(Timestamp, i32)>,
}

impl Progress {
    /// Takes a line of the log. What is left of it, a step wrote: all of it, or what stood before our mark, where the
    /// last line of a step had no end.
    pub fn take<'l>(&mut self, mark: Option<&str>, at: Timestamp, line: &'l str) -> Option<&'l str> {
        let Some((before, said)) = mark.and_then(|mark| line.split_once(mark)) else { return Some(line) };
        self.hear(at, said.trim());
        Some(before).filter(|before| !before.is_empty())
    }

    fn hear(&mut self, at: Timestamp, said: &str) {
        let mut words = said.splitn(3, ' ');
        let (word, first, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
        let number = first.parse::<usize>();
        match (word, number) {
            ("begin", Ok(number)) => self.steps.push(Step { number, began: at, ended: None }),
            ("end", Ok(number)) => {
                if let Some(step) = self.steps.iter_mut().rev().find(|step| step.number == number) {
                    step.ended = Some((at, rest.parse().unwrap_or(-1)));
                }
            }
            ("fail", Ok(number)) => self.failed = Some((number, rest.to_owned())),
            ("done", _) => self.done = Some(first.parse().unwrap_or(-1)),
            ("data", _) if first.starts_with("output") && !first.contains('/') => {
                let all: usize = self.files.values().map(String::len).sum();
                if all < MAX_TOTAL * 4 / 3 {
                    self.files.entry(first.to_owned()).or_default().push_str(rest);
                }
            }
            _ => {}
        }
    }

    /// The step that runs.
    pub fn current(&self) -> Option<&Step> {
        self.steps.last().filter(|step| step.ended.is_none())
    }

    /// The output files, as they were; what is damaged is left out.
    pub fn outputs(&self) -> Vec<(String, Vec<u8>)> {
        let of = |(name, text): (&String, &String)| Some((name.clone(), STANDARD.decode(text).ok()?));
        self.files.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_words_are_taken_out_and_others_are_left() {
        let (mut progress, at) = (Progress::default(), Timestamp::UNIX_EPOCH);
        let mark = Some("::m::");
        assert_eq!(progress.take(mark, at, "::m:: begin 0"), None);
        assert!(progress.current().is_some());
        assert_eq!(progress.take(mark, at, "epoch 1"), Some("epoch 1"));
        assert_eq!(progress.take(mark, at, "no end::m:: end 0 3"), Some("no end"));
        for line in
            ["::m:: data output YT0x", "::m:: data output Cg==", "::m:: data ../x YQ==", "::m:: data output.n YQ=="]
        {
            assert_eq!(progress.take(mark, at, line), None);
        }
        assert_eq!(progress.take(mark, at, "::m:: done 3"), None);
        for odd in ["::m::", "::m:: begin x", "::m:: end 9 1", "::m:: what"] {
            assert_eq!(progress.take(mark, at, odd), None);
        }
        assert_eq!((progress.done, progress.steps.len()), (Some(3), 1));
        assert_eq!(progress.steps[0].ended, Some((at, 3)));
        // Lines of `base64` are joined: its padding stands at the end of a file only.
        assert_eq!(progress.files.keys().collect::<Vec<_>>(), ["output", "output.n"]);
        let mut again = Progress::default();
        assert_eq!(again.take(None, at, "::m:: begin 0"), Some("::m:: begin 0"), "without a driver all is text");
        again.take(mark, at, "::m:: fail 1 there is no program python3");
        assert_eq!(again.failed, Some((1, "there is no program python3".into())));
        again.take(mark, at, "::m:: data output YWI=");
        assert_eq!(again.outputs(), [("output".to_owned(), b"ab".to_vec())]);
    }
}
