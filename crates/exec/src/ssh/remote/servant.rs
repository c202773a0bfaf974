//! Talking with the servant of a host: one long-lived command there that answers questions about all attempts.
//!
//! Questions are lines; an answer is a line `MARK LENGTH` and that many bytes. Answers come in the order of the
//! questions, so many can be under way. All may be repeated, so a broken channel is answered by a new one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::host::{Channel, Hosts, Unreached};
use super::script;
use crate::clock;
use crate::place::SshPlace;

/// How long one answer may take, with everything asked before it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a login may print before our first line.
const MAX_NOISE: usize = 1 << 20;
const MAX_ANSWER: usize = 16 << 20;
/// A clock that is no further away is right: it is told in whole seconds, and the answer takes a while.
const CLOCK_TOLERANCE: i64 = 2;

type Waiters = Arc<Mutex<VecDeque<oneshot::Sender<Vec<u8>>>>>;

/// See the module.
pub struct Servant {
    questions: mpsc::UnboundedSender<(String, oneshot::Sender<Vec<u8>>)>,
    tasks: [AbortHandle; 2],
    /// What the clock of the host is ahead of ours.
    pub ahead: SignedDuration,
    /// For messages.
    host: String,
}

/// What a host says of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Never,
    /// Somebody kept it from beginning: `cancelled` or `failed`.
    Kept(String),
    /// Since when, once a step began.
    Running(Option<Timestamp>),
    Ended,
    Rebooted,
    /// Its keeper, process so-and-so, is gone, and so is everything else of it.
    Gone(String),
}

/// Of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub state: State,
    /// Bytes of log, all of them if it is over.
    pub log: u64,
}

impl Servant {
    /// Starts the servant.
    pub async fn open(hosts: &dyn Hosts, place: &SshPlace) -> Result<Servant, Unreached> {
        let errand = script::servant();
        let Channel { mut input, output } = hosts.open(place, &errand.command).await?;
        let broke = |e: io::Error| Unreached::passing(format!("the connection to `{place}` broke: {e}"));
        input.write_all(&errand.input).await.map_err(broke)?;
        input.flush().await.map_err(broke)?;
        let mut output = BufReader::with_capacity(64 << 10, output);
        let hello = hello(&mut output, &errand.mark, place).await?;
        let mut words = hello.split_ascii_whitespace();
        if words.next() != Some("hello") {
            let why = hello.strip_prefix("failed").unwrap_or(&hello).trim().to_owned();
            return Err(Unreached {
                words: format!("no directory for pitcrew can be made on `{place}`: {why}"),
                lasting: true,
            });
        }
        let there: i64 = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let ahead = there - clock::now().as_second();
        let (questions, queue) = mpsc::unbounded_channel();
        let waiters = Waiters::default();
        let writer = tokio::spawn(write_all(input, queue, Arc::clone(&waiters))).abort_handle();
        let ends_too = writer.clone();
        let reader = tokio::spawn(async move {
            read_all(output, &errand.mark, &waiters).await;
            // Then nobody can ask any more, and whoever waits for an answer is told.
            ends_too.abort();
        });
        Ok(Servant {
            questions,
            tasks: [reader.abort_handle(), writer],
            ahead: SignedDuration::from_secs(if ahead.abs() > CLOCK_TOLERANCE { ahead } else { 0 }),
            host: place.to_string(),
        })
    }

    /// No answer comes any more.
    pub fn is_broken(&self) -> bool {
        self.questions.is_closed()
    }

    /// Waits until no answer can come any more.
    pub async fn broken(&self) {
        self.questions.closed().await;
    }

    async fn ask(&self, question: String) -> Result<Vec<u8>, Unreached> {
        let broke = || Unreached::passing(format!("the connection to `{}` broke", self.host));
        let (sender, answer) = oneshot::channel();
        self.questions.send((question, sender)).map_err(|_| broke())?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| broke()),
            Err(_) => {
                // What comes later would be taken for another answer.
                self.tasks.iter().for_each(AbortHandle::abort);
                Err(Unreached::passing(format!("no answer from `{}` within {} s", self.host, PATIENCE.as_secs())))
            }
        }
    }

    /// What is true of each; in the same order.
    pub async fn states(&self, names: &[String]) -> Result<Vec<Seen>, Unreached> {
        let answer = self.ask(format!("states {}\n", names.join(" "))).await?;
        let text = String::from_utf8_lossy(&answer);
        names
            .iter()
            .map(|name| {
                seen(&text, name, self.ahead)
                    .ok_or_else(|| Unreached::passing(format!("the answer of `{}` makes no sense", self.host)))
            })
            .collect()
    }

    /// Bytes of a file that has them.
    pub async fn read(&self, name: &str, file: &str, offset: u64, bytes: u64) -> Result<Vec<u8>, Unreached> {
        self.ask(format!("read {name} {file} {offset} {bytes}\n")).await
    }

    /// Names and sizes of the files that are wanted after the end.
    pub async fn files(&self, name: &str) -> Result<Vec<(String, u64)>, Unreached> {
        let answer = self.ask(format!("list {name}\n")).await?;
        Ok(String::from_utf8_lossy(&answer).lines().filter_map(listed).collect())
    }

    /// The text of `exit` and `steps`.
    pub async fn end(&self, name: &str) -> Result<String, Unreached> {
        Ok(String::from_utf8_lossy(&self.ask(format!("end {name}\n")).await?).into_owned())
    }

    /// Makes the directory of an attempt; says why that cannot be.
    pub async fn make(&self, name: &str) -> Result<Option<String>, Unreached> {
        let answer = self.ask(format!("make {name}\n")).await?;
        Ok(Some(String::from_utf8_lossy(&answer).trim().to_owned()).filter(|why| !why.is_empty()))
    }

    /// Where its socket belongs; one that a broken connection left is removed.
    pub async fn socket(&self, name: &str) -> Result<String, Unreached> {
        let answer = self.ask(format!("socket {name}\n")).await?;
        match String::from_utf8(answer) {
            Ok(path) if path.starts_with('/') => Ok(path),
            answer => Err(self.refused(&answer.map_or_else(|e| e.into_bytes(), String::into_bytes))),
        }
    }

    /// Asks it to end; `grace` in hundredths of a second.
    pub async fn cancel(&self, name: &str, grace: u64) -> Result<(), Unreached> {
        self.told(format!("cancel {name} {grace}\n")).await
    }

    /// Removes what is left of an attempt.
    pub async fn remove(&self, name: &str) -> Result<(), Unreached> {
        self.told(format!("remove {name}\n")).await
    }

    /// Removes the directory of a run.
    pub async fn leave(&self, workspace: &str) -> Result<(), Unreached> {
        self.told(format!("leave {workspace}\n")).await
    }

    fn refused(&self, answer: &[u8]) -> Unreached {
        Unreached::passing(format!("`{}`: {}", self.host, said(answer)))
    }

    async fn told(&self, order: String) -> Result<(), Unreached> {
        let answer = self.ask(order).await?;
        if answer.is_empty() { Ok(()) } else { Err(self.refused(&answer)) }
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A time of the host's clock as one of ours.
pub fn time_here(nanos: i64, ahead: SignedDuration) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanos.into()).ok()?.checked_sub(ahead).ok()
}

async fn hello(output: &mut (impl AsyncBufReadExt + Unpin), mark: &str, place: &SshPlace) -> Result<String, Unreached> {
    let mut noise = Vec::new();
    loop {
        let from = noise.len();
        let mut limited = AsyncReadExt::take(&mut *output, MAX_NOISE as u64);
        let read = limited.read_until(b'\n', &mut noise).await;
        let read = read.map_err(|e| Unreached::passing(format!("the connection to `{place}` broke: {e}")))?;
        let line = String::from_utf8_lossy(&noise[from..]);
        if let Some(said) = line.strip_prefix(mark) {
            return Ok(said.trim().to_owned());
        }
        if read == 0 || noise.len() > MAX_NOISE {
            // A session that was cut, and a user without a shell, look alike.
            let said = said(&noise);
            return Err(Unreached::passing(match said.is_empty() {
                true => format!("`{place}` ended the session without a word"),
                false => format!("`{place}` ended the session before /bin/sh answered; it said `{said}`"),
            }));
        }
    }
}

/// The end of what somebody said, for a message.
pub fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.trim_end();
    let from = text.char_indices().rev().take(200).last().map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

async fn read_all(mut output: BufReader<Box<dyn tokio::io::AsyncRead + Send + Unpin>>, mark: &str, waiters: &Waiters) {
    let mut line = String::new();
    loop {
        line.clear();
        let length = match AsyncReadExt::take(&mut output, 200).read_line(&mut line).await {
            Ok(_) => line.strip_prefix(mark).and_then(|rest| rest.trim().parse::<usize>().ok()),
            Err(_) => None,
        };
        let Some(length) = length.filter(|length| *length <= MAX_ANSWER) else { break };
        let mut body = vec![0; length];
        if output.read_exact(&mut body).await.is_err() {
            break;
        }
        let waiter = lock(waiters).pop_front();
        match waiter {
            // Who asked may have given up.
            Some(waiter) => drop(waiter.send(body)),
            None => break,
        }
    }
}

async fn write_all(
    mut input: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    mut queue: mpsc::UnboundedReceiver<(String, oneshot::Sender<Vec<u8>>)>,
    waiters: Waiters,
) {
    while let Some((question, waiter)) = queue.recv().await {
        lock(&waiters).push_back(waiter);
        if input.write_all(question.as_bytes()).await.is_err() || input.flush().await.is_err() {
            break;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds one attempt in the answer: `NAME STATE …` lines, then `ls -ln` of the logs.
fn seen(text: &str, name: &str, ahead: SignedDuration) -> Option<Seen> {
    let said = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    let (word, more) = said.split_once(' ').unwrap_or((said, ""));
    let state = match word {
        "never" => State::Never,
        "cancelled" | "failed" => State::Kept(word.to_owned()),
        "running" => {
            let nanos = more.parse().ok().filter(|nanos: &i64| *nanos > 0);
            State::Running(nanos.and_then(|nanos| time_here(nanos, ahead)))
        }
        "ended" => State::Ended,
        "rebooted" => State::Rebooted,
        "gone" => State::Gone(more.to_owned()),
        _ => return None,
    };
    let log = text.lines().filter_map(listed).find(|(path, _)| path.strip_suffix("/log") == Some(name));
    Some(Seen { state, log: log.map_or(0, |(_, size)| size) })
}

/// A line of `ls -ln` about a regular file: its name and size.
fn listed(line: &str) -> Option<(String, u64)> {
    let mut rest = line.strip_prefix('-')?;
    let mut words = Vec::new();
    // Mode, links, user, group, size, month, day, time; a name may hold blanks.
    for _ in 0..8 {
        let (word, after) = rest.trim_start().split_once(' ')?;
        words.push(word);
        rest = after;
    }
    Some((rest.to_owned(), words[4].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_sizes_are_found_among_each_other() {
        let text = "1-aa ended\n1-ab never\n1-ac running 1767225600000000000\n1-ad gone 77\n1-ae running 0\n1-af odd\n\
                    -rw------- 1 0 0 123 Nov 22 13:01 1-aa/log\n-rw-------    1 0        0              7 Nov 22  2025 1-ac/log\n";
        let begun = Timestamp::from_second(1_767_225_595).unwrap();
        let state = |name| seen(text, name, SignedDuration::from_secs(5)).map(|seen| (seen.state, seen.log));
        assert_eq!(state("1-aa"), Some((State::Ended, 123)));
        assert_eq!(state("1-ab"), Some((State::Never, 0)));
        assert_eq!(state("1-ac"), Some((State::Running(Some(begun)), 7)));
        assert_eq!(state("1-ad"), Some((State::Gone("77".into()), 0)));
        assert_eq!(state("1-ae"), Some((State::Running(None), 0)));
        assert_eq!((state("1-af"), state("1-a"), state("1-zz")), (None, None, None));
        assert_eq!(listed("-rw-r--r-- 1 0 0 5 Nov 22 13:01 output.a b"), Some(("output.a b".into(), 5)));
        assert_eq!(listed("drwxr-xr-x 1 0 0 5 Nov 22 13:01 output.d"), None);
    }

    #[test]
    fn what_a_login_printed_is_shortened_and_cleaned() {
        assert_eq!(said(b"\x1b[1mno\nlogin\x07 "), " [1mno login");
        assert_eq!(said("ä".repeat(500).as_bytes()).chars().count(), 200);
    }
}
