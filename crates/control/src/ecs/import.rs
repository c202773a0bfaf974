//! Takes over what lasts from the three tables of DynamoDB that the system before kept: nodes that were not well are
//! cordoned, and the history of jobs and tasks stands in the views.
//!
//! Invariants: nothing there is changed. A row that cannot be read, or a table, hinders no other. A row that was taken over
//! and has not changed since does nothing, so whatever people did here after the first import stays.

use std::collections::{BTreeMap, BTreeSet};

use pitcrew_ecs::arn::Resident;
use pitcrew_ecs::tables::{Table, Tables, is_ours};
use pitcrew_ecs::{Client, Kind};
use pitcrew_store::{
    AuditEntry, EcsImport, EcsImported, EcsJobStatus, EcsKind, EcsNodeStatus, EcsTaskStatus, IMPORTED_STATUS,
    NodeChange, Store, StoreError,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock;

/// Says that the tables were imported, and may be written over.
pub(super) const IMPORTED_KEY: &str = "ecs.tables.imported";

/// Rows that are written at once.
const BATCH: usize = 500;

/// What is to be taken over.
#[derive(Debug, Clone)]
pub struct Plan {
    pub tables: Tables,
    /// The cluster of instances that do not name theirs.
    pub cluster: Option<String>,
    pub who: String,
    /// Only says what it would do.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub tables: Vec<TableReport>,
    pub cordoned: Vec<Cordoned>,
    pub problems: Vec<Problem>,
}

/// Of one table, how many rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableReport {
    pub table: String,
    pub added: u32,
    pub changed: u32,
    pub same: u32,
    /// Written by Pitcrew itself, and left out.
    pub ours: u32,
    /// Could not be read.
    pub bad: u32,
}

/// A node that gets no new work, since it was not well before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cordoned {
    pub node: String,
    pub node_name: String,
    pub status: String,
}

/// Something that was not taken over, or not all the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub table: String,
    /// `None`: the table as a whole.
    pub key: Option<String>,
    pub why: String,
}

/// A machine, as far as it is known.
#[derive(Debug, Clone)]
struct Machine {
    node: String,
    /// Where it can be drained.
    place: Option<(String, String)>,
}

/// Nodes that were under repair, or out of service.
fn is_out(status: EcsNodeStatus) -> bool {
    match status {
        EcsNodeStatus::Pending
        | EcsNodeStatus::PendingHealthcheck
        | EcsNodeStatus::Rebooting
        | EcsNodeStatus::Failed => true,
        EcsNodeStatus::Available | EcsNodeStatus::Assigned | EcsNodeStatus::InProgress | EcsNodeStatus::Unknown => {
            false
        }
    }
}

pub async fn import(store: &Store, client: &Client, plan: &Plan) -> Result<Report, StoreError> {
    let mut report = Report::default();
    for (table, kind) in [(Table::Node, EcsKind::Node), (Table::Job, EcsKind::Job), (Table::Task, EcsKind::Task)] {
        let source = plan.tables.of(table);
        let mut of_table = TableReport { table: source.to_owned(), ..TableReport::default() };
        let mut rows = match client.scan(source, usize::MAX).await {
            Ok(scanned) => {
                if scanned.cut {
                    report.problem(source, None, "it has more rows than are read at once; the rest is left out");
                }
                read(table, kind, source, &scanned.items, &mut of_table, &mut report)
            }
            Err(fault) => {
                let remedy = match fault.kind {
                    Kind::NotFound => format!("; `{}` names another", table.variable()),
                    _ => String::new(),
                };
                report.problem(source, None, format!("{fault}{remedy}"));
                continue;
            }
        };
        if kind == EcsKind::Node {
            let undone = nodes(store, client, plan, &mut rows, &mut report).await?;
            // Not taken over yet, so that the next import tries again.
            rows.retain(|row| !undone.contains(&row.key));
        }
        for part in rows.chunks(BATCH) {
            let changes = match plan.dry_run {
                true => compare(store, part).await?,
                false => {
                    let mut audit = AuditEntry::new(clock::now(), plan.who.clone(), "ecs.import");
                    audit.detail = json!({ "table": source, "rows": part.len() });
                    store.import_ecs(part, clock::now(), audit).await?
                }
            };
            for change in changes {
                match change {
                    EcsImported::Added => of_table.added += 1,
                    EcsImported::Changed => of_table.changed += 1,
                    EcsImported::Same => of_table.same += 1,
                }
            }
        }
        report.tables.push(of_table);
    }
    if !plan.dry_run && report.tables.len() == Table::ALL.len() {
        store.put_setting(IMPORTED_KEY, "true").await?;
    }
    Ok(report)
}

impl Report {
    fn problem(&mut self, table: &str, key: Option<String>, why: impl Into<String>) {
        self.problems.push(Problem { table: table.to_owned(), key, why: why.into() });
    }
}

/// The rows of a table that can be read; the others are problems.
fn read(
    table: Table,
    kind: EcsKind,
    source: &str,
    items: &[pitcrew_ecs::client::Item],
    of_table: &mut TableReport,
    report: &mut Report,
) -> Vec<EcsImport> {
    let mut rows = BTreeMap::new();
    for (number, item) in items.iter().enumerate() {
        if is_ours(item) {
            of_table.ours += 1;
            continue;
        }
        let key = table.key_of(item);
        let name = key.clone().unwrap_or_else(|_| format!("row {}", number + 1));
        let body = key.and_then(|key| Ok((key, checked(kind, table.row_of(item)?)?)));
        match body {
            // Should a page have told of one twice, it is one.
            Ok((key, body)) => {
                let source = source.to_owned();
                rows.insert(key.clone(), EcsImport { kind, key, source, body, node: None });
            }
            Err(why) => {
                of_table.bad += 1;
                report.problem(source, Some(name), why);
            }
        }
    }
    rows.into_values().collect()
}

/// With a status that there is.
fn checked(kind: EcsKind, row: serde_json::Map<String, Value>) -> Result<Value, String> {
    let of = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    match kind {
        EcsKind::Job => of("job_status").parse::<EcsJobStatus>().map(drop),
        EcsKind::Task => of("task_status").parse::<EcsTaskStatus>().map(drop),
        EcsKind::Node => of("node_status").parse::<EcsNodeStatus>().map(drop),
    }?;
    Ok(Value::Object(row))
}

/// What an import would change.
async fn compare(store: &Store, rows: &[EcsImport]) -> Result<Vec<EcsImported>, StoreError> {
    let mut all = Vec::new();
    for row in rows {
        all.push(match store.ecs_imported(row.kind, &row.key).await? {
            None => EcsImported::Added,
            Some(before) if before == *row => EcsImported::Same,
            Some(_) => EcsImported::Changed,
        });
    }
    Ok(all)
}

/// Finds which machine each is, and takes those out of use that were not well; those with which that did not go all the way.
async fn nodes(
    store: &Store,
    client: &Client,
    plan: &Plan,
    rows: &mut [EcsImport],
    report: &mut Report,
) -> Result<BTreeSet<String>, StoreError> {
    let source = plan.tables.node.as_str();
    let known = known(store).await?;
    let mut undone = BTreeSet::new();
    for row in rows {
        let machine = match here(&known, row) {
            Some(machine) => Some(machine),
            None => match asked(client, plan, row).await {
                Ok(found) => found,
                Err(why) => {
                    report.problem(source, Some(row.key.clone()), format!("its machine cannot be found: {why}"));
                    None
                }
            },
        };
        let before = store.ecs_imported(EcsKind::Node, &row.key).await?;
        // One that cannot be found any more is still the same machine.
        row.node = match (&machine, &before) {
            (Some(machine), _) => Some(machine.node.clone()),
            (None, Some(before)) => before.node.clone(),
            (None, None) => None,
        };
        let status = |of: &EcsImport| of.body["node_status"].as_str().unwrap_or_default().to_owned();
        let word = status(row);
        if !word.parse().is_ok_and(is_out) {
            continue;
        }
        let is_done = before.is_some_and(|before| status(&before) == word && before.node == row.node);
        match machine {
            None if is_done => {}
            None => {
                let why = format!("it was `{word}`, and no machine of a cluster is known for it: nothing is cordoned");
                report.problem(source, Some(row.key.clone()), why);
            }
            Some(_) if is_done => {}
            Some(machine) => {
                report.cordoned.push(Cordoned {
                    node: machine.node.clone(),
                    node_name: row.key.clone(),
                    status: word.clone(),
                });
                if !plan.dry_run
                    && let Err(why) = take_out(store, client, plan, row, &machine, &word).await?
                {
                    report.problem(source, Some(row.key.clone()), why);
                    undone.insert(row.key.clone());
                }
            }
        }
    }
    Ok(undone)
}

/// Cordons it here, and lets ECS give it nothing new either.
async fn take_out(
    store: &Store,
    client: &Client,
    plan: &Plan,
    row: &EcsImport,
    machine: &Machine,
    status: &str,
) -> Result<Result<(), String>, StoreError> {
    let labels = BTreeMap::from([(IMPORTED_STATUS.to_owned(), Some(status.to_owned()))]);
    let change = NodeChange { cordoned: Some(true), labels, ..NodeChange::default() };
    let mut audit = AuditEntry::new(clock::now(), plan.who.clone(), "node.cordon");
    let why = format!("`{}` of `{}` was `{status}`", row.key, row.source);
    audit.detail = json!({ "node": machine.node, "reason": why });
    store.change_node(&machine.node, change, audit).await?;
    let Some((cluster, instance)) = &machine.place else { return Ok(Ok(())) };
    let drained = client.drain(cluster, std::slice::from_ref(instance), true).await;
    Ok(drained.map_err(|fault| {
        format!("`{}` is cordoned here, and ECS still gives it tasks; import again: {fault}", machine.node)
    }))
}

/// Machines of ECS that this store knows, by each of their names.
async fn known(store: &Store) -> Result<BTreeMap<String, Machine>, StoreError> {
    let mut all = BTreeMap::new();
    for row in store.nodes().await? {
        let at = &row.seen["ecs"]["at"];
        let Some(arn) = at["instance"].as_str() else { continue };
        let cluster = at["cluster"].as_str().unwrap_or_default();
        let machine = Machine { node: row.name.clone(), place: Some((cluster.to_owned(), arn.to_owned())) };
        let id = Resident::instance(arn).map(|resident| resident.id).unwrap_or_default();
        for name in [row.name.clone(), arn.to_owned(), id] {
            all.insert(name, machine.clone());
        }
    }
    all.remove("");
    Ok(all)
}

fn here(known: &BTreeMap<String, Machine>, row: &EcsImport) -> Option<Machine> {
    let names = ["container_instance_arn", "container_instance_id"].map(|name| row.body[name].as_str());
    names.into_iter().flatten().chain([row.key.as_str()]).find_map(|name| known.get(name)).cloned()
}

/// Asks ECS for the machine of an instance.
async fn asked(client: &Client, plan: &Plan, row: &EcsImport) -> Result<Option<Machine>, String> {
    let Some(arn) = row.body["container_instance_arn"].as_str() else { return Ok(None) };
    let resident = Resident::instance(arn).map_err(|wrong| wrong.to_string())?;
    let Some(cluster) = resident.cluster.or_else(|| plan.cluster.clone()) else {
        return Err("its ARN names no cluster: give `--cluster NAME`".to_owned());
    };
    match client.instances(&cluster, &[arn.to_owned()]).await {
        Ok(found) => Ok(found.into_iter().find(|one| !one.ec2_instance_id.is_empty()).map(|one| Machine {
            node: one.ec2_instance_id.clone(),
            place: Some((cluster, one.container_instance_arn.clone())),
        })),
        Err(fault) if fault.kind == Kind::NotFound => Ok(None),
        Err(fault) => Err(fault.to_string()),
    }
}
