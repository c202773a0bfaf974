//! Writes the log of an attempt, and never stands in the way of the attempt.
//!
//! Invariant: the file holds whole records only, and no secret that the writer was told of. A write that fails is undone, what it held is dropped, and the log
//! says so as soon as it can be written again; the process that talks is never held up and never told.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::{LogStream, MAX_TEXT, Masker};

/// Bytes of buffer that stay allocated between writes; there may be thousands of writers.
const KEPT: usize = 4 << 10;

/// Buffered until [`LogWriter::flush`] or 64 KiB.
pub struct LogWriter {
    file: File,
    buffer: Vec<u8>,
    /// Bytes of whole records in the file.
    length: u64,
    limit: u64,
    full: bool,
    /// Bytes that could not be written since the last success.
    dropped: u64,
    masker: Option<Arc<Masker>>,
    /// By stream and step: the end of half a line that may be the beginning of a secret.
    held: BTreeMap<(LogStream, u32), Vec<u8>>,
}

impl LogWriter {
    /// Makes a new file; fails if there is one already.
    pub fn create(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o640).open(path)?;
        Ok(LogWriter::over(file, limit))
    }

    /// Masks from now on. The end of half a line is held back while it may be the beginning of a secret.
    pub fn mask(&mut self, masker: Option<Arc<Masker>>) {
        self.masker = masker;
    }

    /// Some text was taken and is not written yet, because it may be the beginning of a secret.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    fn over(file: File, limit: u64) -> Self {
        LogWriter {
            file,
            buffer: Vec::new(),
            length: 0,
            limit,
            full: false,
            dropped: 0,
            masker: None,
            held: BTreeMap::new(),
        }
    }

    /// Goes on with a log of which `length` bytes count; what follows them is cut off. `full` is what
    /// [`LogWriter::is_full`] said when it had that length.
    pub fn reopen(path: &Path, length: u64, limit: u64, full: bool) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(length)?;
        Ok(LogWriter { length, full, ..LogWriter::over(file, limit) })
    }

    /// Bytes of whole records in the file; after a flush, all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The log reached its limit and says so.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Adds one line or part of a line. Text beyond [`MAX_TEXT`] is split; it must not contain a line break.
    pub fn record(&mut self, at: Timestamp, stream: LogStream, step: u32, text: &[u8], continues: bool) {
        debug_assert!(!text.contains(&b'\n'));
        let Some(masker) = self.masker.clone() else { return self.add(at, stream, step, text, continues) };
        let mut all = self.held.remove(&(stream, step)).unwrap_or_default();
        all.extend_from_slice(text);
        if !continues {
            return self.add(at, stream, step, &masker.bytes(&all), false);
        }
        let settled = masker.settled(&all);
        if settled > 0 {
            self.add(at, stream, step, &masker.bytes(&all[..settled]), true);
        }
        if settled < all.len() {
            self.held.insert((stream, step), all.split_off(settled));
        }
    }

    fn add(&mut self, at: Timestamp, stream: LogStream, step: u32, text: &[u8], continues: bool) {
        let mut rest = text;
        while rest.len() > MAX_TEXT {
            let (part, after) = rest.split_at(character_boundary(rest, MAX_TEXT));
            self.push(at, stream, step, part, true);
            rest = after;
        }
        self.push(at, stream, step, rest, continues);
        if self.buffer.len() >= 64 << 10 {
            self.flush();
        }
    }

    /// A line of Pitcrew's own words. Line breaks in it become spaces.
    pub fn say(&mut self, at: Timestamp, step: u32, text: &str) {
        self.record(at, LogStream::System, step, text.replace('\n', " ").as_bytes(), false);
    }

    fn push(&mut self, at: Timestamp, stream: LogStream, step: u32, text: &[u8], continues: bool) {
        let size = self.length + self.buffer.len() as u64;
        // Our own words are few and are kept beyond the limit: they tell how the attempt ended.
        if stream != LogStream::System && size + text.len() as u64 > self.limit {
            if !std::mem::replace(&mut self.full, true) {
                let notice = format!("the log reached its limit of {} bytes; what follows is not kept", self.limit);
                self.append(at, LogStream::System, step, notice.as_bytes(), false);
            }
            return;
        }
        if !self.full || stream == LogStream::System {
            self.append(at, stream, step, text, continues);
        }
    }

    fn append(&mut self, at: Timestamp, stream: LogStream, step: u32, text: &[u8], continues: bool) {
        let separator = if continues { '+' } else { ' ' };
        // Writing into a `Vec` cannot fail.
        let _ = write!(self.buffer, "{} {}{step}{separator}", at.as_microsecond(), stream.tag() as char);
        self.buffer.extend_from_slice(text);
        self.buffer.push(b'\n');
    }

    /// Hands everything to the operating system. Failures are kept back and told later in the log itself.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.buffer);
        match self.file.write_all(&bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                if self.dropped > 0 {
                    self.tell_dropped(&bytes);
                }
            }
            Err(_) => {
                self.dropped += bytes.len() as u64;
                // Where this fails too, readers skip the torn record.
                let _ = self.file.set_len(self.length);
            }
        }
        self.buffer = bytes;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
    }

    fn tell_dropped(&mut self, last: &[u8]) {
        // The time of the notice is that of the records just written, so that this needs no clock.
        let micros: &[u8] = last.split(|b| *b == b' ').next().unwrap_or_default();
        let time = String::from_utf8_lossy(micros);
        let notice = format!("{time} s0 {} bytes of log are missing here: they could not be written\n", self.dropped);
        if self.file.write_all(notice.as_bytes()).is_ok() {
            self.length += notice.len() as u64;
            self.dropped = 0;
        } else {
            let _ = self.file.set_len(self.length);
        }
    }
}

/// The largest cut at or before `at` that splits no UTF-8 character; `at` itself where the bytes are no text.
pub fn character_boundary(bytes: &[u8], at: usize) -> usize {
    let is_inside = |at: usize| bytes.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    (at.saturating_sub(3)..=at).rev().find(|cut| !is_inside(*cut)).filter(|cut| *cut > 0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::read;

    fn at() -> Timestamp {
        Timestamp::from_microsecond(1_767_225_600_000_000).unwrap()
    }

    #[test]
    fn a_full_log_says_so_once_and_still_tells_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::create(&path, 300).unwrap();
        for _ in 0..100 {
            log.record(at(), LogStream::Stdout, 0, b"a line of some length", false);
        }
        log.say(at(), 0, "step `x` ended\nwith exit code 1");
        log.flush();
        let chunk = read(&path, 0, 1 << 20, true).unwrap();
        let notices: Vec<_> = chunk.records.iter().filter(|r| r.stream == LogStream::System).collect();
        assert_eq!(notices.len(), 2, "{chunk:?}");
        assert!(notices[0].text.contains("limit of 300 bytes"));
        assert_eq!(notices[1].text, "step `x` ended with exit code 1");
        assert!(chunk.records.len() > 5 && chunk.records.len() < 20);
    }

    #[test]
    fn a_long_text_is_split_into_continued_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::create(&path, 1 << 20).unwrap();
        // Three bytes a character, and 16 KiB is no multiple of three.
        let text = "€".repeat(MAX_TEXT * 2 / 3 + 5);
        log.record(at(), LogStream::Stdout, 0, text.as_bytes(), false);
        log.flush();
        let records = read(&path, 0, 1 << 20, true).unwrap().records;
        assert_eq!(records.iter().map(|r| r.continues).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(records.into_iter().map(|r| r.text).collect::<String>(), text);
    }

    /// A secret in two halves, of which the first is shown after a while as half a line is.
    #[test]
    fn a_secret_is_masked_however_late_its_end_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::create(&path, 1 << 20).unwrap();
        log.mask(Masker::new(["hunter2-hunter2"]).map(Arc::new));
        log.record(at(), LogStream::Stdout, 0, b"login hunter2-", true);
        assert!(log.is_holding());
        log.record(at(), LogStream::Stderr, 0, b"hunter2-hunter3", false);
        log.record(at(), LogStream::Stdout, 0, b"hunter", true);
        log.record(at(), LogStream::Stdout, 0, b"2 ok hun", true);
        log.record(at(), LogStream::Stdout, 0, b"", false);
        log.flush();
        let texts: Vec<_> = read(&path, 0, 1 << 20, true).unwrap().records.into_iter().map(|r| r.text).collect();
        assert_eq!(texts, ["login ", "hunter2-hunter3", "*** ok ", "hun"]);
        assert!(!log.is_holding());
    }

    /// `/dev/full` refuses every write, as a full disk does.
    #[test]
    fn a_disk_that_is_full_costs_the_log_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::create(&path, 1 << 20).unwrap();
        log.record(at(), LogStream::Stdout, 0, b"before", false);
        log.flush();
        let real = std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.record(at(), LogStream::Stdout, 0, b"lost", false);
        log.flush();
        log.file = real;
        log.record(at(), LogStream::Stdout, 0, b"after", false);
        log.flush();
        let texts: Vec<_> = read(&path, 0, 1 << 20, true).unwrap().records.into_iter().map(|r| r.text).collect();
        assert_eq!(texts.len(), 3);
        assert_eq!((texts[0].as_str(), texts[1].as_str()), ("before", "after"));
        assert!(texts[2].contains("bytes of log are missing"), "{texts:?}");
    }
}
