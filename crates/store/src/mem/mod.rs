//! The store in memory: the model that says what the others must do.
//!
//! Plain maps under one lock, no cleverness: where this and a database differ, this is right until somebody
//! shows otherwise.

mod across;
mod deliveries;
mod ecs;
mod files;
mod nodes;
mod objects;
mod outbox;
mod people;
mod quotas;
mod reads;
mod recovery;
mod secrets;
mod settings;
mod workers;
mod workflows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, StoredRun};
use pitcrew_core::id::{RunKey, TaskId, UNMAPPED, WorkflowId};

use crate::error::{Result, StoreError};
use crate::owner::{Hold, Owner};
use crate::types::*;
use crate::watch::Bell;

/// What an owner holds, and others watch.
pub struct Life;

/// A store in memory.
pub struct Mem {
    state: Mutex<State>,
    pub(crate) bell: Bell,
}

struct State {
    last_key: i64,
    runs: BTreeMap<RunKey, Run>,
    owners: BTreeMap<String, Weak<Life>>,
    leader: Option<(String, Weak<Life>)>,
    workflows: BTreeMap<WorkflowId, WorkflowRow>,
    versions: BTreeMap<(WorkflowId, String), (Timestamp, String)>,
    file_errors: BTreeMap<String, FileError>,
    variables: BTreeMap<String, Variable>,
    pools: BTreeMap<String, Pool>,
    /// In order of writing.
    audit: Vec<AuditRow>,
    last_audit: i64,
    users: BTreeMap<String, UserRow>,
    tokens: BTreeMap<String, TokenRow>,
    connections: BTreeMap<String, Connection>,
    secrets: BTreeMap<String, SecretRow>,
    nodes: BTreeMap<String, NodeRow>,
    quotas: BTreeMap<String, pitcrew_core::admission::Quota>,
    node_samples: BTreeMap<(String, Timestamp), serde_json::Value>,
    workers: BTreeMap<String, WorkerRow>,
    worker_ends: BTreeMap<String, WorkerEnds>,
    /// The oldest first.
    worker_tokens: Vec<WorkerToken>,
    notices: BTreeMap<i64, Notice>,
    last_notice: i64,
    backfills: BTreeMap<i64, Backfill>,
    last_backfill: i64,
    settings: BTreeMap<String, String>,
    recovery: BTreeMap<pitcrew_core::recovery::Key, pitcrew_core::recovery::Record>,
    recovery_term: u64,
    ecs_imported: BTreeMap<(EcsKind, String), EcsImport>,
    /// By run and data directory.
    run_files: BTreeMap<(RunKey, String), i64>,
    removed: BTreeMap<RunKey, RemovedRun>,
    objects: BTreeMap<objects::Key, ObjectRow>,
    deliveries: BTreeMap<i64, DeliveryRow>,
    last_delivery: i64,
    /// By digest: the delivery, its event, and until when it is known.
    replays: BTreeMap<String, (i64, String, Timestamp)>,
}

/// A run with its rows.
#[derive(Clone)]
struct Run {
    record: RunRecord,
    owner: Option<String>,
    instances: BTreeMap<(TaskId, i32), InstanceRecord>,
    attempts: BTreeMap<(TaskId, i32, u32), AttemptRecord>,
}

impl Run {
    fn stored(&self) -> StoredRun {
        StoredRun {
            run: self.record.clone(),
            instances: self.instances.values().cloned().collect(),
            live: self.attempts.values().filter(|attempt| attempt.exit.is_none()).cloned().collect(),
        }
    }
}

impl State {
    fn write_audit(&mut self, entries: impl IntoIterator<Item = AuditEntry>) {
        for entry in entries {
            self.last_audit += 1;
            self.audit.push(AuditRow { id: self.last_audit, entry });
        }
    }
}

impl Mem {
    pub fn new() -> Self {
        let pool = Pool { name: DEFAULT_POOL.to_owned(), slots: DEFAULT_POOL_SLOTS, description: String::new() };
        Mem {
            state: Mutex::new(State {
                last_key: 0,
                runs: BTreeMap::new(),
                owners: BTreeMap::new(),
                leader: None,
                workflows: BTreeMap::new(),
                versions: BTreeMap::new(),
                file_errors: BTreeMap::new(),
                variables: BTreeMap::new(),
                pools: [(pool.name.clone(), pool)].into(),
                audit: Vec::new(),
                last_audit: 0,
                users: BTreeMap::new(),
                tokens: BTreeMap::new(),
                connections: BTreeMap::new(),
                secrets: BTreeMap::new(),
                nodes: BTreeMap::new(),
                quotas: BTreeMap::new(),
                node_samples: BTreeMap::new(),
                workers: BTreeMap::new(),
                worker_ends: BTreeMap::new(),
                worker_tokens: Vec::new(),
                notices: BTreeMap::new(),
                last_notice: 0,
                backfills: BTreeMap::new(),
                last_backfill: 0,
                settings: BTreeMap::new(),
                recovery: BTreeMap::new(),
                recovery_term: 0,
                ecs_imported: BTreeMap::new(),
                run_files: BTreeMap::new(),
                removed: BTreeMap::new(),
                objects: BTreeMap::new(),
                deliveries: BTreeMap::new(),
                last_delivery: 0,
                replays: BTreeMap::new(),
            }),
            bell: Bell::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No method leaves the maps half changed, so a panic elsewhere does not spoil them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn register_owner(&self) -> Result<Owner> {
        let id = Owner::fresh_id();
        let life = Arc::new(Life);
        let mut state = self.lock();
        state.owners.retain(|_, life| life.strong_count() > 0);
        state.owners.insert(id.clone(), Arc::downgrade(&life));
        Ok(Owner::new(id, Hold::Memory(life)))
    }

    pub fn try_lead(&self, owner: &Owner) -> Result<bool> {
        let Hold::Memory(life) = &owner.hold else { return Err(foreign_owner()) };
        let mut state = self.lock();
        let taken = state.leader.as_ref().is_some_and(|(id, life)| id != owner.id() && life.strong_count() > 0);
        if !taken {
            state.leader = Some((owner.id().to_owned(), Arc::downgrade(life)));
        }
        Ok(!taken)
    }

    pub fn claim_runs(&self, owner: &Owner, filter: ClaimFilter) -> Result<Vec<StoredRun>> {
        let mut state = self.lock();
        let State { runs, owners, .. } = &mut *state;
        let lives = |id: &str| owners.get(id).is_some_and(|life| life.strong_count() > 0);
        let mut claimed = Vec::new();
        for run in runs.values_mut() {
            let is_mine = run.owner.as_deref() == Some(owner.id());
            let is_free = run.owner.as_deref().is_none_or(|id| !lives(id));
            let wanted = match filter {
                ClaimFilter::All => is_free && !run.record.state.is_final(),
                ClaimFilter::Only(key) => run.record.key == key && (is_free || is_mine),
            };
            if wanted {
                run.owner = Some(owner.id().to_owned());
                claimed.push(run.stored());
            }
        }
        Ok(claimed)
    }

    pub fn release_runs(&self, owner: &Owner, keys: &[RunKey]) -> Result<()> {
        let mut state = self.lock();
        for key in keys {
            if let Some(run) = state.runs.get_mut(key).filter(|run| run.owner.as_deref() == Some(owner.id())) {
                run.owner = None;
            }
        }
        drop(state);
        self.bell.ring();
        Ok(())
    }

    pub fn create_run(&self, run: NewRun, owner: Option<&Owner>) -> Result<CreateRun> {
        self.create_run_as(run, owner, None)
    }

    pub fn create_run_as(
        &self,
        mut run: NewRun,
        owner: Option<&Owner>,
        object: Option<NewObject>,
    ) -> Result<CreateRun> {
        let mut state = self.lock();
        if let Some(id) = run.backfill
            && state.backfills.get(&id).is_none_or(|backfill| !backfill.is_open() || backfill.cancelled)
        {
            return Err(StoreError::backfill_over(id));
        }
        let of_workflow = || state.runs.values().map(|old| &old.record).filter(|old| old.workflow == run.workflow);
        let same_id = of_workflow().find(|old| old.run_id == run.run_id).map(|run| (run, Same::RunId));
        let same_date = || {
            of_workflow()
                .find(|old| run.logical_date.is_some() && old.logical_date == run.logical_date)
                .map(|run| (run, Same::LogicalDate))
        };
        if let Some((run, same)) = same_id.or_else(same_date) {
            return Ok(CreateRun::Exists { run: run.clone(), same });
        }
        if let Some(new) = &object
            && let Some(taken) = state.objects.get(&objects::key(&new.kind, &new.namespace, &new.name))
        {
            let run = taken.run.and_then(|key| state.runs.get(&key)).map(|run| run.record.clone());
            return run
                .map(|run| CreateRun::Exists { run, same: Same::RunId })
                .ok_or_else(|| StoreError::name_taken(&new.kind, &new.name));
        }
        state.last_key += 1;
        state.write_audit(std::mem::take(&mut run.audit));
        let record = run.into_record(RunKey(state.last_key));
        let run = Run {
            record: record.clone(),
            owner: owner.map(|owner| owner.id().to_owned()),
            instances: BTreeMap::new(),
            attempts: BTreeMap::new(),
        };
        state.runs.insert(record.key, run);
        if let Some(new) = object {
            let key = objects::key(&new.kind, &new.namespace, &new.name);
            state.objects.insert(key, ObjectRow { run: Some(record.key), ..objects::row(new, None) });
        }
        drop(state);
        self.bell.ring();
        Ok(CreateRun::Created(record))
    }

    pub fn commit(&self, owner: &Owner, commits: Vec<RunCommit>) -> Result<Committed> {
        let mut state = self.lock();
        // Everything is checked on copies first: a commit is all or nothing.
        let mut changed: BTreeMap<RunKey, Run> = BTreeMap::new();
        let mut lost = BTreeSet::new();
        for commit in &commits {
            let run = state.runs.get(&commit.key).filter(|run| run.owner.as_deref() == Some(owner.id()));
            match run {
                None => drop(lost.insert(commit.key)),
                Some(run) => apply(changed.entry(commit.key).or_insert_with(|| run.clone()), commit)?,
            }
        }
        state.runs.append(&mut changed);
        for commit in commits.into_iter().filter(|commit| !lost.contains(&commit.key)) {
            commit.variables.into_iter().for_each(|set| state.set_variable(set));
            state.write_audit(commit.audit);
            state.add_notices(commit.notices);
            for (worker, more) in commit.worker_ends {
                *state.worker_ends.entry(worker).or_default() += more;
            }
        }
        drop(state);
        self.bell.ring();
        Ok(Committed { lost: lost.into_iter().collect() })
    }

    pub fn retention(&self, before: Timestamp) -> Result<Removed> {
        let mut state = self.lock();
        let State { runs, removed, audit, versions, workflows, notices, backfills, objects, .. } = &mut *state;
        runs.retain(|key, run| {
            let record = &run.record;
            let expired = record.state.is_final() && record.end.is_some_and(|end| end < before);
            if expired {
                let (workflow, run_id) = (record.workflow.clone(), record.run_id.clone());
                removed.insert(*key, RemovedRun { key: *key, workflow, run_id });
            }
            !expired
        });
        objects.retain(|_, row| row.run.is_none_or(|key| !removed.contains_key(&key)));
        let (audit_before, versions_before) = (audit.len(), versions.len());
        let (notices_before, backfills_before) = (notices.len(), backfills.len());
        audit.retain(|row| row.entry.at >= before);
        notices.retain(|_, row| row.state == NoticeState::Waiting || row.notice.created >= before);
        backfills.retain(|id, row| {
            row.completed.is_none_or(|at| at >= before) || runs.values().any(|run| run.record.backfill == Some(*id))
        });
        versions.retain(|(workflow, hash), (created, _)| {
            *created >= before
                || workflows.get(workflow).is_some_and(|row| row.version == *hash)
                || runs.values().any(|run| run.record.workflow == *workflow && run.record.version == *hash)
        });
        Ok(Removed {
            runs: removed.values().cloned().collect(),
            audit: (audit_before - audit.len()) as u64,
            versions: (versions_before - versions.len()) as u64,
            notices: (notices_before - notices.len()) as u64,
            backfills: (backfills_before - backfills.len()) as u64,
        })
    }

    pub fn delete_run(&self, key: RunKey, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        match state.runs.get(&key) {
            None => return Ok(false),
            Some(run) if !run.record.state.is_final() => return Err(StoreError::not_over(key)),
            Some(run) => {
                let (workflow, run_id) = (run.record.workflow.clone(), run.record.run_id.clone());
                state.removed.insert(key, RemovedRun { key, workflow, run_id });
            }
        }
        state.runs.remove(&key);
        state.objects.retain(|_, row| row.run != Some(key));
        state.write_audit([audit]);
        drop(state);
        self.bell.ring();
        Ok(true)
    }

    pub fn delete_workflow(&self, id: &WorkflowId, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        match state.workflows.get(id) {
            None => return Ok(false),
            Some(row) if row.active => return Err(StoreError::still_used(id)),
            Some(_) if state.runs.values().any(|run| run.record.workflow == *id) => {
                return Err(StoreError::still_used(id));
            }
            Some(_) => {}
        }
        state.workflows.remove(id);
        state.versions.retain(|(workflow, _), _| workflow != id);
        state.write_audit([audit]);
        Ok(true)
    }

    pub fn retention_done(&self, keys: &[RunKey]) -> Result<()> {
        let mut state = self.lock();
        state.removed.retain(|key, _| !keys.contains(key));
        state.run_files.retain(|(run, _), _| !keys.contains(run));
        Ok(())
    }
}

fn apply(run: &mut Run, commit: &RunCommit) -> Result<()> {
    if let Some(new) = &commit.run {
        let old = &mut run.record;
        if old.state.is_final() && old.state != new.state && !commit.reopen {
            return Err(StoreError::Conflict(format!(
                "run {} is {} for good and cannot become {} without being reopened",
                old.key, old.state, new.state
            )));
        }
        *old = RunRecord {
            version: new.version.clone(),
            run_after: new.run_after,
            queued_at: new.queued_at,
            state: new.state,
            start: new.start,
            end: new.end,
            stop: new.stop.clone(),
            note: new.note.clone(),
            backfill: new.backfill,
            finally_start: new.finally_start,
            ..old.clone()
        };
    }
    for task in &commit.expanded {
        run.instances.remove(&(task.clone(), UNMAPPED));
    }
    for instance in &commit.instances {
        run.instances.insert((instance.task.clone(), instance.map_index), instance.clone());
    }
    for attempt in &commit.attempts {
        run.attempts.insert((attempt.task.clone(), attempt.map_index, attempt.number), attempt.clone());
    }
    let mut live = BTreeSet::new();
    for attempt in run.attempts.values().filter(|attempt| attempt.exit.is_none()) {
        if !live.insert((&attempt.task, attempt.map_index)) {
            return Err(StoreError::Conflict(format!(
                "task `{}` of run {} has a live attempt already",
                attempt.task, run.record.key
            )));
        }
    }
    Ok(())
}

fn foreign_owner() -> StoreError {
    StoreError::Invalid("this owner is registered in another store".to_owned())
}
