//! The example of delivery from end to end: a real sshd (or more than one), real repositories over HTTP with a token, and
//! the Secrets Manager of moto, by the command line, the API and the form.

#[path = "../aws/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of AWS")]
mod harness;
#[path = "../aws/moto.rs"]
#[allow(dead_code, reason = "shared with the tests of AWS")]
mod moto;
#[path = "../../../exec/tests/backends/program.rs"]
mod program;
#[path = "../../../exec/tests/ssh/proxy.rs"]
#[allow(dead_code, reason = "shared with the tests of SSH")]
mod proxy;
#[path = "../../../exec/tests/ssh/sshd.rs"]
#[allow(dead_code, reason = "shared with the tests of SSH")]
mod sshd;

mod bad_input;
mod form;
mod gates;
mod git_http;
mod keys;
mod kills;
mod links;
mod nodes;
mod transfers;
mod world;

use serde_json::{Value, json};

use world::Delivery;

#[tokio::test]
async fn the_seven_steps_on_one_server_by_the_command_line() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    let commit = world.commit("www/version.yaml", "a: 10.0\nb: '2'\n");
    let run = world.trigger(world.conf("127.0.0.1"));
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));

    assert_eq!(world.output(&run, "deliver.checkout", "commit"), commit);
    assert_eq!(world.output(&run, "deliver.connect", "user"), world.user);
    let variables = world.pitcrew.json(&["variables", "list", "--output", "json"]);
    assert_eq!(world::values(&variables), json!({ "a": "10.0", "b": "2" }));
    let audit = world.get("/api/v2/eventLogs?event=variable.set");
    let entry = &audit["event_logs"][0];
    assert_eq!((&entry["dag_id"], &entry["task_id"]), (&json!("gpu-server-cicd"), &json!("deliver.remember")));
    // Figures of it, in the run and as metrics.
    let figure = |task: &str, name: &str| world.figure(&run, task, name);
    assert!(figure("deliver.checkout", "fetch_bytes") > 0.0 && figure("deliver.checkout", "fetch_seconds") > 0.0);
    assert_eq!(figure("deliver.remember", "count"), 2.0);
    assert!(world.metric(r#"pitcrew_ssh_connect_seconds_count{host="127.0.0.1"}"#) >= 1.0);
    assert_eq!(world.metric("pitcrew_git_fetch_seconds_count"), 1.0);
    assert_eq!(world.metric(r#"pitcrew_variables_set_total{by="task"}"#), 2.0);

    // On the server: the repository and nothing else; no token and no key in any file, here or there.
    world.leaves_nothing();
    world.no_secret_anywhere();

    // Again, with a new commit to come: whatever became of the tree, only what is new is fetched.
    let app = world.workspace().join("app");
    for (state, spoil, is_renewed) in [
        ("dirty", "echo dirty >www/version.yaml; echo mine >www/other; rm .git/index", false),
        ("locked by a git that was killed", "touch .git/index.lock .git/HEAD.lock .git/refs/heads/main.lock", false),
        (
            "on another commit",
            "git checkout -q --orphan mine; git -c user.name=a -c user.email=a@b commit -qam mine",
            false,
        ),
        (
            "with objects that are damaged",
            "chmod -R u+w .git/objects; find .git/objects -type f -exec truncate -s 1 {} +",
            true,
        ),
        ("half a clone", "rm -rf .git/refs .git/HEAD", true),
    ] {
        let spoilt = std::process::Command::new("sh").args(["-ec", spoil]).current_dir(&app).output().unwrap();
        assert!(spoilt.status.success(), "{state}: {}", harness::text(&spoilt));
        let fetched = world.git.packs().len();
        let commit = world.commit("www/version.yaml", &format!("a: after it was {state}\n"));
        let run = world.trigger(world.conf("127.0.0.1"));
        assert_eq!(world.ended(&run), "success", "{state}: {}", world.story(&run));
        assert_eq!(world.output(&run, "deliver.checkout", "commit"), commit, "{state}");
        assert_eq!(world.pitcrew.ok(&["variables", "get", "a"]), format!("after it was {state}\n"));
        assert_eq!(std::fs::read_dir(app.join("www")).unwrap().count(), 1, "{state}");
        let packs = world.git.packs();
        assert_eq!(packs.last(), Some(&!is_renewed), "{state}: what was fetched");
        assert!(is_renewed || packs.len() == fetched + 1, "{state}: {packs:?}");
    }
    world.leaves_nothing();
    world.no_secret_anywhere();
}

#[tokio::test]
async fn a_connection_is_tried_from_here_and_by_the_server_and_its_host_is_remembered() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    let conf = world.conf("127.0.0.1");
    let (port, extra) = (conf["ssh_port"].to_string(), json!({ "key": conf["secrets_arn"] }).to_string());
    let host = ["--conn-type", "ssh", "--conn-host", "127.0.0.1", "--conn-port", &port];
    let rest = ["--conn-login", &world.user, "--conn-extra", &extra];
    world.pitcrew.ok(&[&["connections", "add", "gpu"][..], &host, &rest].concat());

    let works = |tested: &Value| (tested["status"] == true, tested["user"] == *world.user);
    let tested = world.pitcrew.json(&["connections", "test", "gpu", "--output", "json"]);
    assert_eq!(works(&tested), (true, true), "{tested}");
    let (status, again) = world.post("/api/pitcrew/v1/connections/gpu/test", &json!({}));
    assert_eq!((status, works(&again)), (200, (true, true)), "{again}");
    assert_eq!((&tested["host_is_new"], &again["host_is_new"]), (&json!(true), &json!(false)));

    let hosts = world.pitcrew.json(&["ssh", "hosts", "list", "--output", "json"]);
    assert_eq!((&hosts[0]["key"], hosts.as_array().unwrap().len()), (&tested["host_key"], 1));
    world.pitcrew.ok(&["ssh", "hosts", "forget", &format!("127.0.0.1:{port}")]);
    assert_eq!(world.pitcrew.json(&["ssh", "hosts", "list", "--output", "json"]), json!([]));
}

#[tokio::test]
async fn doctor_looks_over_hosts_and_says_what_to_do() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    let small = sshd::Sshd::start("MaxSessions 1").await;
    small.admit(&world.pitcrew.path("key"));
    let conf = world.conf("127.0.0.1");
    let extra = json!({ "key": conf["secrets_arn"] }).to_string();
    let port = conf["ssh_port"].as_u64().unwrap();
    for (id, port) in [("gpu", port), ("small", small.port.into()), ("gone", sshd::free_port().into())] {
        let port = port.to_string();
        let host = ["connections", "add", id, "--conn-type", "ssh", "--conn-host", "127.0.0.1", "--conn-port", &port];
        world.pitcrew.ok(&[&host[..], &["--conn-login", &world.user, "--conn-extra", &extra]].concat());
    }
    let out = world.pitcrew.run(&["doctor", "--output", "json"]);
    assert_eq!(out.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    let finding = |host: &str, check: &str| {
        let found = found.as_array().unwrap().iter().find(|f| f["host"] == *host && f["check"] == *check);
        found.cloned().unwrap_or_default()
    };
    let grade = |host: &str, check: &str| finding(host, check)["grade"].as_str().unwrap_or_default().to_owned();
    for check in ["connect", "programs", "git", "disk", "gpus", "clock", "sessions"] {
        assert_eq!(grade("gpu", check), "good", "{check}: {found:#}");
    }
    let sessions = finding("small", "sessions");
    assert_eq!(sessions["grade"], "warning", "{found:#}");
    assert!(sessions["remedy"].as_str().unwrap().contains("`MaxSessions`"), "{sessions}");
    assert_eq!((grade("gone", "connect").as_str(), grade("gone", "programs").as_str()), ("bad", ""));

    // Only that one; and nothing is left on it.
    let said = world.pitcrew.ok(&["doctor", "--host", "small"]);
    assert!(said.contains("host small") && !said.contains("host gpu") && !said.contains("database"), "{said}");
    world.pitcrew.fails(2, &["doctor", "--host", "nobody"]);
    world.leaves_nothing();
}

#[tokio::test]
async fn three_repositories_go_to_three_servers_few_at_a_time_and_one_that_is_down_stops_no_other() {
    let mut world = Delivery::with(&["127.0.0.1", "127.0.0.2", "127.0.0.3"], |example| {
        let few = example.replace("max_parallel: 20", "max_parallel: 2");
        assert_ne!(few, example);
        few.replace("retry_delay: 10s", "retry_delay: 100ms")
    })
    .await;
    world.commit("www/version.yaml", "a: 1\n");
    for name in ["data", "lib"] {
        world.repository(name);
        world.commit_to(name, &[("README", name)]);
    }
    world.sshd("127.0.0.2").down();
    let mut conf = world.conf("127.0.0.1, 127.0.0.2,127.0.0.3");
    conf["more_repositories"] = json!([world.repository_url("data"), world.repository_url("lib")]);
    let run = world.trigger(conf);
    assert_eq!(world.ended(&run), "failed", "{}", world.story(&run));
    let story = world.story(&run);
    assert_eq!(world.states(&run, "deliver.remember"), ["success", "upstream_failed", "success"], "{story}");
    assert_eq!(world.states(&run, "more"), ["success", "success", "failed", "failed", "success", "success"], "{story}");
    for step in ["deliver.connect[1]", "more[2]", "more[3]", "clean-up[1]"] {
        let told =
            format!("✗ {step} failed: did not start: `127.0.0.2:{}` refuses connections: is sshd running", world.port);
        assert!(story.contains(&told), "{told}: {story}");
    }
    for name in ["app/www/version.yaml", "data/README", "lib/README"] {
        assert!(world.workspace().join(name).exists(), "{name}: {story}");
    }
    // Those that were under way at the same time: as many as may be, and no more.
    let instances = world.instances(&run);
    let of_more = || instances.iter().filter(|instance| instance["task_id"] == "more");
    let time = |instance: &Value, name: &str| instance[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let under_way = |at| of_more().filter(|i| time(i, "start_date") <= at && at < time(i, "end_date")).count();
    assert_eq!(of_more().map(|instance| under_way(time(instance, "start_date"))).max(), Some(2), "{story}");

    // When it is back, what failed is done, and nothing else.
    world.sshd("127.0.0.2").up().await;
    let packs = world.git.packs().len();
    world.pitcrew.ok(&["runs", "retry", &run, "--failed"]);
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    assert_eq!(world.git.packs().len(), packs, "they share a disk here");
    world.leaves_nothing();
    world.no_secret_anywhere();
}

#[tokio::test]
async fn a_run_is_asked_for_over_both_apis() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    world.commit("www/version.yaml", "a: 1\n");
    for path in ["/api/v2/dags/gpu-server-cicd/dagRuns", "/api/v1/dags/gpu-server-cicd/dagRuns"] {
        let (status, run) = world.post(path, &json!({ "conf": world.conf("127.0.0.1") }));
        assert_eq!(status, 200, "{run}");
        let run = run["dag_run_id"].as_str().unwrap().to_owned();
        assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
        let (status, _) = world.curl(path, &["-H", "Content-Type: application/json", "-d", "{}"]);
        assert_eq!(status, 401, "without a token");
    }
    assert_eq!(world.runs(), 2);
}
