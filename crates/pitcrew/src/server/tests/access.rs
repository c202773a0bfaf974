//! Who gets in, from where, and what the answers forbid.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use serde_json::json;

use super::{PASSWORD, Rig};
use crate::clock;
use crate::server::LINK;
use crate::server::auth::{Auth, AuthConfig, Role, Use, User};

#[tokio::test]
async fn a_page_that_takes_a_login_is_opened_after_it() {
    let rig = Rig::new().await;
    let anonymous = async |path: &str| rig.send(rig.request(Method::GET, path).body(Body::empty()).unwrap()).await;
    let page = anonymous("/runs?state=failed").await;
    assert_eq!((page.status, page.header("location")), (StatusCode::SEE_OTHER, "/login?next=%2Fruns%3Fstate%3Dfailed"));
    assert_eq!(anonymous("/api/v2/monitor/health").await.json()["scheduler"]["status"], "healthy");
    assert_eq!(anonymous("/login").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_password_gives_a_token_and_a_wrong_one_does_not() {
    let rig = Rig::new().await;
    let right = rig.post("/auth/token", json!({ "username": "admin", "password": PASSWORD })).await;
    assert_eq!(right.status, StatusCode::CREATED);
    let token = right.json()["access_token"].as_str().unwrap().to_owned();
    let request = rig.request(Method::GET, "/api/v2/dags").header(header::AUTHORIZATION, format!("bearer {token}"));
    assert_eq!(rig.send(request.body(Body::empty()).unwrap()).await.status, StatusCode::OK);
    for (user, password) in [("admin", "wrong"), ("root", PASSWORD), ("", "")] {
        let answer = rig.post("/auth/token", json!({ "username": user, "password": password })).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{user} {password}");
    }
    assert_eq!(rig.post("/auth/token", json!({})).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_token_opens_only_what_it_was_made_for() {
    let rig = Rig::new().await;
    let now = clock::now();
    let session = rig.site.auth.issue(&User::new("admin", Role::Admin), Use::Session, LINK, now);
    let as_bearer = rig.request(Method::GET, "/api/v2/dags").header(header::AUTHORIZATION, format!("Bearer {session}"));
    assert_eq!(rig.send(as_bearer.body(Body::empty()).unwrap()).await.status, StatusCode::UNAUTHORIZED);
    let cookie = async |token: &str| {
        let request = rig.request(Method::GET, "/").header(header::COOKIE, format!("a=b; pitcrew_8080={token}"));
        rig.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(cookie(&session).await, StatusCode::OK);
    assert_eq!(cookie(&rig.token).await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn the_link_of_the_terminal_works_once() {
    let rig = Rig::new().await;
    let code = rig.site.auth.issue_link(LINK, clock::now()).unwrap();
    let open = async || {
        let path = format!("/login?code={code}&next=%2Fruns");
        rig.send(rig.request(Method::GET, &path).body(Body::empty()).unwrap()).await
    };
    let first = open().await;
    assert_eq!((first.status, first.header("location")), (StatusCode::SEE_OTHER, "/runs"));
    let cookie = first.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let second = open().await;
    assert!(second.status == StatusCode::OK && second.headers.get("set-cookie").is_none());
}

#[tokio::test]
async fn a_change_from_another_site_is_refused() {
    let rig = Rig::new().await;
    let change = async |name: &str, value: &str| {
        let request = rig.request(Method::POST, "/logout").header(name, value);
        rig.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(change("origin", "http://localhost:8080").await, StatusCode::SEE_OTHER);
    assert_eq!(change("origin", "https://evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(change("origin", "http://localhost:9999").await, StatusCode::FORBIDDEN);
    assert_eq!(change("origin", "null").await, StatusCode::FORBIDDEN);
    assert_eq!(change("sec-fetch-site", "cross-site").await, StatusCode::FORBIDDEN);
    assert_eq!(change("sec-fetch-site", "same-origin").await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_loopback_server_answers_to_its_own_names_only() {
    let rig = Rig::new().await;
    for (host, allowed) in [
        ("localhost:8080", true),
        ("127.0.0.1", true),
        ("[::1]:8080", true),
        ("ci.localhost", true),
        ("rebound.evil.example", false),
        ("localhost.evil.example:8080", false),
        ("", false),
    ] {
        let request = axum::http::Request::get("/api/v2/version").header(header::HOST, host);
        let status = rig.send(request.body(Body::empty()).unwrap()).await.status;
        assert_eq!(status == StatusCode::OK, allowed, "{host}: {status}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let rig = Rig::new().await;
    let page = rig.get("/").await;
    assert!(page.header("content-security-policy").contains("script-src 'self'"));
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert!(!page.text.contains("<script>") && !page.text.contains(" style=") && !page.text.contains(" onclick="));
}

#[tokio::test]
async fn authentication_can_be_off_on_loopback_only() {
    let rig = Rig::new().await;
    let open = async |address: &str| Auth::open(&rig.app.store, &AuthConfig::Off, address.parse().unwrap()).await;
    assert!(open("127.0.0.1:1").await.unwrap().0.is_off());
    let refused = open("0.0.0.0:1").await.err().unwrap().to_string();
    assert!(refused.contains("loopback"), "{refused}");
}

#[tokio::test]
async fn a_password_is_made_once_and_kept_as_a_hash() {
    let rig = Rig::new().await;
    let listen = "127.0.0.1:1".parse().unwrap();
    let (auth, fresh) = Auth::open(&rig.app.store, &AuthConfig::Generated, listen).await.unwrap();
    let password = fresh.unwrap();
    assert!(auth.check("admin", &password).is_some() && password.len() == 24);
    let (again, none) = Auth::open(&rig.app.store, &AuthConfig::Generated, listen).await.unwrap();
    assert!(none.is_none() && again.check("admin", &password).is_some());
    assert!(!rig.app.store.setting("auth.admin").await.unwrap().unwrap().contains(&password));
}
