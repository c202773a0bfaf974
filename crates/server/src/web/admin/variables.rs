//! Variables: the list, a form for one, and Airflow's JSON document of many.
//!
//! The value of a sensitive name is never sent to a browser, but in an export that an admin asks for.

use askama::Template;
use axum::extract::{Extension, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::clock;
use pitcrew_control::sensitive::{HIDDEN, is_sensitive};
use pitcrew_store::{Paging, StoreError, Variable, VariableSet};
use serde_json::{Map, Value, json};

use super::noted;
use crate::Site;
use crate::auth::User;
use crate::error::ApiResult;
use crate::input::Query;
use crate::web::fmt;
use crate::web::form::{Field, Form, FormPage, Kind, Typed, existing, imported_json};
use crate::web::page::{PageError, PageResult, Shell, html};
use crate::web::paging::{Pager, rows_of};

const PAGE: u32 = 100;
const LIST: &str = "/variables";
const ABOVE: (&str, &str) = (LIST, "Variables");
/// Characters of a value in the list.
const SHORT: usize = 120;

struct Row {
    key: String,
    /// Its beginning; `None`: a secret.
    value: Option<String>,
    description: String,
    /// By the environment of the server, where alone it can be changed.
    given: bool,
}

#[derive(Template)]
#[template(path = "admin/variables.html")]
struct VariablesPage {
    shell: Shell,
    search: String,
    rows: Vec<Row>,
    pager: Pager,
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let search = query.text("q").unwrap_or_default().to_owned();
    let at = query.number("page")?.unwrap_or(1);
    let (rows, total) = if search.is_empty() {
        let page = site.app.store.variables(rows_of(at, PAGE)).await?;
        (page.rows, page.total)
    } else {
        let mut found = site.app.store.variables(Paging::ALL).await?.rows;
        let wanted = search.to_lowercase();
        let names =
            |v: &Variable| v.key.to_lowercase().contains(&wanted) || v.description.to_lowercase().contains(&wanted);
        found.retain(names);
        let total = found.len() as u64;
        let rows = found.into_iter().skip(rows_of(at, PAGE).offset as usize).take(PAGE as usize).collect();
        (rows, total)
    };
    let row = |variable: Variable| Row {
        given: site.app.store.given().variable(&variable.key).is_some(),
        value: (!is_sensitive(&variable.key)).then(|| short(&variable.value)),
        key: variable.key,
        description: variable.description,
    };
    let pager = Pager::new(LIST, &[("q", &search)], at, PAGE, total);
    let shell = Shell::new(&site, &user, "Variables").section("variables");
    Ok(html(VariablesPage { shell, search, rows: rows.into_iter().map(row).collect(), pager }))
}

fn short(text: &str) -> String {
    let mut line: String = text.chars().take(SHORT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("key", "Key").required().example("data_bucket"),
        Field::new("value", "Value", Kind::Lines(4)).hint("a text; workflows read it as `{{ var.KEY }}`"),
        Field::text("description", "Description"),
    ]
}

fn form_page(site: &Site, user: &User, title: &str, action: &str, form: Form, submit: &'static str) -> FormPage {
    let shell = Shell::new(site, user, title).section("variables");
    FormPage { shell, above: ABOVE, lead: "", action: action.to_owned(), form, submit, below: String::new() }
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(form_page(&site, &user, "New variable", "/variables/new", Form::new(fields()), "Create").response())
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = Form::new(fields());
    form.fill(&typed)?;
    if !form.is_wrong() && site.app.store.variable(form.text("key")).await?.is_some() {
        form.wrong("key", "there is a variable of this name already");
    }
    save(&site, &user, form, None).await
}

/// The form of one that is there; the value of a secret stays where it is.
fn form_of(variable: &Variable) -> Form {
    let [key, value, description] = [&variable.key, &variable.value, &variable.description].map(Clone::clone);
    let value_field = if is_sensitive(&key) {
        Field::new("value", "Value", Kind::Secret).hint("hidden; leave it empty to keep what is there")
    } else {
        Field::new("value", "Value", Kind::Lines(4)).with(value)
    };
    Form::new(vec![
        Field::text("key", "Key").fixed().with(key),
        value_field,
        Field::text("description", "Description").with(description),
    ])
}

async fn named(site: &Site, key: &str) -> PageResult<Variable> {
    let found = site.app.store.variable(key).await?;
    found.ok_or_else(|| PageError::not_found(format!("There is no variable `{key}`.")))
}

pub async fn form(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let variable = named(&site, query.text("key").unwrap_or_default()).await?;
    Ok(form_page(&site, &user, &variable.key, "/variables/edit", form_of(&variable), "Save").response())
}

pub async fn edit(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let variable = named(&site, typed.text("key")).await?;
    let mut form = form_of(&variable);
    form.fill(&typed)?;
    save(&site, &user, form, Some(variable)).await
}

async fn save(site: &Site, user: &User, mut form: Form, old: Option<Variable>) -> PageResult {
    if !form.is_wrong() {
        let key = form.text("key").to_owned();
        let value = match &old {
            Some(old) if is_sensitive(&key) && form.text("value").is_empty() => old.value.clone(),
            _ => form.text("value").to_owned(),
        };
        let set = VariableSet { key, value, description: Some(form.text("description").to_owned()) };
        match put(site, user, set).await {
            Ok(()) => return Ok(Redirect::to(LIST).into_response()),
            Err(StoreError::Invalid(why)) => form.wrong("key", why),
            Err(error) => return Err(error.into()),
        }
    }
    let page = match old {
        Some(old) => form_page(site, user, &old.key, "/variables/edit", form, "Save"),
        None => form_page(site, user, "New variable", "/variables/new", form, "Create"),
    };
    Ok(page.refused())
}

async fn put(site: &Site, user: &User, set: VariableSet) -> Result<(), StoreError> {
    let audit = noted(user, "variable.set", json!({ "key": set.key }), clock::now());
    site.app.store.set_variable(set, audit).await?;
    site.app.scheduler.look();
    Ok(())
}

pub async fn delete(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult<Redirect> {
    typed.only(&["key"])?;
    let key = typed.text("key");
    let audit = noted(&user, "variable.delete", json!({ "key": key }), clock::now());
    if !site.app.store.delete_variable(key, audit).await? {
        return Err(PageError::not_found(format!("There is no variable `{key}`.")));
    }
    site.app.scheduler.look();
    Ok(Redirect::to(LIST))
}

fn import_fields() -> Vec<Field> {
    let example =
        "{\"data_bucket\": \"s3://measurements\", \"threshold\": {\"value\": 3, \"description\": \"in sigma\"}}";
    let hint = "keys with their values, as `airflow variables export` and the export here write them";
    vec![
        Field::new("json", "JSON", Kind::Lines(12)).json().required().example(example).hint(hint),
        existing("variable"),
    ]
}

fn import_page(site: &Site, user: &User, form: Form) -> FormPage {
    form_page(site, user, "Import variables", "/variables/import", form, "Import")
}

pub async fn import_form(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(import_page(&site, &user, Form::new(import_fields())).response())
}

pub async fn import(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = Form::new(import_fields());
    form.fill(&typed)?;
    let sets = form.parse("json", read_document).filter(|_| !form.is_wrong());
    let Some(mut sets) = sets else { return Ok(import_page(&site, &user, form).refused()) };
    if form.text("existing") != "overwrite" {
        let mut there = Vec::new();
        for set in &sets {
            there.extend(site.app.store.variable(&set.key).await?.map(|variable| variable.key));
        }
        if form.text("existing") == "fail" && !there.is_empty() {
            form.wrong("json", format!("there already: {}", there.join(", ")));
            return Ok(import_page(&site, &user, form).refused());
        }
        sets.retain(|set| !there.contains(&set.key));
    }
    for set in sets {
        put(&site, &user, set).await?;
    }
    Ok(Redirect::to(LIST).into_response())
}

/// `{"key": "text"}` or `{"key": {"value": …, "description": …}}`; a value that is no text is kept as JSON.
fn read_document(document: &str) -> Result<Vec<VariableSet>, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entry = |(key, value): (String, Value)| match value.get("value") {
        Some(inner) => {
            let description = value.get("description").filter(|d| !d.is_null()).map(text);
            VariableSet { key, value: text(inner), description }
        }
        None => VariableSet { key, value: text(&value), description: None },
    };
    Ok(imported_json(document)?.into_iter().map(entry).collect())
}

pub async fn export(State(site): State<Site>) -> PageResult {
    document(&site, false).await.map_err(Into::into)
}

/// The whole, secrets too; noted in the audit log.
pub async fn export_all(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    typed.only(&[])?;
    site.app.store.record_audit(noted(&user, "variable.export", json!({ "secrets": true }), clock::now())).await?;
    document(&site, true).await.map_err(Into::into)
}

async fn document(site: &Site, with_secrets: bool) -> ApiResult {
    let all = site.app.store.variables(Paging::ALL).await?.rows;
    let entry = |v: Variable| {
        let value = match v.description.is_empty() {
            true => Value::String(v.value),
            false => json!({ "value": v.value, "description": v.description }),
        };
        (v.key, value)
    };
    // What the environment gives is not this server's to hand on.
    let own = all.into_iter().filter(|variable| site.app.store.given().variable(&variable.key).is_none());
    let kept = own.filter(|variable| with_secrets || !is_sensitive(&variable.key));
    Ok(download("variables.json", &Value::Object(kept.map(entry).collect::<Map<_, _>>())))
}

/// A JSON document as a file for the browser to save.
pub(super) fn download(name: &str, document: &Value) -> Response {
    let text = serde_json::to_string_pretty(document).unwrap_or_default() + "\n";
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(CONTENT_TYPE, "application/json".to_owned()), (CONTENT_DISPOSITION, disposition)], text).into_response()
}
