//! Buttons: what a page asks to be changed. Each leads back to where it was pressed.

use axum::Form;
use axum::extract::{Extension, Path, State};
use axum::response::Redirect;
use pitcrew_control::links;
use pitcrew_control::scheduler::{AskError, Clear, Edit, Pick};
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_store::Paging;
use serde::Deserialize;

use super::page::PageResult;
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{number, run_id, task_id, workflow_id};
use crate::rest::dags;
use crate::view::{Filter, RunView, find_run};

#[derive(Deserialize)]
pub struct Pause {
    paused: bool,
    /// Pressed on the list of workflows.
    #[serde(default)]
    list: bool,
}

pub async fn pause(
    State(site): State<Site>,
    Path(workflow): Path<String>,
    Extension(user): Extension<User>,
    Form(wish): Form<Pause>,
) -> PageResult<Redirect> {
    let row = dags::find(&site, &workflow).await?;
    dags::pause(&site, &row, wish.paused, &user).await?;
    Ok(Redirect::to(&if wish.list { "/workflows".to_owned() } else { links::workflow(&row.id) }))
}

type RunPath = Path<(String, String)>;

pub async fn cancel(
    State(site): State<Site>,
    Path((workflow, run)): RunPath,
    Extension(user): Extension<User>,
) -> PageResult<Redirect> {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    // The button may be older than the end of the run.
    if !run.state.is_final() {
        site.app.scheduler.cancel(run.key, &user.name).await?;
    }
    Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)))
}

/// Runs again what failed, and what that kept from running.
pub async fn retry(
    State(site): State<Site>,
    Path((workflow, run)): RunPath,
    Extension(user): Extension<User>,
) -> PageResult<Redirect> {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    site.app.scheduler.clear(run.key, Clear::Failed, &user.name).await?;
    Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)))
}

#[derive(Deserialize)]
pub struct ClearTask {
    /// Empty: the whole run.
    #[serde(default)]
    task: String,
    map_index: Option<i32>,
    #[serde(default)]
    downstream: bool,
}

pub async fn clear(
    State(site): State<Site>,
    Path((workflow, run)): RunPath,
    Extension(user): Extension<User>,
    Form(wish): Form<ClearTask>,
) -> PageResult<Redirect> {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    if wish.task.is_empty() {
        return clear_in(&site, &run, Clear::All, &user).await;
    }
    let at = wish.map_index.unwrap_or(UNMAPPED);
    let task = links::task(&run.workflow, &run.run_id, &task_id(&wish.task)?, at);
    let picks = vec![Pick { task: wish.task, map_index: wish.map_index }];
    let to_run = clear_in(&site, &run, Clear::Picks { picks, downstream: wish.downstream }, &user).await?;
    // Whoever runs one task again watches it; what comes after it is watched where the whole run is.
    Ok(if wish.downstream { to_run } else { Redirect::to(&task) })
}

async fn clear_in(site: &Site, run: &RunRecord, what: Clear, user: &User) -> PageResult<Redirect> {
    let cleared = site.app.scheduler.clear(run.key, what, &user.name).await?;
    if cleared.is_empty() {
        return Err(ApiError::conflict("there was nothing to clear: no such task has run yet").into());
    }
    Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)))
}

/// What to do with the tasks that were chosen from a run's list: fields `pick`, each `task` or `task[3]`, and `do`.
pub async fn tasks(
    State(site): State<Site>,
    Path((workflow, run)): RunPath,
    Extension(user): Extension<User>,
    Form(fields): Form<Vec<(String, String)>>,
) -> PageResult<Redirect> {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    let of = |key: &'static str| fields.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str());
    let picks: Vec<Pick> = of("pick").map(pick).collect::<ApiResult<_>>()?;
    if picks.is_empty() {
        return Err(ApiError::bad_request("choose tasks first").into());
    }
    let success = match of("do").next().unwrap_or_default() {
        "clear" => return clear_in(&site, &run, Clear::Picks { picks, downstream: false }, &user).await,
        "clear_downstream" => return clear_in(&site, &run, Clear::Picks { picks, downstream: true }, &user).await,
        "success" => true,
        "failed" => false,
        _ => {
            let message = "`do` must be `clear`, `clear_downstream`, `success` or `failed`";
            return Err(ApiError::bad_request(message).into());
        }
    };
    for pick in picks {
        site.app.scheduler.mark(run.key, pick, success, &user.name).await?;
    }
    Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)))
}

/// `task`, or `task[3]`.
fn pick(text: &str) -> ApiResult<Pick> {
    let Some((task, index)) = text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) else {
        return Ok(Pick { task: text.to_owned(), map_index: None });
    };
    Ok(Pick { task: task.to_owned(), map_index: Some(number("pick", index)?) })
}

#[derive(Deserialize)]
pub struct Mark {
    success: bool,
}

/// Says how a run ended: everything in it that ended otherwise, or has not ended, is marked so. What was skipped stays.
pub async fn mark(
    State(site): State<Site>,
    Path((workflow, run)): RunPath,
    Extension(user): Extension<User>,
    Form(wish): Form<Mark>,
) -> PageResult<Redirect> {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    let href = links::run(&run.workflow, &run.run_id);
    let key = run.key;
    let view = RunView::load(&site.app, run).await?;
    let rows = view.page(&site.app, &Filter::default(), Paging::ALL).await?.rows;
    // Success is said of everything that has not succeeded, failure of what still goes on.
    let is_meant = |row: &&InstanceRecord| match row.state.name() {
        "success" | "skipped" | "removed" => false,
        _ => wish.success || !row.state.is_final(),
    };
    let mut marked = 0;
    for row in rows.iter().filter(is_meant) {
        let map_index = (row.map_index != UNMAPPED).then_some(row.map_index);
        let pick = Pick { task: row.task.to_string(), map_index };
        match site.app.scheduler.mark(key, pick, wish.success, &user.name).await {
            Ok(()) => marked += 1,
            // It was expanded, or went away, in between; what took its place follows from the marks.
            Err(AskError::NoSuchTask { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if marked == 0 {
        return Err(ApiError::conflict("there is nothing in this run to mark").into());
    }
    Ok(Redirect::to(&href))
}

#[derive(Deserialize)]
pub struct Note {
    #[serde(default)]
    note: String,
}

/// The longest remark, in characters.
pub const MAX_NOTE: usize = 2_000;

pub async fn note(
    State(site): State<Site>,
    Path((workflow, run)): RunPath,
    Extension(user): Extension<User>,
    Form(wish): Form<Note>,
) -> PageResult<Redirect> {
    let run = find_run(&site.app, &workflow_id(&workflow)?, &run_id(&run)?).await?;
    let note = wish.note.replace("\r\n", "\n");
    if note.chars().count() > MAX_NOTE {
        return Err(ApiError::bad_request(format!("a note has at most {MAX_NOTE} characters")).into());
    }
    site.app.scheduler.edit(run.key, Edit::Note(note.trim().to_owned()), &user.name).await?;
    Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pick_is_a_task_or_one_of_its_instances() {
        assert_eq!(pick("a.b").unwrap(), Pick { task: "a.b".into(), map_index: None });
        assert_eq!(pick("a[12]").unwrap(), Pick { task: "a".into(), map_index: Some(12) });
        assert!(pick("a[x]").is_err());
    }
}
