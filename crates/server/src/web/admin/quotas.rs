//! Quotas: what each namespace has of its own, what it holds and borrows, as it is now.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::quotas::{self, KEYS, QuotaView, memory};
use pitcrew_core::admission::{Limits, Quota};
use pitcrew_core::fleet::Amount;

use super::listed::Listed;
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::input::Query;
use crate::live::{Watch, follow_part};
use crate::own::quotas::{all, put, remove};
use crate::web::fmt;
use crate::web::form::{Field, Form, Kind, Typed};
use crate::web::page::{PageError, PageResult, Shell, html, render};

const LIST: &str = "/quotas";
const PAGES: Listed = Listed {
    section: "quotas",
    list: LIST,
    name: "Quotas",
    new: "New quota",
    lead: "All tasks of the namespace's workflows together never hold more.",
};

/// A resource of a namespace.
struct Bar {
    name: &'static str,
    /// Of a bar 100 wide, what is its own and in use.
    own: f64,
    /// And what is borrowed.
    borrowed: f64,
    text: String,
}

struct Row {
    quota: QuotaView,
    bars: Vec<Bar>,
}

impl Row {
    fn of(quota: QuotaView) -> Row {
        let amount = |amount: Amount| (amount.to_f64(), amount.to_string());
        let mib = |mib: u64| (mib as f64, memory(mib));
        let (used, borrowed) = (quota.used.unwrap_or_default(), quota.borrowed.unwrap_or_default());
        let all = [
            ("GPUs", used.gpus.map(amount), borrowed.gpus.map(amount), quota.limits.gpus.map(amount)),
            ("cores", used.cpu.map(amount), borrowed.cpu.map(amount), quota.limits.cpu.map(amount)),
            ("memory", used.memory_mib.map(mib), borrowed.memory_mib.map(mib), quota.limits.memory_mib.map(mib)),
        ];
        let bar = |(name, used, borrowed, own): (&'static str, Option<_>, Option<_>, Option<(f64, String)>)| {
            let (used, told) = used.unwrap_or((0.0, "0".to_owned()));
            let (over, more) = borrowed.unwrap_or((0.0, String::new()));
            let (share, text) = match own {
                Some((own, text)) => (100.0 / own.max(used).max(f64::MIN_POSITIVE), format!("{told} of {text}")),
                None if used > 0.0 => (0.0, format!("{told}, without a limit")),
                None => return None,
            };
            let text = if over > 0.0 { format!("{text}, {more} borrowed") } else { text };
            Some(Bar { name, own: (used - over) * share, borrowed: over * share, text })
        };
        let bars = all.into_iter().filter_map(bar).collect();
        Row { quota, bars }
    }
}

#[derive(Template)]
#[template(path = "admin/quotas.html")]
struct QuotasPage {
    shell: Shell,
    list: String,
}

#[derive(Template)]
#[template(path = "admin/quotas_list.html")]
struct List {
    rows: Vec<Row>,
    is_op: bool,
}

async fn list(site: &Site, is_op: bool) -> ApiResult<String> {
    Ok(render(List { rows: all(site).await?.into_iter().map(Row::of).collect(), is_op }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let shell = Shell::new(&site, &user, "Quotas").section("quotas").live("/live/quotas".to_owned());
    Ok(html(QuotasPage { shell, list: list(&site, user.role >= Role::Op).await? }))
}

pub async fn live(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult<Response> {
    let is_op = user.role >= Role::Op;
    let (key, watch) = (format!("quotas {is_op}"), Watch::everything(&site.app));
    let render = move |site: Site| async move { list(&site, is_op).await };
    Ok(follow_part(&site, key, watch, "quotas", render).into_response())
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("namespace", "Namespace").required().example("ml").hint("as workflows name it with `namespace:`"),
        Field::text("gpus", "GPUs").example("8").hint("its own; parts count, and without a number there is no limit"),
        Field::text("cpu", "Cores").example("64"),
        Field::text("memory", "Memory").example("256Gi"),
        Field::text("cohort", "Cohort")
            .example("research")
            .hint("quotas of one cohort lend each other what they do not use"),
        Field::text("borrow_gpus", "GPUs to borrow").hint("at most; without a number as many as are lent"),
        Field::text("borrow_cpu", "Cores to borrow"),
        Field::text("borrow_memory", "Memory to borrow"),
        Field::new("weight", "Weight", Kind::Number)
            .hint("with twice the weight a namespace gets twice as much, where several want the same"),
    ]
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(PAGES.blank(&site, &user, Form::new(fields())))
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = Form::new(fields());
    form.fill(&typed)?;
    let there = site.app.store.quotas().await?.iter().any(|quota| quota.namespace == form.text("namespace"));
    if !form.is_wrong() && there {
        form.wrong("namespace", "the namespace has a quota already");
    }
    save(&site, &user, form, true).await
}

async fn named(site: &Site, namespace: &str) -> PageResult<Quota> {
    let found = site.app.store.quotas().await?.into_iter().find(|quota| quota.namespace == namespace);
    found.ok_or_else(|| PageError::not_found(format!("The namespace `{namespace}` has no quota.")))
}

fn form_of(quota: &Quota) -> Form {
    let amount = |amount: Option<Amount>| amount.map_or_else(String::new, |amount| amount.to_string());
    let memory = |mib: Option<u64>| mib.map_or_else(String::new, |mib| format!("{mib}Mi"));
    let texts = [
        quota.namespace.clone(),
        amount(quota.limits.gpus),
        amount(quota.limits.cpu),
        memory(quota.limits.memory_mib),
        quota.cohort.clone().unwrap_or_default(),
        amount(quota.borrow.gpus),
        amount(quota.borrow.cpu),
        memory(quota.borrow.memory_mib),
        quota.weight.to_string(),
    ];
    Form::filled(fields(), texts)
}

pub async fn form(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let quota = named(&site, query.text("namespace").unwrap_or_default()).await?;
    Ok(PAGES.edit(&site, &user, &quota.namespace, form_of(&quota)))
}

pub async fn edit(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let quota = named(&site, typed.text("namespace")).await?;
    let mut form = form_of(&quota);
    form.fill(&typed)?;
    save(&site, &user, form, false).await
}

async fn save(site: &Site, user: &User, mut form: Form, is_new: bool) -> PageResult {
    let mut quota = Quota::new(form.text("namespace"), Limits::default());
    for key in KEYS {
        let text = form.text(key).trim().to_owned();
        let text = Some(text.as_str()).filter(|text| !text.is_empty());
        if let Err(why) = quotas::change(&mut quota, key, text) {
            form.wrong(key, why);
        }
    }
    if !form.is_wrong()
        && let Err(why) = quotas::check(&quota)
    {
        form.wrong("namespace", why);
    }
    if !form.is_wrong() {
        put(site, user, quota).await?;
        return Ok(Redirect::to(LIST).into_response());
    }
    Ok(PAGES.refused(site, user, form, is_new))
}

pub async fn delete(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult<Redirect> {
    typed.only(&["namespace"])?;
    let namespace = typed.text("namespace");
    match remove(&site, &user, namespace).await? {
        true => Ok(Redirect::to(LIST)),
        false => Err(PageError::not_found(format!("The namespace `{namespace}` has no quota."))),
    }
}
