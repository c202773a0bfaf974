//! Group commit: one task writes the commits of all callers, as many at a time as are waiting.
//!
//! While one transaction is written the next ones gather, so the cost of a transaction is shared by as many
//! callers as there are, and a caller that is alone waits for nobody. Invariant: a caller is answered after
//! its rows are committed, and if the rows of one caller are refused, no other caller notices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord};
use pitcrew_core::id::{RunKey, TaskId, UNMAPPED};
use pitcrew_core::state::RunState;
use sqlx::AssertSqlSafe;
use tokio::sync::{mpsc, oneshot};

use super::db::{Db, Tx, Value};
use super::lists::{Insert, LIST, in_list};
use super::{Sql, outbox, rows, settings, workers};
use crate::error::{Result, StoreError};
use crate::owner::Owner;
use crate::types::{AuditEntry, Committed, RunCommit, VariableSet, WorkerEnds};
use crate::watch::Bell;

/// The commits of one call, and whom to answer.
pub(super) struct Job {
    owner: String,
    commits: Vec<RunCommit>,
    reply: oneshot::Sender<Result<Committed>>,
}

/// Calls that share a transaction at most.
const GROUP: usize = 256;

static INSTANCES: LazyLock<Insert> = LazyLock::new(|| {
    Insert::new(
        "instances",
        &format!("run, {}", rows::INSTANCE_COLUMNS),
        "ON CONFLICT (run, task, map_index) DO UPDATE SET state = excluded.state, wake_at = excluded.wake_at, \
         attempt = excluded.attempt, max_attempt = excluded.max_attempt, lost = excluded.lost, \
         queued_at = excluded.queued_at, started = excluded.started, ended = excluded.ended, exit = excluded.exit, \
         message = excluded.message, outputs = excluded.outputs, item = excluded.item, \
         followed = excluded.followed, stop = excluded.stop, skip = excluded.skip",
    )
});

static ATTEMPTS: LazyLock<Insert> = LazyLock::new(|| {
    Insert::new(
        "attempts",
        &format!("run, {}", rows::ATTEMPT_COLUMNS),
        "ON CONFLICT (run, task, map_index, number) DO UPDATE SET backend = excluded.backend, \
         handle = excluded.handle, queued_at = excluded.queued_at, started = excluded.started, \
         ended = excluded.ended, exit = excluded.exit, message = excluded.message, gpus = excluded.gpus, \
         usage = excluded.usage, node = excluded.node, \
         request = excluded.request, names = excluded.names, detail = excluded.detail",
    )
});

static AUDIT: LazyLock<Insert> = LazyLock::new(|| Insert::new("audit", rows::AUDIT_COLUMNS, ""));

impl Sql {
    pub async fn commit(&self, owner: &Owner, commits: Vec<RunCommit>) -> Result<Committed> {
        let gone = || StoreError::Unavailable("the store is closed".to_owned());
        let (reply, answer) = oneshot::channel();
        let job = Job { owner: owner.id().to_owned(), commits, reply };
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The writing task. Ends when the store is dropped and everything is written.
pub(super) async fn write_all(db: Db, mut waiting: mpsc::Receiver<Job>, bell: Bell) {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        let together = write(&db, &group).await;
        match together {
            Ok(committed) => {
                bell.ring();
                for (job, committed) in group.drain(..).zip(committed) {
                    // A caller that went away is not told; its rows are written all the same.
                    let _ = job.reply.send(Ok(committed));
                }
            }
            Err(error) if error.is_about_rows() && group.len() > 1 => {
                for job in group.drain(..) {
                    let alone = write(&db, std::slice::from_ref(&job)).await;
                    let _ = job.reply.send(alone.map(|mut committed| committed.pop().unwrap_or_default()));
                }
                bell.ring();
            }
            Err(error) => {
                for job in group.drain(..) {
                    let _ = job.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Writes all jobs in one transaction; the answers are in their order.
async fn write(db: &Db, jobs: &[Job]) -> Result<Vec<Committed>> {
    let mut tx = db.begin().await?;
    let mut runs = lock_runs(&mut tx, jobs).await?;
    let mut accepted = Vec::new();
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        let mut lost = BTreeSet::new();
        for commit in &job.commits {
            if runs.get(&commit.key).is_some_and(|run| run.owner.as_ref() == Some(&job.owner)) {
                accepted.push(commit);
            } else {
                lost.insert(commit.key);
            }
        }
        answers.push(Committed { lost: lost.into_iter().collect() });
    }
    accepted.retain(|commit| !commit.is_empty());
    if accepted.is_empty() {
        return Ok(answers);
    }
    for commit in &accepted {
        write_run(&mut tx, &mut runs, commit).await?;
    }
    for commit in &accepted {
        for task in &commit.expanded {
            let args = vec![Value::from(commit.key.0), Value::from(task.as_str()), Value::from(i64::from(UNMAPPED))];
            tx.execute("DELETE FROM instances WHERE run = $1 AND task = $2 AND map_index = $3", args).await?;
        }
    }
    write_instances(&mut tx, &accepted).await?;
    write_attempts(&mut tx, &accepted).await?;
    let mut variables: Vec<&VariableSet> = accepted.iter().flat_map(|commit| &commit.variables).collect();
    // Stable, so the last of equal keys wins; ordered, so that two servers never wait for each other.
    variables.sort_by(|a, b| a.key.cmp(&b.key));
    for variable in variables {
        settings::write_variable(&mut tx, variable).await?;
    }
    let mut ends: BTreeMap<&String, WorkerEnds> = BTreeMap::new();
    for (worker, more) in accepted.iter().flat_map(|commit| &commit.worker_ends) {
        *ends.entry(worker).or_default() += *more;
    }
    workers::add_ends(&mut tx, &ends).await?;
    write_audit(&mut tx, accepted.iter().flat_map(|commit| &commit.audit)).await?;
    outbox::write_notices(&mut tx, accepted.iter().flat_map(|commit| &commit.notices)).await?;
    Sql::tell_others(&mut tx).await?;
    tx.commit().await?;
    Ok(answers)
}

/// What a commit must know of a stored run.
struct Stored {
    owner: Option<String>,
    state: RunState,
}

/// Reads the runs of all jobs, and keeps their owners from changing until the transaction ends.
async fn lock_runs(tx: &mut Tx, jobs: &[Job]) -> Result<BTreeMap<RunKey, Stored>> {
    let keys: BTreeSet<RunKey> = jobs.iter().flat_map(|job| &job.commits).map(|commit| commit.key).collect();
    let keys: Vec<Value<'_>> = keys.into_iter().map(|key| Value::from(key.0)).collect();
    let mut runs = BTreeMap::new();
    for part in keys.chunks(LIST) {
        let (list, args) = in_list(1, part.to_vec());
        let lock = if tx.is_postgres() { "FOR NO KEY UPDATE" } else { "" };
        let sql = format!("SELECT key, owner, state FROM runs WHERE key IN ({list}) ORDER BY key {lock}");
        for row in tx.fetch(AssertSqlSafe(sql), args).await? {
            let mut row = row.fields();
            let key = RunKey(row.take()?);
            runs.insert(key, Stored { owner: row.take()?, state: row.word(RunState::from_name)? });
        }
    }
    Ok(runs)
}

async fn write_run(tx: &mut Tx, runs: &mut BTreeMap<RunKey, Stored>, commit: &RunCommit) -> Result<()> {
    let (Some(new), Some(old)) = (&commit.run, runs.get_mut(&commit.key)) else { return Ok(()) };
    let leaves_final = old.state.is_final() && old.state != new.state;
    if leaves_final && !commit.reopen {
        return Err(StoreError::Conflict(format!(
            "run {} is {} for good and cannot become {} without being reopened",
            commit.key, old.state, new.state
        )));
    }
    old.state = new.state;
    tx.execute(rows::UPDATE_RUN, rows::update_run_values(new, leaves_final)?).await?;
    Ok(())
}

async fn write_instances(tx: &mut Tx, commits: &[&RunCommit]) -> Result<()> {
    let mut last: BTreeMap<(RunKey, &TaskId, i32), &InstanceRecord> = BTreeMap::new();
    for commit in commits {
        for instance in &commit.instances {
            last.insert((commit.key, &instance.task, instance.map_index), instance);
        }
    }
    let mut values = Vec::with_capacity(last.len() * 18);
    for ((run, ..), instance) in last {
        rows::push_instance(&mut values, run, instance)?;
    }
    INSTANCES.execute(tx, values).await
}

async fn write_attempts(tx: &mut Tx, commits: &[&RunCommit]) -> Result<()> {
    let mut last: BTreeMap<(RunKey, &TaskId, i32, u32), &AttemptRecord> = BTreeMap::new();
    for commit in commits {
        for attempt in &commit.attempts {
            last.insert((commit.key, &attempt.task, attempt.map_index, attempt.number), attempt);
        }
    }
    let mut values = Vec::with_capacity(last.len() * 17);
    // What has ended comes first: at no moment may an instance have two live attempts.
    for is_live in [false, true] {
        for ((run, ..), attempt) in last.iter().filter(|(_, attempt)| attempt.exit.is_none() == is_live) {
            rows::push_attempt(&mut values, *run, attempt)?;
        }
    }
    ATTEMPTS.execute(tx, values).await.map_err(|error| match error {
        StoreError::Conflict(_) => {
            StoreError::Conflict("a task instance has a live attempt already; end it before the next one".to_owned())
        }
        other => other,
    })
}

pub(super) async fn write_audit(tx: &mut Tx, entries: impl IntoIterator<Item = &AuditEntry>) -> Result<()> {
    let mut values = Vec::new();
    for entry in entries {
        rows::push_audit(&mut values, entry)?;
    }
    AUDIT.execute(tx, values).await
}
