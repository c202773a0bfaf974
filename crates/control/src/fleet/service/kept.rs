//! What the store has of nodes: what each told, what people did to it, and samples of what its devices did.
//!
//! Invariant: it is written only when something changed, so an idle fleet writes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_store::{NodeRow, NodeSample, StoreError};

use super::{Fleet, Known};
use crate::fleet::series::{KEPT, KEPT_HOURS, Series};

/// How soon what somebody did elsewhere is noticed.
const MARKS: Duration = Duration::from_secs(2);

impl Fleet {
    /// What other processes did with the same store.
    pub(super) async fn follow_marks(&self) {
        loop {
            tokio::time::sleep(MARKS).await;
            if let Err(error) = self.look_at_marks().await {
                tracing::warn!(%error, "what people did to nodes cannot be read");
            }
        }
    }

    /// Takes notice of what other processes did to nodes and workers; it counts when this returns. Nobody changes anything here
    /// between the reading and what comes of it, which would undo the change for a while.
    pub async fn look_at_marks(&self) -> Result<(), StoreError> {
        let store = &self.0.store;
        let mut before = self.0.marks.lock().await;
        let _alone = self.0.last_read.lock().await;
        // A thousand nodes to which nothing happened cost no more than a look at little of them.
        let marks = store.marks().await?;
        if before.as_ref() == Some(&marks) {
            return Ok(());
        }
        let (nodes, workers) = (by_name(store.nodes().await?), store.workers().await?);
        self.set_workers(&workers, &nodes).await;
        self.mark(&nodes);
        // What came between the two readings is seen the next time.
        *before = Some(marks);
        Ok(())
    }

    pub(in crate::fleet) fn mark(&self, rows: &BTreeMap<String, NodeRow>) {
        for known in self.lock().iter_mut() {
            known.marks = rows.get(&key_of(&known.config.name, known.is_here(), self.0.home.as_deref())).cloned();
        }
        self.publish();
    }

    /// Under which name the store has a node.
    pub(super) fn key(&self, name: &str) -> String {
        let is_here = self.lock().iter().any(|known| known.config.name == name && known.is_here());
        key_of(name, is_here, self.0.home.as_deref())
    }

    pub(super) fn forget_written(&self, name: &str) {
        self.lock().iter_mut().filter(|known| known.config.name == name).for_each(|known| known.written = None);
    }

    /// Writes what a node told, if the store has something else.
    pub(in crate::fleet) async fn write(&self, name: &str, now: Timestamp) {
        let changed = {
            let nodes = self.lock();
            let known = nodes.iter().find(|known| known.config.name == name);
            known.filter(|known| known.seen != known.written).and_then(|known| known.seen.clone())
        };
        let Some(seen) = changed else { return };
        let row = match serde_json::to_value(&seen) {
            Ok(value) => self.0.store.see_node(&self.key(name), &value, now).await,
            Err(error) => return tracing::error!(%error, "what a node told cannot be written"),
        };
        match row {
            Ok(()) => {
                if let Some(known) = self.lock().iter_mut().find(|known| known.config.name == name) {
                    known.written = Some(seen);
                }
            }
            Err(error) => tracing::warn!(%error, node = name, "what a node told cannot be stored"),
        }
    }

    /// Goes on after the samples that the store has.
    pub(in crate::fleet) async fn remember(&self, name: &str) {
        let (store, key) = (&self.0.store, self.key(name));
        let read = async {
            Ok::<_, StoreError>((store.node_samples(&key).await?, store.node_samples(&hours_of(&key)).await?))
        };
        let (steps, hours) = match read.await {
            Ok(rows) => rows,
            Err(error) => return tracing::warn!(%error, node = name, "the samples of a node cannot be read"),
        };
        let samples =
            |rows: Vec<NodeSample>| rows.into_iter().filter_map(|row| serde_json::from_value(row.sample).ok());
        if let Some(known) = self.lock().iter_mut().find(|known| known.config.name == name) {
            known.series = Series::after(samples(steps), samples(hours));
        }
    }

    pub(in crate::fleet) async fn write_sample(&self, name: &str) {
        let known = |known: &mut Known| std::mem::take(&mut known.unwritten);
        let ended = self.lock().iter_mut().find(|known| known.config.name == name).map(known).unwrap_or_default();
        let key = self.key(name);
        for (sample, name, kept) in [(ended.step, key.clone(), KEPT), (ended.hour, hours_of(&key), KEPT_HOURS)] {
            let Some(sample) = sample else { continue };
            let Ok(value) = serde_json::to_value(&sample) else { continue };
            let row = NodeSample { node: name, at: sample.at, sample: value };
            if let Err(error) = self.0.store.put_node_sample(row, sample.at - kept).await {
                tracing::warn!(%error, "a sample of a node cannot be stored");
            }
        }
    }
}

/// Under which name the store has a node: the machine of a server is not that of another one, though both say `local`.
pub(super) fn key_of(name: &str, is_here: bool, home: Option<&str>) -> String {
    match home.filter(|_| is_here) {
        Some(home) => format!("{name} of {home}"),
        None => name.to_owned(),
    }
}

/// Under which name the store has the samples of each hour; no node has a name like that.
fn hours_of(name: &str) -> String {
    format!("{name} by the hour")
}

pub(super) fn by_name(rows: Vec<NodeRow>) -> BTreeMap<String, NodeRow> {
    rows.into_iter().map(|row| (row.name.clone(), row)).collect()
}
