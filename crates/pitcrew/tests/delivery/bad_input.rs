//! What can be wrong with a delivery: before there is a run, on the way to the server, at the repository, in the version
//! file. Each ends in words that name the step, the server and what to do, after as many tries as can help.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::harness::text;
use crate::sshd::{free_port, keygen};
use crate::world::Delivery;

/// Waiting helps, or does not: the example tries a step three times.
const AGAIN: u64 = 3;
const ONCE: u64 = 1;

/// What is wrong, the step that fails, how often it is tried, and words of what is said.
type Case = (Value, &'static str, u64, Vec<String>);

fn case(changes: Value, step: &'static str, tries: u64, told: &[&str]) -> Case {
    (changes, step, tries, told.iter().map(|words| (*words).to_owned()).collect())
}

fn without_long_waits(example: &str) -> String {
    assert!(example.contains("retry_delay: 10s"));
    example.replace("retry_delay: 10s", "retry_delay: 100ms").replace("max_active_runs: 4", "max_active_runs: 8")
}

/// All at the same time.
fn try_all(world: &Delivery, cases: &[Case]) {
    let runs: Vec<String> = cases.iter().map(|(changes, ..)| world.trigger(world.conf_with(changes.clone()))).collect();
    for ((changes, step, tries, told), run) in cases.iter().zip(&runs) {
        assert_eq!(world.ended(run), "failed", "{changes}: {}", world.story(run));
        let (tried, said) = world.told(run, step);
        assert_eq!(tried, *tries, "{changes}: {step}: {said}");
        for words in told {
            assert!(said.contains(words), "{changes}: no `{words}` in: {said}");
        }
        let shown = text(&world.pitcrew.run(&["runs", "show", run]));
        let last = said.lines().last().unwrap();
        assert!(shown.contains(&format!("✗ {step}[0] failed: {last}")), "{changes}: {shown}");
    }
    world.leaves_nothing();
    world.no_secret_anywhere();
}

/// A server that is none: says this to each who connects, and closes, or stays.
fn answering(hello: &'static str, stays: bool) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(hello.as_bytes());
            open.extend(stays.then_some(stream));
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_reached_is_told_with_the_reason_and_what_to_do() {
    let mut world = Delivery::with(&["127.0.0.1", "127.0.0.2"], without_long_waits).await;
    let file = world.pitcrew.path("key-for-all");
    keygen(&file, "ed25519", "");
    let key = std::fs::read_to_string(&file).unwrap();
    let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    keygen(&world.pitcrew.path("encrypted"), "ed25519", "a passphrase");
    let encrypted = std::fs::read_to_string(world.pitcrew.path("encrypted")).unwrap();
    for (name, secret) in [
        ("other", key.as_str()),
        ("public", &public),
        ("cut", &key[..key.len() / 2]),
        ("words", "hunter2"),
        ("json", r#"{"user": "ubuntu", "pem": "hunter2"}"#),
        ("putty", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n"),
        ("encrypted", &encrypted),
        ("old", "-----BEGIN DSA PRIVATE KEY-----\nMIIBugIBAAKBgQ==\n-----END DSA PRIVATE KEY-----\n"),
    ] {
        world.secret(&format!("keys/{name}"), secret);
    }
    world.secret("keys/deleted", &key);
    let deleted = json!({ "SecretId": "keys/deleted" });
    world.moto.json("secretsmanager", "secretsmanager.DeleteSecret", &deleted);
    // The host key of the second changes after it was seen.
    let second = format!("127.0.0.2:{}", world.port);
    world.pitcrew.ok(&["ssh", "hosts", "trust", &second]);
    let sshd = world.sshd("127.0.0.2");
    sshd.down();
    sshd.change_host_key("ed25519");
    sshd.up().await;

    let closed = free_port();
    let (web, full, mute) = (
        answering("HTTP/1.1 400 Bad Request\r\n\r\n", false),
        answering("Exceeded MaxStartups\r\n", false),
        answering("", true),
    );
    let at = |port: u16| format!("`127.0.0.1:{port}`");
    let port = |port: u16, tries: u64, told: &str| {
        case(json!({ "ssh_port": port }), "deliver.connect", tries, &[told, "127.0.0.1"])
    };
    let key = |name: &str, told: &[&str]| {
        let named = format!("aws-sm:keys/{name}");
        case(json!({ "secrets_arn": named }), "deliver.connect", ONCE, &[&[named.as_str(), "127.0.0.1"], told].concat())
    };
    let user = json!({ "ssh_user": "no-such-user" });
    let nowhere = json!({ "gpu_server_ip": "no-such-host.invalid" });
    let elsewhere = json!({ "gpu_server_ip": "127.0.0.2" });
    let open_file = json!({ "secrets_arn": format!("file:{}", file.display()) });
    let no_file = json!({ "secrets_arn": "file:/nowhere/key" });
    let other_region = json!({ "secrets_arn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:none-AbCdEf" });
    try_all(
        &world,
        &[
            case(nowhere, "deliver.connect", AGAIN, &["cannot find `no-such-host.invalid`", "check the name"]),
            port(closed, AGAIN, &format!("{} refuses connections: is sshd running, is the port right?", at(closed))),
            port(mute, AGAIN, &format!("{} took the connection and then said nothing for 8 s", at(mute))),
            port(full, AGAIN, "it may have too many logins at once (`MaxStartups`)"),
            port(
                web,
                ONCE,
                &format!("{} answers, but not as an SSH server (`HTTP/1.1 400 Bad Request`): check the port", at(web)),
            ),
            case(
                user,
                "deliver.connect",
                ONCE,
                &["none of the keys offered for `no-such-user`", "~no-such-user/.ssh/authorized_keys"],
            ),
            case(
                elsewhere,
                "deliver.connect",
                ONCE,
                &["the host key of `127.0.0.2` changed: expected ED25519 SHA256:", "pitcrew ssh hosts forget"],
            ),
            key("other", &["accepts none of the keys offered", "authorized_keys"]),
            key("public", &["public"]),
            key("cut", &["-----END"]),
            key("words", &["no private key"]),
            key("json", &["is JSON without `private_key`; it has `user`, `pem`"]),
            key("putty", &["PuTTY"]),
            key("encrypted", &["passphrase"]),
            key("old", &["DSA"]),
            key("none", &["there is no secret", "us-east-1"]),
            key("deleted", &["marked for deletion", "restore-secret"]),
            case(other_region, "deliver.connect", ONCE, &["there is no secret", "eu-west-1"]),
            case(open_file, "deliver.connect", ONCE, &["(0644)", "chmod 600"]),
            case(no_file, "deliver.connect", ONCE, &["/nowhere/key"]),
        ],
    );
    let mut said = String::new();
    for run in world.get("/api/v2/dags/gpu-server-cicd/dagRuns?limit=100")["dag_runs"].as_array().unwrap() {
        said.push_str(&world.story(run["dag_run_id"].as_str().unwrap()));
    }
    assert!(!said.contains("hunter2") && !said.contains("a passphrase"), "{said}");

    // Somebody whom it is not allowed to.
    let (id, secret) = world.moto.user("ci", &["sns:Publish"]);
    world.kill();
    world.moto.check_everything();
    world.pitcrew.env.extend([("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)]);
    world.start();
    let denied =
        "AWS denies `secretsmanager:GetSecretValue` on `aws-sm:keys/other` to `arn:aws:iam::123456789012:user/ci`";
    try_all(&world, &[key("other", &[denied])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_at_the_repository_or_in_it_is_told_and_not_tried_again() {
    let world = Delivery::with(&["127.0.0.1"], |example| {
        // A branch that nobody checked: it comes from a variable.
        let revision = "revision: \"{{ params.git_branch }}\"";
        assert!(example.contains(revision));
        without_long_waits(example).replacen(
            revision,
            "revision: \"{{ var.value.branch | default(params.git_branch) }}\"",
            1,
        )
    })
    .await;
    world.commit_to(
        "app",
        &[
            ("www/version.yaml", "a: {b: 1}\n"),
            ("www/list.yaml", "- a\n"),
            ("www/broken.yaml", "a: [1\n"),
            ("www/twice.yaml", "a: 1\na: 2\n"),
            ("www/name.yaml", "\"a\\tb\": 1\n"),
        ],
    );
    world.secret("git/other", "another-token");
    let nobody = free_port();
    let place = format!("{}@127.0.0.1:{}", world.user, world.port);
    let taken = world.pitcrew.path("taken");
    std::fs::create_dir_all(taken.join("app")).unwrap();
    std::fs::write(taken.join("app/precious"), "").unwrap();
    std::fs::write(world.pitcrew.path("file"), "").unwrap();
    let checkout = |changes: Value, tries: u64, told: &[&str]| {
        case(changes, "deliver.checkout", tries, &[told, &[place.as_str()]].concat())
    };
    let file = |name: &str, told: &[&str]| {
        case(json!({ "version_file_path": name }), "deliver.versions", ONCE, &[told, &[name, &place]].concat())
    };
    try_all(
        &world,
        &[
            checkout(json!({ "git_branch": "mian" }), ONCE, &["has no branch, tag or commit `mian`; there is: `main`"]),
            checkout(json!({ "git_token": "" }), ONCE, &["wants a token; give one to the task"]),
            checkout(json!({ "git_token": "aws-sm:git/other" }), ONCE, &["the token does not open it"]),
            checkout(json!({ "git_token": "aws-sm:git/none" }), ONCE, &["there is no secret `aws-sm:git/none`"]),
            checkout(json!({ "git_repo_url": world.repository_url("none") }), ONCE, &["the repository does not exist"]),
            checkout(
                json!({ "git_repo_url": format!("http://127.0.0.1:{nobody}/app.git") }),
                AGAIN,
                &["the git host cannot be reached from this host"],
            ),
            checkout(json!({ "git_repo_url": "ext::id" }), ONCE, &[]),
            checkout(
                json!({ "workspace_path": taken }),
                ONCE,
                &["holds files but is no git checkout; name an empty directory, or a new one"],
            ),
            checkout(json!({ "workspace_path": world.pitcrew.path("file") }), ONCE, &["cannot make the directory"]),
            file("www/versions.yaml", &["its directory holds", "version.yaml"]),
            file("version/yaml", &["nor a directory"]),
            file("www", &["is no file"]),
            file("www/version.yaml", &["`a` must be a single value, found a mapping"]),
            file("www/list.yaml", &["it must be a mapping"]),
            file("www/broken.yaml", &[]),
            file("www/twice.yaml", &["`a`"]),
            case(
                json!({ "version_file_path": "www/name.yaml" }),
                "deliver.remember",
                ONCE,
                &["is not a name for a variable"],
            ),
        ],
    );
    assert!(taken.join("app/precious").exists());
    assert_eq!(world.pitcrew.json(&["variables", "list", "--output", "json"]), json!([]), "all or none");

    world.pitcrew.ok(&["variables", "set", "branch", "--upload-pack=touch pwned"]);
    world.pitcrew.ok(&["variables", "get", "branch"]);
    try_all(&world, &[checkout(json!({}), ONCE, &["cannot be the name of a branch, tag or commit"])]);
    world.pitcrew.ok(&["variables", "delete", "branch"]);

    // A workspace is a path, whatever is in its name.
    world.commit_to("app", &[("www/version.yaml", "a: 1\n")]);
    let strange = world.pitcrew.path("strange/-rf $(touch pwned) `id`/it's \"quoted\"; &\\");
    let run = world.trigger(world.conf_with(json!({ "workspace_path": strange })));
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    assert!(strange.join("app/www/version.yaml").exists());
    assert_eq!(std::path::PathBuf::from(world.output(&run, "deliver.checkout", "directory")), strange.join("app"));
    assert_eq!(world.pitcrew.files_named("pwned"), Vec::<std::path::PathBuf>::new());
    world.leaves_nothing();
}

#[tokio::test]
async fn bad_input_makes_no_run_and_the_api_names_what_is_wrong() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    for (name, value) in [
        ("gpu_server_ip", json!("a b")),
        ("gpu_server_ip", json!("-oProxyCommand=id")),
        ("gpu_server_ip", json!("")),
        ("workspace_path", json!("relative")),
        ("workspace_path", json!("/home/ubuntu/../root")),
        ("workspace_path", json!("/home/u\nid")),
        ("workspace_path", json!("-rf")),
        ("secrets_arn", json!("arn:aws:s3:::bucket")),
        ("secrets_arn", json!("-----BEGIN OPENSSH PRIVATE KEY-----")),
        ("git_repo_url", json!("--upload-pack=id")),
        ("git_branch", json!("--upload-pack=id")),
        ("version_file_path", json!("../../etc/passwd")),
        ("version_file_path", json!(["www/version.yaml"])),
        ("ssh_user", json!("root; id")),
        ("ssh_port", json!("22")),
        ("ssh_port", json!(0)),
        ("server", json!("unknown param")),
    ] {
        let conf = world.conf_with(json!({ name: value }));
        let (status, told) = world.post("/api/v2/dags/gpu-server-cicd/dagRuns", &json!({ "conf": conf }));
        assert!((400..500).contains(&status) && told.to_string().contains(name), "{name}={value}: {status} {told}");
    }
    assert_eq!(world.runs(), 0, "bad input made a run");
}
