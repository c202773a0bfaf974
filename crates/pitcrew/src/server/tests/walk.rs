//! Every route of the table, asked by everybody: who may not pass learns nothing and changes nothing.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use jiff::SignedDuration;
use pitcrew_core::WorkflowId;
use pitcrew_store::{AuditFilter, Paging, RunFilter, WorkflowFilter};
use serde_json::json;
use tower::ServiceExt as _;

use super::Rig;
use crate::clock;
use crate::server::auth::{Role, Use, User};
use crate::server::routes::{Access, RouteInfo, Surface};
use crate::server::{LINK, table};

const ROLES: [Role; 4] = [Role::Viewer, Role::User, Role::Op, Role::Admin];

const SOURCE: &str = "
workflow: demo
tasks:
  a: {backend: fake, run: x, env: {FAKE_SLEEP_MS: '3600000'}}
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
                _ => "1",
            };
            path = format!("{before}{value}{after}");
        }
        path
    }

    /// The status, without waiting for the end of what may be a stream.
    async fn ask(&self, info: &RouteInfo, path: &str, token: Option<&str>) -> Response {
        let (kind, body) = match info.surface {
            Surface::Api => ("application/json", "{}"),
            Surface::Pages => ("application/x-www-form-urlencoded", ""),
        };
        let mut request = self.rig.request(info.method.clone(), path).header(header::CONTENT_TYPE, kind);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.rig.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    fn token(&self, user: &User) -> String {
        self.rig.site.auth.issue(user, Use::Api, LINK, clock::now())
    }

    /// Everything that a request could change.
    async fn everything(&self) -> String {
        let store = &self.rig.app.store;
        let audit = store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap().rows;
        let runs = store.runs(&RunFilter::default(), Paging::ALL).await.unwrap().rows;
        let workflows = store.workflows(&WorkflowFilter::default(), Paging::ALL).await.unwrap().rows;
        let variables = store.variables(Paging::ALL).await.unwrap().rows;
        let pools = store.pools().await.unwrap();
        format!("{audit:?}{runs:?}{workflows:?}{variables:?}{pools:?}")
    }
}

fn guarded() -> Vec<(RouteInfo, Role)> {
    let role = |info: &RouteInfo| match info.access {
        Access::Open => None,
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
    GET /login
    POST /login
    POST /logout
    GET /assets/{name}
    GET /favicon.ico
    ");
}

#[tokio::test]
async fn nobody_and_whoever_has_an_expired_or_forged_token_is_turned_away_from_every_route() {
    let walk = Walk::new().await;
    let auth = &walk.rig.site.auth;
    let admin = User::new("admin", Role::Admin);
    let expired = auth.issue(&admin, Use::Api, SignedDuration::from_secs(-1), clock::now());
    let session = auth.issue(&admin, Use::Session, LINK, clock::now());
    let forged = format!("{}x", walk.token(&admin));
    let before = walk.everything().await;
    for (info, _) in guarded() {
        let path = walk.path(&info);
        for token in [None, Some(&*expired), Some(&*forged), Some(&*session), Some(""), Some("null")] {
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
    let tokens = ROLES.map(|role| walk.token(&User::new("ada", role)));
    let before = walk.everything().await;
    for (info, needed) in guarded() {
        let path = walk.path(&info);
        for (role, token) in ROLES.iter().zip(&tokens).filter(|(role, _)| **role < needed) {
            let status = walk.ask(&info, &path, Some(token)).await.status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{} {path} as {role}", info.method);
        }
    }
    assert_eq!(walk.everything().await, before);
    for (info, needed) in guarded() {
        let path = walk.path(&info);
        for (role, token) in ROLES.iter().zip(&tokens).filter(|(role, _)| **role >= needed) {
            let status = walk.ask(&info, &path, Some(token)).await.status();
            let passed = status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN;
            assert!(passed && !status.is_server_error(), "{} {path} as {role}: {status}", info.method);
        }
    }
}

#[tokio::test]
async fn a_role_that_is_too_low_is_told_which_one_it_takes() {
    let rig = Rig::with(SOURCE).await;
    let token = rig.site.auth.issue(&User::new("ada", Role::Viewer), Use::Api, LINK, clock::now());
    let ask = async |path: &str| {
        let request = rig.request(Method::POST, path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        rig.send(request.body(Body::empty()).unwrap()).await.text
    };
    let api = ask("/api/v2/dags/demo/dagRuns").await;
    assert_eq!(api, r#"{"detail":"the role `viewer` of `ada` may not do this; it takes `user`"}"#);
    let page = ask("/workflows/demo/pause").await;
    assert!(page.contains("<html") && page.contains("it takes `user`"), "{page}");
}

#[tokio::test]
async fn a_token_for_some_workflows_opens_only_what_names_one_of_them() {
    let walk = Walk::new().await;
    let limited = |workflow: &str| {
        let mut user = User::new("bot", Role::Admin);
        user.workflows = Some([WorkflowId::new(workflow).unwrap()].into());
        user
    };
    let names_workflow =
        |info: &RouteInfo| ["{dag}", "{dag_id}", "{workflow}", "{run_key}"].iter().any(|name| info.path.contains(name));
    let before = walk.everything().await;
    let (other, own) = (walk.token(&limited("other")), walk.token(&limited("demo")));
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
