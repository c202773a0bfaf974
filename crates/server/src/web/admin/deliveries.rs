//! Deliveries of webhooks: what came, what each trigger made of it, and sending it once more.

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use pitcrew_control::clock;
use pitcrew_control::hooks::view::{self, Line, sentence};
use pitcrew_core::RunKey;
use pitcrew_store::{DeliveryFilter, DeliveryState};
use serde_json::Value;

use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiError;
use crate::input::Query;
use crate::own::deliveries::find;
use crate::web::fmt;
use crate::web::form::Typed;
use crate::web::page::{PageError, PageResult, Shell, html};
use crate::web::paging::{Pager, rows_of};

const PAGE: u32 = 50;
const LIST: &str = "/deliveries";
/// Of a body, how much a page shows.
const SHOWN: usize = 64 << 10;

#[derive(Template)]
#[template(path = "admin/deliveries.html")]
struct DeliveriesPage {
    shell: Shell,
    states: Vec<(&'static str, String, bool)>,
    rows: Vec<Line>,
    pager: Pager,
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let word = query.text("state");
    let state = word.map(|word| DeliveryState::from_name(word).ok_or(word)).transpose();
    let state =
        state.map_err(|word| ApiError::invalid(&["query", "state"], "enum", format!("`{word}` is no state")))?;
    let at = query.number("page")?.unwrap_or(1);
    let filter = DeliveryFilter { state, ..DeliveryFilter::default() };
    let page = site.app.store.deliveries(&filter, rows_of(at, PAGE)).await?;
    let mut states = vec![("all", LIST.to_owned(), state.is_none())];
    states.extend(DeliveryState::ALL.map(|s| (s.name(), format!("{LIST}?state={}", s.name()), state == Some(s))));
    Ok(html(DeliveriesPage {
        shell: Shell::new(&site, &user, "Webhooks").section("deliveries"),
        states,
        pager: Pager::new(LIST, &[("state", state.map_or("", DeliveryState::name))], at, PAGE, page.total),
        rows: page.rows.iter().map(Line::from).collect(),
    }))
}

/// What one trigger came to.
struct Outcome {
    result: String,
    sentence: String,
    /// Names of runs with their pages.
    runs: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "admin/delivery.html")]
struct DeliveryPage {
    shell: Shell,
    line: Line,
    outcomes: Vec<Outcome>,
    /// Only those who may send it once more see what was posted.
    headers: Vec<(String, String)>,
    body: Option<String>,
    can_repeat: bool,
}

pub async fn one(State(site): State<Site>, Extension(user): Extension<User>, Path(id): Path<String>) -> PageResult {
    let row = find(&site, &id).await?;
    let is_op = user.role >= Role::Op;
    let (mut headers, mut body) = (Vec::new(), None);
    let posted = if is_op { view::posted(&site.app.vault, &row).map_err(ApiError::from)? } else { None };
    if let Some(posted) = posted {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        headers.extend(
            posted["headers"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))),
        );
        let shown = serde_json::to_string_pretty(&posted["body"]).unwrap_or_default();
        body = Some(shown.chars().take(SHOWN).collect());
    }
    let line = Line::from(&row);
    let outcome = |line: &Value| Outcome {
        result: line["result"].as_str().unwrap_or_default().to_owned(),
        sentence: sentence(line),
        runs: line["made"].as_array().into_iter().flatten().filter_map(run).collect(),
    };
    Ok(html(DeliveryPage {
        shell: Shell::new(&site, &user, format!("Delivery {id}")).section("deliveries"),
        outcomes: line.outcome.as_array().into_iter().flatten().map(outcome).collect(),
        can_repeat: is_op && row.sealed.is_some(),
        headers,
        body,
        line,
    }))
}

/// The name and the page of a run that was made.
fn run(made: &Value) -> Option<(String, String)> {
    let key = RunKey(made["run"].as_i64()?);
    Some((made["name"].as_str()?.to_owned(), format!("/runs/{key}")))
}

/// Sends what was posted once more.
pub async fn again(
    State(site): State<Site>,
    Extension(user): Extension<User>,
    Path(id): Path<String>,
    typed: Typed,
) -> PageResult {
    typed.only(&[])?;
    let row = find(&site, &id).await?;
    let made = view::redeliver(&site.app.store, row.id, &user.name, clock::now()).await?;
    let lost = || PageError::new(StatusCode::CONFLICT, format!("What was posted by delivery {id} was not kept."));
    let made = made.ok_or_else(lost)?;
    site.app.hooks.wake();
    Ok(Redirect::to(&format!("{LIST}/{made}")).into_response())
}
