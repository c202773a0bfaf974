//! Keeps writing the three tables of DynamoDB that the system before kept, for whoever still reads them.
//!
//! Rows are those of the views `ecs_job`, `ecs_task` and `ecs_node`: read anew in each round and compared with what was written,
//! so whatever a round could not write, a later one does. Invariants: nothing waits for this, and nothing is decided by it. Each
//! write carries a number that grows from write to write and from leader to leader, and happens only if the row has a smaller one;
//! so a write that comes late, or from a server that leads no more, undoes no newer one. Rows of the system before are not touched until
//! they were imported.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::RunKey;
use pitcrew_ecs::client::{Condition, Item, Typed};
use pitcrew_ecs::tables::{MARK, Table, Tables};
use pitcrew_ecs::{Client, Fault, Kind};
use pitcrew_store::{
    EcsFilter, EcsJob, EcsNode, EcsNodeStatus, EcsOrigin, EcsTask, NodeRow, Paging, Store, StoreError,
};
use serde_json::Value;
use tokio::sync::watch;

use super::import::IMPORTED_KEY;
use crate::clock;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(2);
/// After rounds that failed, at most.
const LONGEST: Duration = Duration::from_secs(60);
/// What ended so long before everything was written last is still looked at.
const BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// And where nothing was ever written.
const FIRST: SignedDuration = SignedDuration::from_hours(24);
/// Numbers of one leader; terms are seconds, and nobody writes as often in one.
const TERM: u64 = 1 << 24;

/// After a row, or a table, was refused.
const REFUSED: Duration = Duration::from_secs(60);

/// The term of the newest leader that wrote.
const TERM_KEY: &str = "ecs.tables.term";
/// Until when everything that happened is written.
const UNTIL_KEY: &str = "ecs.tables.until";

/// Writes the tables while this server leads.
pub struct Keeper {
    pub store: Store,
    pub client: Client,
    pub tables: Tables,
}

/// What one leader knows of what stands there.
struct Term {
    /// Of the next write.
    number: u64,
    written: BTreeMap<(Table, String), Item>,
    /// Rows, and whole tables, that are not tried before.
    put_off: BTreeMap<(Table, Option<String>), Instant>,
    /// The tables were imported.
    may_replace: bool,
    /// Until when everything that happened is written.
    until: Timestamp,
}

/// Why a round did not end.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{table}`: {fault}")]
    Aws { table: String, fault: Fault },
}

impl Keeper {
    /// For as long as this is polled.
    pub async fn run(self, mut leads: watch::Receiver<bool>) {
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            tokio::select! {
                changed = leads.wait_for(|leads| !*leads) => if changed.is_err() { return },
                () = self.lead() => {}
            }
        }
    }

    async fn lead(&self) {
        let mut failures = 0u32;
        let mut told = String::new();
        let mut term = None;
        loop {
            let begun = clock::now();
            let done = async {
                let term = match &mut term {
                    Some(term) => term,
                    none => none.insert(self.begin(begun).await?),
                };
                self.round(term, begun).await
            };
            match done.await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("the tables of DynamoDB are written again");
                    }
                    (failures, told) = (0, String::new());
                }
                Err(why) => {
                    failures += 1;
                    let why = why.to_string();
                    // Whoever reads the log need not read it in each round.
                    if told != why {
                        tracing::warn!("the tables of DynamoDB cannot be written; it is tried again: {why}");
                        told = why;
                    }
                }
            }
            let wait = ROUND * 2u32.saturating_pow(failures.min(6));
            tokio::time::sleep(wait.min(LONGEST)).await;
        }
    }

    /// A number that no leader had before.
    async fn begin(&self, now: Timestamp) -> Result<Term, Hindrance> {
        let number = loop {
            let before = self.store.setting(TERM_KEY).await?;
            let last = before.as_deref().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
            // Also where the database is younger than the tables: restored, or another one.
            let next = u64::try_from(now.as_second()).unwrap_or_default().max(last + 1);
            if self.store.swap_setting(TERM_KEY, before.as_deref(), &next.to_string()).await? {
                break next;
            }
        };
        let until = self.store.setting(UNTIL_KEY).await?.and_then(|text| text.parse::<Timestamp>().ok());
        let until = until.or_else(|| now.checked_sub(FIRST).ok()).unwrap_or(now);
        // What stands there of a machine that went when nobody led is of before.
        let gone = gone(&self.store, until.checked_sub(BEFORE).unwrap_or(until)).await?;
        let written = gone.into_iter().map(|name| ((Table::Node, name), Item::new())).collect();
        let put_off = BTreeMap::new();
        Ok(Term { number: number.saturating_mul(TERM), written, put_off, may_replace: false, until })
    }

    /// Writes whatever is not there yet.
    async fn round(&self, term: &mut Term, begun: Timestamp) -> Result<(), Hindrance> {
        let mut wanted = self.wanted(term.until).await?;
        // A machine that is gone is not left as one that can be used.
        let gone = Fields(Item::new()).text("node_status", Some(EcsNodeStatus::Unknown.name())).0;
        for (key, row) in &term.written {
            if key.0 == Table::Node && *row != gone && !wanted.contains_key(key) {
                wanted.insert(key.clone(), gone.clone());
            }
        }
        term.written.retain(|key, _| wanted.contains_key(key));
        let now = clock::instant();
        term.put_off.retain(|_, until| *until > now);
        // What the system before has written is its own until it was imported.
        let may_replace = self.store.setting(IMPORTED_KEY).await?.is_some();
        if may_replace && !std::mem::replace(&mut term.may_replace, true) {
            term.put_off.clear();
        }
        let mut is_changed = false;
        for (key, row) in wanted {
            let place = (key.0, Some(key.1.clone()));
            let is_put_off = term.put_off.contains_key(&place) || term.put_off.contains_key(&(key.0, None));
            if term.written.get(&key) == Some(&row) || is_put_off {
                continue;
            }
            let table = self.tables.of(key.0).to_owned();
            let again = now + REFUSED;
            match self.write(term, &key, &row, may_replace).await {
                Ok(true) => {
                    is_changed = true;
                    term.written.insert(key, row);
                }
                Ok(false) => {
                    let why = match may_replace {
                        true => "it is newer than what this server writes: does another Pitcrew write this table?",
                        false => "the system before may have written it: `pitcrew aws import` takes its tables over",
                    };
                    tracing::warn!(table, key = key.1, "a row of DynamoDB is left alone: {why}");
                    term.put_off.insert(place, again);
                }
                Err(fault) => match fault.kind {
                    // Of DynamoDB as a whole: the others would wait for nothing.
                    Kind::Throttled | Kind::Unreached | Kind::Capacity => return Err(Hindrance::Aws { table, fault }),
                    // Of one row, and perhaps of no other.
                    Kind::Invalid | Kind::Conflict => {
                        tracing::warn!(table, key = key.1, "a row of DynamoDB cannot be written: {fault}");
                        term.put_off.insert(place, again);
                    }
                    // Of the whole table.
                    Kind::NotFound | Kind::Denied => {
                        tracing::warn!(table, "a table of DynamoDB cannot be written: {fault}");
                        term.put_off.insert((key.0, None), again);
                    }
                },
            }
        }
        term.until = begun;
        // A server with nothing to do writes nothing.
        if is_changed {
            self.store.put_setting(UNTIL_KEY, &begun.to_string()).await?;
        }
        Ok(())
    }

    /// Every row that may have changed since.
    async fn wanted(&self, since: Timestamp) -> Result<BTreeMap<(Table, String), Item>, StoreError> {
        let mut wanted = BTreeMap::new();
        let ours = |run: RunKey| EcsFilter { run: Some(run), origin: Some(EcsOrigin::Pitcrew), ..EcsFilter::default() };
        // The newest run of a job that goes by one name counts.
        for run in self.store.ecs_runs(since.checked_sub(BEFORE).unwrap_or(since)).await?.into_iter().rev() {
            for job in self.store.ecs_jobs(&ours(run), Paging::ALL).await?.rows {
                wanted.entry((Table::Job, job.job_id.clone())).or_insert_with(|| of_job(&job));
            }
            for task in self.store.ecs_tasks(&ours(run), Paging::ALL).await?.rows {
                wanted.entry((Table::Task, task.ecs_task_id.clone())).or_insert_with(|| of_task(&task));
            }
        }
        let ours = EcsFilter { origin: Some(EcsOrigin::Pitcrew), ..EcsFilter::default() };
        for node in self.store.ecs_nodes(&ours, Paging::ALL).await?.rows {
            wanted.entry((Table::Node, node.node_name.clone())).or_insert_with(|| of_node(&node));
        }
        Ok(wanted)
    }

    /// Says whether it was written; else there is a newer row, or one that is not to be replaced yet.
    async fn write(
        &self,
        term: &mut Term,
        (table, key): &(Table, String),
        row: &Item,
        may_replace: bool,
    ) -> Result<bool, Fault> {
        term.number += 1;
        let number = Typed::N(term.number.to_string());
        let mut set = row.clone();
        set.insert(MARK.to_owned(), number.clone());
        let free = if may_replace { "#version" } else { "#key" };
        let mut names = BTreeMap::from([("#version".to_owned(), MARK.to_owned())]);
        if !may_replace {
            names.insert("#key".to_owned(), table.key().to_owned());
        }
        let condition = Condition {
            expression: format!("attribute_not_exists({free}) OR #version < :version"),
            names,
            values: BTreeMap::from([(":version".to_owned(), number)]),
        };
        let name = self.tables.of(*table);
        let id = Item::from([(table.key().to_owned(), Typed::text(key))]);
        self.client.update_item(name, &id, &set, Some(&condition)).await
    }
}

/// Machines of ECS that are no nodes any more, and were told so since then, as the tables call them.
async fn gone(store: &Store, since: Timestamp) -> Result<Vec<String>, StoreError> {
    let is_gone = |row: &NodeRow| {
        row.seen_at.is_some_and(|at| at >= since) && row.seen.pointer("/ecs/is_gone") == Some(&Value::Bool(true))
    };
    let gone: Vec<NodeRow> = store.nodes().await?.into_iter().filter(is_gone).collect();
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let imported = EcsFilter { origin: Some(EcsOrigin::Imported), ..EcsFilter::default() };
    let imported = store.ecs_nodes(&imported, Paging::ALL).await?.rows;
    let named = |row: NodeRow| {
        let known = imported.iter().find(|item| item.node.as_deref() == Some(&row.name));
        known.map_or(row.name, |item| item.node_name.clone())
    };
    Ok(gone.into_iter().map(named).collect())
}

/// Fields that are not known are left as they are.
struct Fields(Item);

impl Fields {
    fn text(mut self, name: &str, value: Option<&str>) -> Fields {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), Typed::text(value));
        }
        self
    }

    fn number(mut self, name: &str, value: Option<u32>) -> Fields {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), Typed::number(value.into()));
        }
        self
    }

    fn texts(mut self, name: &str, value: &[String]) -> Fields {
        self.0.insert(name.to_owned(), Typed::texts(value));
        self
    }
}

fn of_job(job: &EcsJob) -> Item {
    Fields(Item::new())
        .number("num_nodes", Some(job.num_nodes))
        .texts("assigned_nodes", &job.assigned_nodes)
        .texts("submitted_container_inst_ids", &job.submitted_container_inst_ids)
        .texts("submitted_ecs_task_ids", &job.submitted_ecs_task_ids)
        .number("retry", Some(job.retry))
        .text("job_status", Some(job.job_status.name()))
        .0
}

fn of_task(task: &EcsTask) -> Item {
    Fields(Item::new())
        .text("node_name", task.node_name.as_deref())
        .number("node_index_in_job", task.node_index_in_job)
        .text("job_id", task.job_id.as_deref())
        .number("job_num_nodes", task.job_num_nodes)
        .text("task_def_arn", task.task_def_arn.as_deref())
        .text("container_inst_id", task.container_inst_id.as_deref())
        .text("container_instance_arn", task.container_instance_arn.as_deref())
        .number("retry", Some(task.retry))
        .text("task_status", Some(task.task_status.name()))
        .0
}

/// `ip` and `ibdev` stay as whoever set the machine up has written them.
fn of_node(node: &EcsNode) -> Item {
    Fields(Item::new())
        .text("container_instance_id", node.container_instance_id.as_deref())
        .text("container_instance_arn", node.container_instance_arn.as_deref())
        .text("node_status", Some(node.node_status.name()))
        .0
}

#[cfg(test)]
mod tests {
    use pitcrew_store::StoreUrl;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn machines_that_went_since_everything_was_written_are_known() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        for (name, gone, second) in [("i-old", true, 0), ("i-gone", true, 100), ("i-there", false, 100)] {
            let seen = json!({ "ecs": { "is_gone": gone } });
            store.see_node(name, &seen, at(second)).await.unwrap();
        }
        store.see_node("s21", &json!({ "gpus": [] }), at(100)).await.unwrap();
        assert_eq!(gone(&store, at(50)).await.unwrap(), ["i-gone"]);
    }
}
