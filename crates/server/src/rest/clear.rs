//! `clearTaskInstances`: lets instances run again, or says which it would be.

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::scheduler::{Clear, Pick};
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::State as TaskState;
use pitcrew_store::{Page, Paging};
use serde_json::{Value, json};

use super::instances::Found;
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, run_id, task_id, workflow_id};
use crate::view::{Filter, find_run};

/// What a body asks for.
struct Wish {
    dry_run: bool,
    run: String,
    picks: Option<Vec<Pick>>,
    downstream: bool,
    only_failed: bool,
    only_running: bool,
}

impl Wish {
    fn read(mut body: Body, query: &Query) -> ApiResult<Wish> {
        let dry_run = body.boolean("dry_run").unwrap_or(true);
        let run = body.text("dag_run_id").or_else(|| query.text("dag_run_id").map(str::to_owned));
        let picks = body.array("task_ids").map(|list| list.iter().map(pick).collect::<Option<Vec<Pick>>>());
        let downstream = body.boolean("include_downstream").unwrap_or(false);
        let upstream = body.boolean("include_upstream").unwrap_or(false);
        let other_runs =
            body.boolean("include_future").unwrap_or(false) | body.boolean("include_past").unwrap_or(false);
        let only_failed = body.boolean("only_failed").unwrap_or(true);
        let only_running = body.boolean("only_running").unwrap_or(false);
        // A cleared run always goes on, in the version that it began with.
        body.ignore(&[
            "reset_dag_runs",
            "run_on_latest_version",
            "prevent_running_task",
            "note",
            "start_date",
            "end_date",
        ]);
        body.finish()?;
        let Some(run) = run else {
            return Err(ApiError::bad_request("tasks are cleared in one run at a time: name its `dag_run_id`"));
        };
        if upstream || other_runs {
            let message =
                "`include_upstream`, `include_future` and `include_past` are not supported: name the tasks and runs";
            return Err(ApiError::bad_request(message));
        }
        let picks = match picks {
            Some(None) => {
                let message = "must be names, or pairs of a name and a map index";
                return Err(ApiError::invalid(&["body", "task_ids"], "value_error", message));
            }
            Some(picks) => picks.filter(|picks| !picks.is_empty()),
            None => None,
        };
        Ok(Wish { dry_run, run, picks, downstream, only_failed, only_running })
    }

    fn wants(&self, row: &InstanceRecord) -> bool {
        let is_failed = matches!(row.state, TaskState::Failed | TaskState::UpstreamFailed);
        let state = match (self.only_failed, self.only_running) {
            (true, true) => is_failed || row.state.is_live(),
            (true, false) => is_failed,
            (false, true) => row.state.is_live(),
            (false, false) => row.state != TaskState::None,
        };
        let named = |pick: &Pick| row.task == *pick.task && pick.map_index.is_none_or(|index| index == row.map_index);
        state && self.picks.as_ref().is_none_or(|picks| picks.iter().any(named))
    }
}

/// `"name"`, or `["name", 3]`.
fn pick(value: &Value) -> Option<Pick> {
    match value {
        Value::String(task) => Some(Pick { task: task.clone(), map_index: None }),
        Value::Array(pair) => {
            let [Value::String(task), index] = pair.as_slice() else { return None };
            let index = i32::try_from(index.as_i64()?).ok().filter(|index| *index >= UNMAPPED)?;
            Some(Pick { task: task.clone(), map_index: Some(index) })
        }
        _ => None,
    }
}

pub async fn clear(
    State(site): State<Site>,
    Path(dag): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
    body: Body,
) -> ApiResult<Json<Value>> {
    let wish = Wish::read(body, &query)?;
    let (workflow, run) = (workflow_id(&dag)?, run_id(&wish.run)?);
    find_run(&site.app, &workflow, &run).await?;
    let found = Found::load(&site, &dag, &wish.run).await?;
    check_names(&site, &found, &wish).await?;
    let rows = found.view.page(&site.app, &Filter::default(), Paging::ALL).await?.rows;
    let mut chosen: Vec<InstanceRecord> = rows.iter().filter(|row| wish.wants(row)).cloned().collect();
    if !chosen.is_empty() && !wish.dry_run {
        let picks =
            chosen.iter().map(|row| Pick { task: row.task.to_string(), map_index: Some(row.map_index) }).collect();
        let downstream = wish.downstream;
        let cleared =
            site.app.scheduler.clear(found.view.run.key, Clear::Picks { picks, downstream }, &user.name).await?;
        chosen =
            rows.into_iter().filter(|row| cleared.iter().any(|(t, m)| row.task == *t && row.map_index == *m)).collect();
    } else if wish.downstream {
        chosen = with_downstream(&found, rows, &chosen);
    }
    let total = chosen.len() as u64;
    let page = Page { rows: chosen, total };
    let Value::Object(mut answer) = found.collection(&page) else { unreachable!("an object literal") };
    answer.retain(|key, _| matches!(key.as_str(), "task_instances" | "total_entries"));
    Ok(Json(json!(answer)))
}

/// A name that is not in the run is a mistake, not an empty choice.
async fn check_names(site: &Site, found: &Found, wish: &Wish) -> ApiResult<()> {
    for pick in wish.picks.iter().flatten() {
        let filter = Filter { states: Vec::new(), task: Some(task_id(&pick.task)?) };
        if found.view.page(&site.app, &filter, Paging::first(1)).await?.total == 0 {
            return Err(ApiError::not_found(format!("The Task with ID: `{}` was not found", pick.task)));
        }
    }
    Ok(())
}

/// For a dry run: the chosen and everything after them, as the engine would clear it.
fn with_downstream(found: &Found, rows: Vec<InstanceRecord>, chosen: &[InstanceRecord]) -> Vec<InstanceRecord> {
    let Some(workflow) = found.view.workflow.as_deref() else { return chosen.to_vec() };
    let mut below = vec![false; workflow.tasks.len()];
    let mut open: Vec<_> = chosen.iter().filter_map(|row| workflow.by_name.get(&row.task).copied()).collect();
    while let Some(ix) = open.pop() {
        for down in &workflow.downstream[ix.at()] {
            if !std::mem::replace(&mut below[down.at()], true) {
                open.push(*down);
            }
        }
    }
    let is_below = |row: &InstanceRecord| workflow.by_name.get(&row.task).is_some_and(|ix| below[ix.at()]);
    rows.into_iter()
        .filter(|row| is_below(row) || chosen.contains(row))
        .filter(|row| row.state != TaskState::None)
        .collect()
}
