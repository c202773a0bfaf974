//! The copy of what the containers of a pod write, in the attempt's log here.
//!
//! A cluster keeps a log as long as its pod, so everything is copied as it comes. What was copied is written down together
//! with how long our log was then; whoever goes on cuts off what came later and asks for what follows. Lines that begin with
//! the attempt's mark are not for people: they tell results.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use pitcrew_exec::log::{LogWriter, Masker};
use pitcrew_exec::spec::MAX_OUTPUT;
use pitcrew_exec::{LogStream, attempt_dir};
use serde::{Deserialize, Serialize};

use super::marks::{Mark, Sent};

/// How far the copy is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    here: u64,
    full: bool,
    /// By containers, in their order.
    of: BTreeMap<usize, At>,
    /// What was told of files: `step NAME`, `task NAME`, `own artifacts`, `all artifacts`, by containers.
    told: BTreeMap<usize, BTreeMap<String, String>>,
    /// Why a file was not told: `task NAME is a link`.
    #[serde(default)]
    refused: BTreeMap<usize, Vec<String>>,
    /// What was already said to people.
    said: Vec<String>,
}

/// How far one container's log was copied.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct At {
    /// When the last line was written, and how many of that time were taken.
    last: Option<Timestamp>,
    at_last: u32,
    /// The file that is being told.
    telling: Option<(String, String)>,
    is_whole: bool,
}

impl Mark for Cursor {
    const FILE: &str = "cursor.json";
}

pub struct Mirror {
    dir: PathBuf,
    writer: LogWriter,
    cursor: Cursor,
    mark: String,
    /// What is written down shows no secret, as the log.
    masker: Option<Arc<Masker>>,
    /// By containers: lines of the last time that are given again.
    again: BTreeMap<usize, u32>,
}

impl Mirror {
    /// Goes on where the cursor stands; begins a log if there is none.
    pub fn open(dir: &Path, sent: &Sent, now: Timestamp) -> io::Result<Mirror> {
        let path = attempt_dir::log(dir);
        let cursor = Cursor::read(dir)?.filter(|_| path.exists());
        let (writer, is_new) = match &cursor {
            Some(at) => (LogWriter::reopen(&path, at.here, sent.log_limit, at.full)?, false),
            None => {
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                (LogWriter::create(&path, sent.log_limit)?, true)
            }
        };
        let cursor = cursor.unwrap_or_default();
        let mark = sent.mark.clone();
        let mut mirror = Mirror { dir: dir.to_owned(), writer, cursor, mark, masker: None, again: BTreeMap::new() };
        if is_new {
            sent.notices.iter().for_each(|notice| mirror.writer.say(now, 0, notice));
            mirror.save()?;
        }
        Ok(mirror)
    }

    pub fn mask(&mut self, masker: Option<Arc<Masker>>) {
        self.masker.clone_from(&masker);
        self.writer.mask(masker);
    }

    /// The log of this container is asked for: from which time on, if not from its beginning.
    pub fn begin(&mut self, container: usize) -> Option<Timestamp> {
        let at = self.cursor.of.entry(container).or_default();
        self.again.insert(container, at.at_last);
        at.last
    }

    /// Takes the next lines, each with its time in front.
    pub fn take(&mut self, container: usize, lines: &[Vec<u8>]) -> io::Result<()> {
        for line in lines {
            self.line(container, line);
        }
        self.save()
    }

    fn line(&mut self, container: usize, line: &[u8]) {
        let (time, text) = match line.iter().position(|byte| *byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let Some(time) = std::str::from_utf8(time).ok().and_then(|time| time.parse::<Timestamp>().ok()) else {
            // Words of the node about the log itself.
            return;
        };
        let again = self.again.entry(container).or_default();
        let at = self.cursor.of.entry(container).or_default();
        match at.last {
            Some(last) if time < last => return,
            Some(last) if time == last && *again > 0 => {
                *again -= 1;
                return;
            }
            Some(last) if time == last => at.at_last += 1,
            Some(_) | None => (at.last, at.at_last) = (Some(time), 1),
        }
        let mark = self.mark.as_bytes();
        let found = text.windows(mark.len().max(1)).position(|window| window == mark).filter(|_| !mark.is_empty());
        let step = u32::try_from(container).unwrap_or(u32::MAX);
        let Some(found) = found else {
            self.writer.record(time, LogStream::Stdout, step, text, false);
            return;
        };
        if found > 0 {
            self.writer.record(time, LogStream::Stdout, step, &text[..found], false);
        }
        let words = String::from_utf8_lossy(&text[found + mark.len()..]).into_owned();
        let masked = |text: &str| self.masker.as_ref().map_or_else(|| text.to_owned(), |masker| masker.text(text));
        if let Some(name) = words.strip_prefix(' ') {
            at.telling = Some((name.to_owned(), String::new()));
        } else if let (Some(more), Some((_, told))) = (words.strip_prefix('+'), &mut at.telling) {
            // One byte more than is taken says that it is too long.
            if told.len() <= MAX_OUTPUT {
                told.push_str(&masked(more));
                told.push('\n');
            }
        } else if words.starts_with('.')
            && let Some((name, mut told)) = at.telling.take()
        {
            // That of the last line is not the file's.
            told.pop();
            let told = masked(&told);
            self.cursor.told.entry(container).or_default().insert(name, told);
        } else if let Some(why) = words.strip_prefix('!') {
            self.cursor.refused.entry(container).or_default().push(why.to_owned());
        }
    }

    /// All of it is here.
    pub fn whole(&mut self, container: usize) -> io::Result<()> {
        self.cursor.of.entry(container).or_default().is_whole = true;
        self.save()
    }

    pub fn is_whole(&self, container: usize) -> bool {
        self.cursor.of.get(&container).is_some_and(|at| at.is_whole)
    }

    /// What a container told of a file.
    pub fn told(&self, container: usize, what: &str) -> Option<&str> {
        self.cursor.told.get(&container).and_then(|told| told.get(what)).map(String::as_str)
    }

    /// Why a file of a container was not told.
    pub fn refused(&self, container: usize, what: &str) -> Option<&str> {
        let all = self.cursor.refused.get(&container).into_iter().flatten();
        all.filter_map(|why| why.strip_prefix(what)?.strip_prefix(' ')).next()
    }

    /// Adds a line of Pitcrew's own words, once.
    pub fn say(&mut self, now: Timestamp, container: usize, text: &str) -> io::Result<()> {
        if self.cursor.said.iter().any(|said| said == text) {
            return Ok(());
        }
        self.cursor.said.push(text.to_owned());
        self.writer.say(now, u32::try_from(container).unwrap_or(u32::MAX), text);
        self.save()
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
        Sent { mark: "::m::".into(), log_limit: 1 << 20, ..Sent::default() }
    }

    fn lines(texts: &[&str]) -> Vec<Vec<u8>> {
        // Three of each time.
        texts.iter().enumerate().map(|(n, text)| format!("2026-01-01T00:00:0{}Z {text}", n / 3).into_bytes()).collect()
    }

    fn shown(dir: &Path) -> Vec<String> {
        let chunk = log::read(&dir.join("log"), 0, 1 << 20, true).unwrap();
        chunk.records.into_iter().map(|record| record.text).collect()
    }

    /// A server may be killed at any moment; the next one makes the same log out of what the cluster gives again.
    #[test]
    fn a_copy_goes_on_after_any_death_without_a_line_twice_or_lost() {
        let dir = tempfile::tempdir().unwrap();
        let all = lines(&["a", "b", "c", "d", "e", "f", "g"]);
        let mut mirror = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(mirror.begin(0), None);
        mirror.take(0, &all[..5]).unwrap();
        // It wrote more, and died before it moved the cursor.
        let mut more = std::fs::OpenOptions::new().append(true).open(dir.path().join("log")).unwrap();
        io::Write::write_all(&mut more, b"1767225600000009 o0 never men").unwrap();
        let mut next = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(next.begin(0), Some("2026-01-01T00:00:01Z".parse().unwrap()));
        // Times are asked for by the second, so older lines come again.
        next.take(0, &all[2..]).unwrap();
        assert_eq!(shown(dir.path()), ["a", "b", "c", "d", "e", "f", "g"]);
    }

    #[test]
    fn files_are_told_as_they_are_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut mirror = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        mirror.begin(1);
        let told =
            lines(&["seen::m:: task r", "::m::+ one", "::m::+", "::m::.", "::m:: task s", "::m::+two", "::m::."]);
        mirror.take(1, &told[..2]).unwrap();
        let mut mirror = Mirror::open(dir.path(), &sent(), Timestamp::UNIX_EPOCH).unwrap();
        mirror.begin(1);
        mirror.take(1, &told).unwrap();
        assert_eq!((mirror.told(1, "task r"), mirror.told(1, "task s")), (Some(" one\n"), Some("two")));
        assert_eq!((mirror.told(1, "task t"), mirror.told(0, "task r")), (None, None));
        assert_eq!(shown(dir.path()), ["seen"]);
    }
}
