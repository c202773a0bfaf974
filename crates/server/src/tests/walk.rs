//! Every route of the table, asked by everybody: who may not pass learns nothing and changes nothing.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use jiff::SignedDuration;
use pitcrew_control::clock;
use pitcrew_control::connection::Connection;
use pitcrew_control::vault::Vault;
use pitcrew_core::WorkflowId;
use pitcrew_core::admission::{Limits, Quota};
use pitcrew_store::{
    AuditEntry, AuditFilter, DeliveryFilter, DeliveryState, NewDelivery, NewNotice, Paging, Pool, RunFilter, Settled,
    TokenRow, VariableSet, WorkerRow, WorkerToken, WorkflowFilter,
};
use serde_json::json;
use tower::ServiceExt as _;

use super::{PASSWORD, Rig};
use crate::auth::manage::{self, NewToken, NewUser};
use crate::auth::{Role, Use, User};
use crate::routes::{Access, RouteInfo, Surface};
use crate::{LINK, table};

const SOURCE: &str = "
workflow: demo
tasks:
  a: {backend: fake, run: x, env: {FAKE_SLEEP_MS: '3600000'}}
  b: {backend: fake, run: x, env: {FAKE_EXIT_CODE: '1'}}
---
workflow: other
tasks:
  a: {backend: fake, run: x}
";

struct Walk {
    rig: Rig,
    run: String,
}

impl Walk {
    async fn new() -> Walk {
        let rig = Rig::with(SOURCE).await;
        let run = rig.start("demo", json!({})).await;
        rig.until(run.key, "a", "running").await;
        rig.until(run.key, "b", "failed").await;
        let noted = |event: &str| AuditEntry::new(clock::now(), "test", event);
        let variable = VariableSet { key: "v".into(), value: "1".into(), description: None };
        rig.app.store.set_variable(variable, noted("variable.set")).await.unwrap();
        let pool = Pool { name: "p".into(), slots: 1, description: String::new() };
        rig.app.store.put_pool(pool, noted("pool.set")).await.unwrap();
        let quota = Quota::new("ml", Limits::default());
        rig.app.store.put_quota(quota, noted("quota.set")).await.unwrap();
        let connection = Connection { id: "c".into(), conn_type: "ssh".into(), ..Connection::default() };
        let connection = connection.seal(&rig.app.vault).unwrap();
        rig.app.store.put_connection(connection, noted("connection.set")).await.unwrap();
        let notice = NewNotice {
            dedupe: "n".into(),
            channel: "team".into(),
            event: "run.failed".into(),
            workflow: None,
            run: None,
            body: json!({}),
            created: clock::now(),
        };
        rig.app.store.add_notices(vec![notice]).await.unwrap();
        let given_up = Settled::Failed { error: "no answer".into() };
        rig.app.store.settle_notice(1, given_up).await.unwrap();
        let token = TokenRow {
            id: "t".into(),
            user: "admin".into(),
            name: "t".into(),
            hash: "0".repeat(64),
            role: Role::Viewer,
            workflows: Vec::new(),
            created: clock::now(),
            expires: None,
            last_used: None,
        };
        rig.app.store.put_token(token, noted("token.create")).await.unwrap();
        let notice = NewNotice {
            dedupe: "n".into(),
            channel: "c".into(),
            event: "failure".into(),
            workflow: None,
            run: None,
            body: json!({}),
            created: clock::now(),
        };
        rig.app.store.add_notices(vec![notice]).await.unwrap();
        let worker = WorkerRow {
            id: "w1".into(),
            name: "w".into(),
            credential: "0".repeat(64),
            about: json!({ "may_serve": [], "about": {
                "version": "1", "host": "h", "data_dir": "/d", "program": "/p", "queues": ["q"], "slots": 1,
            } }),
            drain: false,
            enrolled: clock::now(),
            revoked: None,
        };
        let token = WorkerToken {
            id: "t".into(),
            hash: "1".repeat(64),
            queues: Vec::new(),
            made_by: "admin".into(),
            created: clock::now(),
            expires: None,
            uses: None,
        };
        rig.app.store.put_worker_token(token.clone(), noted("worker.token")).await.unwrap();
        rig.app.store.enrol_worker(&token.hash, worker, noted("worker.enrol")).await.unwrap();
        rig.app.fleet.workers_changed().await.unwrap();
        let posted = json!({ "url": "/", "headers": [], "received": clock::now(), "text": "{}" });
        let delivery = NewDelivery {
            event: "e".into(),
            namespace: "ci".into(),
            listener: "forge".into(),
            received: clock::now(),
            source: String::new(),
            about: String::new(),
            bytes: 2,
            sealed: Some(rig.app.vault.seal(&posted.to_string()).unwrap()),
            state: DeliveryState::Waiting,
            outcome: json!([]),
            again_of: None,
            guard: None,
        };
        rig.app.store.add_delivery(delivery).await.unwrap();
        Walk { rig, run: run.key.to_string() }
    }

    /// The path of a route with names of things that are there.
    fn path(&self, info: &RouteInfo) -> String {
        let mut path = info.path.clone();
        while let Some((before, rest)) = path.split_once('{') {
            let (name, after) = rest.split_once('}').unwrap();
            let value = match name {
                "dag" | "dag_id" | "workflow" => "demo",
                "run" | "dag_run_id" => "r",
                "run_key" => &self.run,
                "task" | "task_id" => "a",
                "map_index" => "-1",
                "*variable_key" => "v",
                "connection_id" => "c",
                "pool_name" => "p",
                "node" => "local",
                "namespace" => "ml",
                "worker" => "w",
                "token_id" => "t",
                _ => "1",
            };
            path = format!("{before}{value}{after}");
        }
        path
    }

    /// The status, without waiting for the end of what may be a stream.
    async fn ask(&self, info: &RouteInfo, path: &str, token: Option<&str>) -> Response {
        self.ask_with(info, path, token, if info.surface == Surface::Api { "{}" } else { "" }).await
    }

    async fn ask_with(&self, info: &RouteInfo, path: &str, token: Option<&str>, body: &'static str) -> Response {
        let kind = match info.surface {
            Surface::Api => "application/json",
            Surface::Pages => "application/x-www-form-urlencoded",
        };
        let mut request = self.rig.request(info.method.clone(), path).header(header::CONTENT_TYPE, kind);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.rig.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    /// A token of a user for each role.
    async fn tokens(&self) -> [String; 4] {
        let mut tokens = [const { String::new() }; 4];
        for (token, role) in tokens.iter_mut().zip(Role::ALL) {
            *token = self.rig.token_for(role).await;
        }
        tokens
    }

    /// Everything that a request could change.
    async fn everything(&self) -> String {
        let store = &self.rig.app.store;
        let audit = store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap().rows;
        let runs = store.runs(&RunFilter::default(), Paging::ALL).await.unwrap().rows;
        let workflows = store.workflows(&WorkflowFilter::default(), Paging::ALL).await.unwrap().rows;
        let variables = store.variables(Paging::ALL).await.unwrap().rows;
        let connections = store.connections(None, Paging::ALL).await.unwrap().rows;
        let pools = store.pools().await.unwrap();
        let users = store.users(Paging::ALL).await.unwrap().rows;
        let tokens = store.tokens(None).await.unwrap();
        let nodes = store.nodes().await.unwrap();
        let quotas = store.quotas().await.unwrap();
        let deliveries = store.deliveries(&DeliveryFilter::default(), Paging::ALL).await.unwrap().rows;
        let workers = (store.workers().await.unwrap(), store.worker_tokens().await.unwrap());
        format!(
            "{workers:?}{audit:?}{runs:?}{workflows:?}{variables:?}{connections:?}{pools:?}{users:?}{tokens:?}{nodes:?}{quotas:?}{deliveries:?}"
        )
    }
}

fn guarded() -> Vec<(RouteInfo, Role)> {
    let role = |info: &RouteInfo| match info.access {
        // These have tests of their own.
        Access::Open | Access::Server | Access::Enrolment | Access::Worker | Access::Hook => None,
        Access::Role(role) => Some((info.clone(), role)),
    };
    table(false).infos().filter_map(role).collect()
}

/// What somebody is told who did not say who it is.
fn is_turned_away(info: &RouteInfo, answer: &Response) -> bool {
    let to_login = || answer.headers()[header::LOCATION].to_str().unwrap().starts_with("/login?next=");
    match (info.surface, answer.status()) {
        (Surface::Api, status) => status == StatusCode::UNAUTHORIZED,
        (Surface::Pages, StatusCode::SEE_OTHER) => info.method == Method::GET && to_login(),
        (Surface::Pages, status) => status == StatusCode::UNAUTHORIZED,
    }
}

#[tokio::test]
async fn what_is_open_to_anybody_is_a_short_list() {
    let open: Vec<String> = table(false)
        .infos()
        .filter(|info| info.access == Access::Open)
        .map(|info| format!("{} {}", info.method, info.path))
        .collect();
    insta::assert_snapshot!(open.join("\n"), @r"
    GET /api/v2/monitor/health
    GET /api/v2/version
    POST /auth/token
    POST /auth/token/cli
    GET /api/v1/health
    GET /api/v1/version
    GET /login
    POST /login
    GET /login/oidc
    GET /login/oidc/callback
    POST /logout
    GET /assets/{name}
    GET /favicon.ico
    ");
}

#[tokio::test]
async fn what_servers_ask_each_other_is_answered_to_nobody_else() {
    let walk = Walk::new().await;
    let admin = walk.rig.token_of(&walk.rig.user("boss", Role::Admin).await);
    let another_key =
        Vault::new(&walk.rig.app.data, &|_| Some("another key, of 32 characters or more".into())).unwrap();
    let word = another_key.word("servers ask each other").unwrap();
    let routes = table(false);
    let between: Vec<_> = routes.infos().filter(|info| info.access == Access::Server).collect();
    assert!(!between.is_empty());
    for info in between {
        for token in [None, Some(""), Some(admin.as_str()), Some(word.as_str())] {
            let answer = walk.ask(info, &walk.path(info), token).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{} with {token:?}", info.path);
        }
    }
}

#[tokio::test]
async fn nobody_and_whoever_has_an_expired_ended_or_forged_token_is_turned_away_from_every_route() {
    let walk = Walk::new().await;
    let auth = &walk.rig.site.auth;
    let admin = walk.rig.user("boss", Role::Admin).await;
    let ended = walk.rig.token_of(&walk.rig.user("gone", Role::Admin).await);
    manage::set_active(&walk.rig.app.store, &admin, "gone", false, clock::now()).await.unwrap();
    auth.changed();
    let expired = auth.issue(&admin, Use::Api, SignedDuration::from_secs(-1), clock::now());
    let session = auth.issue(&admin, Use::Session, LINK, clock::now());
    let forged = format!("{}x", walk.rig.token_of(&admin));
    let before = walk.everything().await;
    for (info, _) in guarded() {
        let path = walk.path(&info);
        for token in
            ["", "null", "pct_guessed", &expired, &forged, &session, &ended].map(Some).into_iter().chain([None])
        {
            let answer = walk.ask(&info, &path, token).await;
            let status = answer.status();
            assert!(is_turned_away(&info, &answer), "{} {path} with {token:?}: {status}", info.method);
        }
    }
    assert_eq!(walk.everything().await, before);
}

#[tokio::test]
async fn a_path_that_only_looks_like_an_open_one_is_not_open() {
    let walk = Walk::new().await;
    let before = walk.everything().await;
    let odd = ["/", "/health", "/login", "/version", ".css", "%2f", "%2fhealth", "//", "/..;/login", "/%2e%2e/login"];
    for (info, _) in guarded() {
        let path = walk.path(&info);
        let prefixed = ["/%2f", "/.", "/login/..", "/assets/.."].map(|prefix| format!("{prefix}{path}"));
        for path in odd.iter().map(|suffix| format!("{path}{suffix}")).chain(prefixed) {
            let answer = walk.ask(&info, &path, None).await;
            let status = answer.status();
            let is_nothing = matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
            let is_turned_away = status == StatusCode::UNAUTHORIZED || status == StatusCode::SEE_OTHER;
            assert!(is_nothing || is_turned_away, "{} {path}: {status}", info.method);
        }
    }
    assert_eq!(walk.everything().await, before);
}

#[tokio::test]
async fn every_route_takes_its_role_and_no_lower_one() {
    let walk = Walk::new().await;
    let tokens = walk.tokens().await;
    let before = walk.everything().await;
    for (info, needed) in guarded() {
        let path = walk.path(&info);
        for (role, token) in Role::ALL.iter().zip(&tokens).filter(|(role, _)| **role < needed) {
            let status = walk.ask(&info, &path, Some(token)).await.status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{} {path} as {role}", info.method);
        }
    }
    assert_eq!(walk.everything().await, before);
    for (info, needed) in guarded().into_iter().filter(|(info, _)| info.path != "/logout/everywhere") {
        let path = walk.path(&info);
        for (role, token) in Role::ALL.iter().zip(&tokens).filter(|(role, _)| **role >= needed) {
            let status = walk.ask(&info, &path, Some(token)).await.status();
            let passed = status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN;
            assert!(passed && !status.is_server_error(), "{} {path} as {role}: {status}", info.method);
        }
    }
}

#[tokio::test]
async fn a_role_that_is_too_low_is_told_which_one_it_takes() {
    let rig = Rig::with(SOURCE).await;
    let token = rig.token_of(&rig.user("ada", Role::Viewer).await);
    let ask = async |path: &str| {
        let request = rig.request(Method::POST, path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        rig.send(request.body(Body::empty()).unwrap()).await.said()
    };
    let api = ask("/api/v2/dags/demo/dagRuns").await;
    assert_eq!(api, r#"{"detail":"the role `viewer` of `ada` may not do this; it takes `user`"}"#);
    let page = ask("/workflows/demo/pause").await;
    assert!(page.contains("<html") && page.contains("it takes `user`"), "{page}");
}

#[tokio::test]
async fn a_token_for_some_workflows_opens_only_what_names_one_of_them() {
    let walk = Walk::new().await;
    let bot = walk.rig.user("bot", Role::Admin).await;
    let limited = async |workflow: &str| {
        let workflows = vec![WorkflowId::new(workflow).unwrap()];
        let new = NewToken { user: "bot".into(), name: workflow.into(), workflows, ..NewToken::default() };
        manage::create_token(&walk.rig.app.store, &bot, new, clock::now()).await.unwrap().1
    };
    let names_workflow =
        |info: &RouteInfo| ["{dag}", "{dag_id}", "{workflow}", "{run_key}"].iter().any(|name| info.path.contains(name));
    let (other, own) = (limited("other").await, limited("demo").await);
    // That it was used is noted once an hour, and is no change that anybody asked for.
    for token in [&other, &own] {
        walk.rig.site.auth.bearer(token, clock::now()).await.unwrap().unwrap();
    }
    let before = walk.everything().await;
    for (info, _) in guarded() {
        let path = walk.path(&info);
        let status = walk.ask(&info, &path, Some(&other)).await.status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{} {path} for `other`", info.method);
        if !names_workflow(&info) {
            let status = walk.ask(&info, &path, Some(&own)).await.status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{} {path} for `demo`", info.method);
        }
    }
    assert_eq!(walk.everything().await, before);
    for (info, _) in guarded().into_iter().filter(|(info, _)| names_workflow(info)) {
        let path = walk.path(&info);
        let status = walk.ask(&info, &path, Some(&own)).await.status();
        assert!(status != StatusCode::FORBIDDEN && !status.is_server_error(), "{} {path}: {status}", info.method);
    }
}

/// Something that each route which changes things is asked to change.
const SAMPLES: &[(&str, &str)] = &[
    ("POST /logout/everywhere", ""),
    ("POST /account/password", "old=correct+horse&new=another+horse&again=another+horse"),
    ("PATCH /api/v2/dags/{dag_id}", r#"{"is_paused": true}"#),
    ("POST /api/v2/dags/{dag_id}/clearTaskInstances", r#"{"dry_run": false, "dag_run_id": "r", "task_ids": ["b"]}"#),
    ("POST /api/v2/dags/{dag_id}/dagRuns", r#"{"logical_date": null}"#),
    ("PATCH /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}", r#"{"state": "failed"}"#),
    ("PATCH /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}", r#"{"new_state": "failed"}"#),
    (
        "PATCH /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}",
        r#"{"new_state": "success"}"#,
    ),
    ("POST /api/pitcrew/v1/runs/{run_key}/cancel", ""),
    ("POST /api/pitcrew/v1/notices/{id}/retry", ""),
    ("POST /api/pitcrew/v1/dags/{dag_id}/dagRuns/{dag_run_id}/cancel", ""),
    ("PATCH /api/pitcrew/v1/nodes/{node}", r#"{"cordoned": true}"#),
    ("PATCH /api/pitcrew/v1/quotas/{namespace}", r#"{"gpus": 3}"#),
    ("DELETE /api/pitcrew/v1/quotas/{namespace}", ""),
    ("POST /api/pitcrew/v1/workers/token", r#"{"queues": ["s21"], "expires": "1h"}"#),
    ("DELETE /api/pitcrew/v1/workers/token/{token_id}", ""),
    ("POST /api/pitcrew/v1/workers/{worker}/drain", ""),
    ("POST /api/pitcrew/v1/workers/{worker}/undrain", ""),
    ("POST /api/pitcrew/v1/workers/{worker}/revoke", ""),
    ("POST /fleet/{node}/cordon", "cordoned=true"),
    ("POST /fleet/{node}/marks", "labels=rack%3Da&taints="),
    ("POST /workers/{worker}/drain", "drain=true"),
    ("POST /workers/{worker}/revoke", ""),
    ("POST /worker-tokens/new", "queues=s21&hours=1&uses=1"),
    ("POST /worker-tokens/delete", "id=t"),
    ("POST /workflows/{workflow}/pause", "paused=true"),
    ("POST /workflows/{workflow}/trigger", ""),
    ("POST /workflows/{workflow}/runs/{run}/cancel", ""),
    ("POST /workflows/{workflow}/runs/{run}/retry", ""),
    ("POST /workflows/{workflow}/runs/{run}/clear", "task=b"),
    ("POST /workflows/{workflow}/runs/{run}/tasks", "pick=b&do=failed"),
    ("POST /workflows/{workflow}/runs/{run}/mark", "success=false"),
    ("POST /workflows/{workflow}/runs/{run}/note", "note=new"),
    ("POST /variables/new", "key=new&value=1"),
    ("POST /variables/edit", "key=v&value=2&description="),
    ("POST /variables/delete", "key=v"),
    ("POST /variables/import", "json=%7B%22w%22%3A%221%22%7D&existing=overwrite"),
    ("POST /variables/export", ""),
    ("POST /pools/new", "name=new&slots=1"),
    ("POST /pools/edit", "name=p&slots=2&description="),
    ("POST /pools/delete", "name=p"),
    ("POST /quotas/new", "namespace=new&gpus=1"),
    ("POST /quotas/edit", "namespace=ml&gpus=2"),
    ("POST /quotas/delete", "namespace=ml"),
    ("POST /connections/new", "id=new&conn_type=ssh"),
    ("POST /connections/edit", "id=c&conn_type=ssh&host=h"),
    ("POST /connections/delete", "id=c"),
    ("POST /connections/import", "json=%7B%22w%22%3A%22ssh%3A%2F%2Fh%22%7D&existing=overwrite"),
    ("POST /connections/export", ""),
    ("POST /notifications/again", "id=1"),
    ("POST /api/pitcrew/v1/deliveries/{delivery}/redeliver", ""),
    ("POST /deliveries/{delivery}/redeliver", ""),
    ("POST /runs/bulk", "action=cancel&run=1"),
    ("POST /users/new", "name=new&role=viewer"),
    ("POST /users/edit", "name=admin&action=sign_out"),
    ("POST /tokens/new", "user=admin&name=new&role=viewer&days=7"),
    ("POST /tokens/revoke", "id=t"),
    ("POST /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/clear", r#"{"dry_run": false, "only_failed": true}"#),
    ("POST /api/v2/variables", r#"{"key": "new", "value": "1"}"#),
    ("PATCH /api/v2/variables", r#"{"actions": [{"action": "create", "entities": [{"key": "new", "value": "1"}]}]}"#),
    ("PATCH /api/v2/variables/{*variable_key}", r#"{"key": "v", "value": "2"}"#),
    ("DELETE /api/v2/variables/{*variable_key}", ""),
    ("POST /api/v2/pools", r#"{"name": "new", "slots": 1}"#),
    ("PATCH /api/v2/pools", r#"{"actions": [{"action": "create", "entities": [{"name": "new", "slots": 1}]}]}"#),
    ("PATCH /api/v2/pools/{pool_name}", r#"{"name": "p", "slots": 3}"#),
    ("DELETE /api/v2/pools/{pool_name}", ""),
    ("POST /api/v2/connections", r#"{"connection_id": "new", "conn_type": "ssh"}"#),
    (
        "PATCH /api/v2/connections",
        r#"{"actions": [{"action": "create", "entities": [{"connection_id": "new", "conn_type": "ssh"}]}]}"#,
    ),
    ("PATCH /api/v2/connections/{connection_id}", r#"{"connection_id": "c", "conn_type": "ssh", "host": "h"}"#),
    ("DELETE /api/v2/connections/{connection_id}", ""),
    ("POST /aws_mwaa/cli", "dags pause demo"),
    ("PATCH /api/v1/dags/{dag_id}", r#"{"is_paused": true}"#),
    ("POST /api/v1/dags/{dag_id}/dagRuns", r#"{"conf": {}}"#),
    ("PATCH /api/v1/dags/{dag_id}/dagRuns/{dag_run_id}", r#"{"state": "failed"}"#),
    ("POST /api/v1/dags/{dag_id}/clearTaskInstances", r#"{"dry_run": false, "dag_run_id": "r", "task_ids": ["b"]}"#),
    ("POST /api/v1/variables", r#"{"key": "new", "value": "1"}"#),
    ("PATCH /api/v1/variables/{*variable_key}", r#"{"key": "v", "value": "2"}"#),
    ("DELETE /api/v1/variables/{*variable_key}", ""),
    ("POST /api/v1/connections", r#"{"connection_id": "new", "conn_type": "ssh"}"#),
    ("PATCH /api/v1/connections/{connection_id}", r#"{"connection_id": "c", "conn_type": "ssh", "host": "h"}"#),
    ("DELETE /api/v1/connections/{connection_id}", ""),
    ("POST /api/v1/pools", r#"{"name": "new", "slots": 1}"#),
    ("PATCH /api/v1/pools/{pool_name}", r#"{"name": "p", "slots": 3}"#),
    ("DELETE /api/v1/pools/{pool_name}", ""),
];

/// Routes that only look, though their method is one for changes.
const LOOKS: &[&str] = &[
    "POST /api/v2/dags/{dag_id}/dagRuns/list",
    "POST /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/list",
    "PATCH /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dry_run",
    "PATCH /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/dry_run",
    "POST /api/v2/backfills/dry_run",
    // Tried with a host in `tests/delivery`.
    "POST /api/pitcrew/v1/connections/{connection_id}/test",
];

/// Changes that need what this rig does not have: a run that is over, a backfill, a task that has ended. Here they are
/// refused, and leave everything as it is.
fn needs_more(name: &str) -> bool {
    let is_delete = name.starts_with("DELETE ") && (name.ends_with("/{dag_id}") || name.ends_with("/{dag_run_id}"));
    is_delete
        || name.contains("/xcomEntries")
        || name.contains("/assets/")
        || name == "POST /api/v2/backfills"
        || name.contains("/{backfill_id}/")
        || name.starts_with("POST /backfills/")
        || name == "POST /api/pitcrew/v1/runs/{run_key}/clear"
        // Done to a real incident in `tests/incidents.rs`.
        || name.contains("/incidents/{incident}/")
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_the_name_of_who_made_it() {
    for (info, _) in guarded().into_iter().filter(|(info, _)| info.method != Method::GET) {
        let name = format!("{} {}", info.method, info.path);
        if LOOKS.contains(&&*name) {
            continue;
        }
        if needs_more(&name) {
            let walk = Walk::new().await;
            let boss = walk.rig.token_for(Role::Admin).await;
            let before = walk.everything().await;
            let status = walk.ask(&info, &walk.path(&info), Some(&boss)).await.status();
            assert!(status.is_client_error(), "{name}: {status}");
            assert_eq!(walk.everything().await, before, "{name}");
            continue;
        }
        let sample = SAMPLES.iter().find(|(route, _)| *route == name);
        let (_, body) = sample.unwrap_or_else(|| panic!("`SAMPLES` needs a body that makes `{name}` change something"));
        let walk = Walk::new().await;
        let new = NewUser {
            name: "boss".into(),
            role: Some(Role::Admin),
            password: Some(PASSWORD.into()),
            ..NewUser::default()
        };
        let boss = manage::create_user(&walk.rig.app.store, &User::local("test"), new, clock::now()).await.unwrap();
        let boss = walk.rig.token_of(&User::of(&boss));
        let filter = AuditFilter { who: Some("boss".into()), ..AuditFilter::default() };
        let answer = walk.ask_with(&info, &walk.path(&info), Some(&boss), body).await;
        let status = answer.status();
        assert!(status.is_success() || status.is_redirection(), "{name}: {status}");
        let audit = walk.rig.app.store.audit(&filter, Paging::ALL).await.unwrap().rows;
        assert!(!audit.is_empty(), "{name} wrote no audit entry");
    }
}
