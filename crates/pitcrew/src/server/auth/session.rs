//! Logging in to the pages and out again.

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::SignedDuration;
use serde::Deserialize;

use super::{ADMIN, Use, User};
use crate::clock;
use crate::server::Site;
use crate::server::input::Query;
use crate::server::web::page::{Shell, html};

/// How long a browser stays logged in.
const SESSION: SignedDuration = SignedDuration::from_hours(24 * 7);

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    next: String,
    error: Option<&'static str>,
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
pub async fn login_form(State(site): State<Site>, query: Query) -> Response {
    let next = local(query.text("next").unwrap_or("/"));
    if site.auth.is_off() {
        return Redirect::to(&next).into_response();
    }
    if let Some(code) = query.text("code") {
        if let Some(user) = site.auth.redeem(code, clock::now()) {
            return enter(&site, &user, &next);
        }
        return form(&site, next, Some("This link was used before or has expired. Log in with the password."));
    }
    form(&site, next, None)
}

/// Checks the password and sets the cookie.
pub async fn login(State(site): State<Site>, Form(login): Form<Login>) -> Response {
    let next = local(&login.next);
    let name = if login.username.is_empty() { ADMIN } else { login.username.trim() };
    if let Some(user) = site.auth.check(name, &login.password) {
        return enter(&site, &user, &next);
    }
    let mut answer = form(&site, next, Some("Name or password are not right."));
    *answer.status_mut() = StatusCode::UNAUTHORIZED;
    answer
}

pub async fn logout(State(site): State<Site>) -> Response {
    with_cookie(&site, "", 0, Redirect::to("/login"))
}

fn form(site: &Site, next: String, error: Option<&'static str>) -> Response {
    html(LoginPage { shell: Shell::bare(site, "Log in"), next, error })
}

fn enter(site: &Site, user: &User, next: &str) -> Response {
    let token = site.auth.issue(user, Use::Session, SESSION, clock::now());
    with_cookie(site, &token, SESSION.as_secs(), Redirect::to(next))
}

fn with_cookie(site: &Site, value: &str, seconds: i64, answer: Redirect) -> Response {
    let name = site.auth.cookie_name();
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    let mut response = answer.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// A path of ours; anything that a browser could take for another site becomes the first page.
fn local(path: &str) -> String {
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
