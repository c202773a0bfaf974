//! Jobs, tasks and nodes of Amazon ECS in memory: what the views of the databases say, in plain words.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunStop};
use pitcrew_core::recovery::{JobState, Key, NodeState, Record};
use pitcrew_core::state::{Exit, State};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Mem, Run};
use crate::error::{Result, StoreError};
use crate::types::*;

impl Mem {
    pub fn ecs_jobs(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsJob>> {
        let state = self.lock();
        let mut all: Vec<EcsJob> = state.runs.values().rev().flat_map(|run| jobs(&state, run)).collect();
        for item in state.ecs_imported.values().filter(|item| item.kind == EcsKind::Job) {
            all.push(EcsJob {
                job_id: item.key.clone(),
                num_nodes: field(item, "num_nodes")?,
                assigned_nodes: field(item, "assigned_nodes")?,
                submitted_container_inst_ids: field(item, "submitted_container_inst_ids")?,
                submitted_ecs_task_ids: field(item, "submitted_ecs_task_ids")?,
                retry: field(item, "retry")?,
                job_status: field(item, "job_status")?,
                origin: EcsOrigin::Imported,
                source: Some(item.source.clone()),
                job: None,
                run: None,
                task: None,
                began: None,
                ended: None,
            });
        }
        all.sort_by_key(|job| (job.origin, Reverse(job.run), job.task.clone(), job.job.clone(), job.job_id.clone()));
        let is_status = |job: &EcsJob| filter.status.as_ref().is_none_or(|status| job.job_status.name() == status);
        all.retain(|job| is_status(job) && fits(filter, job.origin, Some(&job.job_id), job.run));
        Ok(page(all, paging))
    }

    pub fn ecs_tasks(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsTask>> {
        let state = self.lock();
        let mut all: Vec<EcsTask> = Vec::new();
        for run in state.runs.values() {
            let tasks = attempts(run).filter_map(|attempt| task(&state, run, attempt));
            all.extend(tasks);
        }
        for item in state.ecs_imported.values().filter(|item| item.kind == EcsKind::Task) {
            all.push(EcsTask {
                ecs_task_id: item.key.clone(),
                node_name: field(item, "node_name")?,
                node_index_in_job: field(item, "node_index_in_job")?,
                job_id: field(item, "job_id")?,
                job_num_nodes: field(item, "job_num_nodes")?,
                task_def_arn: field(item, "task_def_arn")?,
                container_inst_id: field(item, "container_inst_id")?,
                container_instance_arn: field(item, "container_instance_arn")?,
                retry: field(item, "retry")?,
                task_status: field(item, "task_status")?,
                origin: EcsOrigin::Imported,
                source: Some(item.source.clone()),
                ecs_task_arn: None,
                job: None,
                run: None,
                task: None,
                map_index: None,
                attempt: None,
                began: None,
                ended: None,
            });
        }
        all.sort_by_key(|task| {
            let newest = (task.origin, Reverse(task.run), task.task.clone(), task.job.clone(), Reverse(task.attempt));
            (newest, task.map_index, task.ecs_task_id.clone())
        });
        let is_status = |task: &EcsTask| filter.status.as_ref().is_none_or(|status| task.task_status.name() == status);
        all.retain(|task| is_status(task) && fits(filter, task.origin, task.job_id.as_ref(), task.run));
        Ok(page(all, paging))
    }

    pub fn ecs_nodes(&self, filter: &EcsFilter, paging: Paging) -> Result<Page<EcsNode>> {
        let state = self.lock();
        let mut all = Vec::new();
        for row in state.nodes.values().filter(|row| is_machine(row)) {
            all.push(node(&state, row));
        }
        let is_here =
            |item: &&EcsImport| item.node.as_ref().and_then(|name| state.nodes.get(name)).is_some_and(is_machine);
        for item in state.ecs_imported.values().filter(|item| item.kind == EcsKind::Node && !is_here(item)) {
            all.push(EcsNode {
                node_name: item.key.clone(),
                container_instance_id: field(item, "container_instance_id")?,
                container_instance_arn: field(item, "container_instance_arn")?,
                node_status: field(item, "node_status")?,
                ip: field(item, "ip")?,
                ibdev: field(item, "ibdev")?,
                origin: EcsOrigin::Imported,
                source: Some(item.source.clone()),
                node: item.node.clone(),
                cluster: None,
                incident: None,
            });
        }
        all.sort_by_key(|node| (node.node_name.clone(), node.origin));
        let is_status = |node: &EcsNode| filter.status.as_ref().is_none_or(|status| node.node_status.name() == status);
        all.retain(|node| is_status(node) && filter.origin.is_none_or(|origin| origin == node.origin));
        Ok(page(all, paging))
    }

    pub fn ecs_runs(&self, since: Timestamp) -> Result<Vec<RunKey>> {
        let state = self.lock();
        let is_meant = |run: &&Run| {
            let is_recent = !run.record.state.is_final() || run.record.end.is_some_and(|end| end >= since);
            is_recent && attempts(run).next().is_some()
        };
        Ok(state.runs.values().filter(is_meant).map(|run| run.record.key).collect())
    }

    pub fn import_ecs(&self, items: &[EcsImport], _at: Timestamp, audit: AuditEntry) -> Result<Vec<EcsImported>> {
        let mut state = self.lock();
        let mut done = Vec::new();
        for item in items {
            let key = (item.kind, item.key.clone());
            done.push(EcsImported::of(state.ecs_imported.get(&key), item));
            state.ecs_imported.insert(key, item.clone());
        }
        if done.iter().any(|change| *change != EcsImported::Same) {
            state.write_audit([audit]);
        }
        Ok(done)
    }

    pub fn ecs_imported(&self, kind: EcsKind, key: &str) -> Result<Option<EcsImport>> {
        Ok(self.lock().ecs_imported.get(&(kind, key.to_owned())).cloned())
    }
}

fn page<T>(all: Vec<T>, paging: Paging) -> Page<T> {
    let total = all.len() as u64;
    Page { rows: all.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect(), total }
}

fn fits(filter: &EcsFilter, origin: EcsOrigin, job: Option<&String>, run: Option<RunKey>) -> bool {
    filter.origin.is_none_or(|wanted| wanted == origin)
        && filter.job_id.as_ref().is_none_or(|wanted| job == Some(wanted))
        && filter.run.is_none_or(|wanted| run == Some(wanted))
}

fn field<T: DeserializeOwned>(item: &EcsImport, name: &str) -> Result<T> {
    let value = item.body.get(name).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|error| {
        StoreError::Corrupt(format!("`{name}` of the imported `{}` cannot be read: {error}", item.key))
    })
}

fn text(of: &Value, pointer: &str) -> Option<String> {
    of.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// What stands after the last slash.
fn tail(arn: &str) -> String {
    arn.rsplit('/').next().unwrap_or(arn).to_owned()
}

fn attempts(run: &Run) -> impl Iterator<Item = &AttemptRecord> {
    run.attempts.values().filter(|attempt| attempt.backend == "ecs")
}

/// What an attempt is called elsewhere.
struct Names {
    job: String,
    job_id: String,
    size: u32,
    task: Option<String>,
    instance: Option<String>,
}

fn names(run: &Run, attempt: &AttemptRecord) -> Names {
    let (key, task) = (run.record.key, &attempt.task);
    let (mut job, mut job_id) = (format!("{key}/{task}"), format!("{key}-{task}"));
    if attempt.map_index >= 0 {
        job.push_str(&format!("[{}]", attempt.map_index));
        job_id.push_str(&format!("-{}", attempt.map_index));
    }
    let size = attempt.names.get("size").and_then(Value::as_u64).and_then(|size| u32::try_from(size).ok());
    Names {
        job: text(&attempt.names, "/job").unwrap_or(job),
        job_id: text(&attempt.names, "/job_id").unwrap_or(job_id),
        size: size.unwrap_or(1),
        task: text(&attempt.names, "/task"),
        instance: text(&attempt.names, "/instance"),
    }
}

/// The imported row of a machine of ours; of several, the first by name.
fn known_as<'a>(state: &'a super::State, node: &str) -> Option<&'a EcsImport> {
    state.ecs_imported.values().find(|item| item.kind == EcsKind::Node && item.node.as_deref() == Some(node))
}

fn node_name(state: &super::State, attempt: &AttemptRecord) -> Option<String> {
    let node = attempt.node.as_ref()?;
    Some(known_as(state, node).map_or_else(|| node.clone(), |item| item.key.clone()))
}

fn task(state: &super::State, run: &Run, attempt: &AttemptRecord) -> Option<EcsTask> {
    let names = names(run, attempt);
    let instance = run.instances.get(&(attempt.task.clone(), attempt.map_index));
    let is_last = instance.is_some_and(|one| one.state == State::Failed && one.attempt == attempt.number);
    let task_status = match &attempt.exit {
        None => EcsTaskStatus::InProgress,
        Some(Exit::Code { code: 0 }) => EcsTaskStatus::Complete,
        Some(Exit::Code { code: 1 }) if is_last => EcsTaskStatus::Failed,
        Some(_) => EcsTaskStatus::Terminated,
    };
    Some(EcsTask {
        ecs_task_id: tail(names.task.as_deref()?),
        node_name: node_name(state, attempt),
        node_index_in_job: Some(if names.size > 1 { u32::try_from(attempt.map_index).unwrap_or(0) } else { 0 }),
        job_id: Some(names.job_id),
        job_num_nodes: Some(names.size),
        task_def_arn: text(&attempt.names, "/definition"),
        container_inst_id: names.instance.as_deref().map(tail),
        container_instance_arn: names.instance,
        retry: attempt.number - 1,
        task_status,
        origin: EcsOrigin::Pitcrew,
        source: None,
        ecs_task_arn: names.task,
        job: Some(names.job),
        run: Some(run.record.key),
        task: Some(attempt.task.to_string()),
        map_index: Some(attempt.map_index),
        attempt: Some(attempt.number),
        began: Some(attempt.queued_at),
        ended: attempt.end,
    })
}

fn jobs(state: &super::State, run: &Run) -> Vec<EcsJob> {
    let mut by_name: BTreeMap<(String, String), Vec<&AttemptRecord>> = BTreeMap::new();
    for attempt in attempts(run) {
        if run.instances.contains_key(&(attempt.task.clone(), attempt.map_index)) {
            by_name.entry((attempt.task.to_string(), names(run, attempt).job)).or_default().push(attempt);
        }
    }
    let job = |((task, job), all): ((String, String), Vec<&AttemptRecord>)| {
        let instance = |attempt: &AttemptRecord| &run.instances[&(attempt.task.clone(), attempt.map_index)];
        let number = all.iter().map(|attempt| attempt.number).max()?;
        let mut last: Vec<&&AttemptRecord> = all.iter().filter(|attempt| attempt.number == number).collect();
        last.sort_by_key(|attempt| attempt.map_index);
        let known = state.recovery.get(&Key::Job(job.clone()));
        let status = all.iter().map(|attempt| status(run, instance(attempt), known)).min()?;
        Some(EcsJob {
            job_id: all.iter().map(|attempt| names(run, attempt).job_id).max()?,
            num_nodes: all.iter().map(|attempt| names(run, attempt).size).max()?,
            assigned_nodes: last.iter().filter_map(|attempt| node_name(state, attempt)).collect(),
            submitted_container_inst_ids: last
                .iter()
                .filter_map(|a| names(run, a).instance)
                .map(|a| tail(&a))
                .collect(),
            submitted_ecs_task_ids: last.iter().filter_map(|a| names(run, a).task).map(|a| tail(&a)).collect(),
            retry: number - 1,
            job_status: status,
            origin: EcsOrigin::Pitcrew,
            source: None,
            job: Some(job),
            run: Some(run.record.key),
            task: Some(task),
            began: all.iter().map(|attempt| attempt.queued_at).min(),
            ended: all.iter().filter_map(|attempt| instance(attempt).end).max().filter(|_| status.is_final()),
        })
    };
    by_name.into_iter().filter_map(job).collect()
}

/// What one member says of its job.
fn status(run: &Run, instance: &InstanceRecord, recovery: Option<&Record>) -> EcsJobStatus {
    use EcsJobStatus as S;
    let known = match recovery {
        Some(Record::Job(job)) => Some(job.state),
        Some(Record::Fleet(_) | Record::Node(_) | Record::Incident(_)) | None => None,
    };
    let again = instance.attempt > 1;
    let here = match instance.state {
        State::Success | State::Skipped => return S::Complete,
        State::Failed | State::UpstreamFailed | State::Removed => {
            return match (&instance.exit, &run.record.stop) {
                (Some(Exit::Cancelled), Some(RunStop::FailFast { .. } | RunStop::TimedOut)) => S::FailedOthers,
                // The last ones are of languages that have no jobs of ECS.
                (
                    Some(Exit::Cancelled),
                    Some(
                        RunStop::Cancelled { .. }
                        | RunStop::TasksTimedOut
                        | RunStop::FinallyTimedOut
                        | RunStop::Drain { .. }
                        | RunStop::Refused { .. },
                    )
                    | None,
                ) => S::UserStopped,
                (Some(Exit::Code { code: 1 }), _) => S::Failed,
                (_, _) => S::FailedOthers,
            };
        }
        State::Recovering => S::PendingHealthcheck,
        State::None | State::UpForRetry { .. } | State::UpForReschedule { .. } => S::PendingRestart,
        State::Scheduled | State::Queued if again => S::Restarting,
        State::Scheduled | State::Queued | State::Running | State::Deferred => S::InProgress,
    };
    match known {
        Some(JobState::Stopping | JobState::AwaitingVerdict) => S::PendingHealthcheck,
        Some(JobState::Restarting) => S::PendingRestart,
        Some(JobState::Starting) if again => S::Restarting,
        Some(
            JobState::Starting | JobState::Running | JobState::Complete | JobState::Failed | JobState::UserStopped,
        )
        | None => here,
    }
}

/// It is a machine of ECS.
fn is_machine(row: &NodeRow) -> bool {
    row.seen.get("ecs").is_some_and(|ecs| !ecs.is_null())
        && row.seen.pointer("/ecs/is_gone") != Some(&Value::Bool(true))
}

fn node(state: &super::State, row: &NodeRow) -> EcsNode {
    let instance = text(&row.seen, "/ecs/at/instance");
    let item = known_as(state, &row.name);
    let of_item = |name: &str| item.and_then(|item| text(&item.body, &format!("/{name}")));
    let open = state.recovery.values().filter_map(|record| match record {
        Record::Incident(incident) => Some(incident).filter(|one| one.node == row.name && one.is_open()),
        Record::Fleet(_) | Record::Node(_) | Record::Job(_) => None,
    });
    EcsNode {
        node_name: item.map_or_else(|| row.name.clone(), |item| item.key.clone()),
        container_instance_id: instance.as_deref().map(tail),
        container_instance_arn: instance,
        node_status: node_status(state, row),
        ip: of_item("ip"),
        ibdev: of_item("ibdev"),
        origin: EcsOrigin::Pitcrew,
        source: item.map(|item| item.source.clone()),
        node: Some(row.name.clone()),
        cluster: text(&row.seen, "/ecs/at/cluster"),
        incident: open.map(|incident| incident.id.0).max(),
    }
}

fn node_status(state: &super::State, row: &NodeRow) -> EcsNodeStatus {
    use EcsNodeStatus as S;
    match state.recovery.get(&Key::Node(row.name.clone())) {
        Some(Record::Node(known)) => match known.state {
            NodeState::Fenced | NodeState::AwaitingApproval | NodeState::Queued | NodeState::Draining => {
                return S::Pending;
            }
            NodeState::Checking => return S::PendingHealthcheck,
            NodeState::Remediating { .. } | NodeState::Verifying => return S::Rebooting,
            NodeState::OutOfService => return S::Failed,
            NodeState::Suspected => return S::Unknown,
            NodeState::Healthy => {}
        },
        Some(Record::Fleet(_) | Record::Job(_) | Record::Incident(_)) | None => {}
    }
    let imported = row.labels.get(IMPORTED_STATUS).cloned().flatten().and_then(|word| word.parse().ok());
    let mut all = state.runs.values().flat_map(|run| run.attempts.values());
    let is_used = all.any(|attempt| attempt.exit.is_none() && attempt.node.as_deref() == Some(&*row.name));
    match imported.filter(|_| row.cordoned) {
        Some(status) => status,
        None if row.seen.get("down").is_some_and(|down| !down.is_null()) => S::Unknown,
        None if is_used => S::InProgress,
        None => S::Available,
    }
}
