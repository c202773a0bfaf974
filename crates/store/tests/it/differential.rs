//! The same random calls to every store there is: each answer and every stored row must be the same.
//!
//! A failure names its seed; `PITCREW_TEST_SEED=N` repeats it alone.

use std::collections::BTreeSet;
use std::fmt::Debug;

use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType, SkipReason, StoredRun};
use pitcrew_core::id::RunKey;
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_store::*;
use serde_json::{Value, json};

use crate::databases::Postgres;
use crate::sample::{at, attempt, audit, instance, row, run, run_id, task, workflow};

const SEEDS: u64 = 8;
const STEPS: usize = 300;

/// A small generator of our own, so that a seed means the same for ever (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// One store with what the calls so far made in it. Runs are named by their place, since keys may differ.
struct Side {
    store: Store,
    owners: Vec<Option<Owner>>,
    keys: Vec<RunKey>,
}

const OWNERS: usize = 3;
/// The place of a run that does not exist.
const NOWHERE: RunKey = RunKey(i64::MAX);

impl Side {
    fn key(&self, place: usize) -> RunKey {
        self.keys.get(place).copied().unwrap_or(NOWHERE)
    }

    fn place(&self, key: RunKey) -> RunKey {
        RunKey(self.keys.iter().position(|known| *known == key).map_or(-1, |place| place as i64))
    }

    fn owner(&self, n: usize) -> &Owner {
        self.owners[n].as_ref().expect("owners are replaced, never left out")
    }

    fn run(&self, mut run: RunRecord) -> RunRecord {
        run.key = self.place(run.key);
        run
    }

    fn stored(&self, stored: Vec<StoredRun>) -> Vec<StoredRun> {
        stored.into_iter().map(|stored| StoredRun { run: self.run(stored.run), ..stored }).collect()
    }
}

/// One call, with places instead of keys.
#[derive(Debug, Clone)]
enum Call {
    Create(NewRun, Option<usize>),
    Commit(usize, Vec<(usize, RunCommit, Option<(RunState, Option<jiff::Timestamp>)>)>),
    Claim(usize, Option<usize>),
    Release(usize, Vec<usize>),
    Renew(usize),
    Lead(usize),
    Put(WorkflowRow, String),
    Pause(String, bool),
    Deactivate(String),
    NextRun(String, Option<i64>),
    Variable(VariableSet),
    DeleteVariable(String),
    Pool(Pool),
    DeletePool(String),
    Setting(String, String, bool),
    Retention(i64, bool),
    Runs(RunFilter, Paging),
    Instances(usize, InstanceFilter, Paging),
    Workflows(WorkflowFilter, Paging),
    Previous(String, Result<i64, usize>),
    WorkerToken(WorkerToken),
    DeleteWorkerToken(String),
    /// With the token of this name.
    Enrol(String, WorkerRow),
    /// The worker at this place of the list of all.
    ChangeWorker(usize, WorkerChange),
    EndedOn(String, u32),
    CreateAs(NewRun, NewObject),
    PutObject(NewObject),
    DeleteObject(NewObject),
    Objects(ObjectFilter, Paging),
    AddDelivery(NewDelivery),
    RepeatDelivery(i64),
    SettleDelivery(i64, i64),
    Deliveries(DeliveryFilter, Paging),
    RemoveDeliveries(i64, i64),
}

fn states() -> Vec<State> {
    let mut all = vec![State::UpForRetry { at: at(5) }, State::UpForReschedule { at: at(6) }];
    let names = ["none", "queued", "running", "success", "failed", "skipped", "deferred", "removed"];
    all.extend(names.iter().filter_map(|name| State::from_name(name, None)));
    all
}

fn flow(random: &mut Random) -> String {
    random.of(&["alpha", "beta", "Be_ta"]).to_owned()
}

fn paging(random: &mut Random) -> Paging {
    Paging { limit: random.of(&[1, 3, u32::MAX]), offset: random.of(&[0, 0, 1, 5, 1000]) }
}

fn commit(random: &mut Random) -> RunCommit {
    let mut commit = RunCommit { reopen: random.chance(30), ..RunCommit::new(NOWHERE) };
    for _ in 0..random.below(4) {
        let state = random.of(&states());
        let map_index = random.below(4) as i32 - 1;
        let message = random.of(&["", "line\n", "nul\0"]).to_owned();
        let name = random.of(&["a", "b", "a.b", "A"]);
        let skip = [None, Some(SkipReason::When), Some(SkipReason::FinallyTimeout)][state.name().len() % 3];
        commit.instances.push(InstanceRecord { map_index, message, skip, ..instance(name, state) });
    }
    for _ in 0..random.below(3) {
        let exit = random.of(&[None, Some(Exit::Code { code: 1 }), Some(Exit::OutOfMemory)]);
        let number = 1 + random.below(3) as u32;
        let node = random.of(&[None, Some("n1".to_owned()), Some("n2".to_owned())]);
        let end = exit.as_ref().map(|_| at(random.below(20) as i64));
        let detail = [Value::Null, json!({"containers": [{"name": "nul\0"}]})][number as usize % 2].clone();
        commit.attempts.push(AttemptRecord { exit, node, end, detail, ..attempt(random.of(&["a", "b"]), number) });
    }
    if random.chance(20) {
        let ends = WorkerEnds { ended: 1 + random.below(3) as u64, failed: random.below(2) as u64 };
        commit.worker_ends.insert(random.of(&["w1", "w2"]).to_owned(), ends);
    }
    if random.chance(10) {
        commit.variables.push(variable(random));
    }
    if random.chance(10) {
        commit.audit.push(audit("commit", random.below(50) as i64));
    }
    commit
}

fn variable(random: &mut Random) -> VariableSet {
    VariableSet {
        key: random.of(&["x", "y", "Z", ""]).to_owned(),
        value: random.next().to_string(),
        description: random.of(&[None, Some("words".to_owned())]),
    }
}

fn call(random: &mut Random, runs: usize) -> Call {
    let place = |random: &mut Random| random.below(runs + 1);
    match random.below(138) {
        0..18 => {
            let new = NewRun {
                run_id: run_id(&format!("r{}", random.below(15))),
                run_type: random.of(&[RunType::Manual, RunType::Scheduled, RunType::Backfill]),
                logical_date: random.of(&[None, Some(at(random.0 as i64 % 20))]),
                version: random.of(&["v1", "v2"]).to_owned(),
                audit: vec![audit("run.trigger", random.below(50) as i64)],
                ..run(&flow(random), "replaced")
            };
            Call::Create(new, random.of(&[None, Some(0), Some(1)]))
        }
        18..50 => {
            let mut commits = Vec::new();
            for _ in 0..1 + random.below(3) {
                let ended = Some(at(random.below(50) as i64));
                let change = random.of(&[
                    None,
                    None,
                    Some((RunState::Running, None)),
                    Some((RunState::Success, ended)),
                    Some((RunState::Failed, ended)),
                ]);
                commits.push((place(random), commit(random), change));
            }
            Call::Commit(random.below(OWNERS), commits)
        }
        50..58 => Call::Claim(random.below(OWNERS), if random.chance(50) { None } else { Some(place(random)) }),
        58..60 => Call::Release(random.below(OWNERS), vec![place(random), place(random)]),
        60..62 => Call::Renew(random.below(OWNERS)),
        62..64 => Call::Lead(random.below(OWNERS)),
        64..70 => {
            let tags = (0..random.below(3)).map(|_| random.of(&["t", "u", "v"]).to_owned()).collect();
            let version = random.of(&["v1", "v2", "v3"]).to_owned();
            let row = WorkflowRow { tags, version, is_paused: random.chance(50), ..row(&flow(random)) };
            Call::Put(row, random.below(50).to_string())
        }
        70..72 => Call::Pause(flow(random), random.chance(50)),
        72..73 => Call::Deactivate(flow(random)),
        73..75 => Call::NextRun(flow(random), random.of(&[None, Some(7)])),
        75..78 => Call::Variable(variable(random)),
        78..79 => Call::DeleteVariable(random.of(&["x", "y"]).to_owned()),
        79..81 => {
            let name = random.of(&["gpu", DEFAULT_POOL]).to_owned();
            Call::Pool(Pool { name, slots: random.of(&[0, 5, u32::MAX]), description: String::new() })
        }
        81..82 => Call::DeletePool(random.of(&["gpu", DEFAULT_POOL]).to_owned()),
        82..84 => Call::Setting("s".to_owned(), random.below(3).to_string(), random.chance(50)),
        84..86 => Call::Retention(random.below(40) as i64, random.chance(50)),
        86..91 => {
            use RunOrder::*;
            let order = random.of(&[
                Newest,
                Oldest,
                LogicalDate,
                LogicalDateDescending,
                Start,
                StartDescending,
                End,
                EndDescending,
            ]);
            let states = (0..random.below(3)).map(|_| random.of(&[RunState::Queued, RunState::Success])).collect();
            let workflow = random.of(&[None, Some(workflow("alpha"))]);
            let run_type = random.of(&[None, Some(RunType::Backfill)]);
            Call::Runs(RunFilter { workflow, states, run_type, order, ..RunFilter::default() }, paging(random))
        }
        91..96 => {
            let states = (0..random.below(4)).map(|_| random.of(&states()).name()).collect();
            let task = random.of(&[None, Some(task("a"))]);
            Call::Instances(place(random), InstanceFilter { states, task }, paging(random))
        }
        96..98 => {
            let filter = WorkflowFilter {
                contains: random.of(&[None, Some("TA".to_owned()), Some("e_".to_owned())]),
                tags: (0..random.below(3)).map(|_| random.of(&["t", "u"]).to_owned()).collect(),
                paused: random.of(&[None, Some(true)]),
                active: random.of(&[None, Some(true)]),
            };
            Call::Workflows(filter, paging(random))
        }
        98..103 => Call::WorkerToken(worker_token(random)),
        103..104 => Call::DeleteWorkerToken(token_name(random)),
        104..110 => Call::Enrol(token_name(random), worker(random)),
        110..113 => {
            let (slots, second) = (random.below(9), random.below(50) as i64);
            let about = random.of(&[None, Some(json!({ "slots": slots }))]);
            let revoked = random.of(&[None, None, Some(at(second))]);
            let drain = random.of(&[None, Some(true), Some(false)]);
            Call::ChangeWorker(random.below(8), WorkerChange { about, drain, revoked })
        }
        116..119 => {
            let new = NewRun { run_id: run_id(&format!("r{}", random.below(15))), ..run(&flow(random), "replaced") };
            Call::CreateAs(new, object(random))
        }
        119..122 => Call::PutObject(object(random)),
        122..123 => Call::DeleteObject(object(random)),
        123..126 => {
            let kinds = (0..random.below(3)).map(|_| random.of(&["Task", "PipelineRun"]).to_owned()).collect();
            let namespace = random.of(&[None, Some("a".to_owned())]);
            Call::Objects(ObjectFilter { kinds, namespace, run: None }, paging(random))
        }
        126..131 => Call::AddDelivery(delivery(random)),
        131..132 => Call::RepeatDelivery(random.below(30) as i64),
        132..134 => Call::SettleDelivery(random.below(30) as i64, random.below(30) as i64),
        134..137 => {
            let namespace = random.of(&[None, Some("a".to_owned())]);
            let listener = random.of(&[None, Some("x".to_owned())]);
            let state = random.of(&[None, Some(DeliveryState::Waiting), Some(DeliveryState::Duplicate)]);
            Call::Deliveries(DeliveryFilter { namespace, listener, state }, paging(random))
        }
        137..138 => Call::RemoveDeliveries(random.below(20) as i64, random.below(30) as i64),
        113..114 => Call::EndedOn(random.of(&["n1", "n2", "n3"]).to_owned(), random.of(&[1, 3, 100])),
        _ => {
            let before = if random.chance(50) { Ok(random.below(20) as i64) } else { Err(place(random)) };
            Call::Previous(flow(random), before)
        }
    }
}

fn object(random: &mut Random) -> NewObject {
    NewObject {
        kind: random.of(&["Task", "PipelineRun"]).to_owned(),
        namespace: random.of(&["a", "B"]).to_owned(),
        name: random.of(&["x", "y", "z_", "Z"]).to_owned(),
        uid: random.next().to_string(),
        doc: json!({ "n": random.below(9), "text": "nul\0" }),
        sealed: random.of(&[None, Some("v1:x".to_owned())]),
        at: at(random.below(30) as i64),
    }
}

fn delivery(random: &mut Random) -> NewDelivery {
    let received = random.below(30) as i64;
    let digest = random.of(&[None, Some("d1"), Some("d2")]);
    NewDelivery {
        event: format!("e{}", random.below(99)),
        namespace: random.of(&["a", "B", ""]).to_owned(),
        listener: random.of(&["x", "y"]).to_owned(),
        received: at(received),
        source: "::1".to_owned(),
        about: random.of(&["push", "nul\0"]).to_owned(),
        bytes: random.below(9) as u32,
        sealed: random.of(&[None, Some("v1:x".to_owned())]),
        state: random.of(&[DeliveryState::Waiting, DeliveryState::Waiting, DeliveryState::Refused]),
        outcome: json!({ "n": random.below(9), "text": "nul\0" }),
        again_of: None,
        guard: digest.map(|digest| (digest.to_owned(), at(received + random.below(9) as i64))),
    }
}

fn token_name(random: &mut Random) -> String {
    random.of(&["t1", "t2", "t3", "t4"]).to_owned()
}

fn worker_token(random: &mut Random) -> WorkerToken {
    let id = token_name(random);
    WorkerToken {
        hash: format!("hash of {id}"),
        id,
        queues: random.of(&[Vec::new(), vec!["s21".to_owned(), "a\u{e9}".to_owned()]]),
        made_by: random.of(&["ada", "nul\0"]).to_owned(),
        created: at(random.below(20) as i64),
        expires: random.of(&[None, None, Some(at(10))]),
        uses: random.of(&[None, Some(1), Some(1), Some(3)]),
    }
}

fn worker(random: &mut Random) -> WorkerRow {
    // Ids and credentials are random, so nobody ever has that of another.
    let id = random.next().to_string();
    WorkerRow {
        name: random.of(&["s21", "s22", "S21", "s_1"]).to_owned(),
        credential: format!("digest of {id}"),
        id,
        about: json!({ "slots": random.below(9), "host": "h" }),
        drain: random.chance(10),
        enrolled: at(random.below(30) as i64),
        revoked: None,
    }
}

/// What a caller can see of an error: its kind; the words may differ.
fn kind<T: Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(StoreError::Conflict(_)) => "conflict".to_owned(),
        Err(StoreError::Invalid(_)) => "invalid".to_owned(),
        Err(StoreError::NotFound { kind, name }) => format!("no {kind} {name}"),
        Err(error) => panic!("{error:?}"),
    }
}

/// Makes the call in one store, and describes the answer in words that must be the same for all.
async fn perform(side: &mut Side, call: Call) -> String {
    let entry = || audit("call", 30);
    match call {
        Call::Create(new, owner) => {
            let answer = side.store.create_run(new, owner.map(|n| side.owner(n))).await.unwrap();
            match answer {
                CreateRun::Created(run) => {
                    side.keys.push(run.key);
                    format!("created {:?}", side.run(run))
                }
                CreateRun::Exists { run, same } => format!("exists {same:?} {:?}", side.run(run)),
            }
        }
        Call::Commit(owner, commits) => {
            let mut filled = Vec::new();
            for (place, mut commit, change) in commits {
                commit.key = side.key(place);
                if let Some((state, end)) = change
                    && let Some(old) = side.store.run(commit.key).await.unwrap()
                {
                    let finally_start = end.filter(|_| old.finally_start.is_none());
                    commit.run = Some(RunRecord { state, end, finally_start, ..old });
                }
                filled.push(commit);
            }
            let answer = side.store.commit(side.owner(owner), filled).await;
            kind(answer.map(|committed| {
                let mut lost: Vec<RunKey> = committed.lost.iter().map(|key| side.place(*key)).collect();
                lost.sort();
                if lost.is_empty() { "committed".to_owned() } else { format!("lost {lost:?}") }
            }))
        }
        Call::Claim(owner, place) => {
            let filter = place.map_or(ClaimFilter::All, |place| ClaimFilter::Only(side.key(place)));
            let claimed = side.store.claim_runs(side.owner(owner), filter).await.unwrap();
            format!("claimed {}: {:?}", claimed.len().min(1), side.stored(claimed))
        }
        Call::Release(owner, places) => {
            let keys: Vec<RunKey> = places.into_iter().map(|place| side.key(place)).collect();
            kind(side.store.release_runs(side.owner(owner), &keys).await)
        }
        Call::Renew(owner) => {
            if let Some(old) = side.owners[owner].take() {
                old.end().await;
            }
            side.owners[owner] = Some(side.store.register_owner().await.unwrap());
            String::new()
        }
        Call::Lead(owner) => format!("leads {}", side.store.try_lead(side.owner(owner)).await.unwrap()),
        Call::Put(row, now) => {
            let now = at(now.parse().unwrap());
            kind(side.store.put_workflow(&row, &format!("source of {}", row.version), now).await)
        }
        Call::Pause(id, paused) => kind(side.store.set_paused(&workflow(&id), paused, entry()).await),
        Call::Deactivate(id) => kind(side.store.deactivate(&workflow(&id)).await),
        Call::NextRun(id, next) => kind(side.store.set_next_run(&workflow(&id), next.map(at)).await),
        Call::Variable(set) => kind(side.store.set_variable(set, entry()).await),
        Call::DeleteVariable(key) => kind(side.store.delete_variable(&key, entry()).await),
        Call::Pool(pool) => kind(side.store.put_pool(pool, entry()).await),
        Call::DeletePool(name) => kind(side.store.delete_pool(&name, entry()).await),
        Call::Setting(key, value, once) => {
            if once {
                return kind(side.store.setting_or_insert(&key, &value).await);
            }
            kind(side.store.put_setting(&key, &value).await)
        }
        Call::Retention(before, done) => {
            let removed = side.store.retention(at(before)).await.unwrap();
            if done {
                let keys: Vec<RunKey> = removed.runs.iter().map(|run| run.key).collect();
                side.store.retention_done(&keys).await.unwrap();
            }
            let places = removed.runs.iter().map(|run| (side.place(run.key), &run.workflow, &run.run_id));
            let places: Vec<_> = places.collect();
            format!("removed {}: {places:?} {} {}", places.len().min(1), removed.audit, removed.versions)
        }
        Call::Runs(filter, paging) => {
            let page = side.store.runs(&filter, paging).await.unwrap();
            let runs: Vec<_> = page.rows.into_iter().map(|run| side.run(run)).collect();
            format!("{} {runs:?}", page.total)
        }
        Call::Instances(place, filter, paging) => kind(side.store.instances(side.key(place), &filter, paging).await),
        Call::Workflows(filter, paging) => kind(side.store.workflows(&filter, paging).await),
        Call::Previous(id, before) => {
            let before = match before {
                Ok(date) => Before::LogicalDate(at(date)),
                Err(place) => Before::Key(side.key(place)),
            };
            let previous = side.store.previous_run(&workflow(&id), before).await.unwrap();
            format!("{:?}", previous.map(|run| side.run(run)))
        }
        Call::WorkerToken(token) => kind(side.store.put_worker_token(token, entry()).await),
        Call::DeleteWorkerToken(id) => kind(side.store.delete_worker_token(&id, entry()).await),
        Call::Enrol(token, worker) => kind(side.store.enrol_worker(&format!("hash of {token}"), worker, entry()).await),
        Call::ChangeWorker(place, change) => {
            let all = side.store.workers().await.unwrap();
            let id = all.get(place).map_or("nobody", |row| &row.id);
            kind(side.store.change_worker(id, change, Some(entry())).await)
        }
        Call::CreateAs(new, object) => match side.store.create_run_as(new, None, object).await {
            Ok(CreateRun::Created(run)) => {
                side.keys.push(run.key);
                format!("created as {:?}", side.run(run))
            }
            Ok(CreateRun::Exists { run, same }) => format!("exists as {same:?} {:?}", side.run(run)),
            Err(error) => kind(Err::<(), _>(error)),
        },
        Call::PutObject(new) => object_text(side, side.store.put_object(new, entry()).await.unwrap()),
        Call::DeleteObject(NewObject { kind: of, namespace, name, .. }) => {
            kind(side.store.delete_object(&of, &namespace, &name, entry()).await)
        }
        Call::Objects(filter, paging) => {
            let page = side.store.objects(&filter, paging).await.unwrap();
            let rows: Vec<String> = page.rows.into_iter().map(|row| object_text(side, row)).collect();
            format!("objects {}: {rows:?}", page.total)
        }
        Call::AddDelivery(new) => format!("added {:?}", side.store.add_delivery(new).await.unwrap()),
        Call::RepeatDelivery(id) => {
            format!("repeated {:?}", side.store.repeat_delivery(id, "again", at(9), entry()).await.unwrap())
        }
        Call::SettleDelivery(id, seconds) => {
            kind(side.store.settle_delivery(id, json!({ "ended": seconds }), at(seconds)).await)
        }
        Call::Deliveries(filter, paging) => {
            let page = side.store.deliveries(&filter, paging).await.unwrap();
            format!("deliveries {}: {:?}", page.total, page.rows.iter().map(delivery_text).collect::<Vec<_>>())
        }
        Call::RemoveDeliveries(before, now) => {
            format!("gone {}", side.store.remove_deliveries(at(before), at(now)).await.unwrap())
        }
        Call::EndedOn(node, limit) => format!("ended {:?}", ended_on(side, &node, limit).await),
    }
}

/// All that a row has: its own words leave most of it out.
fn object_text(side: &Side, row: ObjectRow) -> String {
    let run = row.run.map(|key| side.place(key));
    let (name, times) = ((row.kind, row.namespace, row.name), (row.created, row.changed));
    format!("{name:?} {} {} {} {:?} {run:?} {times:?}", row.uid, row.generation, row.doc, row.sealed)
}

/// All that a row has.
fn delivery_text(row: &DeliveryRow) -> String {
    let DeliveryRow { source, about, bytes, sealed, outcome, again_of, duplicate_of, .. } = row;
    let times = (row.received, row.settled);
    format!("{row:?} {source} {about:?} {bytes} {sealed:?} {outcome} {again_of:?} {duplicate_of:?} {times:?}")
}

/// What ended on a node, with places instead of keys.
async fn ended_on(side: &Side, node: &str, limit: u32) -> Vec<RunAttempt> {
    let rows = side.store.attempts_ended_on(node, limit).await.unwrap();
    rows.into_iter().map(|row| RunAttempt { run: side.place(row.run), ..row }).collect()
}

/// Everything that can be read, a line each.
async fn everything(side: &Side) -> Vec<String> {
    let store = &side.store;
    let mut lines = Vec::new();
    for key in &side.keys {
        let Some(stored) = store.stored_run(*key).await.unwrap() else { continue };
        for instance in &stored.instances {
            lines.push(format!("{:?}", store.attempts(*key, &instance.task, instance.map_index).await.unwrap()));
        }
        lines.push(format!("{:?}", store.state_counts(&[*key]).await.unwrap().into_values().collect::<Vec<_>>()));
        lines.push(format!("{:?}", side.stored(vec![stored])));
    }
    let flows = store.workflows(&WorkflowFilter::default(), Paging::ALL).await.unwrap();
    for row in &flows.rows {
        for version in store.versions(&row.id).await.unwrap() {
            lines.push(format!("{version:?} {:?}", store.version_source(&row.id, &version.hash).await.unwrap()));
        }
        lines.push(format!("{:?}", store.open_run_counts(&row.id).await.unwrap()));
        lines.push(format!("{:?}", store.last_logical_date(&row.id, RunType::Scheduled).await.unwrap()));
        lines.push(format!("{:?}", store.latest_run(&row.id).await.unwrap().map(|run| side.run(run))));
    }
    use InstanceOrder::*;
    for order in [Newest, Oldest, Start, StartDescending, End, EndDescending] {
        let query = InstanceQuery { order, ..InstanceQuery::default() };
        let page = store.task_instances(&query, Paging::ALL).await.unwrap();
        let rows: Vec<_> = page.rows.into_iter().map(|row| (side.place(row.run.key), row.instance)).collect();
        lines.push(format!("{order:?} {} {rows:?}", page.total));
    }
    for row in &flows.rows {
        let grid = store.grid(&row.id, None, 7).await.unwrap();
        let columns: Vec<_> = grid.runs.iter().map(|column| (side.place(column.run.key), &column.cells)).collect();
        lines.push(format!("{:?} {columns:?}", grid.tasks));
    }
    lines.push(format!("{:?}", store.instances_in().await.unwrap()));
    lines.push(format!("{flows:?} {:?}", store.tags().await.unwrap()));
    lines.push(format!("{:?}", store.run_counts().await.unwrap()));
    lines.push(format!("{:?}", store.variables(Paging::ALL).await.unwrap()));
    lines.push(format!("{:?}", store.pools().await.unwrap()));
    let audit = store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap();
    lines.extend(audit.rows.iter().map(|row| format!("{:?}", row.entry)));
    lines.push(format!("{:?}", store.setting("s").await.unwrap()));
    for node in ["n1", "n2"] {
        lines.push(format!("{:?}", ended_on(side, node, u32::MAX).await));
    }
    let workers = store.workers().await.unwrap();
    for row in &workers {
        lines.push(format!("{:?}", store.worker_by_credential(&row.credential).await.unwrap()));
    }
    for token in store.worker_tokens().await.unwrap() {
        lines.push(format!("{:?}", store.worker_token(&token.hash).await.unwrap()));
    }
    for row in store.objects(&ObjectFilter::default(), Paging::ALL).await.unwrap().rows {
        lines.push(object_text(side, row));
    }
    for row in store.deliveries(&DeliveryFilter::default(), Paging::ALL).await.unwrap().rows {
        lines.push(delivery_text(&store.delivery(row.id).await.unwrap().unwrap()));
    }
    lines.push(format!("waiting {:?}", store.waiting_deliveries(u32::MAX).await.unwrap()));
    lines.push(format!("{workers:?} {:?}", store.worker_ends().await.unwrap()));
    lines
}

/// Runs one seed on new stores, and returns the first words of the answers that came.
async fn compare(seed: u64) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::create().await;
    let mut urls = vec![StoreUrl::Memory, StoreUrl::Sqlite(folder.path().join("pitcrew.db"))];
    urls.extend(postgres.as_ref().map(|postgres| postgres.url.parse::<StoreUrl>().unwrap()));
    let mut sides = Vec::new();
    for url in &urls {
        let store = Store::open(url).await.unwrap();
        let mut owners = Vec::new();
        for _ in 0..OWNERS {
            owners.push(Some(store.register_owner().await.unwrap()));
        }
        sides.push(Side { store, owners, keys: Vec::new() });
    }
    let mut random = Random(seed);
    let mut words = BTreeSet::new();
    for step in 0..STEPS {
        let call = call(&mut random, sides[0].keys.len());
        let expected = perform(&mut sides[0], call.clone()).await;
        for (side, url) in sides[1..].iter_mut().zip(&urls[1..]) {
            let found = perform(side, call.clone()).await;
            assert_eq!(found, expected, "seed {seed}, step {step}, {url}: {call:?}");
        }
        words.extend(expected.split([':', '{', '[', '(']).next().map(|words| words.trim().to_owned()));
        if step % 125 == 124 || step + 1 == STEPS {
            let expected = everything(&sides[0]).await;
            for (side, url) in sides[1..].iter().zip(&urls[1..]) {
                assert_eq!(everything(side).await, expected, "seed {seed}, after step {step}, {url}");
            }
        }
    }
    drop(sides);
    if let Some(postgres) = postgres {
        postgres.drop().await;
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn random_calls_are_answered_alike_by_every_store() {
    if let Ok(seed) = std::env::var("PITCREW_TEST_SEED") {
        compare(seed.parse().expect("a number in PITCREW_TEST_SEED")).await;
        return;
    }
    let mut words = BTreeSet::new();
    for seed in 0..SEEDS {
        words.extend(compare(seed).await);
    }
    // A generator that never gets anywhere would agree with itself, too.
    for word in [
        "created RunRecord",
        "created as RunRecord",
        "exists as RunId RunRecord",
        "exists RunId RunRecord",
        "exists LogicalDate RunRecord",
        "\"committed\"",
        "\"lost",
        "conflict",
        "invalid",
        "claimed 1",
        "leads true",
        "leads false",
        "Unchanged",
        "Updated",
        "removed 1",
        "Done",
        "NameTaken",
        "NoSuchToken",
        "Expired",
        "UsedUp",
        "Some",
        "added Added",
        "repeated Some",
    ] {
        assert!(words.contains(word), "no call was answered with `{word}`: {words:?}");
    }
}
