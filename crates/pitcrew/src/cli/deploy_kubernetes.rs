//! The files in `deploy/kubernetes` held against the program: what they call parses, what they set is known, and what one file
//! says of another is true. That an API server takes them is seen where there is one (`tests/kubernetes/install.rs`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser as _;
use pitcrew_control::config::keys;
use pitcrew_control::vault::SECRET_KEY;
use serde_json::Value;

use super::server::{HOSTS, PASSWORD};
use super::worker::TOKEN;
use super::{Cli, Command};

fn read(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(name: &str) -> Vec<Value> {
    let one = |text: &str| pitcrew_lang::yaml::to_json(text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
    read(name).split("\n---\n").map(one).collect()
}

fn set(file: &str) -> Value {
    documents(file).into_iter().find(|one| one["kind"] == "StatefulSet").expect("a StatefulSet")["spec"].clone()
}

fn container(set: &Value) -> &Value {
    &set["template"]["spec"]["containers"][0]
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What is set, and how; without a value where another thing of the cluster has it.
fn variables(set: &Value) -> BTreeMap<String, Option<String>> {
    let all = container(set)["env"].as_array().unwrap();
    all.iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one["value"].as_str().map(str::to_owned))).collect()
}

fn parsed(set: &Value) -> Cli {
    let words = texts(&container(set)["args"]).into_iter().map(|word| word.replace("$(POD_NAME)", "worker-0"));
    Cli::try_parse_from(std::iter::once("pitcrew".to_owned()).chain(words)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_server_is_started_as_it_can_be() {
    let set = set("base/server.yaml");
    assert!(matches!(parsed(&set).command, Command::Server(_)));
    let given = variables(&set);
    for (name, value) in &given {
        let Some(key) = keys::ALL.iter().find(|key| key.env == name) else {
            assert!(["POD_NAME", "PITCREW_CONFIG"].contains(&name.as_str()), "`{name}`");
            continue;
        };
        key.kind.check(value.as_deref().unwrap()).unwrap_or_else(|wrong| panic!("`{name}` {wrong}"));
    }
    let value = |name: &str| given[name].clone().unwrap();
    let places: Vec<&str> = container(&set)["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["mountPath"].as_str().unwrap())
        .collect();
    for name in [keys::DATA_DIR.env, keys::WORKFLOWS.env] {
        assert!(places.contains(&value(name).as_str()), "{name} is on no volume");
    }
    assert_eq!(value("PITCREW_CONFIG"), "/etc/pitcrew/pitcrew.yaml");
    assert!(places.contains(&"/etc/pitcrew"));
    // One port, wherever it stands.
    let port = value(keys::LISTEN.env).rsplit_once(':').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(container(&set)["ports"][0]["containerPort"], port);
    assert_eq!(
        value(keys::ADVERTISE.env),
        format!("http://$(POD_NAME).{}:{port}", set["serviceName"].as_str().unwrap())
    );
    for service in documents("base/server.yaml").iter().filter(|one| one["kind"] == "Service") {
        assert_eq!(service["spec"]["ports"][0]["port"], port);
    }
    let door = documents("base/network.yaml").into_iter().find(|one| one["metadata"]["name"] == "server").unwrap();
    assert_eq!(door["spec"]["ingress"][0]["ports"][0]["port"], port);
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(container(&set)[probe]["httpGet"]["path"], "/api/v2/monitor/health", "{probe}");
    }
    // The rest is in a secret, of which there is an example.
    for line in read("server.env.example").lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once('=').unwrap();
        assert!(keys::ALL.iter().any(|key| key.env == name) || [SECRET_KEY, PASSWORD, HOSTS].contains(&name), "{name}");
        assert!(value.is_empty() && !given.contains_key(name), "{name}");
    }
    let config = pitcrew_lang::yaml::to_json(&read("base/pitcrew.yaml")).unwrap();
    assert!(config.as_object().unwrap().keys().all(|key| keys::ALL.iter().any(|known| known.name == key)), "{config}");
}

#[test]
fn a_worker_goes_where_the_server_is_and_ends_before_it_is_killed() {
    let set = set("base/worker.yaml");
    let cli = parsed(&set);
    let server = documents("base/server.yaml").remove(0);
    let address =
        format!("http://{}:{}", server["metadata"]["name"].as_str().unwrap(), server["spec"]["ports"][0]["port"]);
    assert_eq!(cli.global.server.as_deref(), Some(address.as_str()));
    let Command::Worker(args) = cli.command else { panic!("it is no worker") };
    let drain = pitcrew_lang::parse_duration(&args.drain_deadline).unwrap();
    let grace = set["template"]["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace > drain.as_secs(), "{grace} s are not enough");
    // What it thinks that it has is no more than it has.
    let has = &container(&set)["resources"]["requests"];
    assert_eq!(args.cpu.as_deref(), has["cpu"].as_str());
    let size = |text: &str| text.strip_suffix("Gi").unwrap().parse::<u32>().unwrap();
    assert!(size(args.memory.as_deref().unwrap()) < size(has["memory"].as_str().unwrap()));
    assert!(read("base/worker.yaml").contains(TOKEN));
    // The autoscaler counts the queue that it serves, by the names that these pods have.
    let scaler = documents("scaling/autoscaler.yaml").remove(0);
    assert_eq!(scaler["spec"]["metrics"][1]["external"]["metric"]["selector"]["matchLabels"]["queue"], args.queues[0]);
    assert_eq!((&scaler["spec"]["minReplicas"], &scaler["spec"]["maxReplicas"]), (&Value::from(2), &Value::from(10)));
    let rules =
        documents("monitoring/adapter.yaml").remove(0)["data"]["externalRules.yaml"].as_str().unwrap().to_owned();
    for metric in scaler["spec"]["metrics"].as_array().unwrap() {
        let name = metric["external"]["metric"]["name"].as_str().unwrap();
        assert!(rules.contains(&format!("name: {{as: {name}}}")), "{name}");
    }
    let told = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    for series in rules.split("__name__=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(told.contains(&format!("| `{series}` | gauge |")), "{series}");
    }
}
