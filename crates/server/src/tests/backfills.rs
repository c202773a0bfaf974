//! Backfills, from the wish to the last run. Each turn of the serving loop is made by hand, so that nothing waits.

use axum::http::StatusCode;
use jiff::Timestamp;
use pitcrew_control::backfill::{self, BackfillError, Outlook, serve};
use pitcrew_control::clock;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::state::RunState;
use pitcrew_store::{Backfill, BackfillChange, BackfillFilter, NewBackfill, Paging, Reprocess, RunFilter, RunOrder};
use serde_json::json;

use super::Rig;

/// Scheduled runs go one by one; those of a backfill have a limit of their own.
const DAILY: &str = "workflow: daily\nschedule: {cron: '0 2 * * *', timezone: UTC}\nmax_active_runs: 1\n\
    params: {n: {type: integer, default: 1}}\ntasks:\n  a: {backend: fake, run: x}\n";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn wish(from: &str, to: &str) -> NewBackfill {
    NewBackfill {
        workflow: "daily".parse().unwrap(),
        from: at(&format!("{from}T00:00:00Z")),
        to: at(&format!("{to}T23:59:59Z")),
        reprocess: Reprocess::None,
        reverse: false,
        max_active_runs: 2,
        conf: json!({"n": 7}).as_object().unwrap().clone(),
        by: "ada".to_owned(),
        created: clock::now(),
    }
}

impl Rig {
    async fn backfill(&self, wish: NewBackfill) -> Result<Backfill, BackfillError> {
        let made = backfill::create(&self.app.store, &self.app.catalog, wish).await;
        self.app.scheduler.look();
        made
    }

    async fn runs_of(&self, backfill: i64) -> Vec<RunRecord> {
        let order = RunOrder::LogicalDate;
        let filter = RunFilter { backfill: Some(backfill), order, ..RunFilter::default() };
        self.app.store.runs(&filter, Paging::ALL).await.unwrap().rows
    }

    /// Serves until what is asked holds, whenever something has changed.
    async fn serve_until(&self, id: i64, is_so: impl Fn(&Backfill, &[RunRecord]) -> bool) {
        let mut changes = self.app.scheduler.subscribe();
        loop {
            serve::serve(&self.app).await;
            let backfill = backfill::find(&self.app.store, id).await.unwrap();
            if is_so(&backfill, &self.runs_of(id).await) {
                return;
            }
            if backfill.is_paused {
                self.app.scheduler.look();
            }
            changes.recv().await.unwrap();
        }
    }
}

fn in_state(runs: &[RunRecord], state: RunState) -> usize {
    runs.iter().filter(|run| run.state == state).count()
}

#[tokio::test]
async fn a_backfill_makes_its_runs_and_is_complete_when_they_are_over() {
    let rig = Rig::with(DAILY).await;
    let made = rig.backfill(wish("2026-01-01", "2026-01-05")).await.unwrap();
    assert!(made.planned && made.is_open());
    rig.serve_until(made.id, |backfill, _| !backfill.is_open()).await;
    let runs = rig.runs_of(made.id).await;
    let dates: Vec<String> = runs.iter().filter_map(|run| run.logical_date).map(|at| at.to_string()).collect();
    assert_eq!(dates[0], "2026-01-01T02:00:00Z");
    assert_eq!((runs.len(), in_state(&runs, RunState::Success)), (5, 5));
    assert_eq!((&runs[0].params["n"], runs[0].triggered_by.as_str()), (&json!(7), "ada"));
    // The same range again finds nothing to do, and says so by a dry run.
    let wish = wish("2026-01-01", "2026-01-06");
    let steps = backfill::steps(&rig.app.store, &rig.app.catalog, &wish, None).await.unwrap();
    let outlooks: Vec<Outlook> = steps.iter().map(|step| step.outlook).collect();
    assert_eq!(outlooks, [[Outlook::Left; 5].as_slice(), &[Outlook::New]].concat());
    let again = NewBackfill { reprocess: Reprocess::Completed, reverse: true, ..wish };
    let steps = backfill::steps(&rig.app.store, &rig.app.catalog, &again, None).await.unwrap();
    assert_eq!((steps[0].outlook, steps[5].outlook), (Outlook::New, Outlook::Again));
    let second = rig.backfill(again).await.unwrap();
    assert!(!second.planned, "what is run again follows");
    rig.serve_until(second.id, |backfill, _| !backfill.is_open()).await;
    let runs = rig.runs_of(second.id).await;
    assert_eq!((runs.len(), in_state(&runs, RunState::Success)), (6, 6));
    assert_eq!(rig.runs_of(made.id).await, []);
}

#[tokio::test]
async fn a_paused_backfill_begins_nothing_and_a_cancelled_one_ends_what_waits() {
    let rig = Rig::with(DAILY).await;
    let store = &rig.app.store;
    let made = backfill::create(store, &rig.app.catalog, wish("2026-01-01", "2026-01-04")).await.unwrap();
    assert!(backfill::pause(store, made.id, true, "ada", clock::now()).await.unwrap());
    assert!(!backfill::pause(store, made.id, true, "ada", clock::now()).await.unwrap());
    // The scheduler has looked once a run of another kind has ended.
    rig.finish("daily").await;
    assert_eq!(in_state(&rig.runs_of(made.id).await, RunState::Queued), 4);
    assert!(matches!(rig.backfill(wish("2026-02-01", "2026-02-02")).await, Err(BackfillError::UnderWay(_))));
    assert!(backfill::cancel(store, made.id, "ada", clock::now()).await.unwrap());
    rig.serve_until(made.id, |backfill, _| !backfill.is_open()).await;
    assert_eq!(in_state(&rig.runs_of(made.id).await, RunState::Cancelled), 4);
    for over in [
        backfill::cancel(store, made.id, "ada", clock::now()).await,
        backfill::pause(store, made.id, false, "ada", clock::now()).await,
    ] {
        assert!(matches!(over, Err(BackfillError::Over(id)) if id == made.id));
    }
    // What was cancelled is run again by the next one that is to.
    let failed = NewBackfill { reprocess: Reprocess::Failed, ..wish("2026-01-01", "2026-01-04") };
    let next = rig.backfill(failed).await.unwrap();
    rig.serve_until(next.id, |backfill, _| !backfill.is_open()).await;
    assert_eq!(in_state(&rig.runs_of(next.id).await, RunState::Success), 4);
}

#[tokio::test]
async fn a_backfill_that_was_cut_short_is_made_whole() {
    let rig = Rig::with(DAILY).await;
    let store = &rig.app.store;
    // As a crash leaves it: the row is there, and one run of four.
    let entry = pitcrew_store::AuditEntry::new(clock::now(), "ada", "backfill.create");
    let made = store.create_backfill(wish("2026-01-01", "2026-01-04"), entry).await.unwrap();
    let row = store.workflow(&"daily".parse().unwrap()).await.unwrap().unwrap();
    let workflow = rig.app.catalog.load(store, &row.id, &row.version).await.unwrap();
    let steps = backfill::steps(store, &rig.app.catalog, &made.new, Some(made.id)).await.unwrap();
    let mut one = pitcrew_control::scheduler::schedules::scheduled(
        &workflow,
        &row.version,
        steps[2].occurrence,
        pitcrew_core::engine::record::RunType::Backfill,
        &made.new.conf,
        "ada",
    )
    .unwrap();
    one.backfill = Some(made.id);
    store.create_run(one, None).await.unwrap();
    rig.app.scheduler.look();
    rig.serve_until(made.id, |backfill, _| !backfill.is_open()).await;
    assert_eq!(in_state(&rig.runs_of(made.id).await, RunState::Success), 4);
    // Nothing that is over begins anew.
    assert!(!store.update_backfill(made.id, BackfillChange::Planned, clock::now(), None).await.unwrap());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let rig = Rig::with(DAILY).await;
    let cases = [
        (NewBackfill { workflow: "none".parse().unwrap(), ..wish("2026-01-01", "2026-01-02") }, "no workflow `none`"),
        (wish("2026-01-02", "2026-01-01"), "before the first"),
        (NewBackfill { to: at("2026-01-01T01:00:00Z"), ..wish("2026-01-01", "2026-01-02") }, "names no time"),
        (wish("1900-01-01", "2026-01-01"), "more than 10000 times"),
        (NewBackfill { conf: json!({"n": "x"}).as_object().unwrap().clone(), ..wish("2026-01-01", "2026-01-02") }, "n"),
        (NewBackfill { max_active_runs: 0, ..wish("2026-01-01", "2026-01-02") }, "at least 1"),
    ];
    for (bad, words) in cases {
        let error = rig.backfill(bad).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let by_hand = Rig::with("workflow: daily\ntasks:\n  a: {backend: fake, run: x}\n").await;
    let error = by_hand.backfill(wish("2026-01-01", "2026-01-02")).await.unwrap_err();
    assert!(matches!(error, BackfillError::NoSchedule(_)), "{error}");
    assert_eq!(rig.app.store.backfills(&Default::default(), Paging::ALL).await.unwrap().total, 0);
}

#[tokio::test]
async fn a_backfill_is_looked_at_made_and_cancelled_on_its_pages() {
    let rig = Rig::with(DAILY).await;
    let form = "workflow=daily&from=2026-01-01T00%3A00&to=2026-01-03T12%3A00&reprocess=none&max_active_runs=2&conf=";
    let look = rig.submit("/backfills/new", form).await;
    assert_eq!(look.status, StatusCode::OK);
    assert!(look.text.contains("3 new runs") && look.text.contains("name=\"make\""), "{}", look.text);
    assert_eq!(rig.app.store.backfills(&BackfillFilter::default(), Paging::ALL).await.unwrap().total, 0);
    for (wrong, why) in [
        (form.replace("daily", "nothing"), "there is no workflow `nothing`"),
        (form.replace("2026-01-03", "2025-01-03"), "is before the first"),
        (form.replace("from=2026-01-01T00%3A00", "from=soon"), "must be a time such as"),
        (form.replace("conf=", "conf=%7B%22n%22%3A%22x%22%7D"), "whole number"),
        (form.replace("max_active_runs=2", "max_active_runs=0"), "must be at least 1"),
    ] {
        let refused = rig.submit("/backfills/new", &format!("{wrong}&make=1")).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        assert!(refused.said().contains(why), "{wrong}: {}", refused.text);
    }
    let made = rig.submit("/backfills/new", &format!("{form}&make=1")).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::SEE_OTHER, "/backfills"));
    let id = rig.app.store.backfills(&BackfillFilter::default(), Paging::ALL).await.unwrap().rows[0].id;
    assert!(rig.get("/backfills").await.text.contains("under way"));
    rig.submit("/backfills/change", &format!("id={id}&action=pause")).await;
    assert!(backfill::find(&rig.app.store, id).await.unwrap().is_paused);
    rig.submit("/backfills/change", &format!("id={id}&action=cancel")).await;
    assert!(backfill::find(&rig.app.store, id).await.unwrap().cancelled);
    for wrong in ["id=x&action=pause", "id=1&action=stop"] {
        assert_eq!(rig.submit("/backfills/change", wrong).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    assert_eq!(rig.submit("/backfills/change", "id=99&action=pause").await.status, StatusCode::NOT_FOUND);
}
