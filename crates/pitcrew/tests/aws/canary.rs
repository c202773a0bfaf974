//! Secrets of a run are where they are needed and nowhere else: searched for in every file, every process and every
//! message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::{World, contains, text};
use crate::moto::Moto;

const STORED: &str = "c4nary-of-the-store/+=x";
const REMOTE: &str = "c4nary-of-aws-Zm9vYmFy";

/// Every process whose command line or environment holds one of the secrets, but for the steps that were given it.
fn leaking() -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let (line, environ) = (read("cmdline"), read("environ"));
        let has = |bytes: &[u8]| [STORED, REMOTE].iter().any(|secret| contains(bytes, secret.as_bytes()));
        let is_step = contains(&environ, b"\0PITCREW_STEP=") || environ.starts_with(b"PITCREW_STEP=");
        if has(&line) || (has(&environ) && !is_step) {
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

#[test]
fn a_secret_is_in_the_step_that_needs_it_and_nowhere_else() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    let secret = json!({"Name": "api", "SecretString": json!({"token": REMOTE}).to_string(), "ClientRequestToken": "0".repeat(32)});
    moto.json("secretsmanager", "secretsmanager.CreateSecret", &secret);
    assert!(world.feed(&["secrets", "put", "db"], STORED).status.success());
    let script = [
        // It is there, whole.
        &format!("test \"$(printf %s \"$DB\" | sha256sum)\" = \"$(printf %s {} | tr A-Za-z N-ZA-Mn-za-m | sha256sum)\"", rot13(STORED)),
        "echo plain: $DB and $URL",
        "printf '%s' \"$DB\" | base64",
        "printf 'user:%s' \"$API\" | base64",
        "printf %s \"$API\" | od -An -tx1 | tr -d ' \\n'; echo",
        // In two pieces, with a pause that shows half a line.
        "printf %s \"$API\" | head -c 10; python3 -c 'import time; time.sleep(0.3)'; printf %s \"$API\" | tail -c +11; echo",
        "echo \"token=$API\" >> \"$PITCREW_OUTPUT\"",
        "python3 -c 'import time; time.sleep(1)'",
        "echo $API >&2; exit 3",
    ]
    .join("\n");
    let workflow = json!({
        "workflow": "canary",
        "env": {"DB": "{{ secret('store:db') }}"},
        "tasks": {
            "use": {"run": script, "env": {"API": "{{ secret('aws-sm:api#token') }}", "URL": "https://u:{{ secret('store:db') }}@h/"}},
            "call": {"uses": "http", "with": {"url": "http://127.0.0.1:9/", "retries": 0, "headers": {"X-Key": "{{ secret('aws-sm:api#token') }}"}, "body": "{{ secret('store:db') }}"}},
            "missing": {"run": "true", "env": {"NONE": "{{ secret('aws-sm:none') }}"}},
            "script": {"run": "echo {{ secret('store:db') }}"},
            "keep": {"uses": "variables.set", "with": {"values": {"x": "{{ secret('store:db') }}"}}},
        }
    });
    std::fs::write(world.path("w.yaml"), workflow.to_string()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let watch = {
        let over = over.clone();
        std::thread::spawn(move || {
            let (mut looks, mut found) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                found.extend(leaking());
                looks += 1;
            }
            (looks, found)
        })
    };
    let out = world.run(&["run", "w.yaml"]);
    over.store(true, Ordering::Relaxed);
    let (looks, found) = watch.join().unwrap();
    assert!(looks > 10 && found.is_empty(), "{looks}: {found:?}");

    let said = text(&out);
    let logs = world.ok(&["logs", "latest"]);
    assert!(logs.contains("plain: *** and https://u:***@h/"), "{logs}");
    assert!(said.contains("exit code 3"), "{said}\n{logs}");
    assert!(said.contains("there is no secret `aws-sm:none` in us-east-1"), "{said}");
    assert!(said.contains("can stand in `env` and in `with` only"), "{said}");
    assert!(said.contains("`variables.set` would store the secret"), "{said}");
    let hex: String = REMOTE.bytes().map(|byte| format!("{byte:02x}")).collect();
    for shown in [&said, &logs, &world.ok(&["runs", "show", "latest", "--output", "json"])] {
        for part in [STORED, REMOTE, &REMOTE[..12], &REMOTE[12..], hex.as_str()] {
            assert!(!shown.contains(part), "{part}: {shown}");
        }
    }
    for canary in [STORED, REMOTE] {
        assert_eq!(world.files_with(canary), Vec::<std::path::PathBuf>::new());
    }
}

/// The script itself lies in a file, so it cannot hold what it compares with.
fn rot13(text: &str) -> String {
    let turn = |c: char, from: char| char::from((c as u8 - from as u8 + 13) % 26 + from as u8);
    text.chars()
        .map(|c| match c {
            'a'..='z' => turn(c, 'a'),
            'A'..='Z' => turn(c, 'A'),
            c => c,
        })
        .collect()
}
