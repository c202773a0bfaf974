//! Who gets in, from where, and what the answers forbid.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode, header};
use base64::Engine as _;
use jiff::SignedDuration;
use pitcrew_control::base_url::BaseUrl;
use pitcrew_control::clock;
use pitcrew_store::{AuditFilter, Paging, Store, StoreUrl};
use serde_json::json;

use super::{PASSWORD, Rig};
use crate::auth::manage::{self, NewToken, NewUser};
use crate::auth::{Auth, AuthConfig, Role, Use, User};
use crate::{LINK, router};

impl Rig {
    /// What the API says to a bearer.
    async fn bearer(&self, token: &str) -> StatusCode {
        let request =
            self.request(Method::GET, "/api/v2/dags").header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await.status
    }

    /// What the first page says to a browser.
    async fn cookie(&self, token: &str) -> StatusCode {
        let request = self.request(Method::GET, "/").header(header::COOKIE, format!("a=b; pitcrew_8080={token}"));
        self.send(request.body(Body::empty()).unwrap()).await.status
    }
}

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
    let ada = rig.user("ada", Role::Viewer).await;
    let session = rig.site.auth.issue(&ada, Use::Session, LINK, clock::now());
    assert_eq!(rig.bearer(&session).await, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.cookie(&session).await, StatusCode::OK);
    assert_eq!(rig.cookie(&rig.token).await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn whatever_changes_about_a_user_ends_its_sessions_and_logins() {
    let rig = Rig::new().await;
    let (store, boss, now) = (&rig.app.store, &User::local("boss"), clock::now());
    for change in ["role", "password", "active", "logout", "delete"] {
        let ada = rig.user("ada", Role::Op).await;
        let session = rig.site.auth.issue(&ada, Use::Session, LINK, now);
        let token = rig.token_of(&ada);
        assert_eq!(rig.cookie(&session).await, StatusCode::OK, "{change}");
        match change {
            "role" => drop(manage::set_role(store, boss, "ada", Role::Viewer, now).await.unwrap()),
            "password" => drop(manage::set_password(store, boss, "ada", "a new password", now).await.unwrap()),
            "active" => drop(manage::set_active(store, boss, "ada", false, now).await.unwrap()),
            "logout" => drop(manage::end_sessions(store, &ada, "ada", now).await.unwrap()),
            _ => {
                // A new user of the same name is another one.
                manage::delete_user(store, boss, "ada", now).await.unwrap();
                let later = now + SignedDuration::from_millis(1);
                let new = NewUser { name: "ada".into(), role: Some(Role::Op), ..NewUser::default() };
                manage::create_user(store, boss, new, later).await.unwrap();
            }
        }
        rig.site.auth.changed();
        assert_eq!(rig.cookie(&session).await, StatusCode::SEE_OTHER, "{change}");
        assert_eq!(rig.bearer(&token).await, StatusCode::UNAUTHORIZED, "{change}");
        manage::delete_user(store, boss, "ada", now).await.unwrap();
        rig.site.auth.changed();
    }
}

#[tokio::test]
async fn what_another_process_changed_counts_within_a_second() {
    let rig = Rig::new().await;
    let ada = rig.user("ada", Role::Op).await;
    let (token, now) = (rig.token_of(&ada), clock::now());
    assert!(rig.site.auth.bearer(&token, now).await.unwrap().is_some());
    manage::set_active(&rig.app.store, &User::local("boss"), "ada", false, now).await.unwrap();
    assert!(rig.site.auth.bearer(&token, now + SignedDuration::from_secs(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn an_api_token_may_do_what_both_it_and_its_user_may() {
    let rig = Rig::new().await;
    let (store, boss, now) = (&rig.app.store, &User::local("boss"), clock::now());
    let ada = rig.user("ada", Role::Op).await;
    let new = |role: Role| NewToken { user: "ada".into(), name: "ci".into(), role: Some(role), ..NewToken::default() };
    let refused = manage::create_token(store, &ada, new(Role::Admin), now).await.unwrap_err().to_string();
    assert_eq!(refused, "`ada` is `op`, so a token of it cannot be `admin`");
    let life = Some(SignedDuration::from_hours(1));
    let (row, token) = manage::create_token(store, &ada, NewToken { life, ..new(Role::User) }, now).await.unwrap();
    let whose = async |at| {
        rig.site.auth.changed();
        rig.site.auth.bearer(&token, at).await.unwrap()
    };
    let user = whose(now).await.unwrap();
    assert_eq!((user.name.as_str(), user.role, user.account.as_str()), ("ada (token ci)", Role::User, "ada"));
    let refused = manage::create_token(store, &user, new(Role::Viewer), now).await.unwrap_err().to_string();
    assert!(refused.contains("not with an API token"), "{refused}");
    manage::set_role(store, boss, "ada", Role::Viewer, now).await.unwrap();
    assert_eq!(whose(now).await.unwrap().role, Role::Viewer);
    assert!(whose(now + SignedDuration::from_hours(1)).await.is_none());
    let bob = rig.user("bob", Role::Op).await;
    assert!(manage::revoke_token(store, &bob, &row.id, now).await.unwrap_err().to_string().contains("no token"));
    assert!(manage::tokens(store, &bob).await.unwrap().is_empty());
    manage::revoke_token(store, &ada, &row.id, now).await.unwrap();
    assert!(whose(now).await.is_none());
    let kept = format!("{:?}", store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap().rows);
    assert!(kept.contains("token.create") && kept.contains("token.revoke") && !kept.contains(&token));
}

#[tokio::test]
async fn programs_may_send_name_and_password_with_each_request() {
    let rig = Rig::new().await;
    let ada = rig.user("ada", Role::Viewer).await;
    let (store, now) = (&rig.app.store, clock::now());
    manage::set_password(store, &User::local("boss"), "ada", "a good password", now).await.unwrap();
    let new = NewToken { user: "ada".into(), name: "ci".into(), ..NewToken::default() };
    let (_, token) = manage::create_token(store, &ada, new, now).await.unwrap();
    let ask = async |credentials: &str| {
        let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials));
        let request = rig.request(Method::GET, "/api/v2/dags").header(header::AUTHORIZATION, value);
        rig.send(request.body(Body::empty()).unwrap()).await.status
    };
    for _ in 0..10 {
        assert_eq!(ask("ada:a good password").await, StatusCode::OK);
    }
    assert_eq!(ask(&format!("ada:{token}")).await, StatusCode::OK);
    assert_eq!(ask(&format!("bob:{token}")).await, StatusCode::UNAUTHORIZED);
    for wrong in ["ada:", "ada", "", "ada:a good password ", ":"] {
        assert_eq!(ask(wrong).await, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    manage::set_password(store, &User::local("boss"), "ada", "another password", now).await.unwrap();
    rig.site.auth.changed();
    assert_eq!(ask("ada:a good password").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down_and_written_down() {
    let rig = Rig::new().await;
    let attempt = async |user: &str, password: &str| {
        rig.post("/auth/token", json!({ "username": user, "password": password })).await
    };
    for _ in 0..5 {
        assert_eq!(attempt("admin", "wrong").await.status, StatusCode::UNAUTHORIZED);
    }
    let slowed = attempt("admin", PASSWORD).await;
    assert_eq!((slowed.status, slowed.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    let form = format!("username=admin&password={PASSWORD}");
    let page = rig.submit("/login", &form).await;
    assert_eq!((page.status, page.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert!(page.text.contains("try again in 1 s"), "{}", page.text);
    attempt("what I thought was the password field", "x").await;
    let audit = rig.app.store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap().rows;
    let failed: Vec<&str> =
        audit.iter().filter(|row| row.entry.event == "login.failed").map(|row| row.entry.who.as_str()).collect();
    assert_eq!(failed.len(), 6);
    assert!(failed.iter().filter(|who| **who == "admin").count() == 5 && failed.contains(&"unknown"));
    assert!(!format!("{audit:?}").contains("password field"));
}

#[tokio::test]
async fn somebody_who_is_an_admin_is_always_left() {
    let rig = Rig::new().await;
    let (store, now) = (&rig.app.store, clock::now());
    let cli = User::local("root");
    let last = "`admin` is the only admin left: make another one first";
    assert_eq!(manage::set_role(store, &cli, "admin", Role::Op, now).await.unwrap_err().to_string(), last);
    assert_eq!(manage::set_active(store, &cli, "admin", false, now).await.unwrap_err().to_string(), last);
    assert_eq!(manage::delete_user(store, &cli, "admin", now).await.unwrap_err().to_string(), last);
    let boss = rig.user("boss", Role::Admin).await;
    for (name, refused) in [
        ("role", manage::set_role(store, &boss, "boss", Role::Viewer, now).await.err()),
        ("account", manage::set_active(store, &boss, "boss", false, now).await.err()),
        ("password", manage::set_password(store, &boss, "boss", "a new password", now).await.err()),
        ("account", manage::delete_user(store, &boss, "boss", now).await.err()),
    ] {
        assert!(refused.unwrap().to_string().contains(&format!("their own {name}")));
    }
    let ada = rig.user("ada", Role::Op).await;
    let new = NewUser { name: "eve".into(), role: Some(Role::Admin), ..NewUser::default() };
    let refused = manage::create_user(store, &ada, new, now).await.unwrap_err().to_string();
    assert_eq!(refused, "the role `op` of `ada` may not do this; it takes `admin`");
    for name in ["", "a b", "../x", "<script>", "anonymous", "-x", &"x".repeat(101)] {
        let new = NewUser { name: name.into(), role: Some(Role::Viewer), ..NewUser::default() };
        assert!(
            matches!(manage::create_user(store, &boss, new, now).await, Err(manage::Refused::Invalid(_))),
            "{name}"
        );
    }
    manage::delete_user(store, &boss, "admin", now).await.unwrap();
}

#[tokio::test]
async fn ones_own_password_is_changed_with_the_old_one() {
    let rig = Rig::new().await;
    let admin = User::of(&rig.app.store.user("admin").await.unwrap().unwrap());
    let change = async |old: &str, new: &str| rig.site.auth.change_password(&admin, old, new, None, clock::now()).await;
    assert_eq!(change("wrong", "a new password").await.unwrap_err().to_string(), "the old password is not right");
    assert!(change(PASSWORD, "short").await.unwrap_err().to_string().contains("at least 10"));
    change(PASSWORD, "a new password").await.unwrap();
    assert_eq!(rig.bearer(&rig.token).await, StatusCode::UNAUTHORIZED);
    let again = rig.post("/auth/token", json!({ "username": " Admin", "password": "a new password" })).await;
    assert_eq!(again.status, StatusCode::CREATED);
}

#[tokio::test]
async fn the_page_of_ones_account_changes_the_password_and_keeps_this_browser_logged_in() {
    let rig = Rig::new().await;
    assert!(rig.get("/account").await.text.contains("Change the password"));
    for (form, why) in [
        ("old=wrong+horse&new=another+horse&again=another+horse", "the old password is not right"),
        ("old=correct+horse&new=short&again=short", "at least 10 characters"),
        ("old=correct+horse&new=another+horse&again=other+horse", "is not the same"),
    ] {
        let page = rig.submit("/account/password", form).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{form}");
        assert!(page.text.contains(why) && !page.text.contains("another horse"), "{}", page.text);
    }
    let done = rig.submit("/account/password", "old=correct+horse&new=another+horse&again=another+horse").await;
    let session = done.header("set-cookie").split_once('=').unwrap().1.split_once(';').unwrap().0.to_owned();
    assert_eq!((done.status, rig.cookie(&session).await), (StatusCode::SEE_OTHER, StatusCode::OK));
    assert_eq!(rig.bearer(&rig.token).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn behind_a_proxy_cookies_are_for_https_and_the_address_is_the_one_that_the_proxy_saw() {
    let mut rig = Rig::new().await;
    let url: BaseUrl = "https://ci.example.com".parse().unwrap();
    let config = AuthConfig::Password(PASSWORD.into());
    rig.site.auth = Auth::open(&rig.app.store, &config, rig.site.listen, Some(&url), clock::now()).await.unwrap().0;
    rig.site.base_url = url;
    rig.site.proxies = Arc::new(["10.0.0.1".parse().unwrap()]);
    rig.router = router(rig.site.clone());
    let login = async |password: &str, direct: &str, forwarded: &str| {
        let mut request = Request::post("/login")
            .header(header::HOST, "ci.example.com")
            .header(header::ORIGIN, "https://ci.example.com")
            .header("x-forwarded-for", forwarded)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("username=admin&password={password}")))
            .unwrap();
        let direct: SocketAddr = direct.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(direct));
        rig.send(request).await
    };
    let right = login(PASSWORD, "10.0.0.1:5", "6.6.6.6, 192.0.2.7").await;
    let cookie = right.header("set-cookie");
    assert!(cookie.starts_with("__Host-pitcrew_443=") && cookie.ends_with("; Secure"), "{cookie}");
    login("wrong", "192.0.2.8:5", "6.6.6.6").await;
    let audit = rig.app.store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap().rows;
    let from = |event: &str| audit.iter().find(|row| row.entry.event == event).unwrap().entry.detail["from"].clone();
    assert_eq!((from("login"), from("login.failed")), (json!("192.0.2.7"), json!("192.0.2.8")));
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

    // Followed again by the browser that it let in, it leads where it led.
    let cookie = cookie.split(';').next().unwrap();
    let request = rig.request(Method::GET, &format!("/login?code={code}&next=%2Fruns")).header("cookie", cookie);
    let third = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((third.status, third.header("location")), (StatusCode::SEE_OTHER, "/runs"));
}

#[tokio::test]
async fn a_link_to_a_file_that_a_person_opens_leads_to_the_login() {
    let rig = Rig::new().await;
    let open = async |goal: &str| {
        let request = rig.request(Method::GET, "/api/pitcrew/v1/runs/1/artifacts/a%20b.html?x=1");
        rig.send(request.header("sec-fetch-dest", goal).body(Body::empty()).unwrap()).await
    };
    let page = open("document").await;
    let login = "/login?next=%2Fapi%2Fpitcrew%2Fv1%2Fruns%2F1%2Fartifacts%2Fa%2520b.html%3Fx%3D1";
    assert_eq!((page.status, page.header("location")), (StatusCode::SEE_OTHER, login));
    assert_eq!(open("empty").await.status, StatusCode::UNAUTHORIZED, "a script of a page is told, not led away");
    assert_eq!(open("iframe").await.status, StatusCode::UNAUTHORIZED);
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
    let open = async |address: &str| {
        Auth::open(&rig.app.store, &AuthConfig::Off, address.parse().unwrap(), None, clock::now()).await
    };
    assert!(open("127.0.0.1:1").await.unwrap().0.is_off());
    let refused = open("0.0.0.0:1").await.err().unwrap().to_string();
    assert!(refused.contains("loopback"), "{refused}");
}

#[tokio::test]
async fn the_first_start_makes_an_admin_and_a_password_that_is_kept_as_a_hash() {
    let store = Store::open(&StoreUrl::Memory).await.unwrap();
    let (listen, now) = ("127.0.0.1:1".parse().unwrap(), clock::now());
    let open = async |config: AuthConfig| Auth::open(&store, &config, listen, None, now).await.unwrap();
    // Two servers that start at the same moment make one password.
    let both = tokio::join!(open(AuthConfig::Generated), open(AuthConfig::Generated));
    let mut told: Vec<String> = [both.0.1, both.1.1].into_iter().flatten().collect();
    assert_eq!(told.len(), 1);
    let password = told.remove(0);
    let auth = both.0.0;
    assert_eq!(password.len(), 24);
    assert_eq!(auth.sign_in("admin", &password, None, now).await.unwrap().role, Role::Admin);
    assert!(open(AuthConfig::Generated).await.1.is_none());
    assert!(store.user("admin").await.unwrap().unwrap().password.unwrap().starts_with("$argon2id$"));
    // Whoever starts the server can say which password it is.
    let (auth, _) = open(AuthConfig::Password("given".into())).await;
    assert!(auth.sign_in("admin", &password, None, now).await.is_err());
    let epoch = auth.sign_in("admin", "given", None, now).await.unwrap();
    let (auth, _) = open(AuthConfig::Password("given".into())).await;
    let session = auth.issue(&epoch, Use::Session, LINK, now);
    assert!(auth.verify(&session, Use::Session, now).await.unwrap().is_some());
}
