//! The copy of a task's log on this machine: what readers look at, also when CloudWatch has forgotten it.
//!
//! Invariant: the log here is made of the events up to the cursor, each once. What a killed server wrote beyond its
//! cursor is cut off and made again.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pitcrew_exec::attempt_dir;
use pitcrew_exec::log::{LogStream, LogWriter};
use serde::{Deserialize, Serialize};

use super::marks::{Mark, Sent};
use super::progress::Progress;
use crate::client::{LogEvent, LogPage};

/// How far the log was copied.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursor {
    /// Where CloudWatch goes on; good for a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The time of the last event that was taken, and how many of that time were: to go on without a token.
    pub last: i64,
    pub at_last: u32,
    /// Bytes of the log here.
    pub here: u64,
    /// The log here reached its limit, and says so.
    pub full: bool,
    pub progress: Progress,
}

impl Mark for Cursor {
    const FILE: &str = "cursor.json";
}

/// See the module.
pub struct Mirror {
    dir: PathBuf,
    writer: LogWriter,
    cursor: Cursor,
    mark: Option<String>,
    /// Events that are to be passed over: they were taken before the token was lost.
    skip: u32,
}

impl Mirror {
    /// Goes on where the cursor stands; begins a log if there is none.
    pub fn open(dir: &Path, sent: &Sent, now: Timestamp) -> io::Result<Mirror> {
        let path = attempt_dir::log(dir);
        let cursor = Cursor::read(dir)?.filter(|_| path.exists());
        let (writer, is_new) = match &cursor {
            Some(at) => (LogWriter::reopen(&path, at.here, sent.log_limit, at.full)?, false),
            None => {
                std::fs::remove_file(&path)
                    .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
                (LogWriter::create(&path, sent.log_limit)?, true)
            }
        };
        let cursor = cursor.unwrap_or_default();
        let mut mirror = Mirror { dir: dir.to_owned(), writer, cursor, mark: sent.mark.clone(), skip: 0 };
        if is_new {
            sent.notices.iter().for_each(|notice| mirror.writer.say(now, 0, notice));
            mirror.save()?;
        }
        Ok(mirror)
    }

    /// When the last event that was taken was written.
    pub fn last(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.cursor.last).ok().filter(|_| self.cursor.last > 0)
    }

    pub fn progress(&self) -> &Progress {
        &self.cursor.progress
    }

    /// Where CloudWatch is to go on: after a token, or at a time.
    pub fn from(&self) -> (Option<&str>, Option<i64>) {
        let since = Some(self.cursor.last).filter(|last| *last > 0);
        (self.cursor.token.as_deref(), since)
    }

    /// CloudWatch does not know the token any more.
    pub fn lose_token(&mut self) {
        self.cursor.token = None;
        self.skip = self.cursor.at_last;
    }

    /// Takes the next events; says whether there may be more.
    pub fn take(&mut self, page: LogPage, now: Timestamp) -> io::Result<bool> {
        let more = !page.events.is_empty() && self.cursor.token.as_ref() != Some(&page.next);
        for event in &page.events {
            if self.skip > 0 && event.timestamp == self.cursor.last {
                self.skip -= 1;
                continue;
            }
            self.event(event, now);
        }
        self.cursor.token = Some(page.next).filter(|next| !next.is_empty());
        if self.cursor.token.is_some() {
            self.skip = 0;
        }
        self.save()?;
        Ok(more)
    }

    fn event(&mut self, event: &LogEvent, now: Timestamp) {
        if event.timestamp == self.cursor.last {
            self.cursor.at_last += 1;
        } else {
            (self.cursor.last, self.cursor.at_last) = (event.timestamp, 1);
        }
        let at = event.at().unwrap_or(now);
        for line in event.message.trim_end_matches(['\n', '\r']).split('\n') {
            let step = self.step();
            if let Some(text) = self.cursor.progress.take(self.mark.as_deref(), at, line) {
                self.writer.record(at, LogStream::Stdout, step, text.as_bytes(), false);
            }
        }
    }

    /// The number of the step whose words come now.
    fn step(&self) -> u32 {
        let last = self.cursor.progress.steps.last();
        last.map_or(0, |step| u32::try_from(step.number).unwrap_or(u32::MAX))
    }

    /// Adds a line of Pitcrew's own words.
    pub fn say(&mut self, now: Timestamp, text: &str) -> io::Result<()> {
        let step = self.step();
        self.writer.say(now, step, text);
        self.save()
    }

    /// Adds the last line. Not counted by the cursor: if the end is not recorded after all, the next try says it again.
    pub fn last_words(&mut self, now: Timestamp, texts: impl IntoIterator<Item = String>) {
        let step = self.step();
        texts.into_iter().for_each(|text| self.writer.say(now, step, &text));
        self.writer.flush();
    }

    fn save(&mut self) -> io::Result<()> {
        self.writer.flush();
        self.cursor.here = self.writer.length();
        self.cursor.full = self.writer.is_full();
        self.cursor.write(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_exec::log;

    use super::*;

    fn sent() -> Sent {
        Sent { mark: Some("::m::".into()), log_limit: 1 << 20, ..Sent::default() }
    }

    fn events(from: i64, to: i64) -> Vec<LogEvent> {
        // Three of each time.
        (from..to).map(|n| LogEvent { timestamp: 1_767_225_600_000 + n / 3, message: format!("line {n}") }).collect()
    }

    fn page(events: Vec<LogEvent>, next: &str) -> LogPage {
        LogPage { events, next: next.into() }
    }

    fn lines(dir: &Path) -> Vec<String> {
        let chunk = log::read(&dir.join("log"), 0, 1 << 20, true).unwrap();
        chunk.records.into_iter().map(|record| record.text).collect()
    }

    fn expected(to: i64) -> Vec<String> {
        (0..to).map(|n| format!("line {n}")).collect()
    }

    /// A server may be killed at any moment; the next one makes the same log.
    #[test]
    fn a_copy_goes_on_after_any_death_without_a_line_twice_or_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut mirror = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(mirror.take(page(events(0, 4), "t1"), Timestamp::UNIX_EPOCH).unwrap());
        // It wrote more, and died before it moved the cursor.
        let mut more = std::fs::OpenOptions::new().append(true).open(dir.path().join("log")).unwrap();
        io::Write::write_all(&mut more, b"1767225600000009 o0 never men").unwrap();
        let mut next = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(next.from().0, Some("t1"));
        next.take(page(events(4, 8), "t2"), Timestamp::UNIX_EPOCH).unwrap();
        assert!(!next.take(page(vec![], "t2"), Timestamp::UNIX_EPOCH).unwrap(), "nothing more for now");
        assert_eq!(lines(dir.path()), expected(8));
    }

    /// A token is good for a day; then it goes on by the time of the last event.
    #[test]
    fn a_lost_token_costs_no_line_and_doubles_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut mirror = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        mirror.take(page(events(0, 5), "t1"), Timestamp::UNIX_EPOCH).unwrap();
        mirror.lose_token();
        let (token, since) = mirror.from();
        assert_eq!(token, None);
        // From that time on, CloudWatch gives all events of that time again: lines 3, 4 and 5.
        assert_eq!(since, Some(1_767_225_600_001));
        mirror.take(page(events(3, 9), "t9"), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(lines(dir.path()), expected(9));
    }

    #[test]
    fn what_the_driver_says_is_remembered_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut mirror = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        let say = |texts: &[&str]| {
            texts.iter().map(|text| LogEvent { timestamp: 1, message: (*text).into() }).collect::<Vec<_>>()
        };
        mirror.take(page(say(&["::m:: begin 1", "one"]), "t"), Timestamp::UNIX_EPOCH).unwrap();
        drop(mirror);
        let mut mirror = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        mirror.take(page(say(&["half::m:: end 1 0", "::m:: done 0"]), "u"), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((mirror.progress().done, mirror.progress().steps.len()), (Some(0), 1));
        assert_eq!(lines(dir.path()), ["one", "half"]);
    }
}
