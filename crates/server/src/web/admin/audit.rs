//! The audit log: who did what, when, to what; the newest first.

use askama::Template;
use axum::extract::{Extension, State};
use pitcrew_control::links::{self, encode};
use pitcrew_core::{RunId, WorkflowId};
use pitcrew_store::{AuditFilter, AuditRow, Between, Paging};
use serde_json::{Map, Value};

use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::web::fmt;
use crate::web::page::{PageResult, Shell, html};

const PAGE: u32 = 100;
/// Tasks that are named of many.
const TASKS: usize = 4;
/// Keys of the query, in the order in which links write them.
const KEYS: [&str; 6] = ["event", "who", "workflow", "run", "from", "to"];

struct Row {
    row: AuditRow,
    /// Pages of what it is about: their addresses and names.
    about: Vec<(String, String)>,
    /// What else is known, in pairs.
    detail: Vec<(String, String)>,
}

impl Row {
    fn of(row: AuditRow) -> Row {
        let entry = &row.entry;
        let mut about = Vec::new();
        if let Some(workflow) = &entry.workflow {
            about.push((links::workflow(workflow), workflow.to_string()));
            if let Some(run) = &entry.run {
                about.push((links::run(workflow, run), run.to_string()));
                if let Some(task) = &entry.task {
                    about.push((links::task(workflow, run, task, pitcrew_core::id::UNMAPPED), task.to_string()));
                }
            }
        }
        let detail = match &entry.detail {
            Value::Object(map) => map
                .iter()
                .filter(|(_, value)| !is_nothing(value))
                .map(|(key, value)| (key.clone(), tasks(value).unwrap_or_else(|| fmt::value(value))))
                .collect(),
            Value::Null => Vec::new(),
            other => vec![(String::new(), fmt::value(other))],
        };
        Row { row, about, detail }
    }
}

/// A list of tasks with their map indices, in a few names.
fn tasks(value: &Value) -> Option<String> {
    let name = |pair: &Value| match pair.as_array()?.as_slice() {
        [Value::String(task), Value::Number(index)] => match index.as_i64()? {
            index if index < 0 => Some(task.clone()),
            index => Some(format!("{task}[{index}]")),
        },
        _ => None,
    };
    let names: Vec<String> = value.as_array()?.iter().map(name).collect::<Option<_>>()?;
    let more = names.len().saturating_sub(TASKS);
    let shown = names[..names.len() - more].join(", ");
    Some(if more > 0 { format!("{shown} and {more} more") } else { shown })
}

/// Is there nothing worth a word?
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[derive(Template)]
#[template(path = "admin/audit.html")]
struct AuditPage {
    shell: Shell,
    /// What was asked for, by [`KEYS`].
    wish: [String; KEYS.len()],
    events: Vec<String>,
    rows: Vec<Row>,
    is_narrow: bool,
    newest: Option<String>,
    older: Option<String>,
}

impl AuditPage {
    fn is_chosen(&self, event: &str) -> bool {
        self.wish[0] == event
    }
}

/// The query as a filter; an id that cannot be one is refused rather than ignored.
fn filter(query: &Query) -> ApiResult<AuditFilter> {
    let invalid = |key: &str, error: String| ApiError::invalid(&["query", key], "value_error", error);
    let text = |key: &str| query.text(key).map(str::trim).filter(|text| !text.is_empty());
    let workflow =
        text("workflow").map(|id| WorkflowId::new(id).map_err(|error| invalid("workflow", error.to_string())));
    let run = text("run").map(|id| RunId::new(id).map_err(|error| invalid("run", error.to_string())));
    Ok(AuditFilter {
        workflow: workflow.transpose()?,
        run: run.transpose()?,
        event: text("event").map(str::to_owned),
        who: text("who").map(str::to_owned),
        at: Between { from: query.time("from")?, to: query.time("to")? },
        before: query.number("before")?,
        ..AuditFilter::default()
    })
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let filter = filter(&query)?;
    let mut rows = site.app.store.audit(&filter, Paging::first(PAGE + 1)).await?.rows;
    let is_more = rows.len() > PAGE as usize;
    rows.truncate(PAGE as usize);
    let wish = KEYS.map(|key| query.text(key).unwrap_or_default().trim().to_owned());
    let kept = KEYS.iter().zip(&wish).filter(|(_, value)| !value.is_empty());
    let kept = kept.map(|(key, value)| format!("{key}={}&", encode(value))).collect::<String>();
    let older = rows.last().filter(|_| is_more).map(|row| format!("/audit?{kept}before={}", row.id));
    let newest = filter.before.map(|_| format!("/audit?{kept}"));
    Ok(html(AuditPage {
        shell: Shell::new(&site, &user, "Audit log").section("audit"),
        events: site.app.store.audit_events().await?,
        is_narrow: !kept.is_empty() || newest.is_some(),
        rows: rows.into_iter().map(Row::of).collect(),
        wish,
        newest,
        older,
    }))
}
