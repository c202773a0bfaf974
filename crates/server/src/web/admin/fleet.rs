//! The machines that tasks run on: all of them, and each with its GPUs, what runs there, and what somebody may do to it.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::fleet::{GpuView, NodeView, Sample, change};
use pitcrew_control::links;
use pitcrew_control::recovery::view::IncidentView;
use pitcrew_control::scheduler::Queue;
use pitcrew_store::{IncidentFilter, NodeChange, Paging};

use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::live::{Watch, follow_part};
use crate::own::incidents::{self, AtNode};
use crate::own::nodes;
use crate::web::fmt;
use crate::web::form::{Field, Form, FormPage, Typed};
use crate::web::page::{PageResult, Shell, html, render};

/// Incidents of a node that are shown with it.
const LATELY: u32 = 5;

#[derive(Template)]
#[template(path = "admin/fleet.html")]
struct FleetPage {
    shell: Shell,
    list: String,
}

#[derive(Template)]
#[template(path = "admin/fleet_list.html")]
struct List {
    queue: Queue,
    rows: Vec<NodeView>,
    incidents: BTreeMap<String, AtNode>,
}

#[derive(Template)]
#[template(path = "admin/node.html")]
struct NodePage {
    shell: Shell,
    node: String,
}

#[derive(Template)]
#[template(path = "admin/node_parts.html")]
struct Node {
    gpus: String,
    node: NodeView,
    incident: Option<AtNode>,
    /// The newest of them, and how many there are.
    incidents: Vec<IncidentView>,
    total: u64,
    is_op: bool,
}

impl Node {
    fn has_more(&self) -> bool {
        self.total > self.incidents.len() as u64
    }
}

/// The devices of a node, on its own page and on that of its worker.
#[derive(Template)]
#[template(path = "admin/gpus.html")]
struct Gpus<'n> {
    node: &'n NodeView,
    samples: Vec<Sample>,
}

impl Gpus<'_> {
    /// The use of a device over the last day as a path in a field of 288 × 24: five minutes to a unit, its top 100 %.
    fn curve(&self, gpu: &GpuView) -> String {
        let Some(last) = self.samples.last().map(|sample| sample.at) else { return String::new() };
        let mut path = String::new();
        let mut before: Option<f64> = None;
        for sample in &self.samples {
            let x = 288.0 - last.duration_since(sample.at).as_secs_f64() / 300.0;
            let Some(share) = sample.gpus.get(&gpu.id).and_then(|point| point.use_percent) else { continue };
            // Where nobody told for a while there is a gap, and no line.
            let word = if before.is_some_and(|before| x - before < 3.0) { 'L' } else { 'M' };
            path.push_str(&format!("{word}{x:.1} {:.1}", 23.0 - share * 0.22));
            before = Some(x);
        }
        path
    }
}

/// How a node is shown.
pub(super) trait NodeShown {
    fn sign(&self) -> &'static str;
    fn page(&self) -> String;
    fn use_text(&self) -> String;
    fn memory(&self) -> String;
    fn on(&self, gpu: &GpuView) -> Vec<&pitcrew_control::fleet::TaskOnNode>;
}

impl NodeShown for NodeView {
    /// A colour of the states of tasks.
    fn sign(&self) -> &'static str {
        match self.standing.as_str() {
            "ready" => "success",
            "cordoned" => "queued",
            _ => "failed",
        }
    }

    fn page(&self) -> String {
        format!("/fleet/{}", links::encode(&self.name))
    }

    fn use_text(&self) -> String {
        whole(self.mean_use(), "%")
    }

    fn memory(&self) -> String {
        if self.memory_mib == 0 { "–".to_owned() } else { fmt::bytes(&(self.memory_mib << 20)) }
    }

    /// What runs on a device.
    fn on(&self, gpu: &GpuView) -> Vec<&pitcrew_control::fleet::TaskOnNode> {
        let is_its =
            |id: &String| *id == gpu.id || gpu.instances.iter().any(|instance| instance.ends_with(id.as_str()));
        self.tasks.iter().filter(|task| task.gpus.iter().any(is_its)).collect()
    }
}

/// How a device is shown.
pub(super) trait GpuShown {
    fn share(&self) -> f64;
    fn memory(&self) -> String;
    fn use_text(&self) -> String;
    fn power(&self) -> String;
    fn temperature(&self) -> String;
}

impl GpuShown for GpuView {
    fn share(&self) -> f64 {
        self.use_percent.unwrap_or(0.0)
    }

    fn memory(&self) -> String {
        let all = if self.memory_mib == 0 { "–".to_owned() } else { fmt::bytes(&(self.memory_mib << 20)) };
        match self.used_mib {
            Some(used) => format!("{} of {all}", fmt::bytes(&(used << 20))),
            None => all,
        }
    }

    fn use_text(&self) -> String {
        whole(self.use_percent, "%")
    }

    fn power(&self) -> String {
        whole(self.power_watts, "W")
    }

    fn temperature(&self) -> String {
        whole(self.celsius, "°C")
    }
}

fn whole(number: Option<f64>, unit: &str) -> String {
    number.map_or("–".to_owned(), |number| format!("{number:.0} {unit}"))
}

/// What recovery does is seen soon.
fn watch(site: &Site) -> Watch {
    if site.app.recovery.is_on() { Watch::incidents(&site.app) } else { Watch::machines(&site.app) }
}

async fn list(site: &Site) -> ApiResult<String> {
    let incidents = incidents::at_nodes(site).await?;
    Ok(render(List { queue: site.app.scheduler.queue(0).await, rows: nodes::all(site).await?, incidents }))
}

/// What is shown of a node's devices.
pub fn gpus(site: &Site, node: &NodeView) -> String {
    render(Gpus { node, samples: site.app.fleet.samples(&node.name).unwrap_or_default() })
}

async fn node(site: &Site, name: &str, is_op: bool) -> ApiResult<String> {
    let node = nodes::one(site, name).await?;
    let filter = IncidentFilter { open: None, node: Some(name.to_owned()) };
    let (incidents, total) = incidents::page(site, &filter, Paging::first(LATELY)).await?;
    let incident = incidents::at_nodes(site).await?.remove(name);
    Ok(render(Node { gpus: gpus(site, &node), node, incident, incidents, total, is_op }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let shell = Shell::new(&site, &user, "Fleet").section("fleet").live("/live/fleet".to_owned());
    Ok(html(FleetPage { shell, list: list(&site).await? }))
}

pub async fn live(State(site): State<Site>) -> PageResult<Response> {
    let watch = watch(&site);
    let render = |site: Site| async move { list(&site).await };
    Ok(follow_part(&site, "fleet".to_owned(), watch, "nodes", render).into_response())
}

pub async fn one(State(site): State<Site>, Path(name): Path<String>, Extension(user): Extension<User>) -> PageResult {
    let node = node(&site, &name, user.role >= Role::Op).await?;
    let shell = Shell::new(&site, &user, &name).section("fleet");
    Ok(html(NodePage { shell: shell.live(format!("/live/fleet/{}", links::encode(&name))), node }))
}

pub async fn live_one(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
) -> PageResult<Response> {
    let is_op = user.role >= Role::Op;
    nodes::one(&site, &name).await?;
    let key = format!("node {is_op} {name}");
    let render = move |site: Site| {
        let name = name.clone();
        async move { node(&site, &name, is_op).await }
    };
    Ok(follow_part(&site, key, watch(&site), "node", render).into_response())
}

/// Lets a node take no new work, or take it again.
pub async fn cordon(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult<Redirect> {
    typed.only(&["cordoned"])?;
    let cordoned = typed.text("cordoned") == "true";
    let change = NodeChange { cordoned: Some(cordoned), ..NodeChange::default() };
    nodes::apply(&site, &user, &name, change).await?;
    Ok(Redirect::to(&format!("/fleet/{}", links::encode(&name))))
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("labels", "Labels").example("rack=a team-").hint("`key=value` sets one, `key-` takes it away; with spaces between them"),
        Field::text("taints", "Taints")
            .example("nvidia.com/gpu=:NoSchedule old:NoExecute-")
            .hint("`key=value:Effect` sets one, `key:Effect-` takes it away; the effects are NoSchedule, PreferNoSchedule and NoExecute"),
    ]
}

fn form_page(site: &Site, user: &User, name: &str, form: Form) -> FormPage {
    FormPage {
        shell: Shell::new(site, user, name).section("fleet"),
        above: ("/fleet", "Fleet"),
        lead: "What is set here stands above the configuration, and survives a restart.",
        action: format!("/fleet/{}/marks", links::encode(name)),
        form,
        submit: "Save",
        below: String::new(),
    }
}

pub async fn form(State(site): State<Site>, Path(name): Path<String>, Extension(user): Extension<User>) -> PageResult {
    nodes::one(&site, &name).await?;
    Ok(form_page(&site, &user, &name, Form::new(fields())).response())
}

/// Sets labels and taints.
pub async fn marks(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(user): Extension<User>,
    typed: Typed,
) -> PageResult {
    let node = nodes::one(&site, &name).await?;
    let mut form = Form::new(fields());
    form.fill(&typed)?;
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let labels = form.parse("labels", |text| change::labels(&words(text))).unwrap_or_default();
    let taints = form.parse("taints", |text| change::taints(&words(text), &node)).unwrap_or_default();
    if form.is_wrong() {
        return Ok(form_page(&site, &user, &name, form).refused());
    }
    let change = NodeChange { cordoned: None, labels: labels.labels, taints: taints.taints };
    if change != NodeChange::default() {
        nodes::apply(&site, &user, &name, change).await?;
    }
    Ok(Redirect::to(&node.page()).into_response())
}
