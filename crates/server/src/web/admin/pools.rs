//! Pools: how many slots each has, how many are in use and who waits for one, as it is now.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use pitcrew_control::clock;
use pitcrew_store::{DEFAULT_POOL, Pool, StoreError};
use serde_json::json;

use super::listed::Listed;
use super::noted;
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiResult;
use crate::input::Query;
use crate::live::{Watch, follow_part};
use crate::rest::pools::UNLIMITED;
use crate::web::fmt;
use crate::web::form::{Field, Form, Kind, Typed};
use crate::web::page::{PageError, PageResult, Shell, html, render};

const LIST: &str = "/pools";
const PAGES: Listed = Listed {
    section: "pools",
    list: LIST,
    name: "Pools",
    new: "New pool",
    lead: "A task that names the pool takes slots of it while it runs.",
};

impl Row {
    fn is_limited(&self) -> bool {
        self.pool.slots != UNLIMITED
    }
}

struct Row {
    pool: Pool,
    used: u32,
    waiting: usize,
    /// Of a bar 100 wide.
    share: f64,
    is_default: bool,
}

#[derive(Template)]
#[template(path = "admin/pools.html")]
struct PoolsPage {
    shell: Shell,
    list: String,
}

#[derive(Template)]
#[template(path = "admin/pools_list.html")]
struct List {
    rows: Vec<Row>,
    is_op: bool,
}

async fn list(site: &Site, is_op: bool) -> ApiResult<String> {
    let in_use = site.app.scheduler.queue(0).await.pools;
    let row = |pool: Pool| {
        let (used, waiting) = in_use.get(&pool.name).copied().unwrap_or_default();
        let share = match pool.slots {
            UNLIMITED => 0.0,
            slots => 100.0 * f64::from(used.min(slots)) / f64::from(slots.max(1)),
        };
        Row { used, waiting, share, is_default: pool.name == DEFAULT_POOL, pool }
    };
    Ok(render(List { rows: site.app.store.pools().await?.into_iter().map(row).collect(), is_op }))
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let shell = Shell::new(&site, &user, "Pools").section("pools").live("/live/pools".to_owned());
    Ok(html(PoolsPage { shell, list: list(&site, user.role >= Role::Op).await? }))
}

pub async fn live(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult<Response> {
    let is_op = user.role >= Role::Op;
    let (key, watch) = (format!("pools {is_op}"), Watch::everything(&site.app));
    let render = move |site: Site| async move { list(&site, is_op).await };
    Ok(follow_part(&site, key, watch, "pools", render).into_response())
}

fn fields() -> Vec<Field> {
    vec![
        Field::text("name", "Name").required().example("license"),
        Field::new("slots", "Slots", Kind::Number)
            .hint("tasks of the pool that may run at a time, over all runs; 0 holds all of them, and without a number there is no limit"),
        Field::text("description", "Description"),
    ]
}

pub async fn blank(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(PAGES.blank(&site, &user, Form::new(fields())))
}

pub async fn create(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let mut form = Form::new(fields());
    form.fill(&typed)?;
    if !form.is_wrong() && site.app.store.pool(form.text("name")).await?.is_some() {
        form.wrong("name", "there is a pool of this name already");
    }
    save(&site, &user, form, true).await
}

async fn named(site: &Site, name: &str) -> PageResult<Pool> {
    let found = site.app.store.pool(name).await?;
    found.ok_or_else(|| PageError::not_found(format!("There is no pool `{name}`.")))
}

fn form_of(pool: &Pool) -> Form {
    let slots =
        Some(pool.slots).filter(|slots| *slots != UNLIMITED).map_or_else(String::new, |slots| slots.to_string());
    Form::filled(fields(), [pool.name.clone(), slots, pool.description.clone()])
}

pub async fn form(State(site): State<Site>, Extension(user): Extension<User>, query: Query) -> PageResult {
    let pool = named(&site, query.text("name").unwrap_or_default()).await?;
    Ok(PAGES.edit(&site, &user, &pool.name, form_of(&pool)))
}

pub async fn edit(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult {
    let pool = named(&site, typed.text("name")).await?;
    let mut form = form_of(&pool);
    form.fill(&typed)?;
    save(&site, &user, form, false).await
}

async fn save(site: &Site, user: &User, mut form: Form, is_new: bool) -> PageResult {
    let slots = form.parse("slots", |text| text.parse::<u32>()).unwrap_or(UNLIMITED);
    if !form.is_wrong() {
        let pool = Pool { name: form.text("name").to_owned(), slots, description: form.text("description").to_owned() };
        let audit = noted(user, "pool.set", json!({ "name": pool.name, "slots": slots }), clock::now());
        match site.app.store.put_pool(pool, audit).await {
            Ok(()) => {
                site.app.scheduler.look();
                return Ok(Redirect::to(LIST).into_response());
            }
            Err(StoreError::Invalid(why)) => form.wrong("name", why),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(PAGES.refused(site, user, form, is_new))
}

pub async fn delete(State(site): State<Site>, Extension(user): Extension<User>, typed: Typed) -> PageResult<Redirect> {
    typed.only(&["name"])?;
    let name = typed.text("name");
    let audit = noted(&user, "pool.delete", json!({ "name": name }), clock::now());
    if !site.app.store.delete_pool(name, audit).await? {
        return Err(PageError::not_found(format!("There is no pool `{name}`.")));
    }
    site.app.scheduler.look();
    Ok(Redirect::to(LIST))
}
