//! A shell on a host that is kept, for whoever asks the same host again and again: each script costs a message there and one
//! back, where a session of its own costs a dozen.
//!
//! Invariants: scripts are run one after the other, each in a subshell and without input, so none leaves anything to the next.
//! Nothing of it stays on the host: the shell waits for its input, and ends with it. A talk that was left in the middle of
//! an answer is over, since what comes next would be taken for another answer.

use super::error::LinkError;
use super::exec::{Frame, Lease, RemoteProcess};

/// Needs no line break and no quoting that shells understand in their own ways.
const COMMAND: &str = "exec /bin/sh -c 'IFS= read -r b; eval \"$b\"' pitcrew";
/// Reads a script up to a line of its own, runs it, and says how much that printed, its exit status, and what it printed.
/// Lengths are bytes.
const LOOP: &str = "LC_ALL=C; n=$(printf '\\nx'); n=${n%x}; while IFS= read -r l; do b=; while [ \"$l\" != '#end' ]; do b=$b$l$n; IFS= read -r l || exit 0; done; \
                    o=$( (eval \"$b\") </dev/null 2>/dev/null; echo \"x$?\"); c=${o##*x}; o=${o%x*}; printf 'pitcrew-talk %s %s\\n%s' \"${#o}\" \"$c\" \"$o\"; done\n";
const MARK: &str = "pitcrew-talk ";
/// Bytes of an answer, and of what a login prints before the first.
pub(super) const MOST: usize = 4 << 20;

/// See the module.
pub struct Talk {
    process: RemoteProcess,
    /// What came and was not read yet.
    rest: Vec<u8>,
}

/// What a script printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub code: u32,
    pub stdout: Vec<u8>,
}

impl Talk {
    /// Takes the session for as long as it lasts.
    pub async fn open(lease: Lease) -> Result<Talk, LinkError> {
        let mut process = lease.open(COMMAND).await?;
        process.input.write(LOOP.as_bytes()).await?;
        Ok(Talk { process, rest: Vec::new() })
    }

    /// Runs a script. The talk goes on only if it has answered.
    pub async fn run(mut self, script: &str) -> Result<(Said, Talk), LinkError> {
        let end = if script.ends_with('\n') { "#end\n" } else { "\n#end\n" };
        self.process.input.write(format!("{script}{end}").as_bytes()).await?;
        loop {
            if let Some((said, used)) = read(&self.rest) {
                self.rest.drain(..used);
                return Ok((said, self));
            }
            match self.process.output.next().await {
                Some(Frame::Stdout(bytes)) if self.rest.len() + bytes.len() <= MOST => {
                    self.rest.extend_from_slice(&bytes);
                }
                // What the shell itself has to complain about is of no use.
                Some(Frame::Stderr(_)) => {}
                Some(Frame::Stdout(_)) | None => return Err(self.process.input.lost()),
            }
        }
    }
}

/// An answer, if all of it is there, and how much of the text it is. Before the first a login may have said something.
pub(super) fn read(text: &[u8]) -> Option<(Said, usize)> {
    let mark = text.windows(MARK.len()).position(|part| part == MARK.as_bytes())? + MARK.len();
    let line = mark + text[mark..].iter().position(|byte| *byte == b'\n')?;
    let words = std::str::from_utf8(&text[mark..line]).ok()?;
    let (length, code) = words.split_once(' ')?;
    let (length, code): (usize, u32) = (length.parse().ok()?, code.parse().ok()?);
    let stdout = text.get(line + 1..line.checked_add(1)?.checked_add(length)?)?.to_vec();
    Some((Said { code, stdout }, line + 1 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u32, text: &str) -> Said {
        Said { code, stdout: text.as_bytes().to_vec() }
    }

    #[test]
    fn an_answer_is_read_when_all_of_it_is_there_whatever_a_login_says_before() {
        let text = b"Welcome!\npitcrew-talk 4 3\na\nb\npitcrew-talk 0 0\n";
        assert_eq!(read(text), Some((said(3, "a\nb\n"), 30)));
        assert_eq!(read(&text[30..]), Some((said(0, ""), 17)));
        for part in 0..30 {
            assert_eq!(read(&text[..part]), None, "{part}");
        }
        assert_eq!(read(b"pitcrew-talk 99999999999999999999 0\n"), None);
        assert_eq!(read(format!("pitcrew-talk {} 0\n", usize::MAX).as_bytes()), None);
    }
}
