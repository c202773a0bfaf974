//! The kernel log of the machine of a worker: what it says about GPUs, until the server has it.
//!
//! Nothing of it is judged or remembered here: the kernel keeps its records, the server knows how far it has read, by number,
//! and each start of a worker or a server begins with what there still is. So no line is missed, and none acts twice.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_health::kernel::Record;
use tokio::sync::Notify;

use crate::clock;
use crate::gpu::kernel_log::{KernelLog, Told};
use crate::gpu::kmsg::{DEVICE, Kmsg, Read, boot_id};

/// Records that wait for the server; of more, the oldest are lost, which the numbers say.
const MOST: usize = 500;
/// Between two times that it is said that there is news: a storm goes in few parts.
const GAP: Duration = Duration::from_millis(200);
/// Before a log is tried again that cannot be read.
const AGAIN: Duration = Duration::from_secs(60);

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct KernelTail(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// `None`: it was not read yet.
    boot: Option<String>,
    /// Everything from this number on is here, or is not about GPUs, or was taken.
    first: u64,
    last: u64,
    micros: u64,
    records: VecDeque<Record>,
    is_greeted: bool,
    why_not: Option<String>,
}

impl KernelTail {
    /// Reads for as long as it is polled.
    pub async fn follow(self) {
        loop {
            let error = match self.read().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let why = format!("{DEVICE}: {error}");
            {
                let mut state = self.lock();
                if state.why_not.as_ref() != Some(&why) {
                    (state.why_not, state.is_greeted) = (Some(why), false);
                    self.0.news.notify_one();
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn read(&self) -> std::io::Result<std::convert::Infallible> {
        let mut log = Kmsg::open(Path::new(DEVICE))?;
        let boot = boot_id()?;
        let backlog = log.backlog()?;
        {
            let mut state = self.lock();
            *state = State {
                boot: Some(boot),
                first: backlog.first().map_or(0, |record| record.sequence),
                ..State::default()
            };
            backlog.into_iter().for_each(|record| state.take(record));
        }
        self.0.news.notify_one();
        loop {
            match log.next().await? {
                Read::Record(record) => {
                    let is_news = is_about_gpus(&record);
                    self.lock().take(record);
                    if is_news {
                        self.0.news.notify_one();
                        // The first of a storm is told at once, and the rest of it together.
                        tokio::time::sleep(GAP).await;
                        let more = log.backlog()?;
                        let is_news = more.iter().any(is_about_gpus);
                        more.into_iter().for_each(|record| self.lock().take(record));
                        if is_news {
                            self.0.news.notify_one();
                        }
                    }
                }
                Read::Lost => self.lock().first = u64::MAX,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When there is something that the server does not know; not more often than it makes sense.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    /// What is to be said.
    pub fn part(&self) -> Option<KernelLog> {
        let state = self.lock();
        let up = SignedDuration::try_from(clock::since_boot()).ok();
        if let (Some(why), false) = (&state.why_not, state.is_greeted) {
            return Some(KernelLog { boot: String::new(), up, told: Told::Denied(why.clone()) });
        }
        let boot = state.boot.clone()?;
        if state.is_greeted && state.records.is_empty() {
            return None;
        }
        let first = if state.first == u64::MAX { state.last } else { state.first };
        let records = state.records.iter().cloned().collect();
        Some(KernelLog { boot, up, told: Told::Records { first, last: state.last, micros: state.micros, records } })
    }

    /// The server has all up to this record.
    pub fn taken(&self, last: u64) {
        let mut state = self.lock();
        state.is_greeted = true;
        state.records.retain(|record| record.sequence > last);
    }

    /// Another server, or one that was started anew: it may not know how far this was read.
    pub fn greet(&self) {
        self.lock().is_greeted = false;
        self.0.news.notify_one();
    }
}

impl State {
    fn take(&mut self, record: Record) {
        if self.first == u64::MAX {
            self.first = record.sequence;
        }
        (self.last, self.micros) = (record.sequence, record.micros);
        if is_about_gpus(&record) {
            self.records.push_back(record);
        }
        if self.records.len() > MOST
            && let Some(lost) = self.records.pop_front()
        {
            self.first = lost.sequence + 1;
        }
    }
}

/// As the script for other machines has it.
fn is_about_gpus(record: &Record) -> bool {
    record.message.starts_with("NVRM: ") || record.message.starts_with("nvidia-nvswitch")
}

#[cfg(test)]
mod tests {
    use pitcrew_health::kernel::Source;

    use super::*;

    fn record(sequence: u64, message: &str) -> Record {
        Record {
            source: Source::Kmsg,
            sequence,
            micros: sequence * 10,
            facility: 0,
            level: 4,
            message: message.to_owned(),
        }
    }

    fn tail(records: impl IntoIterator<Item = Record>) -> KernelTail {
        let tail = KernelTail::default();
        *tail.lock() = State { boot: Some("b".to_owned()), first: 1, ..State::default() };
        records.into_iter().for_each(|record| tail.lock().take(record));
        tail
    }

    fn told(tail: &KernelTail) -> (u64, u64, Vec<u64>) {
        match tail.part().unwrap().told {
            Told::Records { first, last, records, .. } => {
                (first, last, records.iter().map(|one| one.sequence).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_about_gpus_is_said_until_the_server_has_it() {
        let tail = tail([record(1, "eth0: up"), record(2, "NVRM: Xid (PCI:0000:66:00): 79, x"), record(3, "usb: x")]);
        assert_eq!((told(&tail), told(&tail)), ((1, 3, vec![2]), (1, 3, vec![2])));
        tail.taken(3);
        assert_eq!(tail.part(), None);
        tail.lock().take(record(4, "NVRM: Xid (PCI:0000:66:00): 48, x"));
        tail.taken(3);
        assert_eq!(told(&tail), (1, 4, vec![4]), "what came since is not taken");
        tail.taken(4);
        tail.greet();
        assert_eq!(told(&tail), (1, 4, vec![]), "whoever is new hears how far the log goes");
    }

    #[test]
    fn what_is_too_much_is_lost_by_its_numbers() {
        let tail = tail((1..=600).map(|number| record(number, "NVRM: Xid (PCI:0000:66:00): 13, x")));
        let (first, last, numbers) = told(&tail);
        assert_eq!((first, last, numbers.len(), numbers[0]), (101, 600, 500, 101));
    }
}
