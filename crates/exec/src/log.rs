//! The log of an attempt: one file, one line per record.
//!
//! ```text
//! 1767225600000000 o0 epoch 1 of 3
//! 1767225600100000 o0+downloading 10%
//! 1767225600200000 e0 a warning
//! 1767225600900000 o0 … 100%
//! 1767225601000000 s0 step `train` ended with exit code 3
//! ```
//!
//! Unix microseconds; the stream (`o` stdout, `e` stderr, `s` Pitcrew's own words) and the step's number from 0; then a
//! space, or `+` when the line goes on in the next record of the same stream; then the text as it was written.
//!
//! What must not be shown is masked before it is written, see [`Masker`].
//!
//! Invariant: a record is at most [`MAX_RECORD`] bytes with its line break, and the writer adds whole records only. So
//! any byte offset can be followed by a search for a line break and reading goes on there, also while the file grows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod mask;
mod writer;

pub use mask::{MASK, Masker};
pub use writer::LogWriter;
pub(crate) use writer::character_boundary;

/// The longest text of one record; longer lines are continued.
pub const MAX_TEXT: usize = 16 << 10;
/// The longest record: 16 digits of time, a space, the stream, 10 digits of step, the separator, text, line break.
pub const MAX_RECORD: usize = MAX_TEXT + 32;

/// Who wrote a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Pitcrew itself.
    System,
}

impl LogStream {
    fn tag(self) -> u8 {
        match self {
            LogStream::Stdout => b'o',
            LogStream::Stderr => b'e',
            LogStream::System => b's',
        }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            b'o' => LogStream::Stdout,
            b'e' => LogStream::Stderr,
            b's' => LogStream::System,
            _ => return None,
        })
    }
}

/// One line, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Where it begins in the log, in bytes: reading from here gives it again.
    pub offset: u64,
    pub at: Timestamp,
    pub stream: LogStream,
    /// The step's number, from 0.
    pub step: u32,
    /// The line goes on in the next record of the same stream and step.
    pub continues: bool,
    /// Without its line break. Bytes that are not UTF-8 are shown as `U+FFFD`.
    pub text: String,
}

/// A part of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    pub records: Vec<LogRecord>,
    /// Where to go on, in bytes.
    pub next_offset: u64,
    /// The attempt is over and `next_offset` is the end of its log: nothing more comes.
    pub ended: bool,
}

/// Reads records from `offset`, in about `max_bytes` of the file; a missing file is an empty log.
///
/// `over` says that the file grows no more; it must have been found out before this call.
pub fn read(path: &Path, offset: u64, max_bytes: usize, over: bool) -> io::Result<LogChunk> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(LogChunk { records: Vec::new(), next_offset: offset, ended: over });
        }
        Err(e) => return Err(e),
    };
    // One byte before the offset tells whether a record begins there. Two records always fit, so reading always moves on.
    let from = offset.saturating_sub(1);
    let max_bytes = max_bytes.clamp(2 * MAX_RECORD, 16 << 20);
    let mut bytes = vec![0; max_bytes];
    let got = read_fully(&file, &mut bytes, from)?;
    let bytes = &bytes[..got];
    let at_end = got < max_bytes;
    let skip = if offset == 0 { Some(0) } else { bytes.iter().position(|b| *b == b'\n').map(|at| at + 1) };
    let end = bytes.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
    let (Some(skip), Some(end)) = (skip, end) else {
        return Ok(LogChunk { records: Vec::new(), next_offset: offset, ended: over && at_end });
    };
    let mut offset = from + skip as u64;
    let records = bytes[skip..end].split_inclusive(|b| *b == b'\n').filter_map(|line| {
        let record = parse(line, offset);
        offset += line.len() as u64;
        record
    });
    Ok(LogChunk { records: records.collect(), next_offset: from + end as u64, ended: over && at_end })
}

fn read_fully(file: &File, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], from + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// One record with its line break; `None` for what is none, which only a damaged file contains.
fn parse(line: &[u8], offset: u64) -> Option<LogRecord> {
    let line = line.strip_suffix(b"\n")?;
    let space = line.iter().position(|b| *b == b' ')?;
    let at = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    let rest = &line[space + 1..];
    let stream = LogStream::from_tag(*rest.first()?)?;
    let separator = rest.iter().position(|b| matches!(b, b' ' | b'+'))?;
    Some(LogRecord {
        offset,
        at: Timestamp::from_microsecond(at).ok()?,
        stream,
        step: std::str::from_utf8(&rest[1..separator]).ok()?.parse().ok()?,
        continues: rest[separator] == b'+',
        text: String::from_utf8_lossy(&rest[separator + 1..]).into_owned(),
    })
}

/// The last `lines` whole lines that the attempt's own steps wrote, at most `max_bytes` of them: for failure messages.
/// Empty when there is nothing to read.
pub fn tail(path: &Path, lines: usize, max_bytes: usize) -> String {
    let window = 64 << 10;
    let Ok(length) = std::fs::metadata(path).map(|m| m.len()) else { return String::new() };
    let Ok(chunk) = read(path, length.saturating_sub(window), window as usize + 1, false) else {
        return String::new();
    };
    let mut open: BTreeMap<(LogStream, u32), String> = BTreeMap::new();
    let mut whole: Vec<String> = Vec::new();
    for record in chunk.records.into_iter().filter(|r| r.stream != LogStream::System) {
        let key = (record.stream, record.step);
        let mut line = open.remove(&key).unwrap_or_default();
        line.push_str(&record.text);
        if record.continues {
            open.insert(key, line);
        } else if !line.trim().is_empty() {
            whole.push(line);
        }
    }
    whole.extend(open.into_values());
    let text = whole[whole.len().saturating_sub(lines)..].join("\n");
    let mut from = text.len().saturating_sub(max_bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::create(&path, 1 << 20).unwrap();
        let at = |n: i64| Timestamp::from_microsecond(1_767_225_600_000_000 + n).unwrap();
        log.record(at(0), LogStream::Stdout, 0, b"one", false);
        log.record(at(1), LogStream::Stdout, 0, b"half ", true);
        log.record(at(2), LogStream::Stderr, 0, b"\xff\0 x", false);
        log.record(at(3), LogStream::Stdout, 0, b"whole", false);
        log.record(at(4), LogStream::System, 12, b"step `x` ended", false);
        log.flush();
        (dir, path)
    }

    #[test]
    fn every_offset_resumes_at_the_next_record() {
        let (_dir, path) = sample();
        let all = read(&path, 0, 0, true).unwrap();
        assert_eq!(all.records.len(), 5);
        assert!(all.ended);
        assert_eq!(all.records[2].text, "\u{fffd}\0 x");
        assert_eq!((all.records[4].step, all.records[1].continues), (12, true));
        let bytes = std::fs::read(&path).unwrap();
        for offset in 0..=bytes.len() {
            let chunk = read(&path, offset as u64, 0, false).unwrap();
            let expected =
                if offset == 0 { 5 } else { bytes[offset - 1..].iter().filter(|b| **b == b'\n').count() - 1 };
            assert_eq!(chunk.records, all.records[5 - expected..], "offset {offset}");
            assert_eq!(chunk.next_offset, bytes.len() as u64);
        }
    }

    #[test]
    fn half_a_record_is_left_for_later() {
        let (_dir, path) = sample();
        let bytes = std::fs::read(&path).unwrap();
        let cut = bytes.len() - 3;
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let chunk = read(&path, 0, 0, false).unwrap();
        assert_eq!(chunk.records.len(), 4);
        std::fs::write(&path, &bytes).unwrap();
        let rest = read(&path, chunk.next_offset, 0, false).unwrap();
        assert_eq!(rest.records.len(), 1);
        assert_eq!(rest.records[0].text, "step `x` ended");
    }

    #[test]
    fn the_tail_joins_lines_and_leaves_out_our_own_words() {
        let (_dir, path) = sample();
        assert_eq!(tail(&path, 2, 4096), "\u{fffd}\0 x\nhalf whole");
        assert_eq!(tail(&path, 1, 5), "whole");
        assert_eq!(tail(Path::new("/nonexistent/log"), 1, 5), "");
    }
}
