//! What a step writes: two pipes in, log records out.
//!
//! Invariant: the pipes are always emptied, whatever becomes of the log, so that no process waits for its reader.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::clock;
use crate::log::{LogStream, LogWriter, MAX_TEXT, character_boundary};
use crate::spec::MAX_OUTPUT;

/// How long half a line may wait for its rest before it is shown.
const IDLE: Duration = Duration::from_millis(100);
/// Chunks taken from one pipe before the other one has its turn.
const TURN: usize = 4;

/// The two pipes of one step.
pub struct Output {
    stdout: Source,
    stderr: Source,
    step: u32,
    capture: Option<Capture>,
    /// When half lines are to be shown.
    pub flush_at: Option<Instant>,
}

/// What a step wrote to stdout, up to [`MAX_OUTPUT`] bytes.
#[derive(Default)]
pub struct Capture {
    bytes: Vec<u8>,
    pub cut: bool,
}

impl Capture {
    pub fn into_text(self) -> String {
        String::from_utf8(self.bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

struct Source {
    pipe: Option<pipe::Receiver>,
    stream: LogStream,
    /// The line that has no end yet.
    line: Vec<u8>,
    /// A part of this line was shown already.
    continued: bool,
}

impl Output {
    pub fn new(stdout: OwnedFd, stderr: OwnedFd, step: u32, capture: bool) -> io::Result<Output> {
        Ok(Output {
            stdout: Source::new(stdout, LogStream::Stdout)?,
            stderr: Source::new(stderr, LogStream::Stderr)?,
            step,
            capture: capture.then(Capture::default),
            flush_at: None,
        })
    }

    /// Nobody can write any more.
    pub fn is_closed(&self) -> bool {
        self.stdout.pipe.is_none() && self.stderr.pipe.is_none()
    }

    /// Waits until there is something to read or a pipe was closed; for ever once both are.
    pub async fn ready(&self) {
        tokio::select! {
            () = self.stdout.ready() => {}
            () = self.stderr.ready() => {}
        }
    }

    /// Takes what is there, a bounded amount, without waiting; says whether there was anything. Goes by turns, so that
    /// the order between the streams is kept as far as it can be seen.
    pub fn pump(&mut self, buffer: &mut [u8], log: &mut LogWriter) -> bool {
        let at = clock::now();
        let mut any = false;
        for _ in 0..TURN {
            let mut this_turn = false;
            for source in [&mut self.stdout, &mut self.stderr] {
                let Some(bytes) = source.read(buffer) else { continue };
                this_turn = true;
                if let (Some(capture), LogStream::Stdout) = (&mut self.capture, source.stream) {
                    let room = MAX_OUTPUT - capture.bytes.len();
                    capture.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    capture.cut |= bytes.len() > room;
                }
                source.feed(bytes, at, self.step, log);
            }
            any |= this_turn;
            if !this_turn {
                break;
            }
        }
        for source in [&mut self.stdout, &mut self.stderr] {
            if source.pipe.is_none() {
                source.finish(at, self.step, log);
            }
        }
        log.flush();
        let half_line = !self.stdout.line.is_empty() || !self.stderr.line.is_empty();
        self.flush_at = half_line.then(|| clock::instant() + IDLE);
        any
    }

    /// Shows lines that have no end yet.
    pub fn show_half_lines(&mut self, log: &mut LogWriter) {
        let at = clock::now();
        for source in [&mut self.stdout, &mut self.stderr] {
            source.show_half_line(at, self.step, log);
        }
        log.flush();
        self.flush_at = None;
    }

    /// Takes what is still there, at most a few full pipes of it, and closes both.
    pub fn close(mut self, buffer: &mut [u8], log: &mut LogWriter) -> Option<Capture> {
        for _ in 0..16 {
            if self.is_closed() || !self.pump(buffer, log) {
                break;
            }
        }
        let at = clock::now();
        for source in [&mut self.stdout, &mut self.stderr] {
            source.finish(at, self.step, log);
        }
        log.flush();
        self.capture
    }
}

impl Source {
    fn new(pipe: OwnedFd, stream: LogStream) -> io::Result<Source> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        Ok(Source { pipe: Some(pipe), stream, line: Vec::new(), continued: false })
    }

    async fn ready(&self) {
        match &self.pipe {
            // An error means that it cannot be read; `read` finds that out too, and closes it.
            Some(pipe) => drop(pipe.readable().await),
            None => std::future::pending().await,
        }
    }

    /// Some bytes, if there are any now. Forgets the pipe at its end.
    fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        match self.pipe.as_ref()?.try_read(buffer) {
            Ok(0) => self.pipe = None,
            Ok(n) => return Some(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.pipe = None,
        }
        None
    }

    fn feed(&mut self, bytes: &[u8], at: Timestamp, step: u32, log: &mut LogWriter) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            if self.line.is_empty() {
                log.record(at, self.stream, step, &rest[..end], false);
            } else {
                self.line.extend_from_slice(&rest[..end]);
                log.record(at, self.stream, step, &self.line, false);
                self.line.clear();
            }
            self.continued = false;
            rest = &rest[end + 1..];
        }
        self.line.extend_from_slice(rest);
        if self.line.len() >= MAX_TEXT {
            self.show_half_line(at, step, log);
        }
    }

    fn show_half_line(&mut self, at: Timestamp, step: u32, log: &mut LogWriter) {
        // The last character may have come only in part.
        let cut = whole_characters(&self.line);
        if cut > 0 {
            log.record(at, self.stream, step, &self.line[..cut], true);
            // Not `drain`: it would keep the memory.
            self.line = self.line.split_off(cut);
            self.continued = true;
        }
    }

    /// A line that ends with the pipe is a line; one that was shown in part is closed.
    fn finish(&mut self, at: Timestamp, step: u32, log: &mut LogWriter) {
        self.pipe = None;
        if std::mem::take(&mut self.continued) || !self.line.is_empty() {
            log.record(at, self.stream, step, &self.line, false);
            self.line = Vec::new();
        }
    }
}

/// How many of the bytes are whole characters, leaving out one that may still be coming.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        // Something in it is no text at all; then only the cut at its end matters.
        Err(_) => {
            let last = character_boundary(bytes, bytes.len().saturating_sub(1));
            match std::str::from_utf8(&bytes[last..]) {
                Err(e) if e.error_len().is_none() => last,
                _ => bytes.len(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_character_that_may_still_come_is_held_back() {
        let euro = "€".as_bytes();
        assert_eq!(whole_characters(b"abc"), 3);
        assert_eq!(whole_characters(&[b"ab", &euro[..2]].concat()), 2);
        assert_eq!(whole_characters(&[b"\xff\xfeab", &euro[..1]].concat()), 4);
        assert_eq!(whole_characters(b"ab\xff"), 3);
        assert_eq!(whole_characters(&euro[..1]), 0);
    }
}
