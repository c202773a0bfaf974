//! Tokens with which machines enrol as workers. The text of one is shown once, in the answer to the form that made it.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect};
use jiff::{SignedDuration, Timestamp};
use pitcrew_control::clock;
use pitcrew_store::{Enrolment, WorkerToken};
use serde_json::json;

use crate::Site;
use crate::auth::User;
use crate::own::workers;
use crate::web::fmt;
use crate::web::form::{Field, Form, FormPage, Kind, Typed};
use crate::web::page::{PageError, PageResult, Shell, html};

const LIST: &str = "/worker-tokens";
/// Hours that a token is good for; 0: for ever.
const LIVES: [(&str, &str); 5] =
    [("1", "an hour"), ("24", "a day"), ("168", "a week"), ("720", "30 days"), ("0", "for ever")];

struct Row {
    token: WorkerToken,
    /// Why it works no more.
    over: Option<&'static str>,
}

/// A token that was made now.
struct Fresh {
    secret: String,
    /// What is typed on the machine.
    command: String,
}

#[derive(Template)]
#[template(path = "admin/worker_tokens.html")]
struct TokensPage {
    shell: Shell,
    rows: Vec<Row>,
    fresh: Option<Fresh>,
}

async fn list(site: &Site, user: &User, fresh: Option<Fresh>, now: Timestamp) -> PageResult {
    let row = |token: WorkerToken| {
        let over = token.refusal(now).map(|why| if why == Enrolment::Expired { "expired" } else { "used up" });
        Row { token, over }
    };
    let rows = site.app.store.worker_tokens().await?.into_iter().rev().map(row).collect();
    let shell = Shell::new(site, user, "Tokens for workers").section("workers");
    Ok(html(TokensPage { shell, rows, fresh }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    list(&site, &user, None, clock::now()).await
}

fn blank_form() -> Form {
    let lives = LIVES.map(|(hours, words)| (hours.to_owned(), words.to_owned()));
    Form::new(vec![
        Field::text("queues", "Queues")
            .example("s21, default")
            .hint("names with commas between them that its workers may serve; empty: any"),
        Field::new("hours", "Good for", Kind::Choice(lives.into())).with("1"),
        Field::new("uses", "Workers", Kind::Number).hint("how many may enrol with it; without a number any").with("1"),
    ])
}

fn form_page(site: &Site, user: &User, form: Form) -> FormPage {
    let shell = Shell::new(site, user, "New token for workers").section("workers");
    let lead = "A machine that runs `pitcrew worker` with it becomes a worker, and gets a credential of its own.";
    let action = format!("{LIST}/new");
    FormPage { shell, above: (LIST, "Tokens for workers"), lead, action, form, submit: "Create", below: String::new() }
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(form_page(&site, &user, blank_form()).response())
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = blank_form();
    form.fill(&typed)?;
    let now = clock::now();
    let queues: Vec<String> =
        form.text("queues").split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let hours = form.parse("hours", str::parse::<i64>).filter(|hours| *hours > 0);
    let uses = form.parse("uses", |text| match text.parse::<u32>() {
        Ok(0) => Err("a token that nobody can use is none".to_owned()),
        other => other.map_err(|error| error.to_string()),
    });
    if !form.is_wrong() {
        let expires = hours.map(|hours| now + SignedDuration::from_hours(hours));
        match workers::fresh_token(queues, expires, uses, &user.name) {
            Ok((row, secret)) => {
                let served: String = row.queues.iter().map(|queue| format!(" --queue {queue}")).collect();
                let command =
                    format!("PITCREW_WORKER_TOKEN={secret} pitcrew worker --server {}{served}", site.base_url);
                let detail = json!({ "id": row.id, "queues": row.queues, "expires": row.expires, "uses": row.uses });
                let audit = workers::audit(&user.name, "worker.token", detail);
                site.app.store.put_worker_token(row, audit).await?;
                return list(&site, &user, Some(Fresh { secret, command }), now).await;
            }
            Err(why) => form.wrong("queues", why.to_string()),
        }
    }
    Ok(form_page(&site, &user, form).refused())
}

/// Takes a token away; who enrolled with it stays.
pub async fn delete(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    typed.only(&["id"])?;
    let id = typed.text("id");
    let audit = workers::audit(&user.name, "worker.token.delete", json!({ "id": id }));
    match site.app.store.delete_worker_token(id, audit).await? {
        true => Ok(Redirect::to(LIST).into_response()),
        false => Err(PageError::not_found("There is no such token.")),
    }
}
