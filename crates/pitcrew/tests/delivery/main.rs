//! The example of delivery from end to end: a real sshd (or more than one), real repositories over HTTP with a token, and
//! the Secrets Manager of moto, by the command line, the API and the form.

#[path = "../aws/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of AWS")]
mod harness;
#[path = "../aws/moto.rs"]
#[allow(dead_code, reason = "shared with the tests of AWS")]
mod moto;
#[path = "../../../exec/tests/ssh/sshd.rs"]
#[allow(dead_code, reason = "shared with the tests of SSH")]
mod sshd;

mod git_http;
mod keys;
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
    // On the server: the repository and nothing else; no token and no key in any file, here or there.
    assert_eq!(world.left_on_the_server(), Vec::<String>::new());
    world.no_secret_anywhere();

    // Again: a dirty tree with a new commit to come; only what is new is fetched.
    let file = world.workspace().join("app/www/version.yaml");
    std::fs::write(&file, "dirty").unwrap();
    let commit = world.commit("www/version.yaml", "a: 11\n");
    let run = world.trigger(world.conf("127.0.0.1"));
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    assert_eq!(world.output(&run, "deliver.checkout", "commit"), commit);
    assert_eq!(world.pitcrew.ok(&["variables", "get", "a"]), "11\n");
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
async fn one_server_that_is_down_leaves_the_others_going() {
    let mut world = Delivery::new(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await;
    world.commit("www/version.yaml", "a: 1\n");
    world.down("127.0.0.2");
    let run = world.trigger(world.conf("127.0.0.1, 127.0.0.2,127.0.0.3"));
    assert_eq!(world.ended(&run), "failed", "{}", world.story(&run));
    let states = world.states(&run, "deliver.remember");
    assert_eq!(states, ["success", "upstream_failed", "success"], "{}", world.story(&run));
    let why = world.story(&run);
    assert!(why.contains("refuses connections"), "{why}");
}

#[tokio::test]
async fn a_run_is_asked_for_over_both_apis_and_the_form_and_bad_input_makes_none() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    world.commit("www/version.yaml", "a: 1\n");
    for path in ["/api/v2/dags/gpu-server-cicd/dagRuns", "/api/v1/dags/gpu-server-cicd/dagRuns"] {
        let (status, run) = world.post(path, &json!({ "conf": world.conf("127.0.0.1") }));
        assert_eq!(status, 200, "{run}");
        let run = run["dag_run_id"].as_str().unwrap().to_owned();
        assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    }
    let before = world.runs();
    let conf = world.conf("127.0.0.1");
    for (name, value) in [
        ("gpu_server_ip", json!("a b")),
        ("gpu_server_ip", json!("-oProxyCommand=id")),
        ("workspace_path", json!("relative")),
        ("workspace_path", json!("/home/ubuntu/../root")),
        ("secrets_arn", json!("arn:aws:s3:::bucket")),
        ("secrets_arn", json!("-----BEGIN OPENSSH PRIVATE KEY-----")),
        ("git_branch", json!("--upload-pack=id")),
        ("version_file_path", json!("../../etc/passwd")),
        ("ssh_port", json!("22")),
        ("server", json!("unknown param")),
    ] {
        let mut conf = conf.clone();
        conf[name] = value.clone();
        let (status, told) = world.post("/api/v2/dags/gpu-server-cicd/dagRuns", &json!({ "conf": conf }));
        assert!((400..500).contains(&status) && told.to_string().contains(name), "{name}={value}: {status} {told}");
    }
    assert_eq!(world.runs(), before, "bad input made a run");
}

#[tokio::test]
async fn what_is_wrong_on_the_way_is_told_and_not_tried_again() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    world.commit("www/version.yaml", "a: {b: 1}\n");
    let conf = |name: &str, value: &str| {
        let mut conf = world.conf("127.0.0.1");
        conf[name] = Value::from(value);
        conf
    };
    for (conf, told) in [
        (world.conf("127.0.0.1"), "`a` must be a single value, found a mapping"),
        (conf("git_branch", "mian"), "has no branch, tag or commit `mian`; there is: `main`"),
        (conf("version_file_path", "www/versions.yaml"), "its directory holds version.yaml"),
        (conf("secrets_arn", "aws-sm:no/such/key"), "no secret"),
        (conf("secrets_arn", "aws-sm:wrong/key"), "accepts none of the keys"),
        (conf("git_token", ""), "wants a token"),
    ] {
        let run = world.trigger(conf.clone());
        assert_eq!(world.ended(&run), "failed", "{conf}: {}", world.story(&run));
        let story = world.story(&run);
        assert!(story.contains(told), "{told}: {story}");
    }
}
