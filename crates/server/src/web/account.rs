//! One's own account: the password, and the logins that there are.

use askama::Template;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pitcrew_control::clock;
use pitcrew_store::UserRow;

use super::fmt;
use super::form::{Field, Form, Kind, Typed};
use super::page::{PageError, PageResult, Shell, html};
use crate::Site;
use crate::auth::manage::Refused;
use crate::auth::{self, Peer, User};

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    row: UserRow,
    form: Form,
}

fn blank() -> Form {
    Form::new(vec![
        Field::new("old", "Password now", Kind::Secret).required(),
        Field::new("new", "New password", Kind::Secret).required().hint("at least 10 characters"),
        Field::new("again", "New password once more", Kind::Secret).required(),
    ])
}

/// The row of whoever asks; without authentication nobody has one.
async fn own(site: &Site, user: &User) -> PageResult<UserRow> {
    let row = site.app.store.user(&user.account).await?;
    row.ok_or_else(|| PageError::not_found("Nobody has to log in here, so there are no accounts."))
}

fn shown(site: &Site, user: &User, row: UserRow, form: Form) -> Response {
    html(AccountPage { shell: Shell::new(site, user, "Account"), row, form })
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let row = own(&site, &user).await?;
    Ok(shown(&site, &user, row, blank()))
}

/// Changes the password, which ends every login but the one of this browser.
pub async fn password(
    State(site): State<Site>,
    Extension(user): Extension<User>,
    Peer(from): Peer,
    typed: Typed,
) -> PageResult {
    let row = own(&site, &user).await?;
    let mut form = blank();
    form.fill(&typed)?;
    if form.text("new") != form.text("again") {
        form.wrong("again", "is not the same");
    }
    if !form.is_wrong() {
        match site.auth.change_password(&user, form.text("old"), form.text("new"), from, clock::now()).await {
            Ok(row) => return Ok(auth::enter(&site, &User::of(&row), "/account").into_response()),
            Err(Refused::Invalid(why)) => form.wrong("new", why),
            Err(Refused::Forbidden(why) | Refused::Conflict(why)) => form.wrong("old", why),
            Err(other) => return Err(other.into()),
        }
    }
    let mut answer = shown(&site, &user, row, form);
    *answer.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    Ok(answer)
}
