//! `POST /aws_mwaa/cli`: a line of Airflow's command line as the body, what it writes as the answer, as on AWS.
//!
//! A line is words and nothing more: no shell sees it and no process is started. Each command is the call of the REST
//! API that means the same, with the same checks; so what a user may not do there, the user may not do here.

mod commands;
mod words;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Parser as _;
use serde_json::{Map, Value, json};

use self::commands::{Connections, Dags, Format, Group, Line, Output, Pools, Tasks, Variables};
use super::{clear, meta};
use super::{connections, dags, delete, instance_list, instances, pools, run_list, runs, tasks, variables};
use crate::Site;
use crate::auth::Role::{self as UserRole, Op, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, parse_time};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

/// Entries of a list at most.
const MOST: &str = "1000";

pub fn routes() -> Routes {
    Routes::api().post("/aws_mwaa/cli", Role(Viewer), run).doc(
        doc("MWAA", "Runs a line of Airflow's command line, given as text, and answers what it writes in Base64")
            .answer(200, "MwaaAnswer")
            .refusal("MwaaAnswer"),
    )
}

async fn run(State(site): State<Site>, Extension(user): Extension<User>, body: Bytes) -> Response {
    let caller = Caller { site, user };
    let (status, stdout, stderr) = match caller.line(&body).await {
        Ok(stdout) => (StatusCode::OK, stdout, String::new()),
        Err((status, stderr)) => (status, String::new(), stderr),
    };
    let encoded = |text: String| BASE64.encode(text);
    (status, Json(json!({ "stdout": encoded(stdout), "stderr": encoded(stderr) }))).into_response()
}

struct Caller {
    site: Site,
    user: User,
}

impl Caller {
    async fn line(&self, body: &[u8]) -> Result<String, (StatusCode, String)> {
        let refused = |message: String| (StatusCode::BAD_REQUEST, message);
        let line = std::str::from_utf8(body).map_err(|_| refused("the command is not UTF-8 text\n".to_owned()))?;
        let words = words::split(line).map_err(|error| refused(format!("airflow: error: {error}\n")))?;
        let words = [String::from("airflow")].into_iter().chain(words);
        let line = match Line::try_parse_from(words) {
            Ok(line) => line,
            // What was asked for is written where help belongs.
            Err(help) if !help.use_stderr() => return Ok(help.to_string()),
            Err(wrong) => return Err(refused(wrong.to_string())),
        };
        self.command(line.group).await.map_err(|error| {
            let status = if error.status().is_server_error() { error.status() } else { StatusCode::BAD_REQUEST };
            (status, format!("{}\n", error.message()))
        })
    }

    /// Routes check roles before their handlers; here one route leads to all of them.
    fn needs(&self, role: UserRole) -> ApiResult<()> {
        let (has, name) = (self.user.role, &self.user.name);
        if has >= role {
            return Ok(());
        }
        let message = format!("the role `{has}` of `{name}` may not do this; it takes `{role}`");
        Err(ApiError::Status(StatusCode::FORBIDDEN, message))
    }

    fn site(&self) -> State<Site> {
        State(self.site.clone())
    }

    fn user(&self) -> Extension<User> {
        Extension(self.user.clone())
    }

    async fn command(&self, group: Group) -> ApiResult<String> {
        match group {
            Group::Dags(command) => self.dags(command).await,
            Group::Tasks(command) => self.tasks(command).await,
            Group::Variables(command) => self.variables(command).await,
            Group::Connections(command) => self.connections(command).await,
            Group::Pools(command) => self.pools(command).await,
            Group::Version => Ok(format!("{}\n", meta::version().await.0["version"].as_str().unwrap_or_default())),
        }
    }

    async fn dags(&self, command: Dags) -> ApiResult<String> {
        match command {
            Dags::List(output) => {
                let list = dags::list(self.site(), Query::of(&[("limit", MOST)])).await?.0;
                Ok(table(rows(list, "dags"), &["dag_id", "fileloc", "owners", "is_paused"], &output))
            }
            Dags::Details { dag_id, output } => {
                Ok(properties(dags::details(self.site(), Path(dag_id)).await?.0, &output))
            }
            Dags::Trigger { dag_id, conf, run_id, exec_date, output } => {
                self.needs(UserRole::User)?;
                let conf: Value = match conf.as_deref() {
                    None => json!({}),
                    Some(text) => serde_json::from_str(text)
                        .map_err(|error| ApiError::bad_request(format!("`--conf` is not JSON: {error}")))?,
                };
                let body = body(json!({ "conf": conf, "dag_run_id": run_id, "logical_date": exec_date }))?;
                let run = runs::trigger(self.site(), Path(dag_id), self.user(), body).await?.0;
                let shown = ["conf", "dag_id", "dag_run_id", "logical_date", "run_type", "start_date", "state"];
                Ok(table(vec![run], &shown, &output))
            }
            Dags::Pause { dag_id } => self.pause(dag_id, true).await,
            Dags::Unpause { dag_id } => self.pause(dag_id, false).await,
            Dags::State { dag_id, logical_date_or_run_id } => {
                let run = self.run(&dag_id, &logical_date_or_run_id).await?;
                Ok(format!("{}\n", text(&run["state"])))
            }
            Dags::ListRuns { dag_id, state, output } => {
                let mut pairs = vec![("limit", MOST), ("order_by", "-run_after")];
                pairs.extend(state.as_deref().map(|state| ("state", state)));
                let list = run_list::list(self.site(), Path(dag_id), Query::of(&pairs)).await?.0;
                let shown = ["dag_id", "dag_run_id", "state", "run_after", "logical_date", "start_date", "end_date"];
                Ok(table(rows(list, "dag_runs"), &shown, &output))
            }
            Dags::Delete { dag_id, yes } => {
                self.needs(Op)?;
                confirmed(yes)?;
                let _ = delete::dag(self.site(), Path(dag_id.clone()), self.user()).await?;
                Ok(format!("Removed the history of `{dag_id}`\n"))
            }
        }
    }

    async fn pause(&self, dag: String, paused: bool) -> ApiResult<String> {
        self.needs(UserRole::User)?;
        let body = body(json!({ "is_paused": paused }))?;
        let _ = dags::patch(self.site(), Path(dag.clone()), self.user(), body).await?;
        Ok(format!("Dag: {dag}, paused: {}\n", if paused { "True" } else { "False" }))
    }

    /// The run with an id, or the one that stands for a time.
    async fn run(&self, dag: &str, named: &str) -> ApiResult<Value> {
        if let Some(at) = parse_time(named) {
            let at = at.to_string();
            let query = Query::of(&[("logical_date_gte", &at), ("logical_date_lte", &at)]);
            let list = run_list::list(self.site(), Path(dag.to_owned()), query).await?.0;
            let found = rows(list, "dag_runs").into_iter().next();
            return found.ok_or_else(|| ApiError::not_found(format!("`{dag}` has no run for {at}")));
        }
        Ok(runs::get(self.site(), Path((dag.to_owned(), named.to_owned()))).await?.0)
    }

    async fn tasks(&self, command: Tasks) -> ApiResult<String> {
        match command {
            Tasks::List { dag_id } => {
                let list = tasks::list(self.site(), Path(dag_id), Query::default()).await?.0;
                Ok(rows(list, "tasks").iter().map(|task| format!("{}\n", text(&task["task_id"]))).collect())
            }
            Tasks::State { dag_id, task_id, run_id, map_index } => {
                let run = text(&self.run(&dag_id, &run_id).await?["dag_run_id"]);
                let path = Path((dag_id, run, task_id, map_index.to_string()));
                let instance = instances::get_mapped(self.site(), path).await?.0;
                Ok(format!("{}\n", text(&instance["state"])))
            }
            Tasks::StatesForDagRun { dag_id, run_id, output } => {
                let run = text(&self.run(&dag_id, &run_id).await?["dag_run_id"]);
                let list =
                    instance_list::list(self.site(), Path((dag_id, run)), Query::of(&[("limit", MOST)])).await?.0;
                let shown = ["dag_id", "logical_date", "task_id", "map_index", "state", "start_date", "end_date"];
                Ok(table(rows(list, "task_instances"), &shown, &output))
            }
            Tasks::Clear { dag_id, run_id, task_id, only_failed, downstream, yes } => {
                self.needs(UserRole::User)?;
                confirmed(yes)?;
                let run = text(&self.run(&dag_id, &run_id).await?["dag_run_id"]);
                let body = body(json!({
                    "dry_run": false,
                    "dag_run_id": run,
                    "task_ids": task_id.map(|task| vec![task]),
                    "only_failed": only_failed,
                    "include_downstream": downstream,
                }))?;
                let cleared = clear::clear(self.site(), Path(dag_id), self.user(), Query::default(), body).await?.0;
                Ok(format!("Cleared {} task instances\n", cleared["total_entries"]))
            }
        }
    }

    async fn variables(&self, command: Variables) -> ApiResult<String> {
        match command {
            Variables::List(output) => {
                let list = variables::list(self.site(), Query::of(&[("limit", MOST)])).await?.0;
                Ok(table(rows(list, "variables"), &["key"], &output))
            }
            Variables::Get { key, default } => match (variables::get(self.site(), Path(key)).await, default) {
                (Ok(Json(variable)), _) => Ok(format!("{}\n", text(&variable["value"]))),
                (Err(ApiError::Status(StatusCode::NOT_FOUND, _)), Some(default)) => Ok(format!("{default}\n")),
                (Err(error), _) => Err(error),
            },
            Variables::Set { key, value, description, json } => {
                self.needs(Op)?;
                if json {
                    serde_json::from_str::<Value>(&value)
                        .map_err(|error| ApiError::bad_request(format!("the value is not JSON: {error}")))?;
                }
                let entity = json!({ "key": key, "value": value, "description": description });
                self.put(entity, Kind::Variable).await?;
                Ok(format!("Variable {key} created\n"))
            }
            Variables::Delete { key } => {
                self.needs(Op)?;
                variables::delete(self.site(), Path(key), self.user()).await?;
                Ok(String::new())
            }
        }
    }

    async fn connections(&self, command: Connections) -> ApiResult<String> {
        let shown = ["connection_id", "conn_type", "description", "host", "schema", "login", "port"];
        match command {
            Connections::List(output) => {
                let list = connections::list(self.site(), Query::of(&[("limit", MOST)])).await?.0;
                Ok(table(rows(list, "connections"), &shown, &output))
            }
            Connections::Get { conn_id, output } => {
                let connection = connections::get(self.site(), Path(conn_id)).await?.0;
                Ok(table(vec![connection], &shown, &output))
            }
            Connections::Add {
                conn_id,
                conn_type,
                conn_description,
                conn_host,
                conn_login,
                conn_password,
                conn_schema,
                conn_port,
                conn_extra,
            } => {
                self.needs(Op)?;
                let body = body(json!({
                    "connection_id": conn_id,
                    "conn_type": conn_type,
                    "description": conn_description,
                    "host": conn_host,
                    "login": conn_login,
                    "password": conn_password,
                    "schema": conn_schema,
                    "port": conn_port,
                    "extra": conn_extra,
                }))?;
                let _ = connections::create(self.site(), self.user(), body).await?;
                Ok(format!("Successfully added `conn_id`={conn_id}\n"))
            }
            Connections::Delete { conn_id } => {
                self.needs(Op)?;
                connections::delete(self.site(), Path(conn_id.clone()), self.user()).await?;
                Ok(format!("Successfully deleted connection with `conn_id`={conn_id}\n"))
            }
        }
    }

    async fn pools(&self, command: Pools) -> ApiResult<String> {
        let shown = ["name", "slots", "description", "include_deferred"];
        match command {
            Pools::List(output) => {
                let list = pools::list(self.site(), Query::of(&[("limit", MOST)])).await?.0;
                Ok(table(rows(list, "pools"), &shown, &output))
            }
            Pools::Get { pool, output } => {
                Ok(table(vec![pools::get(self.site(), Path(pool)).await?.0], &shown, &output))
            }
            Pools::Set { pool, slots, description } => {
                self.needs(Op)?;
                self.put(json!({ "name": pool, "slots": slots, "description": description }), Kind::Pool).await?;
                Ok(format!("Pool {pool} created\n"))
            }
            Pools::Delete { pool } => {
                self.needs(Op)?;
                pools::delete(self.site(), Path(pool.clone()), self.user()).await?;
                Ok(format!("Pool {pool} deleted\n"))
            }
        }
    }

    /// Makes one thing or replaces it.
    async fn put(&self, entity: Value, kind: Kind) -> ApiResult<()> {
        let action = json!({ "action": "create", "action_on_existence": "overwrite", "entities": [entity] });
        let body = body(json!({ "actions": [action] }))?;
        let answer = match kind {
            Kind::Variable => variables::bulk(self.site(), self.user(), body).await?.0,
            Kind::Pool => pools::bulk(self.site(), self.user(), body).await?.0,
        };
        match answer["create"]["errors"].as_array().and_then(|errors| errors.first()) {
            Some(error) => Err(ApiError::bad_request(text(&error["error"]))),
            None => Ok(()),
        }
    }
}

enum Kind {
    Variable,
    Pool,
}

/// A body of our own making.
fn body(value: Value) -> ApiResult<Body> {
    Body::inside(Vec::new(), value)
}

/// Airflow asks on the terminal; here there is nobody to ask.
fn confirmed(yes: bool) -> ApiResult<()> {
    if yes { Ok(()) } else { Err(ApiError::bad_request("say `--yes`: there is nobody to confirm it")) }
}

fn rows(mut list: Value, key: &str) -> Vec<Value> {
    match list[key].take() {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    }
}

/// A value as a person reads it; a text stands without quotes.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Some columns of some rows.
fn table(rows: Vec<Value>, columns: &[&str], output: &Output) -> String {
    let documents = || -> Vec<Value> {
        let pick = |row: &Value| {
            columns.iter().map(|key| ((*key).to_owned(), row[*key].clone())).collect::<Map<String, Value>>()
        };
        rows.iter().map(|row| Value::Object(pick(row))).collect()
    };
    let head = columns.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let cells = |row: &Value| columns.iter().map(|key| text(&row[*key]).replace('\n', " ")).collect::<Vec<_>>();
    match output.output {
        Format::Json => format!("{}\n", Value::Array(documents())),
        // JSON is YAML.
        Format::Yaml => documents().iter().map(|row| format!("- {row}\n")).collect(),
        Format::Plain => aligned([head].into_iter().chain(rows.iter().map(cells)).collect(), " ", false),
        Format::Table if rows.is_empty() => "No data found\n".to_owned(),
        Format::Table => aligned([head].into_iter().chain(rows.iter().map(cells)).collect(), " | ", true),
    }
}

/// Every property of one thing, one a line.
fn properties(document: Value, output: &Output) -> String {
    let Value::Object(map) = &document else { return String::new() };
    match output.output {
        Format::Json | Format::Yaml => format!("{document}\n"),
        Format::Plain | Format::Table => {
            let head = vec!["property_name".to_owned(), "property_value".to_owned()];
            let lines = map.iter().map(|(key, value)| vec![key.clone(), text(value).replace('\n', " ")]);
            aligned([head].into_iter().chain(lines).collect(), " | ", output.output == Format::Table)
        }
    }
}

/// Lines whose columns are below each other; after the first a rule, if wanted.
fn aligned(lines: Vec<Vec<String>>, between: &str, rule: bool) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join(between).trim_end());
        out.push('\n');
        if at == 0 && rule {
            let rules: Vec<String> = widths.iter().map(|width| "=".repeat(*width)).collect();
            out.push_str(&rules.join("=+="));
            out.push('\n');
        }
    }
    out
}
