//! The log and the end of an attempt as its worker tells them, kept in the attempt's directory on the server: all that
//! readers, pages and outputs look at.
//!
//! Invariant: the log here is a prefix of the one there, byte by byte; its own length says how far it came, so whatever
//! comes twice, late or cut off adds nothing twice. The end appears whole or not at all, and after it nothing changes; so
//! whoever can still have the log brought takes the end only once the log is here up to its end.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use super::protocol::LogTail;
use crate::attempt_dir;
use crate::backend::Ended;
use crate::spec::DEFAULT_LOG_LIMIT;

/// Bytes of a log that are taken: what a runner keeps of one, and its own words beside that.
const MOST: u64 = DEFAULT_LOG_LIMIT + (8 << 20);

/// Takes bytes of a log from this offset, and returns up to where it is here.
pub fn append(dir: &Path, offset: u64, bytes: &[u8]) -> io::Result<u64> {
    let path = attempt_dir::log(dir);
    let length = match std::fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let known = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
    let new = bytes.get(known..).unwrap_or_default();
    if offset > length || new.is_empty() || attempt_dir::exit(dir).exists() {
        return Ok(length);
    }
    let room = usize::try_from(MOST.saturating_sub(length)).unwrap_or(usize::MAX);
    let kept = &new[..new.len().min(room)];
    std::fs::create_dir_all(dir)?;
    OpenOptions::new().create(true).append(true).open(&path)?.write_all(kept)?;
    // Of what is too much it is not asked for again.
    Ok(length + new.len() as u64)
}

/// Takes how the attempt ended, with the last of its log; the end that is then recorded. `None`: some of the log is missing,
/// and it is to be whole.
pub fn end(dir: &Path, ended: Ended, log: Option<&LogTail>, is_whole: bool) -> io::Result<Option<Ended>> {
    if let Some(before) = attempt_dir::recorded_end(dir)? {
        return Ok(Some(before));
    }
    std::fs::create_dir_all(dir)?;
    if let Some(tail) = log {
        let length = append(dir, tail.offset, tail.text.as_bytes())?;
        if is_whole && length < tail.offset.min(MOST) {
            return Ok(None);
        }
    }
    attempt_dir::record_end(dir, &ended)?;
    Ok(Some(ended))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pitcrew_core::state::Exit;

    use super::*;

    #[test]
    fn a_log_grows_by_what_is_new_whatever_comes_twice_late_or_from_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("attempt");
        let text = || std::fs::read_to_string(attempt_dir::log(&dir)).unwrap();
        assert_eq!(append(&dir, 3, b"lo").unwrap(), 0, "what is before is not here yet");
        assert_eq!(append(&dir, 0, b"hel").unwrap(), 3);
        assert_eq!(append(&dir, 0, b"he").unwrap(), 3);
        assert_eq!(append(&dir, 1, b"ello").unwrap(), 5);
        assert_eq!(append(&dir, 9, b"!").unwrap(), 5);
        assert_eq!(text(), "hello");
        let ended = Ended::bare(Exit::Code { code: 3 }, Timestamp::UNIX_EPOCH);
        let tail = LogTail { offset: 4, text: "o there".to_owned() };
        assert_eq!(end(&dir, ended.clone(), Some(&tail), true).unwrap(), Some(ended.clone()));
        let other = Ended::bare(Exit::Cancelled, Timestamp::UNIX_EPOCH);
        assert_eq!(end(&dir, other, None, true).unwrap(), Some(ended), "the first end is the end");
        assert_eq!(append(&dir, 11, b"more").unwrap(), 11);
        assert_eq!(text(), "hello there");
    }

    #[test]
    fn an_end_waits_for_what_another_server_had_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("attempt");
        let text = || std::fs::read_to_string(attempt_dir::log(&dir)).unwrap();
        let ended = Ended::bare(Exit::Code { code: 0 }, Timestamp::UNIX_EPOCH);
        let tail = |offset, text: &str| LogTail { offset, text: text.to_owned() };
        for late in [tail(5, " there"), tail(11, "")] {
            assert_eq!(end(&dir, ended.clone(), Some(&late), true).unwrap(), None);
            assert_eq!(attempt_dir::recorded_end(&dir).unwrap(), None);
        }
        assert_eq!(append(&dir, 0, b"hello").unwrap(), 5);
        assert_eq!(end(&dir, ended.clone(), Some(&tail(11, "")), true).unwrap(), None);
        assert_eq!(end(&dir, ended.clone(), Some(&tail(5, " there")), true).unwrap(), Some(ended.clone()));
        assert_eq!(text(), "hello there");
        // Nobody brings the rest of this one.
        let dir = folder.path().join("other");
        assert_eq!(end(&dir, ended.clone(), Some(&tail(5, " there")), false).unwrap(), Some(ended));
    }
}
