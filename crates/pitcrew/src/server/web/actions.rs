//! Buttons: what a page asks to be changed. Each leads back to where it was pressed.

use axum::Form;
use axum::extract::{Extension, Path, State};
use axum::response::Redirect;
use serde::Deserialize;

use super::page::PageResult;
use crate::scheduler::{Clear, Pick};
use crate::server::Site;
use crate::server::auth::User;
use crate::server::error::ApiError;
use crate::server::input::{run_id, workflow_id};
use crate::server::links;
use crate::server::rest::dags;
use crate::server::view::find_run;

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
    let what = if wish.task.is_empty() {
        Clear::All
    } else {
        let picks = vec![Pick { task: wish.task, map_index: wish.map_index }];
        Clear::Picks { picks, downstream: wish.downstream }
    };
    let cleared = site.app.scheduler.clear(run.key, what, &user.name).await?;
    if cleared.is_empty() {
        return Err(ApiError::conflict("there was nothing to clear: no such task has run yet").into());
    }
    Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)))
}
