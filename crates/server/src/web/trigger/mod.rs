//! The form that starts a run, made from the params' schemas. The browser checks what it can before it sends anything.
//! The server checks all of it, and shows what is wrong at the field it is wrong in; nothing that was typed is lost.

mod field;
mod input;

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::app::{Trigger, TriggerError};
use pitcrew_control::links;
use pitcrew_core::RunId;
use pitcrew_core::ir::{Param, Workflow};
use pitcrew_store::WorkflowRow;
use serde_json::Map;

use self::field::Field;
use super::actions::MAX_NOTE;
use super::form::Typed;
use super::page::{PageResult, Shell, html};
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, parse_time, run_id};
use crate::rest::dags;
use crate::view::find_run;

#[derive(Template)]
#[template(path = "trigger.html")]
struct TriggerPage {
    shell: Shell,
    href: String,
    row: WorkflowRow,
    fields: Vec<Field>,
    run_id: Own,
    logical_date: Own,
    note: Own,
    /// What is wrong with none of the fields.
    error: Option<String>,
}

/// A field of the form's own.
#[derive(Default)]
struct Own {
    text: String,
    error: Option<String>,
}

/// The fields besides the params.
const OWN: [&str; 3] = ["run_id", "logical_date", "note"];

impl TriggerPage {
    fn is_wrong(&self) -> bool {
        let own = [&self.run_id, &self.logical_date, &self.note];
        self.error.is_some() || self.fields.iter().any(Field::is_wrong) || own.iter().any(|field| field.error.is_some())
    }

    /// Whether the fields that few need are shown at once.
    fn is_open(&self) -> bool {
        let own = [&self.run_id, &self.logical_date, &self.note];
        own.iter().any(|field| field.error.is_some() || !field.text.is_empty())
    }
}

async fn load(site: &Site, name: &str) -> ApiResult<(WorkflowRow, Arc<Workflow>)> {
    let row = dags::find(site, name).await?;
    if !row.active {
        return Err(ApiError::conflict(format!("the file of `{}` is gone, so it cannot be run", row.id)));
    }
    let workflow = site.app.catalog.load(&site.app.store, &row.id, &row.version).await?;
    Ok((row, workflow))
}

fn blank(site: &Site, user: &User, row: WorkflowRow, fields: Vec<Field>) -> TriggerPage {
    let shell = Shell::new(site, user, format!("Run {}", row.id)).section("workflows");
    let href = links::workflow(&row.id);
    let [run_id, logical_date, note] = [(); 3].map(|()| Own::default());
    TriggerPage { shell, href, row, fields, run_id, logical_date, note, error: None }
}

/// The form with the defaults, or with what the run named by `from` was given.
pub async fn form(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    query: Query,
) -> PageResult {
    let (row, workflow) = load(&site, &name).await?;
    let given = match query.text("from") {
        Some(from) => find_run(&site.app, &row.id, &run_id(from)?).await?.params,
        None => Map::new(),
    };
    let value = |param: &Param| given.get(&param.name).or(param.default.as_ref()).cloned();
    let fields = workflow.params.iter().map(|param| Field::new(param, value(param).as_ref())).collect();
    Ok(html(blank(&site, &user, row, fields)))
}

pub async fn submit(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult<Response> {
    let (row, workflow) = load(&site, &name).await?;
    let mut conf = Map::new();
    let mut fields = Vec::with_capacity(workflow.params.len());
    for param in &workflow.params {
        let mut field = Field::new(param, None);
        conf.extend(field.read(&typed).map(|value| (param.name.clone(), value)));
        fields.push(field);
    }
    let mut page = blank(&site, &user, row, fields);
    let own = |key: &str| typed.text(key).trim().to_owned();
    page.run_id.text = own("run_id");
    page.logical_date.text = own("logical_date");
    page.note.text = own("note");
    let is_known = |key: &str| OWN.contains(&key) || page.fields.iter().any(|field| field.has(key));
    if let Some(key) = typed.names().find(|key| !is_known(key)) {
        // The workflow may have changed since the form was shown.
        let key: String = key.chars().take(100).collect();
        page.error = Some(format!("`{key}` is not a field of this form: see what is here now, and run again"));
    }
    if page.note.text.chars().count() > MAX_NOTE {
        page.note.error = Some(format!("a note has at most {MAX_NOTE} characters"));
    }
    let mut trigger = Trigger { conf, by: user.name.clone(), note: page.note.text.clone(), ..Trigger::default() };
    if !page.run_id.text.is_empty() {
        match RunId::new(&page.run_id.text) {
            Ok(id) => trigger.run_id = Some(id),
            Err(error) => page.run_id.error = Some(error.to_string()),
        }
    }
    if !page.logical_date.text.is_empty() {
        trigger.logical_date = parse_time(&page.logical_date.text);
        if trigger.logical_date.is_none() {
            page.logical_date.error = Some("this is not a time such as 2026-01-02T03:04".to_owned());
        }
    }
    if page.is_wrong() {
        return Ok(refused(page));
    }
    match site.app.trigger(&page.row.id, trigger).await {
        Ok(run) => Ok(Redirect::to(&links::run(&run.workflow, &run.run_id)).into_response()),
        Err(TriggerError::Params(errors)) => {
            for error in errors {
                match page.fields.iter_mut().find(|field| field.is_of(&error.param)) {
                    Some(field) => field.refuse(&error),
                    None => page.error = Some(error.to_string()),
                }
            }
            Ok(refused(page))
        }
        Err(error @ TriggerError::Exists(_)) => {
            page.error = Some(error.to_string());
            Ok(refused(page))
        }
        Err(error) => Err(error.into()),
    }
}

fn refused(page: TriggerPage) -> Response {
    let mut response = html(page);
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    response
}
