//! Before a job of several nodes begins anew, all of them are heard at once: what is broken there by then is known before it is
//! decided where the job goes, and it is not begun on a node only to be ended there again.
//!
//! Invariant: nobody waits for a node that does not answer for longer than [`PATIENCE`]. What is not heard by then is heard when
//! it is due, as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{join, join_all};
use pitcrew_core::recovery::{Input, NodeState};
use tokio::sync::watch;

use super::facts;
use super::perform::Hands;
use crate::fleet::Reach;

/// For all of them together.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who reads the logs of which nodes.
#[derive(Default)]
pub struct Ears(Mutex<BTreeMap<String, Arc<Ear>>>);

/// Where whoever reads the log of a node is asked to read it now.
pub(super) struct Ear {
    /// How often that was asked for.
    asked: watch::Sender<u64>,
    /// The last time that was asked for before all was told that the log had then.
    heard: watch::Sender<u64>,
}

impl Ears {
    pub(super) fn of(&self, node: &str) -> Arc<Ear> {
        let new = || Arc::new(Ear { asked: watch::channel(0).0, heard: watch::channel(0).0 });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(node.to_owned()).or_insert_with(new).clone()
    }
}

impl Ear {
    /// Before the log is read: what is to be given to [`Ear::heard`] after it.
    pub fn asked(&self) -> u64 {
        *self.asked.borrow()
    }

    pub fn heard(&self, asked: u64) {
        self.heard.send_if_modified(|heard| std::mem::replace(heard, asked) != asked);
    }

    /// Until it is to be read again.
    pub async fn pause(&self, pause: Duration, asked: u64) {
        let _ = tokio::time::timeout(pause, self.wanted(asked)).await;
    }

    /// Until somebody wants it to be read now.
    pub async fn wanted(&self, asked: u64) {
        // It fails only where nobody could want it.
        let _ = self.asked.subscribe().wait_for(|now| *now != asked).await;
    }

    /// Until the log was read that there is now.
    async fn hear(&self) {
        let mut heard = self.heard.subscribe();
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let _ = heard.wait_for(|heard| *heard >= number).await;
    }
}

impl Hands {
    /// The nodes that the job was on before, if there are several.
    pub(super) async fn hear_nodes_of(&self, job: &str) {
        let nodes: BTreeSet<String> = self.desk.look(|recovery| {
            let places = recovery.job(job).and_then(|row| row.before.as_ref()).map(|past| &past.places);
            places.into_iter().flatten().map(|place| place.node.clone()).collect()
        });
        if nodes.len() < 2 {
            return;
        }
        // Of those that are being looked after enough is known.
        let is_well = |node: &&String| {
            self.desk.look(|recovery| recovery.node(node).is_some_and(|row| row.state == NodeState::Healthy))
        };
        let all = join_all(nodes.iter().filter(is_well).map(|node| self.hear_node(node)));
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }

    async fn hear_node(&self, node: &str) {
        let nodes = self.reached.fleet.nodes().borrow().clone();
        match nodes.iter().find(|one| one.node.name == node).map(|one| &one.reach) {
            Some(Reach::Local | Reach::Connection(_)) => {
                join(self.desk.0.ears.of(node).hear(), self.miss_devices(node)).await;
            }
            // What the log of a worker has is there already, and events tell of the others.
            Some(Reach::Worker(_) | Reach::Ecs(_) | Reach::Kubernetes(_)) | None => {}
        }
    }

    /// Tells which devices are gone by now.
    async fn miss_devices(&self, node: &str) {
        let Some(config) = self.reached.fleet.config_of(node) else { return };
        if self.reached.probe(&config).await.is_none() {
            return;
        }
        for signal in facts::lost(self, node) {
            if self.desk.tell(Input::Signal(signal)).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_wants_to_hear_waits_for_a_reading_that_began_after_that() {
        let ears = Ears::default();
        let ear = ears.of("s21");
        let before = ear.asked();
        let hearing = tokio::spawn(async move { ears.of("s21").hear().await });
        // The pause ends at once, however long it is.
        ear.pause(Duration::from_secs(3600), before).await;
        // A reading that had begun before does not count.
        ear.heard(before);
        tokio::task::yield_now().await;
        assert!(!hearing.is_finished());
        ear.heard(ear.asked());
        hearing.await.unwrap();
    }
}
