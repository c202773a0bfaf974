//! Logging in to the pages and out again.

use askama::Template;
use axum::Form;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::SignedDuration;
use pitcrew_control::clock;
use serde::Deserialize;

use super::{ADMIN, Peer, SignInError, Use, User, manage, reader};
use crate::Site;
use crate::input::Query;
use crate::web::page::{PageResult, Shell, html};

/// How long a browser stays logged in.
const SESSION: SignedDuration = SignedDuration::from_hours(24 * 7);

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    next: String,
    /// What stands in the field for it.
    name: String,
    error: Option<String>,
    /// What the button to the provider says, if there is one.
    provider: Option<String>,
}

/// What the login form sends.
#[derive(Deserialize)]
pub struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

/// The login form; or, with the code of a link that was not used yet, straight in.
pub async fn login_form(
    State(site): State<Site>,
    from: Peer,
    headers: HeaderMap,
    query: Query,
) -> PageResult<Response> {
    let next = local(query.text("next").unwrap_or("/"));
    if site.auth.is_off() {
        return Ok(Redirect::to(&next).into_response());
    }
    let Some(code) = query.text("code") else { return Ok(form(&site, next, "", None)) };
    let now = clock::now();
    match site.auth.redeem(code, now).await? {
        Some(row) => {
            site.auth.signed_in(&row, "link", from.0, now).await?;
            Ok(enter(&site, &User::of(&row), &next))
        }
        // A link that is followed a second time, by whom it let in the first time.
        None if reader(&site, from, &headers).await.is_some() => Ok(Redirect::to(&next).into_response()),
        None => {
            let message = "This link was used before or has expired. Log in with the password.";
            Ok(form(&site, next, "", Some(message.to_owned())))
        }
    }
}

/// Checks the password and sets the cookie.
pub async fn login(State(site): State<Site>, Peer(from): Peer, Form(login): Form<Login>) -> Response {
    let next = local(&login.next);
    let name = if login.username.trim().is_empty() { ADMIN } else { login.username.trim() };
    let error = match site.auth.sign_in(name, &login.password, from, clock::now()).await {
        Ok(user) => return enter(&site, &user, &next),
        Err(error) => error,
    };
    let message = match &error {
        SignInError::Wrong => "Name or password are not right.".to_owned(),
        SignInError::Wait(_) | SignInError::Store(_) => format!("{}.", error.message()),
    };
    let mut answer = form(&site, next, name, Some(message));
    *answer.status_mut() = error.status();
    if let Some((header, seconds)) = error.retry_after()
        && let Ok(seconds) = HeaderValue::from_str(&seconds)
    {
        answer.headers_mut().insert(header, seconds);
    }
    answer
}

/// Forgets the login of this browser.
pub async fn logout(State(site): State<Site>) -> Response {
    with_cookie(&site, "", 0, Redirect::to("/login"))
}

/// Ends the login of all browsers and programs that the user has logged in.
pub async fn logout_everywhere(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult<Response> {
    if !user.account.is_empty() {
        manage::end_sessions(&site.app.store, &user, &user.account, clock::now()).await?;
        site.auth.changed();
    }
    Ok(with_cookie(&site, "", 0, Redirect::to("/login")))
}

fn form(site: &Site, next: String, name: &str, error: Option<String>) -> Response {
    let name = if name.is_empty() { ADMIN } else { name }.to_owned();
    let provider = site.provider.as_ref().map(|provider| provider.config().name.clone());
    html(LoginPage { shell: Shell::bare(site, "Log in"), next, name, error, provider })
}

/// The login form, with the reason why somebody whom the provider knows was not let in.
pub fn refused_form(site: &Site, why: &str) -> Response {
    let mut answer = form(site, "/".to_owned(), "", Some(why.to_owned()));
    *answer.status_mut() = StatusCode::FORBIDDEN;
    answer
}

/// Lets a browser in and leads it on.
pub fn enter(site: &Site, user: &User, next: &str) -> Response {
    let token = site.auth.issue(user, Use::Session, SESSION, clock::now());
    with_cookie(site, &token, SESSION.as_secs(), Redirect::to(next))
}

fn with_cookie(site: &Site, value: &str, seconds: i64, answer: Redirect) -> Response {
    let mut response = answer.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&site.auth.set_cookie("", value, "/", seconds)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// A path of ours; anything that a browser could take for another site becomes the first page.
pub fn local(path: &str) -> String {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if path.starts_with('/') && !path.starts_with("//") && plain { path.to_owned() } else { "/".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_nobody_is_sent_to_another_site() {
        assert_eq!(local("/workflows/a?x=1"), "/workflows/a?x=1");
        for elsewhere in ["https://evil.example", "//evil.example", "/\\evil.example", "", "/a\r\nX: y"] {
            assert_eq!(local(elsewhere), "/");
        }
    }
}
