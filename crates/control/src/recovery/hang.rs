//! Tasks that hang: they write nothing, do not get on, or say so.
//!
//! Time is counted from when output is *seen* here, since the clock of another machine may be wrong: a quarter of the shortest
//! time that a task gives, at most half a minute, lies between two looks, so a hang is told so much late at most, and never
//! early. A look costs the size of a log, and reading what it grew by where lines matter; nothing is looked at of tasks that do
//! not say when they hang. Of a gang all members are one: often only the first of them writes.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Advice, JobRef, Signal};
use pitcrew_exec::Observation;
use pitcrew_health::log::{Pattern, Progress};
use pitcrew_health::{Found, LogRules, LogState, LogWatch};

use super::signs::Signs;
use super::tasks::{line, own_words};
use crate::clock;
use crate::scheduler::recovery::{Member, Watched};

/// Between two looks.
const SHORTEST: SignedDuration = SignedDuration::from_millis(250);
const LONGEST: SignedDuration = SignedDuration::from_secs(30);
/// Where only a line would tell.
const FOR_LINES: SignedDuration = SignedDuration::from_secs(10);
/// What another machine has written is here by then.
const ARRIVES: SignedDuration = SignedDuration::from_secs(15);
/// For all members to say whether they run.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read at a time, and of one log in one look: what is older of a log that grows faster is passed over.
const PART: usize = 256 << 10;
const MOST: u64 = 8 << 20;

/// What is known of one attempt.
pub struct Hangs {
    /// `None`: it does not say when it hangs.
    watch: Option<LogWatch>,
    reads_lines: bool,
    every: Duration,
    state: LogState,
    /// Of each member, what it has begun of a line.
    partials: Vec<Vec<u8>>,
    /// Of each member, how far its log was seen, and when it last grew.
    seen: Vec<(u64, Option<Timestamp>)>,
    /// Since when it seems to hang, where what it writes comes from another machine.
    overdue: Option<Timestamp>,
}

impl Hangs {
    pub fn new(signs: &Signs, watched: &Watched, now: Timestamp) -> Hangs {
        let usual = signs.log();
        let own = &watched.asks.hang;
        let progress = own.progress.as_ref().map(|own| Progress {
            pattern: own.pattern.clone(),
            first_within: own.first_within,
            every: own.every,
        });
        let rules = LogRules {
            silence: own.silence.or(usual.silence),
            progress: progress.or_else(|| usual.progress.clone()),
            patterns: own.pattern.iter().map(|pattern| Pattern::hang(pattern)).collect(),
            only_these: true,
        };
        let progress = rules.progress.iter().flat_map(|progress| [progress.first_within, progress.every]);
        let spans = rules.silence.into_iter().chain(progress);
        let shortest = spans.min().map_or(FOR_LINES, |span| span / 4);
        let reads_lines = rules.progress.is_some() || !rules.patterns.is_empty();
        // When lines of CloudWatch come, and whether they do, nobody tells.
        let is_seen = |member: &Member| !matches!(member.handle.place, Some(pitcrew_exec::Place::Ecs(_)));
        let is_asked = (rules.silence.is_some() || reads_lines) && watched.members.iter().all(is_seen);
        Hangs {
            // The language, and the configuration, have read the same rules before.
            watch: is_asked.then(|| rules.read().ok()).flatten(),
            reads_lines,
            every: shortest.clamp(SHORTEST, LONGEST).unsigned_abs(),
            state: LogState::new(now),
            partials: vec![Vec::new(); watched.members.len()],
            seen: vec![(0, None); watched.members.len()],
            overdue: None,
        }
    }

    /// When to look; never, where nothing is asked.
    pub async fn due(&self) {
        match &self.watch {
            Some(_) => tokio::time::sleep(self.every).await,
            None => std::future::pending().await,
        }
    }

    /// What is to be told now. `ended`: members that have nothing more to say.
    pub async fn look(&mut self, watched: &Watched, ended: &BTreeSet<u32>) -> Vec<Signal> {
        let Some(watch) = self.watch.clone() else { return Vec::new() };
        let mut signals = Vec::new();
        for (rank, member) in watched.members.iter().enumerate() {
            for found in self.read(&watch, rank, member).await {
                signals.extend(self.signal(watched, member, &found));
            }
        }
        let mut state = self.state.clone();
        let found = watch.look(&mut state, clock::now());
        if found.is_empty() {
            self.overdue = None;
            return signals;
        }
        // What a machine that is out of reach writes is not seen, and that is no silence. All are asked at once: an end that
        // comes meanwhile waits.
        let living = watched.members.iter().enumerate().filter(|(rank, _)| !ended.contains(&(*rank as u32)));
        let asked = living.map(|(_, member)| member.backend.attach(&member.handle));
        let answers = tokio::time::timeout(PATIENCE, join_all(asked)).await.unwrap_or_default();
        let is_seen = !answers.is_empty() && answers.iter().all(|one| matches!(one, Observation::Running { .. }));
        if !is_seen {
            (self.state, self.overdue) = (LogState::new(clock::now()), None);
            return signals;
        }
        // A machine that is back answers before all that it wrote meanwhile is here.
        if watched.members.iter().any(|member| member.handle.place.is_some()) {
            let now = clock::now();
            let since = *self.overdue.get_or_insert(now);
            if now.duration_since(since) < ARRIVES {
                return signals;
            }
        }
        self.state = state;
        if let Some(member) = watched.members.get(self.first_silent()) {
            signals.extend(found.iter().filter_map(|found| self.signal(watched, member, found)));
        }
        signals
    }

    /// What one log has more by now.
    async fn read(&mut self, watch: &LogWatch, rank: usize, member: &Member) -> Vec<Found> {
        let now = clock::now();
        let Ok(size) = member.backend.log_size(&member.handle).await else { return Vec::new() };
        let before = self.seen[rank].0;
        if size <= before {
            return Vec::new();
        }
        let mut found = Vec::new();
        if !self.reads_lines {
            self.seen[rank] = (size, Some(now));
            found.extend(watch.feed(&mut self.state, b"\n", now));
            return found;
        }
        let mut at = before.max(size.saturating_sub(MOST));
        self.state.swap_partial(&mut self.partials[rank]);
        while at < size {
            let Ok(chunk) = member.backend.logs(&member.handle, at, PART).await else { break };
            if chunk.next_offset <= at {
                break;
            }
            at = chunk.next_offset;
            for record in own_words(&chunk) {
                found.extend(watch.feed(&mut self.state, line(record).as_bytes(), now));
            }
        }
        self.state.swap_partial(&mut self.partials[rank]);
        if at > before {
            self.seen[rank] = (at, Some(now));
        }
        found
    }

    /// Whoever waits for another goes on writing for a while; so it is the first that fell silent, of those that ever wrote.
    fn first_silent(&self) -> usize {
        let wrote = self.seen.iter().enumerate().filter_map(|(rank, (_, last))| Some(((*last)?, rank)));
        wrote.min().map_or(0, |(_, rank)| rank)
    }

    fn signal(&self, watched: &Watched, member: &Member, found: &Found) -> Option<Signal> {
        let (Found::Pattern { evidence, .. } | Found::Silence { evidence }) = found;
        if found.advice() < Advice::Check {
            return None;
        }
        let now = clock::now();
        // The same on every server: what it wrote, or how much it has written and no more.
        let what = match found {
            Found::Pattern { evidence, .. } => evidence.clone(),
            Found::Silence { .. } => format!("after {}", self.seen.iter().map(|(size, _)| *size).sum::<u64>()),
        };
        let job = JobRef { job: watched.job.clone(), attempt: watched.attempt };
        let gpus = &member.place.gpus;
        Some(Signal {
            id: format!("{}@{}/hang/{what}", watched.job, watched.attempt),
            node: member.place.node.clone(),
            boot_id: None,
            gpu: gpus.first().filter(|_| gpus.len() == 1).cloned(),
            evidence: format!("{}: {evidence}", job.job),
            job: Some(job),
            at: now,
            kind: found.kind(),
            advice: Advice::Check,
        })
    }
}
