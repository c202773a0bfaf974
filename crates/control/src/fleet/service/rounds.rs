//! Nodes are asked from time to time, each by a task of its own, and what they tell is taken.
//!
//! Invariant: a node that does not answer is asked less often, and that holds up no other.

use std::time::Duration;

use futures::future::{join, join_all};
use jiff::Timestamp;
use pitcrew_exec::gpu::with_exporter;
use tokio::sync::watch;

use super::{Fleet, Known};
use crate::clock;
use crate::fleet::ask::{self, Answer, Asker, Silent};
use crate::fleet::config::NodeConfig;

/// How often a node with GPUs is asked.
const WITH_GPUS: Duration = Duration::from_secs(10);
/// How often one without is.
const WITHOUT: Duration = Duration::from_secs(60);
/// After a node did not answer for the first time, and at most.
const FAILED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));
/// How long a server waits at its start for nodes that are new to it.
const MEET: Duration = Duration::from_secs(10);

impl Fleet {
    /// Asks nodes that nobody has seen yet, once and not for long: a request that no node can ever meet is refused, so what
    /// they have should be known before anything is asked of them.
    pub async fn meet(&self, asker: &Asker) {
        let is_new = |known: &Known| known.seen.is_none() && known.is_asked();
        let new = |known: &Known| is_new(known).then(|| known.config.clone());
        let new: Vec<NodeConfig> = self.lock().iter().filter_map(new).collect();
        let asking = new.into_iter().map(async |config| {
            if let Ok(answer) = tokio::time::timeout(MEET, asker.ask(&config)).await {
                self.take(&config.name, answer, clock::now());
            }
        });
        join_all(asking).await;
    }

    /// Asks all nodes from time to time, for as long as this is polled. What they tell is written by the server that leads:
    /// of several, each may reach them in another way, and all write the same rows.
    pub async fn run(self, asker: Asker, leads: watch::Receiver<bool>) {
        let asked = |known: &&Known| known.is_asked();
        let configs: Vec<NodeConfig> = self.lock().iter().filter(asked).map(|known| known.config.clone()).collect();
        let asking = join_all(configs.into_iter().map(|config| self.follow(config, &asker, leads.clone())));
        join(asking, self.follow_marks()).await;
    }

    async fn follow(&self, config: NodeConfig, asker: &Asker, mut leads: watch::Receiver<bool>) {
        self.remember(&config.name).await;
        let leads_now = leads.clone();
        let keep = async {
            // Another server may have written since; whoever takes the lead writes what it knows.
            while leads.wait_for(|leads| *leads).await.is_ok() {
                self.forget_written(&config.name);
                self.write(&config.name, clock::now()).await;
                if leads.wait_for(|leads| !*leads).await.is_err() {
                    return;
                }
            }
        };
        join(keep, self.ask_again(&config, asker, leads_now)).await;
    }

    async fn ask_again(&self, config: &NodeConfig, asker: &Asker, leads: watch::Receiver<bool>) {
        let is_local = config.connection.is_none();
        if is_local && ask::is_pretended() {
            return;
        }
        let mut failures = 0;
        let mut wait = if is_local { self.pause(&config.name) } else { Duration::ZERO };
        let found = self.lock().iter().find(|k| k.config.name == config.name).map(|known| known.found.clone());
        let found = found.unwrap_or_default();
        let (mut following, mut can_follow) = (None, config.connection.is_some());
        loop {
            let due = tokio::time::sleep(wait);
            tokio::select! {
                () = due => {}
                // One that is well is asked when it is due.
                () = found.notified(), if failures > 0 => {}
            }
            // What has no GPUs is asked so seldom that nothing is kept there for it.
            let told = match can_follow && self.pause(&config.name) == WITH_GPUS {
                true => asker.next(config, WITH_GPUS, &mut following).await,
                false => Err(Silent::Cannot),
            };
            let answer = match told {
                Ok(answer) => Ok(answer),
                Err(Silent::Failed(why)) => Err(why),
                Err(Silent::Cannot) => {
                    can_follow &= self.pause(&config.name) != WITH_GPUS;
                    asker.ask(config).await
                }
            };
            self.take(&config.name, answer, clock::now());
            if *leads.borrow() {
                self.write(&config.name, clock::now()).await;
                self.write_sample(&config.name).await;
            }
            let is_down = self.lock().iter().any(|k| k.config.name == config.name && k.is_down());
            failures = if is_down { failures + 1 } else { 0 };
            wait = match failures {
                // It tells when it is time.
                0 if following.is_some() => Duration::ZERO,
                0 => self.pause(&config.name),
                n => FAILED.1.min(FAILED.0 * 2u32.saturating_pow(n - 1)),
            };
        }
    }

    fn pause(&self, name: &str) -> Duration {
        let nodes = self.lock();
        let gpus = nodes.iter().find(|known| known.config.name == name).and_then(|known| known.seen.as_ref());
        if gpus.is_some_and(|seen| !seen.gpus.is_empty()) { WITH_GPUS } else { WITHOUT }
    }

    /// Takes what came of asking a node.
    pub(in crate::fleet) fn take(&self, name: &str, answer: Result<Answer, String>, now: Timestamp) {
        let mut nodes = self.lock();
        let Some(known) = nodes.iter_mut().find(|known| known.config.name == name) else { return };
        let before = known.seen.clone();
        let seen = known.seen.get_or_insert_default();
        match answer {
            Err(why) => {
                seen.unreachable(why);
                known.readings.clear();
            }
            Ok(Answer { mut probe, dcgm }) => {
                let exporter = match dcgm {
                    None => None,
                    Some(Ok(told)) => {
                        probe = with_exporter(probe, told);
                        None
                    }
                    // What it told before stands, with a word on how old it is; `nvidia-smi` may still know better.
                    Some(Err(why)) => Some(why),
                };
                seen.answered(&probe, now);
                seen.remarks.extend(exporter);
                let ended = known.series.add(&probe.gpus, now);
                known.unwritten.step = ended.step.or(known.unwritten.step.take());
                known.unwritten.hour = ended.hour.or(known.unwritten.hour.take());
                known.readings = probe.gpus;
            }
        }
        let is_news = known.seen != before;
        drop(nodes);
        // Nodes are put together from what is seen of them, and not from what their devices do: of a thousand nodes a hundred
        // a second say that nothing has changed.
        if is_news {
            self.publish();
        }
    }

    /// Somebody else has asked a node: it is as that has found it, and is asked as often as one that answers again.
    pub(crate) fn found(&self, name: &str, answer: Answer, now: Timestamp) {
        self.take(name, Ok(answer), now);
        let known = self.lock();
        if let Some(known) = known.iter().find(|known| known.config.name == name) {
            known.found.notify_one();
        }
    }
}
