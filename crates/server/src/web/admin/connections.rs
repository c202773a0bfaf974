//! Connections: how workflows reach other systems, in Airflow's fields.
//!
//! A password and the extras go in and never come out again, but in an export that an admin asks for.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect};
use pitcrew_control::clock;
use pitcrew_control::connection::Connection;
use pitcrew_store::{Connection as Stored, Paging, StoreError};
use serde_json::{Map, Value, json};

use super::noted;
use super::variables::download;
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::web::fmt;
use crate::web::form::{Field, Form, FormPage, Kind, Typed, existing, imported_json};
use crate::web::page::{PageError, PageResult, Shell, html};
use crate::web::paging::{Pager, rows_of};

const PAGE: u32 = 100;
const LIST: &str = "/connections";
/// Types that are suggested; any other is as good.
const TYPES: [&str; 12] = [
    "aws",
    "docker",
    "fs",
    "generic",
    "git",
    "google_cloud_platform",
    "http",
    "mysql",
    "postgres",
    "sftp",
    "slack",
    "ssh",
];

#[derive(Template)]
#[template(path = "admin/connections.html")]
struct ConnectionsPage {
    shell: Shell,
    search: String,
    /// With whether the environment of the server gives it, where alone it can be changed.
    rows: Vec<(Stored, bool)>,
    pager: Pager,
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let search = query.text("q").unwrap_or_default().to_owned();
    let at = query.number("page")?.unwrap_or(1);
    let wanted = Some(search.as_str()).filter(|text| !text.is_empty());
    let page = site.app.store.connections(wanted, rows_of(at, PAGE)).await?;
    let pager = Pager::new(LIST, &[("q", &search)], at, PAGE, page.total);
    let shell = Shell::new(&site, &user, "Connections").section("connections");
    let given = |row: Stored| {
        let given = site.app.store.given().connection(&row.id).is_some();
        (row, given)
    };
    Ok(html(ConnectionsPage { shell, search, rows: page.rows.into_iter().map(given).collect(), pager }))
}

/// The fields, with what is stored; secrets stay where they are.
fn form_of(stored: Option<&Stored>) -> Form {
    let text = |of: fn(&Stored) -> &str| stored.map_or("", of).to_owned();
    let secret = |is_there: bool, what: &str| match is_there {
        true => "hidden; leave it empty to keep what is there".to_owned(),
        false => what.to_owned(),
    };
    let has = |of: fn(&Stored) -> bool| stored.is_some_and(of);
    let (has_password, has_extra) = (has(|c| c.password.is_some()), has(|c| c.extra.is_some()));
    let id = Field::text("id", "Id").required().example("plate_reader").with(text(|c| &c.id));
    let types = TYPES.map(str::to_owned).to_vec();
    let mut fields = vec![
        if stored.is_some() { id.fixed() } else { id },
        Field::text("conn_type", "Type").required().example("ssh").suggest(types).with(text(|c| &c.conn_type)),
        Field::text("description", "Description").with(text(|c| &c.description)),
        Field::text("host", "Host").with(text(|c| &c.host)),
        Field::text("schema", "Schema").hint("of a database, its name").with(text(|c| &c.schema)),
        Field::text("login", "Login").with(text(|c| &c.login)),
        Field::new("password", "Password", Kind::Secret)
            .hint(secret(has_password, "stored encrypted, never shown again")),
        Field::new("port", "Port", Kind::Number)
            .with(stored.and_then(|c| c.port).map_or_else(String::new, |port| port.to_string())),
        Field::new("extra", "Extra", Kind::SecretLines(4))
            .json()
            .example("{\"key_file\": \"/etc/keys/reader\"}")
            .hint(secret(has_extra, "a JSON object; stored encrypted, never shown again")),
    ];
    if has_password {
        fields.push(Field::new("no_password", "Remove the password", Kind::Check));
    }
    if has_extra {
        fields.push(Field::new("no_extra", "Remove the extras", Kind::Check));
    }
    Form::new(fields)
}

fn form_page(site: &Site, user: &User, title: &str, action: &str, form: Form, submit: &'static str) -> FormPage {
    let shell = Shell::new(site, user, title).section("connections");
    let above = (LIST, "Connections");
    FormPage { shell, above, lead: "", action: action.to_owned(), form, submit, below: String::new() }
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(form_page(&site, &user, "New connection", "/connections/new", form_of(None), "Create").response())
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = form_of(None);
    form.fill(&typed)?;
    if !form.is_wrong() && site.app.store.connection(form.text("id")).await?.is_some() {
        form.wrong("id", "there is a connection of this id already");
    }
    save(&site, &user, form, None).await
}

async fn named(site: &Site, id: &str) -> PageResult<Stored> {
    let found = site.app.store.connection(id).await?;
    found.ok_or_else(|| PageError::not_found(format!("There is no connection `{id}`.")))
}

pub async fn form(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let stored = named(&site, query.text("id").unwrap_or_default()).await?;
    Ok(form_page(&site, &user, &stored.id, "/connections/edit", form_of(Some(&stored)), "Save").response())
}

pub async fn edit(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let stored = named(&site, typed.text("id")).await?;
    let mut form = form_of(Some(&stored));
    form.fill(&typed)?;
    save(&site, &user, form, Some(stored)).await
}

async fn save(site: &Site, user: &User, mut form: Form, old: Option<Stored>) -> PageResult {
    let port = form.parse("port", |text| text.parse::<u16>().map_err(|_| "must be a number from 0 to 65535"));
    let text = |form: &Form, name: &str| form.text(name).to_owned();
    let secret = |form: &Form, name: &str| Some(text(form, name)).filter(|text| !text.trim().is_empty());
    let mut given = Connection {
        id: text(&form, "id"),
        conn_type: text(&form, "conn_type"),
        description: text(&form, "description"),
        host: text(&form, "host"),
        schema: text(&form, "schema"),
        login: text(&form, "login"),
        port,
        password: secret(&form, "password"),
        extra: None,
    };
    if let Err(error) = given.set_extra(secret(&form, "extra")) {
        form.wrong("extra", error.to_string());
    }
    if !form.is_wrong() {
        let mut row = given.seal(&site.app.vault).map_err(ApiError::from)?;
        // What was left empty is kept as it is sealed, also when the key is not at hand.
        if let Some(old) = &old {
            row.password = row.password.or(old.password.clone().filter(|_| !form.is_checked("no_password")));
            row.extra = row.extra.or(old.extra.clone().filter(|_| !form.is_checked("no_extra")));
        }
        match put(site, user, row).await {
            Ok(()) => return Ok(Redirect::to(LIST).into_response()),
            Err(StoreError::Invalid(why)) => form.wrong("id", why),
            Err(error) => return Err(error.into()),
        }
    }
    let page = match old {
        Some(old) => form_page(site, user, &old.id, "/connections/edit", form, "Save"),
        None => form_page(site, user, "New connection", "/connections/new", form, "Create"),
    };
    Ok(page.refused())
}

async fn put(site: &Site, user: &User, row: Stored) -> Result<(), StoreError> {
    let audit = noted(user, "connection.set", json!({ "id": row.id, "type": row.conn_type }), clock::now());
    site.app.store.put_connection(row, audit).await?;
    site.app.scheduler.look();
    Ok(())
}

pub async fn delete(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult<Redirect> {
    typed.only(&["id"])?;
    let id = typed.text("id");
    let audit = noted(&user, "connection.delete", json!({ "id": id }), clock::now());
    if !site.app.store.delete_connection(id, audit).await? {
        return Err(PageError::not_found(format!("There is no connection `{id}`.")));
    }
    site.app.scheduler.look();
    Ok(Redirect::to(LIST))
}

fn import_form_of() -> Form {
    let example = "{\"plate_reader\": {\"conn_type\": \"ssh\", \"host\": \"reader-1\", \"login\": \"lab\"}, \"db\": \"postgres://u:p@h/d\"}";
    let hint = "ids with their fields or URIs, as `airflow connections export` and the export here write them";
    // What is pasted holds secrets, so it is not sent back when something is wrong.
    let json = Field::new("json", "JSON", Kind::SecretLines(12)).json().required().example(example).hint(hint);
    Form::new(vec![json, existing("connection")])
}

fn import_page(site: &Site, user: &User, form: Form) -> FormPage {
    form_page(site, user, "Import connections", "/connections/import", form, "Import")
}

pub async fn import_form(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(import_page(&site, &user, import_form_of()).response())
}

pub async fn import(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = import_form_of();
    form.fill(&typed)?;
    let read = |text: &str| -> Result<Vec<Connection>, String> {
        let entries = imported_json(text)?;
        let one = |(id, value): (String, Value)| {
            Connection::from_json(&id, &value).map_err(|error| format!("`{id}`: {error}"))
        };
        entries.into_iter().map(one).collect()
    };
    let given = form.parse("json", read).filter(|_| !form.is_wrong());
    let Some(given) = given else { return Ok(import_page(&site, &user, form).refused()) };
    let mut rows = Vec::new();
    for connection in given {
        rows.push(connection.seal(&site.app.vault).map_err(ApiError::from)?);
    }
    if form.text("existing") != "overwrite" {
        let mut there = Vec::new();
        for row in &rows {
            there.extend(site.app.store.connection(&row.id).await?.map(|connection| connection.id));
        }
        if form.text("existing") == "fail" && !there.is_empty() {
            form.wrong("json", format!("there already: {}", there.join(", ")));
            return Ok(import_page(&site, &user, form).refused());
        }
        rows.retain(|row| !there.contains(&row.id));
    }
    for row in rows {
        put(&site, &user, row).await?;
    }
    Ok(Redirect::to(LIST).into_response())
}

pub async fn export(State(site): State<Site>) -> PageResult {
    document(&site, false).await.map_err(Into::into)
}

/// The whole, secrets too; noted in the audit log.
pub async fn export_all(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    typed.only(&[])?;
    let audit = noted(&user, "connection.export", json!({ "secrets": true }), clock::now());
    site.app.store.record_audit(audit).await?;
    document(&site, true).await.map_err(Into::into)
}

async fn document(site: &Site, with_secrets: bool) -> ApiResult {
    let mut document = Map::new();
    let given = site.app.store.given();
    // What the environment gives is not this server's to hand on.
    let all = site.app.store.connections(None, Paging::ALL).await?.rows;
    for mut row in all.into_iter().filter(|row| given.connection(&row.id).is_none()) {
        if !with_secrets {
            (row.password, row.extra) = (None, None);
        }
        let connection = Connection::open(row, &site.app.vault)?;
        document.insert(connection.id.clone(), connection.to_json());
    }
    Ok(download("connections.json", &Value::Object(document)))
}
