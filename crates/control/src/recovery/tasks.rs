//! What tasks themselves say of a fault: by how they end, by their last words, and by falling silent.
//!
//! Each attempt that holds GPUs is followed by a task of its own ([`follow`]), through which all goes that the scheduler tells
//! of its job; so what the log says is told before the end that it explains, and in one order. Following costs nothing while
//! nothing happens: logs are read at an end, and, where the task says when it hangs, when that is due ([`super::hang`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pitcrew_core::recovery::{Advice, Asks, Input, Place, Signal, SignalKind};
use pitcrew_core::state::Exit;
use pitcrew_exec::{LogChunk, LogRecord, LogStream};
use pitcrew_health::{EndClass, Ends, ExitCodes, Found, LogState};
use tokio::sync::mpsc;

use super::Desk;
use super::hang::Hangs;
use super::signs::Signs;
use crate::clock;
use crate::scheduler::recovery::{Member, Watched};

/// Bytes of the end of a log that are looked at.
const LAST_WORDS: u64 = 64 << 10;
/// For reading those of a whole gang, and of each of its members at least: a log may be on another machine, which may hang, and
/// until an end is told its node gets new work.
const PATIENCE: Duration = Duration::from_secs(5);
const EACH: Duration = Duration::from_secs(1);

/// All attempts that are followed, by their jobs.
#[derive(Default)]
pub struct Jobs {
    pub signs: Signs,
    all: Mutex<BTreeMap<String, Job>>,
}

struct Job {
    attempt: u32,
    asks: Asks,
    ends: Ends,
    sender: mpsc::UnboundedSender<Input>,
}

impl Jobs {
    pub fn new(signs: Signs) -> Jobs {
        Jobs { signs, all: Mutex::default() }
    }

    pub fn signs(&self) -> &Signs {
        &self.signs
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Job>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it runs, or did.
    pub fn watch(&self, desk: &Desk, watched: Watched) {
        let mut all = self.lock();
        all.retain(|_, job| !job.sender.is_closed());
        if all.get(&watched.job).is_some_and(|job| job.attempt >= watched.attempt) {
            return;
        }
        let ends = ends(&self.signs, &watched.asks);
        let (sender, inbox) = mpsc::unbounded_channel();
        let job = Job { attempt: watched.attempt, asks: watched.asks.clone(), ends: ends.clone(), sender };
        all.insert(watched.job.clone(), job);
        drop(all);
        tokio::spawn(follow(desk.clone(), self.signs.clone(), ends, watched, inbox));
    }

    /// What the scheduler tells, on its way.
    pub fn tell(&self, desk: &Desk, mut input: Input) {
        let Some(name) = job_of(&input).map(str::to_owned) else { return desk.mention(input) };
        let mut all = self.lock();
        let Some(job) = all.get_mut(&name) else { return desk.mention(input) };
        if let Input::JobStarted { attempt, spec, .. } = &mut input
            && *attempt == job.attempt
        {
            *spec = job.asks.over(spec.clone());
            spec.exits = job.ends.rules();
        }
        if let Err(mpsc::error::SendError(input)) = job.sender.send(input) {
            all.remove(&name);
            desk.mention(input);
        }
    }

    /// Nobody is followed any more.
    pub fn clear(&self) {
        self.lock().clear();
    }
}

fn job_of(input: &Input) -> Option<&str> {
    match input {
        Input::JobStarted { job, .. }
        | Input::JobStarting { job, .. }
        | Input::RankEnded { job, .. }
        | Input::JobStopped { job, .. }
        | Input::JobOver { job, .. }
        | Input::UserStop { job, .. } => Some(job),
        Input::Node { .. }
        | Input::NodeGone { .. }
        | Input::Signal(_)
        | Input::Observed { .. }
        | Input::Begun { .. }
        | Input::Done { .. }
        | Input::EffectFailed { .. }
        | Input::CheckEnded { .. }
        | Input::Approve { .. }
        | Input::Dismiss { .. }
        | Input::Retry { .. }
        | Input::Resumed
        | Input::Tick => None,
    }
}

/// What exit codes mean for a task: the language has checked its own, so whatever cannot be read is of a newer version.
fn ends(signs: &Signs, asks: &Asks) -> Ends {
    let usual = signs.meanings().ends.clone();
    let own = asks
        .exit_codes
        .iter()
        .filter_map(|(code, class)| Some((code.clone(), EndClass::try_from(class.clone()).ok()?)));
    ExitCodes(own.collect()).over(usual.clone()).unwrap_or(usual)
}

async fn follow(desk: Desk, signs: Signs, ends: Ends, watched: Watched, mut inbox: mpsc::UnboundedReceiver<Input>) {
    let mut ended: BTreeSet<u32> = BTreeSet::new();
    let mut hangs = Hangs::new(&signs, &watched, clock::now());
    // Members that end later were most likely told to: what the first ones said counts.
    let mut patience = PATIENCE;
    while ended.len() < watched.members.len() {
        let input = tokio::select! {
            // What happened comes before what did not happen in time.
            biased;
            input = inbox.recv() => input,
            () = hangs.due() => {
                for signal in hangs.look(&watched, &ended).await {
                    desk.mention(Input::Signal(signal));
                }
                continue;
            }
        };
        match input {
            Some(Input::RankEnded { job, attempt, rank, exit, message }) if attempt == watched.attempt => {
                ended.insert(rank);
                let exit = match (ends.exit(exit.clone()), exit) {
                    // Its machine is there, so nothing is said of it; the task is tried again as if it had not begun.
                    (Exit::Lost { reason }, Exit::Code { .. } | Exit::Signal { .. }) => Exit::start_failed(reason),
                    (exit, _) => exit,
                };
                let member = watched.members.get(rank as usize);
                if let Some(member) = member.filter(|_| exit.code().is_some_and(|code| code != 0)) {
                    let began = clock::instant();
                    let said = tokio::time::timeout(patience, last_words(&signs, member)).await.unwrap_or_default();
                    patience = patience.saturating_sub(began.elapsed()).max(EACH);
                    for signal in signals(&watched, rank, member, said) {
                        desk.mention(Input::Signal(signal));
                    }
                }
                desk.mention(Input::RankEnded { job, attempt, rank, exit, message });
            }
            Some(input) => desk.mention(input),
            None => return,
        }
    }
}

/// What the end of its log says.
async fn last_words(signs: &Signs, member: &Member) -> Vec<Found> {
    let (backend, handle) = (&member.backend, &member.handle);
    let Ok(size) = backend.log_size(handle).await else { return Vec::new() };
    let mut at = size.saturating_sub(LAST_WORDS);
    let mut state = LogState::new(clock::now());
    let mut found = Vec::new();
    // It grows no more, so this ends.
    while let Ok(chunk) = backend.logs(handle, at, LAST_WORDS as usize).await {
        if chunk.next_offset <= at {
            break;
        }
        at = chunk.next_offset;
        for record in own_words(&chunk) {
            found.extend(signs.meanings().log.feed(&mut state, line(record).as_bytes(), clock::now()));
        }
    }
    found
}

/// Without what Pitcrew says in a log.
pub(super) fn own_words(chunk: &LogChunk) -> impl Iterator<Item = &LogRecord> {
    chunk.records.iter().filter(|record| record.stream != LogStream::System)
}

pub(super) fn line(record: &LogRecord) -> String {
    if record.continues { record.text.clone() } else { format!("{}\n", record.text) }
}

/// Where one line is a reason to look at the node, others are no excuse.
fn signals(watched: &Watched, rank: u32, member: &Member, found: Vec<Found>) -> Vec<Signal> {
    let strongest = found.iter().map(Found::advice).max().unwrap_or(Advice::Ignore);
    let Place { node, gpus } = &member.place;
    let told = found.into_iter().zip(1..).filter(|(found, _)| found.advice() == strongest);
    let signal = |(found, number): (Found, u32)| {
        let (Found::Pattern { evidence, .. } | Found::Silence { evidence }) = &found;
        // An application's error is known by a GPU; a fault may be of any of them.
        let gpu = gpus.first().filter(|_| gpus.len() == 1 || strongest == Advice::RestartApp);
        Signal {
            id: format!("{}@{}/{rank}/log/{number}", watched.job, watched.attempt),
            node: node.clone(),
            boot_id: None,
            gpu: gpu.cloned(),
            job: None,
            at: clock::now(),
            kind: SignalKind::LogPattern,
            advice: found.advice(),
            evidence: format!("{}: {evidence}", watched.job),
        }
    };
    match strongest {
        Advice::Ignore => Vec::new(),
        Advice::RestartApp
        | Advice::Check
        | Advice::ResetGpu
        | Advice::Reboot
        | Advice::Replace
        | Advice::ContactSupport => told.map(signal).collect(),
    }
}
