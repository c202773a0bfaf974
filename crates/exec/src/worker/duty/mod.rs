//! What a worker has to do: a function of what happened, which gives what to do next. No IO and no clock.
//!
//! Invariants, whatever answers are lost, doubled or late: an attempt is begun at most once and never after the lease; at
//! most `slots` are begun and not over; what ended is told until the server says that it may be forgotten; and nothing is
//! begun before the server has answered, since only its answer says until when this worker may run anything.
//!
//! Times are what passed since the machine started, see [`crate::clock`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::state::Exit;
use pitcrew_core::{AttemptId, RunKey};

use super::protocol::{Answer, End, Has, How, LogTail, MOST_KEPT, Order};
use crate::backend::{Ended, Observation};

/// Tasks that take this long on average gain nothing from work that waits beside them.
const SHORT: f64 = 2.0;
/// The time that the next order may take to come: it is bridged by what waits here. Ends and orders are gathered on both
/// sides while something waits, and a busy machine takes its time.
const BRIDGE: f64 = 0.25;
/// How much the newest end counts in the mean.
const WEIGHT: f64 = 0.1;
/// How long news wait for others that go with them: those that keep nobody from anything, but that people look at; and
/// ends, while each slot that one of them frees has work that waits here.
const SEEN: Duration = Duration::from_millis(100);
const GATHERED: Duration = Duration::from_millis(25);

/// The most bytes of ends that go with one sync. A server takes more; many that ended while it was away go one after another.
const MOST: usize = 16 << 20;

/// See the module.
pub struct Duty {
    slots: usize,
    held: BTreeMap<AttemptId, Held>,
    /// The order in which they came; the next to begin first.
    arrivals: u64,
    /// Until when the server gives nobody else what is here.
    lease: Option<Duration>,
    /// Which server answered last.
    server: Option<String>,
    /// Ends that a sync carries which is not answered yet.
    told: BTreeMap<u64, Vec<AttemptId>>,
    /// The most bytes of ends in one sync.
    most: usize,
    /// The last sync had no room for all ends.
    is_left_over: bool,
    /// This worker is to end.
    ending: bool,
    /// The server gives it no more work, and which answer said that or the contrary.
    drained: (u64, bool),
    /// Seconds, of recent attempts.
    mean: Option<f64>,
    /// Runs that are over, and still have something here.
    leaving: BTreeSet<RunKey>,
    /// Runs that have a directory here, and about which the server is still to be asked; and those that a sync names which is
    /// not answered yet.
    kept: BTreeSet<RunKey>,
    named: BTreeMap<u64, Vec<RunKey>>,
    /// The server should hear what changed.
    news: Option<Weight>,
    to_do: Vec<Do>,
}

/// What news are worth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Nothing follows from them but what people see.
    Light,
    Heavy,
}

struct Held {
    arrival: u64,
    phase: Phase,
    /// The time between the polite and the forced end.
    grace: SignedDuration,
    /// When it was begun.
    begun: Option<Duration>,
    started_at: Option<Timestamp>,
    /// Nobody wants to know of it any more.
    unwanted: bool,
    /// It was to end while its files were on their way to the server: nobody waits for them.
    hurried: bool,
}

enum Phase {
    /// Its files are on the way.
    Coming(Box<Order>),
    /// It waits for a slot.
    Ready(Box<Order>),
    /// Given to the backend, or found there.
    Begun,
    /// Over; its files and its log are on the way to the server.
    Going,
    Over {
        end: Box<End>,
        /// The server that heard of it.
        told: Option<String>,
        /// Bytes in a sync.
        size: usize,
        /// Its log is on the way to a server that lacks some of it.
        bringing: bool,
    },
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Do {
    /// Bring the files of its run; [`Duty::brought`] says when they are there.
    Bring(AttemptId),
    Begin(Box<Order>),
    /// As `Backend::cancel`.
    Cancel(AttemptId, SignedDuration),
    /// The same, and its end is a loss for this reason.
    Lose(AttemptId, SignedDuration, String),
    /// Bring its files and its log to the server; [`Duty::gone`] says when they are there.
    Send(AttemptId, Box<End>),
    /// Bring its log once more, all that the server lacks; [`Duty::logged`] says when it is there.
    Log(AttemptId),
    /// Nothing of it is needed any more but what keeps it from being begun again.
    Clean(AttemptId),
    /// The directory of the run may go.
    Leave(RunKey),
}

impl Duty {
    pub fn new(slots: u32) -> Duty {
        Duty {
            slots: slots as usize,
            held: BTreeMap::new(),
            arrivals: 0,
            lease: None,
            server: None,
            told: BTreeMap::new(),
            most: MOST,
            is_left_over: false,
            ending: false,
            drained: (0, false),
            mean: None,
            leaving: BTreeSet::new(),
            kept: BTreeSet::new(),
            named: BTreeMap::new(),
            news: Some(Weight::Heavy),
            to_do: Vec::new(),
        }
    }

    /// What an earlier process of this worker began, as it is found.
    pub fn found(&mut self, id: AttemptId, grace: SignedDuration, observation: Observation) {
        let phase = match observation {
            // It was not begun: it will be ordered again, as nobody hears of it.
            Observation::NeverBegan => return self.to_do.push(Do::Clean(id)),
            Observation::Waiting
            | Observation::Running { .. }
            | Observation::Unreachable { .. }
            | Observation::Ended(_)
            | Observation::Lost { .. } => Phase::Begun,
        };
        self.hold(id.clone(), phase, grace);
        self.observed(&id, observation);
    }

    /// The backend says what is true of an attempt that was begun.
    pub fn observed(&mut self, id: &AttemptId, observation: Observation) {
        let end = match observation {
            Observation::Ended(ended) => End::Ended { ended, log: None },
            Observation::Lost { reason } => End::Lost { reason },
            Observation::Running { started_at } => return self.started(id, started_at),
            Observation::NeverBegan => {
                End::Lost { reason: "it was begun on its worker, which now knows nothing of it".to_owned() }
            }
            Observation::Waiting | Observation::Unreachable { .. } => return,
        };
        self.ended(id, end, None);
    }

    /// Its first step runs.
    pub fn started(&mut self, id: &AttemptId, at: Timestamp) {
        if let Some(held) = self.held.get_mut(id)
            && held.started_at.is_none()
        {
            held.started_at = Some(at);
            self.tell(Weight::Light);
        }
    }

    /// Nothing of it runs any more.
    pub fn ended(&mut self, id: &AttemptId, end: End, now: Option<Duration>) {
        let Some(held) = self.held.get_mut(id) else { return };
        match held.phase {
            Phase::Begun => {}
            // Told twice.
            Phase::Coming(_) | Phase::Ready(_) | Phase::Going | Phase::Over { .. } => return,
        }
        if let (Some(begun), Some(now)) = (held.begun, now) {
            let took = now.saturating_sub(begun).as_secs_f64();
            self.mean = Some(self.mean.map_or(took, |mean| mean + WEIGHT * (took - mean)));
        }
        if held.unwanted {
            return self.drop_held(id);
        }
        held.phase = Phase::Going;
        self.to_do.push(Do::Send(id.clone(), Box::new(end)));
    }

    /// The backend did not take it, for a reason that will not pass.
    pub fn not_begun(&mut self, id: &AttemptId, reason: String, at: Timestamp) {
        let end = End::Ended { ended: Ended::bare(Exit::start_failed(reason), at), log: None };
        self.ended(id, end, None);
    }

    /// The files of an attempt are there, or will never be.
    pub fn brought(&mut self, id: &AttemptId, result: Result<(), String>, at: Timestamp) {
        let Some(held) = self.held.get_mut(id) else { return };
        match (std::mem::replace(&mut held.phase, Phase::Going), result) {
            (Phase::Coming(order), Ok(())) => held.phase = Phase::Ready(order),
            (Phase::Coming(_), Err(reason)) => {
                let ended = Ended::bare(Exit::start_failed(reason), at);
                self.over(id, End::Ended { ended, log: None });
            }
            (other @ (Phase::Ready(_) | Phase::Begun | Phase::Going | Phase::Over { .. }), _) => held.phase = other,
        }
    }

    /// What an attempt left is at the server, and `end` is complete.
    pub fn gone(&mut self, id: &AttemptId, end: End) {
        let Some(held) = self.held.get(id) else { return };
        match held.phase {
            Phase::Going if held.unwanted => self.drop_held(id),
            Phase::Going => self.over(id, end),
            Phase::Coming(_) | Phase::Ready(_) | Phase::Begun | Phase::Over { .. } => {}
        }
    }

    fn over(&mut self, id: &AttemptId, end: End) {
        if let Some(held) = self.held.get_mut(id) {
            held.phase = Phase::Over { size: size_of(&end), end: Box::new(end), told: None, bringing: false };
            self.tell(Weight::Heavy);
        }
    }

    /// The server has the log of an attempt that is over, but for this; then it takes the end.
    pub fn logged(&mut self, id: &AttemptId, tail: Option<LogTail>) {
        let Some(Held { phase: Phase::Over { end, told, size, bringing }, .. }) = self.held.get_mut(id) else { return };
        if let End::Ended { log, .. } = &mut **end {
            *log = tail;
        }
        (*size, *told, *bringing) = (size_of(end), None, false);
        self.tell(Weight::Heavy);
    }

    /// What the next sync says; it is remembered which ends it carries. One end it carries whatever its size; for the
    /// others that find no room it says that they are over, and the next sync says how.
    pub fn has(&mut self, seq: u64) -> Vec<Has> {
        (self.news, self.is_left_over) = (None, false);
        let (mut carried, mut bytes) = (Vec::new(), 0);
        let has = self.held.iter().filter(|(_, held)| !held.unwanted).map(|(id, held)| {
            let how = match (&held.phase, held.started_at) {
                (Phase::Over { told, .. }, _) if told.is_some() && *told == self.server => How::Ended { end: None },
                (Phase::Over { size, .. }, _) if !carried.is_empty() && bytes + size > self.most => {
                    self.is_left_over = true;
                    How::Ended { end: None }
                }
                // Its log comes first.
                (Phase::Over { bringing: true, .. }, _) => How::Ended { end: None },
                (Phase::Over { end, size, .. }, _) => {
                    carried.push(id.clone());
                    bytes += size;
                    How::Ended { end: Some(end.clone()) }
                }
                (Phase::Begun | Phase::Going, Some(started_at)) => How::Running { started_at },
                (Phase::Coming(_) | Phase::Ready(_) | Phase::Begun | Phase::Going, _) => How::Waiting,
            };
            Has { attempt: id.clone(), how }
        });
        let has = has.collect();
        self.told.insert(seq, carried);
        has
    }

    /// These runs have directories here, as the disk says: the server is asked about each once, until the next look.
    pub fn keeps(&mut self, runs: BTreeSet<RunKey>) {
        self.kept = runs;
    }

    /// The runs that the next sync names: the oldest first, and only those without an attempt here.
    pub fn names(&mut self, seq: u64) -> Vec<RunKey> {
        let held: BTreeSet<RunKey> = self.held.keys().map(|id| id.run).collect();
        self.kept.retain(|run| !held.contains(run) && !self.leaving.contains(run));
        let names: Vec<RunKey> = self.kept.iter().copied().take(MOST_KEPT).collect();
        self.kept.retain(|run| !names.contains(run));
        if !names.is_empty() {
            self.named.insert(seq, names.clone());
        }
        names
    }

    /// That sync was larger than the server, or a proxy before it, takes. The next carries half of that at most; of one end
    /// that is too large by itself, what makes it large is left out.
    pub fn too_large(&mut self, seq: u64) {
        let carried = self.told.remove(&seq).unwrap_or_default();
        self.kept.extend(self.named.remove(&seq).unwrap_or_default());
        self.tell(Weight::Heavy);
        let size = |id: &AttemptId| match self.held.get(id).map(|held| &held.phase) {
            Some(Phase::Over { size, .. }) => *size,
            Some(Phase::Coming(_) | Phase::Ready(_) | Phase::Begun | Phase::Going) | None => 0,
        };
        if carried.len() > 1 {
            self.most = carried.iter().map(size).sum::<usize>() / 2;
        } else if let Some(Held { phase: Phase::Over { end, size, .. }, .. }) =
            carried.first().and_then(|id| self.held.get_mut(id))
            && let End::Ended { ended, .. } = &mut **end
        {
            ended.output_problems = vec![format!(
                "they are left out: the end of the attempt has {size} bytes, more than the server or a proxy before it takes"
            )];
            (ended.outputs, ended.stdout, ended.files) = Default::default();
            *size = size_of(end);
        }
    }

    /// Nobody will answer that sync.
    pub fn unanswered(&mut self, seq: u64) {
        self.told.remove(&seq);
        self.kept.extend(self.named.remove(&seq).unwrap_or_default());
        self.tell(Weight::Heavy);
    }

    /// An answer to the sync `seq`, which was sent at `sent`. One that answers an older sync is as good: all that it says
    /// is repeated or done once.
    pub fn answered(&mut self, seq: u64, sent: Duration, answer: Answer, now: Duration, at: Timestamp) {
        // Before it is renewed: what waited when it was over may be somebody else's by now.
        self.is_lease_over(now);
        let until = sent + Duration::from_millis(answer.lease_ms);
        self.lease = Some(self.lease.map_or(until, |lease| lease.max(until)));
        for id in self.told.remove(&seq).unwrap_or_default() {
            if let Some(Held { phase: Phase::Over { told, .. }, .. }) = self.held.get_mut(&id) {
                *told = Some(answer.server.clone());
            }
        }
        if self.server.as_ref() != Some(&answer.server) {
            self.server = Some(answer.server);
            if self.held.values().any(|held| matches!(held.phase, Phase::Over { .. })) {
                self.tell(Weight::Heavy);
            }
        }
        for order in answer.start {
            self.ordered(order);
        }
        for cancel in answer.cancel {
            let grace = SignedDuration::from_millis(i64::try_from(cancel.grace_ms).unwrap_or(i64::MAX));
            self.cancel(&cancel.handle.id, grace, at);
        }
        for id in answer.forget {
            self.forget(&id);
        }
        for id in answer.logs {
            if let Some(Held { phase: Phase::Over { bringing, .. }, .. }) = self.held.get_mut(&id)
                && !std::mem::replace(bringing, true)
            {
                self.to_do.push(Do::Log(id));
            }
        }
        self.named.remove(&seq);
        self.leaving.extend(answer.leave);
        // An older answer that comes late says what was.
        if seq >= self.drained.0 {
            if self.drained.1 != answer.drain {
                self.tell(Weight::Heavy);
            }
            self.drained = (seq, answer.drain);
        }
        if self.is_left_over {
            self.tell(Weight::Heavy);
        }
        self.settle(now);
    }

    fn ordered(&mut self, order: Order) {
        let id = order.handle.id.clone();
        if self.held.contains_key(&id) {
            return;
        }
        let grace = order.spec.grace;
        let files = order.files;
        let order = Box::new(order);
        self.hold(id.clone(), if files { Phase::Coming(order) } else { Phase::Ready(order) }, grace);
        if files {
            self.to_do.push(Do::Bring(id));
        }
    }

    fn hold(&mut self, id: AttemptId, phase: Phase, grace: SignedDuration) {
        self.arrivals += 1;
        let (unwanted, hurried) = (false, false);
        let held = Held { arrival: self.arrivals, phase, grace, begun: None, started_at: None, unwanted, hurried };
        self.held.insert(id, held);
        // That an order came is of no use to anybody before it begins; the next question says it anyway.
        self.tell(Weight::Light);
    }

    fn cancel(&mut self, id: &AttemptId, grace: SignedDuration, at: Timestamp) {
        if !self.held.contains_key(id) {
            // Its order did not come, or comes later: then it is over already.
            self.hold(id.clone(), Phase::Begun, grace);
            return self.over(id, End::Ended { ended: Ended::bare(Exit::Cancelled, at), log: None });
        }
        let Some(held) = self.held.get_mut(id) else { return };
        match held.phase {
            Phase::Coming(_) | Phase::Ready(_) => {
                self.over(id, End::Ended { ended: Ended::bare(Exit::Cancelled, at), log: None });
            }
            Phase::Begun => self.to_do.push(Do::Cancel(id.clone(), grace)),
            Phase::Going => held.hurried = true,
            Phase::Over { .. } => {}
        }
    }

    fn forget(&mut self, id: &AttemptId) {
        let Some(held) = self.held.get_mut(id) else { return };
        match held.phase {
            Phase::Begun => {
                held.unwanted = true;
                self.to_do.push(Do::Cancel(id.clone(), SignedDuration::ZERO));
            }
            Phase::Going => held.unwanted = true,
            Phase::Coming(_) | Phase::Ready(_) | Phase::Over { .. } => self.drop_held(id),
        }
    }

    fn drop_held(&mut self, id: &AttemptId) {
        self.held.remove(id);
        self.to_do.push(Do::Clean(id.clone()));
        self.tell(Weight::Light);
    }

    /// Somebody here wants this worker to end.
    pub fn drain(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.tell(Weight::Heavy);
        }
    }

    /// Nothing here may go on: what runs is ended as a loss, what waits is never begun.
    pub fn end_all(&mut self, reason: &str) {
        let ids: Vec<AttemptId> = self.held.keys().cloned().collect();
        for id in ids {
            let Some(held) = self.held.get(&id) else { continue };
            match held.phase {
                Phase::Coming(_) | Phase::Ready(_) => self.over(&id, End::Lost { reason: reason.to_owned() }),
                Phase::Begun => self.to_do.push(Do::Lose(id.clone(), held.grace, reason.to_owned())),
                Phase::Going | Phase::Over { .. } => {}
            }
        }
    }

    /// Whether the lease is over; then nothing that waits is begun any more. What runs, the runner ends.
    pub fn is_lease_over(&mut self, now: Duration) -> bool {
        let over = self.lease.is_some_and(|until| now >= until);
        if over {
            self.held.retain(|_, held| !matches!(held.phase, Phase::Coming(_) | Phase::Ready(_)));
        }
        over
    }

    /// Begins what has a slot, and lets go of runs that have nothing here any more.
    pub fn settle(&mut self, now: Duration) {
        if self.lease.is_some() && !self.is_lease_over(now) {
            let mut free = self.slots.saturating_sub(self.running());
            let mut ready: Vec<(u64, AttemptId)> = Vec::new();
            if free > 0 {
                let waits = |held: &&Held| matches!(held.phase, Phase::Ready(_));
                ready.extend(self.held.iter().filter(|(_, h)| waits(h)).map(|(id, h)| (h.arrival, id.clone())));
                ready.sort();
            }
            for (_, id) in ready {
                if free == 0 {
                    break;
                }
                let Some(held) = self.held.get_mut(&id) else { continue };
                match std::mem::replace(&mut held.phase, Phase::Begun) {
                    Phase::Ready(order) => {
                        held.begun = Some(now);
                        free -= 1;
                        self.to_do.push(Do::Begin(order));
                    }
                    other @ (Phase::Coming(_) | Phase::Begun | Phase::Going | Phase::Over { .. }) => held.phase = other,
                }
            }
        }
        let free = |run: &RunKey| !self.held.keys().any(|id| id.run == *run);
        let leave: Vec<RunKey> = self.leaving.iter().filter(|run| free(run)).copied().collect();
        for run in leave {
            self.leaving.remove(&run);
            self.to_do.push(Do::Leave(run));
        }
    }

    /// What came up since the last call, in order.
    pub fn take(&mut self) -> Vec<Do> {
        std::mem::take(&mut self.to_do)
    }

    fn tell(&mut self, weight: Weight) {
        self.news = self.news.max(Some(weight));
    }

    /// Whether the server should hear something before its answer is due, and how long that may wait for more of it.
    pub fn news(&self) -> Option<Duration> {
        self.news.map(|weight| match weight {
            Weight::Light => SEEN,
            Weight::Heavy => self.leisure(),
        })
    }

    /// How long nobody misses anything if the server neither hears nor says something.
    pub fn leisure(&self) -> Duration {
        let waits = self.held.values().any(|held| matches!(held.phase, Phase::Ready(_)));
        if waits && !self.ending { GATHERED } else { Duration::ZERO }
    }

    pub fn lease(&self) -> Option<Duration> {
        self.lease
    }

    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Somebody here wants it to end.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// The server gives it no more work, and may do so again.
    pub fn is_drained(&self) -> bool {
        self.drained.1
    }

    /// Nothing is left to do or to tell.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether files are to come or go for it, as long as they do not.
    pub fn wants_files(&self, id: &AttemptId) -> bool {
        self.held.get(id).is_some_and(|held| match held.phase {
            Phase::Coming(_) => true,
            Phase::Going => !held.unwanted && !held.hurried,
            Phase::Ready(_) | Phase::Begun | Phase::Over { .. } => false,
        })
    }

    /// Begun and not over.
    pub fn running(&self) -> usize {
        self.held.values().filter(|held| matches!(held.phase, Phase::Begun)).count()
    }

    /// Those that run, for their logs.
    pub fn begun(&self) -> impl Iterator<Item = &AttemptId> {
        self.held.iter().filter(|(_, held)| matches!(held.phase, Phase::Begun)).map(|(id, _)| id)
    }

    /// Attempts that it would take beyond its slots: few seconds' work in all, and none where tasks are long.
    pub fn prefetch(&self) -> u32 {
        match self.mean {
            Some(mean) if mean < SHORT && !self.ending && !self.drained.1 => {
                let slots = self.slots as f64;
                (slots * BRIDGE / mean.max(0.001)).ceil().clamp(1.0, slots) as u32
            }
            _ => 0,
        }
    }
}

/// Bytes of an end in a sync; only their number counts.
fn size_of(end: &End) -> usize {
    serde_json::to_vec(end).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests;
