//! Users: who may sign in, with which role, and what ends their access.
//!
//! Every check is in [`manage`]; here is only what is typed, and what is told at which field.

use askama::Template;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::clock;
use pitcrew_control::links::encode;
use pitcrew_store::{Role, UserRow};

use crate::Site;
use crate::auth::User;
use crate::auth::manage::{self, NewUser, Refused};
use crate::error::ApiError;
use crate::input::Query;
use crate::web::fmt;
use crate::web::form::{Field, Form, FormPage, Kind, Typed};
use crate::web::page::{PageError, PageResult, Shell, html};
use crate::web::paging::{Pager, rows_of};

const PAGE: u32 = 100;
const LIST: &str = "/users";

#[derive(Template)]
#[template(path = "admin/users.html")]
struct UsersPage {
    shell: Shell,
    rows: Vec<UserRow>,
    pager: Pager,
    /// Nobody has to sign in.
    is_open: bool,
}

#[derive(Template)]
#[template(path = "admin/user.html")]
struct UserPage {
    shell: Shell,
    row: UserRow,
    is_me: bool,
    roles: Vec<(String, String)>,
    /// Where something was wrong, and what.
    wrong: Option<(&'static str, String)>,
}

impl UserPage {
    fn wrong_at(&self, place: &str) -> Option<&str> {
        self.wrong.as_ref().filter(|(at, _)| *at == place).map(|(_, why)| why.as_str())
    }
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let at = query.number("page")?.unwrap_or(1);
    let page = site.app.store.users(rows_of(at, PAGE)).await?;
    let pager = Pager::new(LIST, &[], at, PAGE, page.total);
    let shell = Shell::new(&site, &user, "Users").section("users");
    Ok(html(UsersPage { shell, rows: page.rows, pager, is_open: site.auth.is_off() }))
}

/// What each role may do, in words for a choice.
pub(super) fn role_words() -> Vec<(String, String)> {
    let words = |role: Role| match role {
        Role::Viewer => "viewer: reads",
        Role::User => "user: also starts, stops, retries and pauses",
        Role::Op => "op: also changes variables, connections and pools",
        Role::Admin => "admin: also users, tokens of others and settings",
    };
    Role::ALL.map(|role| (role.name().to_owned(), words(role).to_owned())).into()
}

fn new_form() -> Form {
    Form::new(vec![
        Field::text("name", "Name").required().example("ada").hint("small letters and digits, or a mail address"),
        Field::new("role", "Role", Kind::Choice(role_words())).with("viewer"),
        Field::new("password", "Password", Kind::Secret)
            .hint("without one, the user comes in by single sign-on or by tokens only"),
        Field::text("full_name", "Full name"),
        Field::text("email", "Mail"),
    ])
}

fn new_page(site: &Site, user: &User, form: Form) -> FormPage {
    let shell = Shell::new(site, user, "New user").section("users");
    let (above, action) = ((LIST, "Users"), "/users/new".to_owned());
    FormPage { shell, above, lead: "", action, form, submit: "Create", below: String::new() }
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(new_page(&site, &user, new_form()).response())
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = new_form();
    form.fill(&typed)?;
    if !form.is_wrong() {
        let text = |name: &str| form.text(name).to_owned();
        let new = NewUser {
            name: text("name"),
            role: Role::from_name(form.text("role")),
            password: Some(text("password")).filter(|password| !password.is_empty()),
            full_name: text("full_name"),
            email: text("email"),
        };
        let has_password = new.password.is_some();
        match manage::create_user(&site.app.store, &user, new, clock::now()).await {
            Ok(_) => {
                site.auth.changed();
                return Ok(Redirect::to(LIST).into_response());
            }
            Err(Refused::Invalid(why)) if has_password && why.contains("password") => form.wrong("password", why),
            Err(Refused::Invalid(why) | Refused::Conflict(why)) => form.wrong("name", why),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(new_page(&site, &user, form).refused())
}

async fn named(site: &Site, name: &str) -> PageResult<UserRow> {
    let found = site.app.store.user(name).await?;
    found.ok_or_else(|| PageError::not_found(format!("There is no user `{name}`.")))
}

fn one(site: &Site, user: &User, row: UserRow, wrong: Option<(&'static str, String)>) -> Response {
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let shell = Shell::new(site, user, row.name.clone()).section("users");
    let is_me = row.name == user.account;
    let mut response = html(UserPage { shell, row, is_me, roles: role_words(), wrong });
    *response.status_mut() = status;
    response
}

pub async fn form(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let row = named(&site, query.text("name").unwrap_or_default()).await?;
    Ok(one(&site, &user, row, None))
}

/// One change of one user; `action` says which.
pub async fn edit(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    typed.only(&["name", "action", "role", "password"])?;
    let row = named(&site, typed.text("name")).await?;
    let (store, name, now) = (&site.app.store, row.name.as_str(), clock::now());
    let (place, done) = match typed.text("action") {
        "role" => match Role::from_name(typed.text("role")) {
            Some(role) => ("role", manage::set_role(store, &user, name, role, now).await.map(drop)),
            None => ("role", Err(Refused::Invalid("choose one of these".to_owned()))),
        },
        "password" => {
            ("password", manage::set_password(store, &user, name, typed.text("password"), now).await.map(drop))
        }
        "activate" => ("account", manage::set_active(store, &user, name, true, now).await.map(drop)),
        "deactivate" => ("account", manage::set_active(store, &user, name, false, now).await.map(drop)),
        "sign_out" => ("account", manage::end_sessions(store, &user, name, now).await.map(drop)),
        "delete" => ("account", manage::delete_user(store, &user, name, now).await),
        _ => return Err(PageError::new(StatusCode::UNPROCESSABLE_ENTITY, "`action` is not one of this form")),
    };
    match done {
        Ok(()) => {
            site.auth.changed();
            let to = if typed.text("action") == "delete" {
                LIST.to_owned()
            } else {
                format!("/users/edit?name={}", encode(name))
            };
            Ok(Redirect::to(&to).into_response())
        }
        Err(Refused::Invalid(why) | Refused::Conflict(why) | Refused::Forbidden(why)) => {
            Ok(one(&site, &user, row, Some((place, why))))
        }
        Err(other) => Err(ApiError::from(other).into()),
    }
}
