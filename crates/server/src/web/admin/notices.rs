//! Notifications: where they can go, and the outbox with what became of each.

use askama::Template;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use pitcrew_control::clock;
use pitcrew_control::notify::view;
use pitcrew_store::{NewNotice, Notice, NoticeFilter, NoticeState};
use serde_json::json;

use super::noted;
use crate::Site;
use crate::auth::User;
use crate::error::ApiError;
use crate::input::Query;
use crate::web::fmt;
use crate::web::form::Typed;
use crate::web::page::{PageError, PageResult, Shell, html};
use crate::web::paging::{Pager, rows_of};

const PAGE: u32 = 50;
const LIST: &str = "/notifications";

struct Row {
    notice: Notice,
    subject: String,
    /// The page that it is about; empty without one.
    href: String,
}

#[derive(Template)]
#[template(path = "admin/notices.html")]
struct NoticesPage {
    shell: Shell,
    /// Names, and what each is, without its secrets.
    channels: Vec<(String, String)>,
    rules: Vec<String>,
    states: Vec<(&'static str, String, bool)>,
    rows: Vec<Row>,
    pager: Pager,
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let word = query.text("state");
    let state = word.map(|word| NoticeState::from_name(word).ok_or(word)).transpose();
    let state =
        state.map_err(|word| ApiError::invalid(&["query", "state"], "enum", format!("`{word}` is no state")))?;
    let at = query.number("page")?.unwrap_or(1);
    let filter = NoticeFilter { state, ..NoticeFilter::default() };
    let page = site.app.store.notices(&filter, rows_of(at, PAGE)).await?;
    let row = |notice: Notice| Row { subject: view::subject(&notice), href: view::page(&notice), notice };
    let mut states = vec![("all", LIST.to_owned(), state.is_none())];
    states.extend(NoticeState::ALL.map(|s| (s.name(), format!("{LIST}?state={}", s.name()), state == Some(s))));
    let config = &site.app.notify;
    Ok(html(NoticesPage {
        shell: Shell::new(&site, &user, "Notifications").section("notifications"),
        channels: config.channels.values().map(|channel| (channel.name.clone(), channel.to_string())).collect(),
        rules: config.rules.iter().map(ToString::to_string).collect(),
        states,
        pager: Pager::new(LIST, &[("state", state.map_or("", NoticeState::name))], at, PAGE, page.total),
        rows: page.rows.into_iter().map(row).collect(),
    }))
}

/// Puts a notice that was given up into the outbox once more.
pub async fn again(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    typed.only(&["id"])?;
    let wrong = || PageError::new(StatusCode::UNPROCESSABLE_ENTITY, "`id` must be the number of a notice");
    let id: i64 = typed.text("id").parse().map_err(|_| wrong())?;
    let found = site.app.store.notice(id).await?;
    let notice = found.ok_or_else(|| PageError::not_found(format!("There is no notice {id}.")))?;
    if notice.state != NoticeState::Failed {
        let message = format!("notice {id} is {}; only one that was given up can be sent again", notice.state.name());
        return Err(ApiError::conflict(message).into());
    }
    let now = clock::now();
    // Once, however often the button is pressed.
    let dedupe = format!("{}#again-{id}", notice.notice.dedupe);
    let made = site.app.store.add_notices(vec![NewNotice { dedupe, created: now, ..notice.notice }]).await?;
    if made > 0 {
        site.app.store.record_audit(noted(&user, "notice.again", json!({ "notice": id }), now)).await?;
    }
    Ok(Redirect::to(LIST).into_response())
}
