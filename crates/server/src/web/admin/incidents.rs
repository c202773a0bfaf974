//! Incidents of nodes: all of them, and each with its timeline and what a person may say to it.

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::links;
use pitcrew_control::recovery::view::{IncidentView, StepView};
use pitcrew_control::recovery::wish::Deed;
use pitcrew_core::recovery::NodeState;
use pitcrew_store::IncidentFilter;

use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::input::Query;
use crate::live::{Watch, follow_part};
use crate::own::incidents::{self, AtNode, Wished};
use crate::web::fmt;
use crate::web::form::Typed;
use crate::web::page::{PageResult, Shell, html, render};
use crate::web::paging::{Pager, rows_of};

const PAGE: u32 = 50;
const LIST: &str = "/incidents";

#[derive(Template)]
#[template(path = "admin/incidents.html")]
struct ListPage {
    shell: Shell,
    filters: Vec<(&'static str, String, bool)>,
    node: String,
    is_on: bool,
    rows: Vec<IncidentView>,
    pager: Pager,
}

#[derive(Template)]
#[template(path = "admin/incident.html")]
struct OnePage {
    shell: Shell,
    incident: String,
}

#[derive(Template)]
#[template(path = "admin/incident_parts.html")]
struct One {
    incident: IncidentView,
    is_op: bool,
}

impl One {
    fn may(&self, deed: &str) -> bool {
        self.is_op && self.incident.may.iter().any(|may| may.name() == deed)
    }
}

/// A colour of the states of tasks for where an incident stands.
pub(super) fn sign(incident: &IncidentView) -> &'static str {
    match (incident.outcome.as_deref(), incident.waits()) {
        (Some("out_of_service"), _) => "failed",
        (Some("passed" | "repaired" | "dismissed"), _) => "success",
        (Some(_), _) => "none",
        (None, true) => "up_for_retry",
        (None, false) => "recovering",
    }
}

/// The same for where the node of one stands that is not over.
pub(super) fn sign_at(at: &AtNode) -> &'static str {
    match (at.state == NodeState::OutOfService.name(), at.waits) {
        (true, _) => "failed",
        (false, true) => "up_for_retry",
        (false, false) => "recovering",
    }
}

pub(super) fn words(state: &str) -> String {
    state.replace('_', " ")
}

/// How long after the beginning: `+4.2 s`.
fn since(incident: &IncidentView, step: &StepView) -> String {
    format!("+{}", fmt::duration(step.at.duration_since(incident.opened)))
}

/// With a capital at its beginning, and names as code.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let text: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    fmt::ticks(&text)
}

/// How often something was noted again; empty: once.
fn repeated(step: &StepView) -> String {
    step.again.map(|again| format!("{} times, last at ", again.times + 1)).unwrap_or_default()
}

pub(super) fn took(incident: &IncidentView) -> String {
    fmt::elapsed(&Some(incident.opened), &incident.closed, false)
}

fn node_page(incident: &IncidentView) -> String {
    format!("/fleet/{}", links::encode(&incident.node))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let open = query.text("show") == Some("open");
    let node = query.text("node").unwrap_or_default().to_owned();
    let at = query.number("page")?.unwrap_or(1);
    let filter =
        IncidentFilter { open: open.then_some(true), node: Some(node.clone()).filter(|node| !node.is_empty()) };
    let (rows, total) = incidents::page(&site, &filter, rows_of(at, PAGE)).await?;
    let of = |show: &str| {
        let node = if node.is_empty() { String::new() } else { format!("&node={}", links::encode(&node)) };
        format!("{LIST}?show={show}{node}")
    };
    let show = if open { "open" } else { "" };
    Ok(html(ListPage {
        shell: Shell::new(&site, &user, "Incidents").section("incidents"),
        filters: vec![("all", of("all"), !open), ("open", of("open"), open)],
        pager: Pager::new(LIST, &[("show", show), ("node", &node)], at, PAGE, total),
        is_on: site.app.recovery.is_on(),
        node,
        rows,
    }))
}

async fn parts(site: &Site, name: &str, is_op: bool) -> ApiResult<String> {
    Ok(render(One { incident: incidents::one(site, name).await?, is_op }))
}

pub async fn one(State(site): State<Site>, Path(name): Path<String>, Extension(user): Extension<User>) -> PageResult {
    let incident = parts(&site, &name, user.role >= Role::Op).await?;
    let shell = Shell::new(&site, &user, &name).section("incidents");
    Ok(html(OnePage { shell: shell.live(format!("/live/incidents/{}", links::encode(&name))), incident }))
}

pub async fn live(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
) -> PageResult<Response> {
    let is_op = user.role >= Role::Op;
    incidents::find(&site, &name).await?;
    let key = format!("incident {is_op} {name}");
    let render = move |site: Site| {
        let name = name.clone();
        async move { parts(&site, &name, is_op).await }
    };
    Ok(follow_part(&site, key, Watch::incidents(&site.app), "incident", render).into_response())
}

async fn done(site: &Site, user: &User, name: &str, wished: Wished) -> PageResult<Redirect> {
    incidents::wish(site, user, name, wished).await?;
    Ok(Redirect::to(&format!("{LIST}/{}", links::encode(name))))
}

pub async fn approve(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult<Redirect> {
    // The repair that stood on the page.
    typed.only(&["repair"])?;
    let repair = Some(typed.text("repair").to_owned()).filter(|seen| !seen.is_empty());
    done(&site, &user, &name, Wished { deed: Deed::Approve, why: String::new(), repair }).await
}

pub async fn dismiss(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult<Redirect> {
    typed.only(&["reason"])?;
    let why = typed.text("reason").to_owned();
    done(&site, &user, &name, Wished { deed: Deed::Dismiss, why, repair: None }).await
}

pub async fn retry(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult<Redirect> {
    typed.only(&[])?;
    done(&site, &user, &name, Wished { deed: Deed::Retry, why: String::new(), repair: None }).await
}
