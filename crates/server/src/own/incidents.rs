//! Incidents: what went wrong with nodes and what was done about it; and what people say to that.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use jiff::SignedDuration;
use pitcrew_control::clock;
use pitcrew_control::links;
use pitcrew_control::recovery::view::{IncidentView, Jobs, deeds, state};
use pitcrew_control::recovery::wish::{self, Deed, Wish};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::recovery::{Incident, IncidentId, NodeState};
use pitcrew_store::{AuditEntry, IncidentFilter, Paging};
use serde_json::{Value, json};

use crate::Site;
use crate::auth::Role::{Op, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query};
use crate::openapi::doc;
use crate::routes::Access::Role;
use crate::routes::Routes;

/// Incidents that are open at a time and looked at.
const MOST: u32 = 1000;

pub fn routes() -> Routes {
    const INCIDENT: &str = "/api/pitcrew/v1/incidents/{incident}";
    let at = |deed: Deed| format!("{INCIDENT}/{}", deed.name());
    Routes::api()
        .get("/api/pitcrew/v1/incidents", Role(Viewer), list)
        .doc(
            doc("Incident", "Lists incidents, the newest first")
                .query("open: bool, node: text")
                .paged()
                .answer(200, "Incidents"),
        )
        .get(INCIDENT, Role(Viewer), show)
        .doc(doc("Incident", "Shows an incident with its timeline").answer(200, "Incident"))
        .post(at(Deed::Approve), Role(Op), approve)
        .doc(
            doc("Incident", "Lets the repair go ahead that an incident waits with")
                .body("IncidentApproval")
                .answer(202, "Incident"),
        )
        .post(at(Deed::Dismiss), Role(Op), dismiss)
        .doc(doc("Incident", "Says that the node is well").body("IncidentDismissal").answer(202, "Incident"))
        .post(at(Deed::Retry), Role(Op), retry)
        .doc(doc("Incident", "Checks a node again that is out of service").answer(202, "Incident"))
}

/// A page of them, and how many there are.
pub async fn page(site: &Site, filter: &IncidentFilter, paging: Paging) -> ApiResult<(Vec<IncidentView>, u64)> {
    let page = site.app.store.incidents(filter, paging).await?;
    Ok((views(site, &page.rows).await?, page.total))
}

async fn views(site: &Site, incidents: &[Incident]) -> ApiResult<Vec<IncidentView>> {
    let mut jobs = Jobs::new(&site.app.store);
    let state = |job: &str| site.app.recovery.look(|recovery| Some(recovery.job(job)?.state.to_string()));
    let mut views = Vec::new();
    for incident in incidents {
        let hit = jobs.of(incident, state).await?;
        let may = site.app.recovery.look(|recovery| deeds(recovery, incident.id));
        views.push(IncidentView::new(incident, may, hit, site.app.recovery.signs().tables()));
    }
    Ok(views)
}

/// The incident that a node stands in: it is not over, or has taken the node out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtNode {
    pub id: IncidentId,
    /// Of the node, in the words of recovery.
    pub state: String,
    /// It waits for a person.
    pub waits: bool,
}

impl AtNode {
    pub fn page(&self) -> String {
        links::incident(self.id)
    }
}

/// By the names of nodes. Only the server that leads knows of those that are out of service.
pub async fn at_nodes(site: &Site) -> ApiResult<BTreeMap<String, AtNode>> {
    if !site.app.recovery.is_on() {
        return Ok(BTreeMap::new());
    }
    let at = |id, state: String, waits| AtNode { id, state, waits };
    if site.app.scheduler.holds_lead() {
        return Ok(site.app.recovery.look(|recovery| {
            let nodes = recovery.nodes().filter(|node| node.state != NodeState::Healthy);
            let stands = nodes.filter_map(|node| {
                let waits = matches!(node.state, NodeState::AwaitingApproval | NodeState::OutOfService);
                Some((node.name.clone(), at(node.incident?, node.state.to_string(), waits)))
            });
            stands.collect()
        }));
    }
    let open = IncidentFilter { open: Some(true), node: None };
    let open = site.app.store.incidents(&open, Paging::first(MOST)).await?.rows;
    Ok(open.into_iter().map(|one| (one.node.clone(), at(one.id, state(&one), false))).collect())
}

/// Those that hit jobs of a run. One may be older than it: where recovery only watches, a node that is suspected stays in use.
pub async fn of_run(site: &Site, run: &RunRecord) -> ApiResult<Vec<Incident>> {
    let since = run.queued_at.checked_sub(SignedDuration::from_hours(24)).unwrap_or(run.queued_at);
    Ok(site.app.store.incidents_of_run(run.key, since).await?)
}

/// `inc-7`, or `7`.
pub async fn find(site: &Site, name: &str) -> ApiResult<Incident> {
    let missing = || ApiError::not_found(format!("there is no incident `{name}`"));
    let number = name.strip_prefix("inc-").unwrap_or(name).parse().ok().filter(|n| i64::try_from(*n).is_ok());
    site.app.store.incident(IncidentId(number.ok_or_else(missing)?)).await?.ok_or_else(missing)
}

pub async fn one(site: &Site, name: &str) -> ApiResult<IncidentView> {
    let incident = find(site, name).await?;
    views(site, std::slice::from_ref(&incident)).await?.pop().ok_or_else(|| ApiError::not_found("it is gone"))
}

/// What somebody wishes.
pub struct Wished {
    pub deed: Deed,
    pub why: String,
    pub repair: Option<String>,
}

/// Writes down what somebody wishes. It is done soon, and by the server that leads.
///
/// `repair`: of an approval, the one that they saw; without it, whichever is planned now.
pub async fn wish(site: &Site, user: &User, name: &str, wished: Wished) -> ApiResult<()> {
    let Wished { deed, why, repair } = wished;
    let found = find(site, name).await?;
    let id = found.id;
    if !site.app.recovery.look(|recovery| deeds(recovery, id)).contains(&deed) {
        let message = format!("{} cannot be done to {id}, which is {}", deed.name(), state(&found));
        return Err(ApiError::conflict(message));
    }
    let plan = found.plan.filter(|_| deed == Deed::Approve);
    if let (Some(now), Some(seen)) = (plan, repair)
        && seen != now.name()
    {
        let message = format!("{id} needs `{now}` by now, and not `{seen}`: look at it again");
        return Err(ApiError::conflict(message));
    }
    let audit = AuditEntry::new(clock::now(), user.name.clone(), format!("incident.{}", deed.name()));
    let wish = Wish { deed, by: user.name.clone(), why, repair: plan };
    wish::put(&site.app.store, id, &wish, audit).await?;
    site.app.recovery.hurry();
    Ok(())
}

fn filter(query: &Query) -> ApiResult<IncidentFilter> {
    Ok(IncidentFilter { open: query.boolean("open")?, node: query.text("node").map(str::to_owned) })
}

/// For the command line of another machine.
pub async fn records(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let page = site.app.store.incidents(&filter(&query)?, query.paging()?).await?;
    Ok(Json(json!({ "total_entries": page.total, "incidents": page.rows })))
}

pub async fn record(State(site): State<Site>, Path(name): Path<String>) -> ApiResult<Json<Incident>> {
    find(&site, &name).await.map(Json)
}

async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let filter = filter(&query)?;
    let (incidents, total) = page(&site, &filter, query.paging()?).await?;
    Ok(Json(json!({ "total_entries": total, "incidents": incidents })))
}

async fn show(State(site): State<Site>, Path(name): Path<String>) -> ApiResult<Json<IncidentView>> {
    one(&site, &name).await.map(Json)
}

type Answer = ApiResult<(StatusCode, Json<IncidentView>)>;

async fn done(site: &Site, user: &User, name: &str, wished: Wished) -> Answer {
    wish(site, user, name, wished).await?;
    Ok((StatusCode::ACCEPTED, Json(one(site, name).await?)))
}

async fn approve(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> Answer {
    let repair = body.text("repair");
    body.finish()?;
    done(&site, &user, &name, Wished { deed: Deed::Approve, why: String::new(), repair }).await
}

async fn dismiss(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> Answer {
    let why = body.text("reason").unwrap_or_default();
    body.finish()?;
    done(&site, &user, &name, Wished { deed: Deed::Dismiss, why, repair: None }).await
}

async fn retry(State(site): State<Site>, Path(name): Path<String>, Extension(user): Extension<User>) -> Answer {
    done(&site, &user, &name, Wished { deed: Deed::Retry, why: String::new(), repair: None }).await
}
