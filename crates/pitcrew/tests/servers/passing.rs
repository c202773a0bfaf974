//! A standby is asked for everything that only the leader can do or knows.

use reqwest::header::{COOKIE, RETRY_AFTER, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{Start, World, wait, wait_now};

/// Waits for a file before it ends.
fn waiting(world: &World) -> String {
    let go = world.effects().join("go");
    format!(
        "workflow: waiting\nmax_active_runs: 20\ntasks:\n  first: {{run: \"echo here I am; until [ -e {} ]; do sleep 0.05; done\"}}\n  \
         second: {{run: 'echo again', needs: [first]}}\n",
        go.display()
    )
}

#[tokio::test]
async fn either_of_two_servers_does_and_answers_what_is_asked() {
    let Some(world) = World::new("either") else { return };
    world.workflow("waiting", &waiting(&world));
    let leader = world.start(&Start { data: "one", ..Start::default() });
    world.knows(&leader, "waiting").await;
    let standby = world.start(&Start { data: "two", ..Start::default() });
    let put = async |method, path: &str, body: Value| world.ask(method, &standby, path, Some(body)).await;

    // Things of the database.
    put(Method::POST, "/api/v2/pools", json!({ "name": "few", "slots": 3 })).await;
    put(Method::POST, "/api/v2/variables", json!({ "key": "colour", "value": "red" })).await;
    put(Method::POST, "/api/v2/connections", json!({ "connection_id": "db", "conn_type": "http", "host": "h" })).await;
    for path in ["/api/v2/pools/few", "/api/v2/variables/colour", "/api/v2/connections/db"] {
        assert_eq!(world.get(&leader, path).await, world.get(&standby, path).await);
    }
    put(Method::PATCH, "/api/v2/dags/waiting", json!({ "is_paused": true })).await;
    world.trigger(&standby, "waiting", "a").await;
    assert_eq!(world.state(&leader, "waiting", "a").await, "queued");
    put(Method::PATCH, "/api/v2/dags/waiting", json!({ "is_paused": false })).await;
    let first = "/api/v2/dags/waiting/dagRuns/a/taskInstances/first";
    wait("the task runs", &leader.log, async || world.get(&leader, first).await["state"] == "running").await;

    // Things of the leader's memory and disk.
    let runs = world.get(&standby, "/api/pitcrew/v1/runs?workflow=waiting").await;
    let key = world.query("select key from runs where run_id = 'a'");
    assert!(runs.to_string().contains("\"a\""), "{runs}");
    let why = world.get(&standby, &format!("/api/pitcrew/v1/runs/{key}/explain/second")).await;
    assert!(why["reasons"].to_string().contains("first"), "{why}");
    let log = async |server| world.get(server, &format!("{first}/logs/1")).await.to_string();
    wait("its log is there", &leader.log, async || log(&leader).await.contains("here I am")).await;
    assert!(log(&standby).await.contains("here I am"));
    assert_eq!(world.get(&standby, "/api/v2/pools/default_pool").await["occupied_slots"], 1);

    // What happens is told there as it happens.
    let events = format!("{}/api/pitcrew/v1/runs/{key}/events", standby.url);
    let mut events = world.client.get(events).send().await.unwrap();
    let mut told = String::from_utf8(events.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let mut page = world.client.get(format!("{}/live/runs/{key}", standby.url)).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let mut parts = page.chunk().await.unwrap().unwrap().to_vec();

    // Steering.
    let path = "/api/v2/dags/waiting/dagRuns/a";
    assert_eq!(put(Method::PATCH, path, json!({ "note": "by the standby" })).await["note"], "by the standby");
    put(Method::PATCH, "/api/v2/dags/waiting/dagRuns/a/taskInstances/second", json!({ "new_state": "failed" })).await;
    std::fs::write(world.effects().join("go"), "").unwrap();
    world.becomes(&standby, "waiting", "a", "failed").await;
    while let Some(chunk) = events.chunk().await.unwrap() {
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(told.contains("\"first\"") && told.contains("failed"), "{told}");
    while !String::from_utf8_lossy(&parts).contains("failed") {
        parts.extend_from_slice(&page.chunk().await.unwrap().expect("the page goes on"));
    }
    let clear = json!({ "dry_run": false, "dag_run_id": "a", "only_failed": true });
    put(Method::POST, "/api/v2/dags/waiting/clearTaskInstances", clear).await;
    world.becomes(&leader, "waiting", "a", "success").await;
    std::fs::remove_file(world.effects().join("go")).unwrap();
    world.trigger(&standby, "waiting", "b").await;
    world.becomes(&standby, "waiting", "b", "running").await;
    put(Method::POST, "/api/pitcrew/v1/dags/waiting/dagRuns/b/cancel", json!({})).await;
    wait("it is cancelled", &leader.log, async || world.state(&leader, "waiting", "b").await == "failed").await;
    let by = world.query("select count(*) from audit where event = 'run.cancel'");
    assert_eq!(by, "1");
}

#[tokio::test]
async fn whoever_signed_in_at_one_server_is_known_at_the_other() {
    let Some(world) = World::new("sessions") else { return };
    world.workflow("waiting", &waiting(&world));
    let start = |data| Start { data, password: Some("a long password"), ..Start::default() };
    let leader = world.start(&start("one"));
    wait_now("it leads", &leader.log, || leader.has_said("this server leads"));
    let standby = world.start(&start("two"));
    let browser = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();

    // A browser signs in at the standby; the leader answers its pages.
    let form = [("username", "admin"), ("password", "a long password"), ("next", "/")];
    let answer = browser.post(format!("{}/login", standby.url)).form(&form).send().await.unwrap();
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = async |url: &str, cookie: &str| {
        browser.get(format!("{url}/settings")).header(COOKIE, cookie).send().await.unwrap().status()
    };
    assert_eq!(page(&standby.url, &cookie).await, StatusCode::OK);
    // Each port has a cookie of its own name; what it says is good at both.
    let token = cookie.split_once('=').unwrap().1;
    let port = leader.url.rsplit_once(':').unwrap().1;
    assert_eq!(page(&leader.url, &format!("pitcrew_{port}={token}")).await, StatusCode::OK);
    assert_eq!(page(&standby.url, "pitcrew_1=x").await, StatusCode::SEE_OTHER);
    // A change from a page of the standby is one of the same site; one from elsewhere is not.
    let pause = async |origin: &str| {
        let request = browser.post(format!("{}/workflows/none/pause", standby.url)).header(COOKIE, &cookie);
        request.header("origin", origin).form(&[("paused", "true")]).send().await.unwrap().status()
    };
    assert_eq!(pause("https://evil.example").await, StatusCode::FORBIDDEN);
    assert_ne!(pause(&standby.url).await, StatusCode::FORBIDDEN);
    // Out everywhere is out at both.
    let out = browser.post(format!("{}/logout/everywhere", standby.url)).header(COOKIE, &cookie).send().await.unwrap();
    assert!(out.headers()[SET_COOKIE].to_str().unwrap().starts_with(cookie.split_once('=').unwrap().0));
    wait("nobody is known", &leader.log, async || page(&leader.url, &format!("pitcrew_{port}={token}")).await != 200)
        .await;
    wait("nobody is known", &standby.log, async || page(&standby.url, &cookie).await != 200).await;
}

#[tokio::test]
async fn a_standby_that_reaches_no_leader_reads_and_refuses_to_change() {
    let Some(world) = World::new("unreached") else { return };
    world.workflow("waiting", &waiting(&world));
    // It leads, and says that it is where nobody is.
    let env = [("PITCREW_ADVERTISE", "http://127.0.0.1:9")];
    let leader = world.start(&Start { data: "one", env: &env, ..Start::default() });
    world.knows(&leader, "waiting").await;
    let standby = world.start(&Start { data: "two", ..Start::default() });
    assert_eq!(world.get(&standby, "/api/v2/dags/waiting").await["dag_id"], "waiting");
    let body = json!({ "dag_run_id": "a", "logical_date": null });
    let url = format!("{}/api/v2/dags/waiting/dagRuns", standby.url);
    let answer = world.client.post(url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key(RETRY_AFTER));
    let text = answer.text().await.unwrap();
    assert!(text.contains("http://127.0.0.1:9"), "{text}");
    assert_eq!(world.query("select count(*) from runs"), "0");
    // Whoever was taken for the leader and is not, says so, and does not pass on once more.
    let body = json!({ "key": "k", "value": "v" });
    let request = world.client.post(format!("{}/api/v2/variables", standby.url)).json(&body);
    let answer = request.header("x-pitcrew-passed-on", "1").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.query("select count(*) from variables"), "0");
}
