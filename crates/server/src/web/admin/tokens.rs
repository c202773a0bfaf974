//! Tokens for programs: one's own, and for admins everybody's. The text of a token is shown once, in the answer to the
//! form that made it.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect};
use jiff::{SignedDuration, Timestamp};
use pitcrew_control::clock;
use pitcrew_core::WorkflowId;
use pitcrew_store::{Role, TokenRow};

use super::users::role_words;
use crate::Site;
use crate::auth::User;
use crate::auth::manage::{self, NewToken, Refused, TOKEN_DAYS};
use crate::error::ApiError;
use crate::web::fmt;
use crate::web::form::{Field, Form, FormPage, Kind, Typed};
use crate::web::page::{PageResult, Shell, html};

const LIST: &str = "/tokens";

struct Row {
    token: TokenRow,
    is_over: bool,
}

#[derive(Template)]
#[template(path = "admin/tokens.html")]
struct TokensPage {
    shell: Shell,
    rows: Vec<Row>,
    /// Tokens of others are among them.
    is_all: bool,
    /// A token that was made now.
    fresh: Option<(TokenRow, String)>,
}

async fn list(site: &Site, user: &User, fresh: Option<(TokenRow, String)>, now: Timestamp) -> PageResult {
    let rows = manage::tokens(&site.app.store, user).await.map_err(ApiError::from)?;
    let row = |token: TokenRow| Row { is_over: token.expires.is_some_and(|end| end <= now), token };
    let shell = Shell::new(site, user, "Tokens").section("tokens");
    let is_all = user.role >= Role::Admin;
    Ok(html(TokensPage { shell, rows: rows.into_iter().map(row).collect(), is_all, fresh }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    list(&site, &user, None, clock::now()).await
}

fn blank_form(user: &User) -> Form {
    let mut roles: Vec<(String, String)> = role_words();
    roles.retain(|(name, _)| Role::from_name(name).is_some_and(|role| role <= user.role));
    let lives = [("7", "a week"), ("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("0", "for ever")];
    let lives = lives.map(|(days, word)| (days.to_owned(), word.to_owned()));
    let mut fields = vec![
        Field::text("name", "What it is for").required().example("nightly import"),
        Field::new("role", "Role", Kind::Choice(roles))
            .hint("the most that it may do; never more than its user may")
            .with(user.role.name()),
        Field::text("workflows", "Workflows")
            .example("train, evaluate")
            .hint("names with commas between them: then it opens nothing else; empty: everything"),
        Field::new("days", "Good for", Kind::Choice(lives.into())).with(TOKEN_DAYS.to_string()),
    ];
    if user.role >= Role::Admin {
        let whose = Field::text("user", "User").required().hint("whose token it is").with(user.account.clone());
        fields.insert(0, whose);
    }
    Form::new(fields)
}

fn form_page(site: &Site, user: &User, form: Form) -> FormPage {
    let shell = Shell::new(site, user, "New token").section("tokens");
    let lead = "A program sends it as `Authorization: Bearer …`.";
    let (above, action) = ((LIST, "Tokens"), "/tokens/new".to_owned());
    FormPage { shell, above, lead, action, form, submit: "Create", below: String::new() }
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(form_page(&site, &user, blank_form(&user)).response())
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = blank_form(&user);
    form.fill(&typed)?;
    let now = clock::now();
    let names = form.text("workflows").split(',').map(str::trim).filter(|name| !name.is_empty());
    let workflows: Result<Vec<WorkflowId>, _> = names.map(WorkflowId::new).collect();
    let days = form.parse("days", str::parse::<i64>).filter(|days| *days > 0);
    let workflows = workflows.unwrap_or_else(|error| {
        form.wrong("workflows", error.to_string());
        Vec::new()
    });
    if !form.is_wrong() {
        let whose = form.text("user");
        let new = NewToken {
            user: if whose.is_empty() { user.account.clone() } else { whose.to_owned() },
            name: form.text("name").to_owned(),
            role: Role::from_name(form.text("role")),
            workflows,
            life: days.map(|days| SignedDuration::from_hours(24 * days)),
        };
        match manage::create_token(&site.app.store, &user, new, now).await {
            Ok(made) => {
                site.auth.changed();
                return list(&site, &user, Some(made), now).await;
            }
            Err(Refused::NotFound(why)) if why.contains("workflow") => form.wrong("workflows", why),
            Err(Refused::NotFound(why)) => form.wrong("user", why),
            Err(Refused::Invalid(why) | Refused::Conflict(why) | Refused::Forbidden(why)) => form.error = Some(why),
            Err(other) => return Err(ApiError::from(other).into()),
        }
    }
    Ok(form_page(&site, &user, form).refused())
}

pub async fn revoke(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    typed.only(&["id"])?;
    match manage::revoke_token(&site.app.store, &user, typed.text("id"), clock::now()).await {
        Ok(_) => {
            site.auth.changed();
            Ok(Redirect::to(LIST).into_response())
        }
        Err(Refused::Forbidden(why)) => Err(ApiError::conflict(why).into()),
        Err(other) => Err(ApiError::from(other).into()),
    }
}
