//! The files in `deploy/compose` held against the program: what they call parses, what they set is known, and what one
//! file says of another is true. Docker itself is not needed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser as _;
use pitcrew_control::config::keys;
use pitcrew_control::vault::SECRET_KEY;
use serde_json::Value;

use super::server::{HOSTS, PASSWORD};
use super::worker::TOKEN;
use super::{Cli, Command};

const COMPOSE: [&str; 2] = ["compose.yaml", "compose.worker.yaml"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(name: &str) -> String {
    let path = root().join("deploy/compose").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Variables of Compose as it puts them in: `${NAME:-default}`, and for `${NAME:?why}` what is given.
fn filled(text: &str, given: &BTreeMap<&str, &str>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) = after.split_once('}').unwrap_or_else(|| panic!("`{text}` has no end"));
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => {
                (inside.split_once(":?").unwrap_or_else(|| panic!("`{inside}` has neither default nor reason")).0, None)
            }
        };
        let value = given.get(name).copied().or(default).unwrap_or_else(|| panic!("`{name}` is not in docs/deploy.md"));
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out + rest
}

/// The services of a file, with the variables filled in.
fn services(name: &str) -> BTreeMap<String, Value> {
    let given = BTreeMap::from([("PITCREW_SERVER_URL", "http://10.0.0.4:8793")]);
    let file =
        pitcrew_lang::yaml::to_json(&filled(&read(name), &given)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_value(file["services"].clone()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Paths in the container that lie on the host.
fn mounts(service: &Value) -> Vec<String> {
    let inside = |text: String| text.rsplit_once(':').unwrap().1.to_owned();
    texts(&service["volumes"]).into_iter().map(inside).collect()
}

/// What a service sets, its example files too.
fn variables(service: &Value) -> BTreeMap<String, String> {
    let set = service["environment"].as_object().into_iter().flatten();
    let mut all: BTreeMap<String, String> =
        set.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    for file in texts(&service["env_file"]) {
        for line in read(&format!("{file}.example")).lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{file}: `{line}`"));
            assert_eq!(value, "", "{file}: an example has no values");
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    all
}

#[test]
fn every_command_line_of_compose_is_one_of_the_program() {
    let mut seen = Vec::new();
    for file in COMPOSE {
        for (name, service) in services(file) {
            let words = texts(&service["command"]);
            if words.is_empty() {
                assert_ne!(service["image"], "pitcrew", "{file}: {name} runs nothing");
                continue;
            }
            let words = std::iter::once("pitcrew".to_owned()).chain(words);
            let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
            let data = cli.global.data_dir.clone().map(|dir| dir.display().to_string());
            let data = data.or_else(|| variables(&service).get(keys::DATA_DIR.env).cloned()).expect("a data directory");
            assert!(mounts(&service).contains(&data), "{file}: {name}: `{data}` is on no volume");
            match cli.command {
                Command::Server(_) => seen.push("server".to_owned()),
                Command::Worker(args) => {
                    seen.push(args.queues.join(","));
                    assert!(cli.global.server.is_some(), "{file}: {name}");
                    let credential = format!("{data}/worker/credential.json");
                    assert_eq!(texts(&service["healthcheck"]["test"]).last(), Some(&credential));
                    let drain = pitcrew_lang::parse_duration(&args.drain_deadline).unwrap();
                    let grace = pitcrew_lang::parse_duration(service["stop_grace_period"].as_str().unwrap()).unwrap();
                    assert!(grace > drain, "{file}: {name} is killed before what runs may end");
                }
                other => panic!("{file}: {name}: {other:?}"),
            }
        }
    }
    assert_eq!(seen, ["server", "default", "s21"]);
}

#[test]
fn every_variable_that_compose_sets_is_known_to_whom_it_is_set() {
    let known = |name: &str| {
        keys::ALL.iter().any(|key| key.env == name) || [SECRET_KEY, PASSWORD, HOSTS, TOKEN].contains(&name)
    };
    for file in COMPOSE {
        for (service, told) in services(file) {
            for (name, value) in variables(&told) {
                let ours = told["image"] == "pitcrew";
                let right = match ours {
                    true => known(&name) || name.starts_with("NVIDIA_"),
                    false => name.starts_with("POSTGRES_") || name == "PGDATA",
                };
                assert!(right, "{file}: {service}: `{name}`");
                if let Some(key) = keys::ALL.iter().find(|key| key.env == name).filter(|_| !value.is_empty()) {
                    key.kind.check(&value).unwrap_or_else(|wrong| panic!("{file}: {service}: `{name}` {wrong}"));
                }
            }
        }
    }
}

#[test]
fn ports_volumes_and_names_of_the_services_agree() {
    let one = services(COMPOSE[0]);
    let server = &one["server"];
    let set = variables(server);
    let port = set[keys::LISTEN.env].rsplit_once(':').unwrap().1.to_owned();
    let address = format!("http://server:{port}");
    assert_eq!(set[keys::ADVERTISE.env], address);
    assert!(texts(&server["ports"]).iter().all(|mapping| mapping.ends_with(&format!(":{port}:{port}"))));
    assert!(texts(&server["healthcheck"]["test"]).last().unwrap().contains(&format!(":{port}/api/v2/monitor/health")));
    assert!(mounts(server).contains(&set[keys::WORKFLOWS.env]));
    assert!(texts(&one["worker"]["command"]).contains(&address));
    assert!(read("Dockerfile").contains(&format!("\nEXPOSE {port}\n")));
    let kept = variables(&one["database"])["PGDATA"].clone();
    assert!(mounts(&one["database"]).iter().any(|dir| kept.starts_with(dir.as_str())));
    // No two services share a folder, and whoever is waited for has a health check.
    let mut folders: Vec<String> = Vec::new();
    for file in COMPOSE {
        let all = services(file);
        for service in all.values() {
            assert!(service["healthcheck"]["test"].is_array());
            assert_eq!(service["restart"], "unless-stopped");
            for waited in service["depends_on"].as_object().into_iter().flat_map(|needs| needs.keys()) {
                assert!(all.contains_key(waited), "{file}: {waited}");
            }
            if file == COMPOSE[0] {
                folders
                    .extend(texts(&service["volumes"]).iter().map(|text| text.split_once(':').unwrap().0.to_owned()));
            }
        }
    }
    let count = folders.len();
    folders.sort();
    folders.dedup();
    assert_eq!(folders.len(), count);
}

#[test]
fn the_image_is_built_from_what_is_there_for_the_user_that_is_named() {
    let text = read("Dockerfile").replace("\\\n", " ");
    let mut stages: Vec<String> = Vec::new();
    let mut args: Vec<String> = Vec::new();
    let mut lines = 0;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        lines += 1;
        match words[0] {
            "FROM" => {
                // An argument counts in its own stage only.
                args.clear();
                stages.extend(words.iter().position(|word| *word == "AS").map(|at| words[at + 1].to_owned()));
            }
            "COPY" => match words[1].strip_prefix("--from=") {
                Some(stage) => assert!(stages.iter().any(|known| known == stage), "{line}"),
                None => {
                    for path in &words[1..words.len() - 1] {
                        assert!(root().join(path).exists(), "{line}");
                        let kept = read("Dockerfile.dockerignore");
                        assert!(
                            kept.lines().any(|kept| kept == format!("!{path}")),
                            "{path} is left out of the context"
                        );
                    }
                }
            },
            "ARG" => args.push(words[1].split('=').next().unwrap().to_owned()),
            "RUN" if line.contains("useradd") => {
                assert_eq!(args, ["UID", "GID"]);
                assert!(line.contains("--uid \"$UID\"") && line.contains("--gid \"$GID\""), "{line}");
            }
            "ENTRYPOINT" => assert_eq!(words[1..], ["[\"pitcrew\"]"]),
            "RUN" | "WORKDIR" | "USER" | "ENV" | "VOLUME" | "EXPOSE" => {}
            other => panic!("`{other}` is no instruction: {line}"),
        }
    }
    assert!(lines > 10);
    let rust = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version =
        rust.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"').to_owned();
    assert!(text.contains(&format!("FROM rust:{version}-")), "the image has another Rust than the project");
    for file in COMPOSE {
        for service in services(file).values().filter(|service| service["image"] == "pitcrew") {
            let build = &service["build"];
            assert!(root().join(build["dockerfile"].as_str().unwrap()).exists());
            let context = root().join("deploy/compose").join(build["context"].as_str().unwrap());
            assert_eq!(context.canonicalize().unwrap(), root());
            assert!(["UID", "GID"].iter().all(|name| build["args"].get(name).is_some()));
        }
    }
}
