//! What is done after a commit. Everything here may be done again after a crash, and is then done once all the same:
//! a start is idempotent by attempt, and so is a cancel.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use pitcrew_core::RunKey;
use pitcrew_core::engine::Slot;
use pitcrew_core::recovery::Input;
use pitcrew_exec::{Backend, Handle, Observation};

use super::Ask;
use super::core_loop::Core;
use super::launch::Observed;

pub(super) enum After {
    Launch {
        run: RunKey,
        slot: Slot,
        attempt: u32,
    },
    /// Find out what became of an attempt that was live when the last owner ended.
    Attach {
        run: RunKey,
        slot: Slot,
        attempt: u32,
    },
    Cancel {
        run: RunKey,
        slot: Slot,
        attempt: u32,
        grace: SignedDuration,
    },
    /// An attempt's end is written: its scripts and output files may go.
    Cleanup {
        backend: String,
        handle: Handle,
    },
    Answer(Box<dyn FnOnce() + Send>),
    /// Recovery is told of the run, if it is still ours.
    Tell(RunKey, Box<Input>),
    Finished(RunKey),
}

impl Core {
    pub fn perform(&mut self, after: After) {
        match after {
            After::Launch { run, slot, attempt } => self.launch(run, slot, attempt),
            After::Attach { run, slot, attempt } => {
                let Some((backend, handle)) = self.find(run, slot, attempt) else {
                    // Its row was never written, so nothing of it can have begun.
                    return self.launch(run, slot, attempt);
                };
                let me = self.me.clone();
                tokio::spawn(async move {
                    let observation = backend.attach(&handle).await;
                    if let Some(me) = me.upgrade() {
                        let _ = me.send(Ask::Observed(Observed { run, slot, attempt, observation }));
                    }
                });
            }
            After::Cancel { run, slot, attempt, grace } => {
                let Some((backend, handle)) = self.find(run, slot, attempt) else { return };
                let me = self.me.clone();
                tokio::spawn(async move {
                    let observation = match backend.cancel(&handle, grace).await {
                        Ok(()) => return,
                        Err(error) => Observation::Unreachable { reason: error.to_string() },
                    };
                    if let Some(me) = me.upgrade() {
                        let _ = me.send(Ask::Observed(Observed { run, slot, attempt, observation }));
                    }
                });
            }
            After::Cleanup { backend, handle } => {
                let backend = self.backend(&backend);
                tokio::spawn(async move {
                    if let Err(error) = backend.cleanup(&handle).await {
                        tracing::debug!(%error, attempt = %handle.id, "cannot clean up an attempt");
                    }
                });
            }
            After::Answer(answer) => answer(),
            After::Tell(_, input) => self.parts.recoverer.tell(*input),
            After::Finished(key) => {
                let Some(active) = self.runs.get(&key).filter(|active| active.run.record.state.is_final()) else {
                    return;
                };
                if active.has_unwritten() {
                    // It changed again while its end was being written.
                    self.after.push(After::Finished(key));
                } else {
                    self.leave(key);
                    self.check_past_of(key);
                    self.forget(key);
                    self.release(key);
                }
            }
        }
    }

    /// Other machines may forget the run.
    fn leave(&self, key: RunKey) {
        for (backend, handles) in self.elsewhere(key) {
            tokio::spawn(async move {
                if let Err(error) = backend.leave(&handles).await {
                    tracing::warn!(%error, "cannot remove the directories of run {key} on its hosts");
                }
            });
        }
    }

    /// The attempts of a run that are on other machines, by backend.
    pub fn elsewhere(&self, key: RunKey) -> Vec<(Arc<dyn Backend>, Vec<Handle>)> {
        let mut found: BTreeMap<&str, Vec<Handle>> = BTreeMap::new();
        for row in self.runs.get(&key).iter().flat_map(|active| active.attempts.values()) {
            let handle: Option<Handle> = serde_json::from_value(row.handle.clone()).ok();
            if let Some(handle) = handle.filter(|handle| handle.place.is_some()) {
                found.entry(&row.backend).or_default().push(handle);
            }
        }
        found.into_iter().map(|(backend, handles)| (self.backend(backend), handles)).collect()
    }

    /// A finished run belongs to nobody, so that any process can clear it.
    fn release(&self, key: RunKey) {
        let (store, owner) = (self.parts.store.clone(), self.parts.owner.clone());
        tokio::spawn(async move {
            if let Err(error) = store.release_runs(&owner, &[key]).await {
                tracing::debug!(%error, "cannot release run {key}");
            }
        });
    }

    /// Where a live attempt is, by its row.
    fn find(&self, run: RunKey, slot: Slot, attempt: u32) -> Option<(Arc<dyn Backend>, Handle)> {
        let row = self.runs.get(&run)?.attempts.get(&slot).filter(|row| row.number == attempt)?;
        let handle = serde_json::from_value(row.handle.clone()).ok()?;
        Some((self.backend(&row.backend), handle))
    }
}
