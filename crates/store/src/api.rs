//! Everything that can be asked of a [`Store`]: the same for every kind, so this is the page to read.
//!
//! Input is normalised and checked here, once; then the memory or the SQL does the work.

mod across;
mod deliveries;
mod ecs;
mod files;
mod nodes;
mod objects;
mod outbox;
mod people;
mod quotas;
mod recovery;
mod secrets;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType, StoredRun};
use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};

use crate::error::{Result, StoreError};
use crate::given::Given;
use crate::owner::Owner;
use crate::types::*;
use crate::url::StoreUrl;
use crate::watch::Subscription;
use crate::{Kind, Store, mem, normalise, sql};

/// Asks the memory or the database, whichever it is.
macro_rules! ask {
    ($store:expr, $method:ident($($arg:expr),*)) => {
        $store.watched(stringify!($method), async {
            match &$store.kind {
                Kind::Memory(store) => store.$method($($arg),*),
                Kind::Sql(store) => store.$method($($arg),*).await,
            }
        }).await
    };
}
use ask;

/// Opening, owning and writing runs.
impl Store {
    /// Opens a store, makes it if it is not there, and brings its schema up to date. Any number of processes
    /// may do so at the same moment. Needs a tokio runtime.
    pub async fn open(url: &StoreUrl) -> Result<Store> {
        let kind = match url {
            StoreUrl::Memory => Kind::Memory(mem::Mem::new().into()),
            StoreUrl::Sqlite(path) => Kind::Sql(sql::sqlite::open(path).await?.into()),
            StoreUrl::Postgres(address) => Kind::Sql(sql::postgres::open(address).await?.into()),
        };
        Ok(Store { kind, url: url.clone().into(), observer: None, given: Arc::default() })
    }

    /// The same store, telling how long each call of this clone and its clones takes.
    pub fn observed(&self, observer: impl Fn(&'static str, Duration, bool) + Send + Sync + 'static) -> Store {
        Store { observer: Some(Arc::new(observer)), ..self.clone() }
    }

    /// The same store, with variables and connections that win over what it has.
    pub fn with_given(self, given: Given) -> Store {
        Store { given: Arc::new(given), ..self }
    }

    /// What wins over what it has.
    pub fn given(&self) -> &Given {
        &self.given
    }

    async fn watched<T>(&self, method: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(observer) = &self.observer else { return call.await };
        let begun = tokio::time::Instant::now();
        let answer = call.await;
        observer(method, begun.elapsed(), answer.is_ok());
        answer
    }

    /// Where it is.
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// Finishes what is being written and closes every connection. Dropping the store does so too, but nobody
    /// can wait for that.
    pub async fn close(&self) {
        match &self.kind {
            Kind::Memory(_) => {}
            Kind::Sql(store) => store.close().await,
        }
    }

    /// Registers this process as one that can own runs, for as long as the [`Owner`] and the process live.
    pub async fn register_owner(&self) -> Result<Owner> {
        ask!(self, register_owner())
    }

    /// Tries to become, or stay, the leader: of all owners at most one leads, until it is dropped or dies.
    /// Writes nothing, so it can be asked often; a standby that does takes over as soon as the leader is gone.
    pub async fn try_lead(&self, owner: &Owner) -> Result<bool> {
        ask!(self, try_lead(owner))
    }

    /// Takes runs over, atomically, and returns them with all their rows; by key in order.
    pub async fn claim_runs(&self, owner: &Owner, filter: ClaimFilter) -> Result<Vec<StoredRun>> {
        ask!(self, claim_runs(owner, filter))
    }

    /// Gives up runs that `owner` owns; of others in the list nothing changes.
    pub async fn release_runs(&self, owner: &Owner, keys: &[RunKey]) -> Result<()> {
        ask!(self, release_runs(owner, keys))
    }

    /// Makes a run, unless the workflow has one of that id or logical date. With an `owner` it belongs to it
    /// from the first moment; without, to whoever claims it. A backfill that is over gets no more runs: that is a
    /// conflict.
    pub async fn create_run(&self, mut run: NewRun, owner: Option<&Owner>) -> Result<CreateRun> {
        normalise::new_run(&mut run);
        ask!(self, create_run(run, owner))
    }

    /// Writes changes of runs that `owner` owns. All or nothing, but for runs that are lost to the owner;
    /// durable when it returns (on SQLite: over a crash of the process; a power cut may take the newest
    /// commits back, always whole ones, from the end). Calls made at the same time share a transaction.
    pub async fn commit(&self, owner: &Owner, mut commits: Vec<RunCommit>) -> Result<Committed> {
        for commit in &mut commits {
            normalise::commit(commit)?;
        }
        if commits.is_empty() {
            return Ok(Committed::default());
        }
        ask!(self, commit(owner, commits))
    }

    /// Wakes when runs are created or changed. Changes by other processes are noticed at once on PostgreSQL
    /// and within `poll` elsewhere; of several subscriptions at a time, the `poll` of the first counts for all.
    pub fn subscribe(&self, poll: Duration) -> Subscription {
        match &self.kind {
            Kind::Memory(store) => store.bell.subscribe(),
            Kind::Sql(store) => store.subscribe(poll),
        }
    }

    /// Removes runs that are final and ended before `before`, older audit entries, notices that are settled,
    /// completed backfills, and versions that nothing refers to, in batches that let others write in between. The caller then deletes what else it keeps
    /// of [`Removed::runs`] and calls [`Store::retention_done`]; until then they are reported again.
    pub async fn retention(&self, mut before: Timestamp) -> Result<Removed> {
        normalise::time(&mut before);
        ask!(self, retention(before))
    }

    /// Deletes a run that is over, with all its rows, and says whether it was there; one that is not over is a
    /// [`StoreError::Conflict`]. The caller then deletes what else it keeps of the run, and calls
    /// [`Store::retention_done`].
    pub async fn delete_run(&self, key: RunKey, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_run(key, audit))
    }

    /// Deletes a workflow whose file is gone, with its versions, and says whether it was there. One that is active, or
    /// that has runs, is a [`StoreError::Conflict`].
    pub async fn delete_workflow(&self, id: &WorkflowId, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_workflow(id, audit))
    }

    /// Forgets removed runs for good.
    pub async fn retention_done(&self, keys: &[RunKey]) -> Result<()> {
        ask!(self, retention_done(keys))
    }
}

/// Reading runs.
impl Store {
    pub async fn run(&self, key: RunKey) -> Result<Option<RunRecord>> {
        ask!(self, run(key))
    }

    pub async fn run_by_id(&self, workflow: &WorkflowId, run_id: &RunId) -> Result<Option<RunRecord>> {
        ask!(self, run_by_id(workflow, run_id))
    }

    /// The run of a workflow that was created last.
    pub async fn latest_run(&self, workflow: &WorkflowId) -> Result<Option<RunRecord>> {
        ask!(self, latest_run(workflow))
    }

    /// `total` is exact for filters of workflow and states, and counted up to [`TOTAL_CAP`] for others.
    pub async fn runs(&self, filter: &RunFilter, paging: Paging) -> Result<Page<RunRecord>> {
        ask!(self, runs(filter, paging))
    }

    /// How many runs are in which state, by workflow; workflows without runs are left out.
    pub async fn run_counts(&self) -> Result<BTreeMap<WorkflowId, RunCounts>> {
        ask!(self, run_counts())
    }

    /// How many runs of a workflow are queued and running; the other counts are 0.
    pub async fn open_run_counts(&self, workflow: &WorkflowId) -> Result<RunCounts> {
        ask!(self, open_run_counts(workflow))
    }

    /// The last run of a workflow before a point.
    pub async fn previous_run(&self, workflow: &WorkflowId, before: Before) -> Result<Option<RunRecord>> {
        ask!(self, previous_run(workflow, before))
    }

    /// The latest logical date of a workflow's runs of one type.
    pub async fn last_logical_date(&self, workflow: &WorkflowId, run_type: RunType) -> Result<Option<Timestamp>> {
        ask!(self, last_logical_date(workflow, run_type))
    }

    /// A run with all its rows, without claiming it.
    pub async fn stored_run(&self, key: RunKey) -> Result<Option<StoredRun>> {
        ask!(self, stored_run(key))
    }

    /// Stored instances of a run; one that was never tried may have no row.
    pub async fn instances(
        &self,
        run: RunKey,
        filter: &InstanceFilter,
        paging: Paging,
    ) -> Result<Page<InstanceRecord>> {
        ask!(self, instances(run, filter, paging))
    }

    pub async fn instance(&self, run: RunKey, task: &TaskId, map_index: i32) -> Result<Option<InstanceRecord>> {
        ask!(self, instance(run, task, map_index))
    }

    /// Every attempt of an instance, from the first.
    pub async fn attempts(&self, run: RunKey, task: &TaskId, map_index: i32) -> Result<Vec<AttemptRecord>> {
        ask!(self, attempts(run, task, map_index))
    }

    /// How many stored instances of each of these runs are in which state; runs without rows are left out.
    pub async fn state_counts(&self, runs: &[RunKey]) -> Result<BTreeMap<RunKey, StateCounts>> {
        ask!(self, state_counts(runs))
    }
}

/// Workflows and their files.
impl Store {
    /// Stores a workflow with its source. Everything is written as given, but for `is_paused`, which only
    /// counts for a new one: afterwards it is the users' ([`Store::set_paused`]).
    pub async fn put_workflow(&self, row: &WorkflowRow, source: &str, mut now: Timestamp) -> Result<PutWorkflow> {
        normalise::time(&mut now);
        let mut row = row.clone();
        row.tags.iter_mut().for_each(normalise::text);
        row.tags.sort();
        row.tags.dedup();
        normalise::times(&mut row.next_run);
        for text in [&mut row.path, &mut row.version, &mut row.description].into_iter().chain(&mut row.schedule) {
            normalise::text(text);
        }
        let mut source = source.to_owned();
        normalise::text(&mut source);
        ask!(self, put_workflow(&row, &source, now))
    }

    pub async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRow>> {
        ask!(self, workflow(id))
    }

    pub async fn workflows(&self, filter: &WorkflowFilter, paging: Paging) -> Result<Page<WorkflowRow>> {
        ask!(self, workflows(filter, paging))
    }

    /// Every tag of an active workflow, sorted.
    pub async fn tags(&self) -> Result<Vec<String>> {
        ask!(self, tags())
    }

    /// The source of one version.
    pub async fn version_source(&self, workflow: &WorkflowId, hash: &str) -> Result<Option<String>> {
        ask!(self, version_source(workflow, hash))
    }

    /// Every version of a workflow, the newest first.
    pub async fn versions(&self, workflow: &WorkflowId) -> Result<Vec<Version>> {
        ask!(self, versions(workflow))
    }

    /// Pauses or unpauses; says whether that changed anything, and only then writes the audit entry.
    pub async fn set_paused(&self, workflow: &WorkflowId, paused: bool, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, set_paused(workflow, paused, audit))
    }

    pub async fn set_next_run(&self, workflow: &WorkflowId, mut next_run: Option<Timestamp>) -> Result<()> {
        normalise::times(&mut next_run);
        ask!(self, set_next_run(workflow, next_run))
    }

    /// Notes that the file of a workflow is gone; says whether that changed anything.
    pub async fn deactivate(&self, workflow: &WorkflowId) -> Result<bool> {
        ask!(self, deactivate(workflow))
    }

    /// Notes what is wrong with a file. The same message again writes nothing.
    pub async fn put_file_error(&self, path: &str, message: &str, mut at: Timestamp) -> Result<()> {
        normalise::time(&mut at);
        let [mut path, mut message] = [path, message].map(str::to_owned);
        normalise::text(&mut path);
        normalise::text(&mut message);
        ask!(self, put_file_error(FileError { path, message, at }))
    }

    /// Notes that a file is right again, or gone; says whether that changed anything.
    pub async fn clear_file_error(&self, path: &str) -> Result<bool> {
        ask!(self, clear_file_error(path))
    }

    /// Every broken file, by path.
    pub async fn file_errors(&self) -> Result<Vec<FileError>> {
        ask!(self, file_errors())
    }
}

/// Variables, pools, the audit log and the server's own settings.
impl Store {
    pub async fn variable(&self, key: &str) -> Result<Option<Variable>> {
        match self.given.variables().get(key) {
            Some(given) => Ok(Some(given)),
            None => ask!(self, variable(key)),
        }
    }

    /// By key in order.
    pub async fn variables(&self, paging: Paging) -> Result<Page<Variable>> {
        let given = self.given.variables();
        if given.is_empty() {
            return ask!(self, variables(paging));
        }
        let stored = ask!(self, variables(Paging::ALL))?;
        Ok(given.page(stored.rows, |_| true, paging))
    }

    pub async fn set_variable(&self, mut set: VariableSet, mut audit: AuditEntry) -> Result<()> {
        self.given.variables().refuse(&set.key)?;
        normalise::variable(&mut set)?;
        normalise::audit(&mut audit);
        ask!(self, set_variable(set, audit))
    }

    /// Says whether it was there, and only then writes the audit entry.
    pub async fn delete_variable(&self, key: &str, mut audit: AuditEntry) -> Result<bool> {
        self.given.variables().refuse(key)?;
        normalise::audit(&mut audit);
        ask!(self, delete_variable(key, audit))
    }

    pub async fn pool(&self, name: &str) -> Result<Option<Pool>> {
        ask!(self, pool(name))
    }

    /// Every pool, by name; [`DEFAULT_POOL`] is always among them.
    pub async fn pools(&self) -> Result<Vec<Pool>> {
        ask!(self, pools())
    }

    pub async fn put_pool(&self, mut pool: Pool, mut audit: AuditEntry) -> Result<()> {
        normalise::name("pool", &pool.name)?;
        normalise::text(&mut pool.description);
        normalise::audit(&mut audit);
        ask!(self, put_pool(pool, audit))
    }

    /// Says whether it was there, and only then writes the audit entry. The default pool stays.
    pub async fn delete_pool(&self, name: &str, mut audit: AuditEntry) -> Result<bool> {
        if name == DEFAULT_POOL {
            return Err(StoreError::Invalid(format!("`{DEFAULT_POOL}` cannot be deleted: change its slots instead")));
        }
        normalise::audit(&mut audit);
        ask!(self, delete_pool(name, audit))
    }

    /// Notes something that changed nothing in the store.
    pub async fn record_audit(&self, mut entry: AuditEntry) -> Result<()> {
        normalise::audit(&mut entry);
        ask!(self, record_audit(entry))
    }

    /// `total` is counted up to [`TOTAL_CAP`].
    pub async fn audit(&self, filter: &AuditFilter, paging: Paging) -> Result<Page<AuditRow>> {
        ask!(self, audit(filter, paging))
    }

    pub async fn audit_entry(&self, id: i64) -> Result<Option<AuditRow>> {
        ask!(self, audit_entry(id))
    }

    /// Every event that the audit log has, sorted.
    pub async fn audit_events(&self) -> Result<Vec<String>> {
        ask!(self, audit_events())
    }

    /// A value that the server keeps for itself.
    pub async fn setting(&self, key: &str) -> Result<Option<String>> {
        ask!(self, setting(key))
    }

    /// The same value again writes nothing.
    pub async fn put_setting(&self, key: &str, value: &str) -> Result<()> {
        normalise::name("setting", key)?;
        let mut value = value.to_owned();
        normalise::text(&mut value);
        ask!(self, put_setting(key, &value))
    }

    /// Sets a value, and says so in the audit log, or neither.
    pub async fn put_setting_audited(&self, key: &str, value: &str, mut audit: AuditEntry) -> Result<()> {
        normalise::name("setting", key)?;
        normalise::audit(&mut audit);
        let mut value = value.to_owned();
        normalise::text(&mut value);
        ask!(self, put_setting_audited(key, &value, audit))
    }

    /// Sets a value where it still is as it was `before`; otherwise nothing is done, and the answer is `false`.
    pub async fn swap_setting(&self, key: &str, before: Option<&str>, value: &str) -> Result<bool> {
        normalise::name("setting", key)?;
        let mut value = value.to_owned();
        normalise::text(&mut value);
        ask!(self, swap_setting(key, before, &value))
    }

    /// Sets a value only if none is there, and returns the one that then is: for secrets that a server makes once.
    pub async fn setting_or_insert(&self, key: &str, value: &str) -> Result<String> {
        normalise::name("setting", key)?;
        let mut value = value.to_owned();
        normalise::text(&mut value);
        ask!(self, setting_or_insert(key, &value))
    }
}
