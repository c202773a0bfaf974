//! Webhooks of native workflows: signed pushes through a real server.

use serde_json::{Value, json};

use crate::harness::Place;
use crate::hooks::{KEY, Server, deliveries, settled, sign, until};
use crate::hooks_forge::Forge;

fn native(forge: &Forge) -> (Place, String) {
    let place = Place::new();
    std::fs::create_dir_all(place.path("workflows")).unwrap();
    let text = format!(
        "workflow: deploy
params:
  commit: {{type: string}}
  files: {{type: integer, default: 0}}
on:
  github:
    secret: env:FORGE_SECRET
    events: [push]
    branches: [main, 'release/*']
    paths: ['src/**']
    filter: body.repository.full_name == 'acme/app'
    params:
      commit: '{{{{ event.after }}}}'
      files: '{{{{ event.commits | length }}}}'
    report: {{token: env:FORGE_TOKEN, url: 'http://127.0.0.1:{}', context: ci/deploy}}
  generic:
    secret: env:FORGE_SECRET
    params: {{commit: '{{{{ event.version }}}}'}}
tasks:
  go: {{run: 'echo commit {{{{ params.commit }}}} of {{{{ params.files }}}}'}}
",
        forge.port
    );
    place.file("workflows/deploy.yaml", &text);
    (place, text)
}

fn pushed(commit: &str, branch: &str, file: &str) -> Vec<u8> {
    let commits = json!([{"added": [], "modified": [file], "removed": []}]);
    let repository = json!({"full_name": "acme/app"});
    let body =
        json!({"ref": format!("refs/heads/{branch}"), "after": commit, "repository": repository, "commits": commits});
    body.to_string().into_bytes()
}

fn runs(place: &Place) -> Vec<Value> {
    place.run("runs list --workflow deploy --output json").ends(0).json().as_array().cloned().unwrap_or_default()
}

#[test]
fn a_signed_push_starts_a_run_with_its_params_and_is_told_what_came_of_it() {
    let forge = Forge::start();
    let (place, _) = native(&forge);
    let secret = String::from_utf8(KEY.to_vec()).unwrap();
    let server =
        Server::start(&place, "data", &[("FORGE_SECRET", secret), ("FORGE_TOKEN", "hunter2-of-the-forge".to_owned())]);
    let post = |event: &str, body: &[u8], key: &[u8]| {
        let signature = sign(body, key);
        server.post("/hooks/deploy", &[("X-GitHub-Event", event), ("X-Hub-Signature-256", &signature)], body)
    };
    let came_to = |event: &str, body: &[u8]| {
        let told = post(event, body, KEY);
        assert_eq!((told.status, &told.json()["workflow"]), (202, &json!("deploy")), "{told:?}");
        settled(&place, told.json()["eventID"].as_str().unwrap())["outcome"].clone()
    };
    until("the workflow is read", || (post("ping", b"{}", KEY).status != 404).then_some(()));

    let body = pushed("c0ffee", "main", "src/a.py");
    let outcome = came_to("push", &body);
    assert_eq!(outcome[0]["result"], json!("fired"), "{outcome}");
    let made = &outcome[0]["made"][0];
    assert_eq!((&made["workflow"], &made["report"]), (&json!("deploy"), &json!("acme/app@c0ffee, ci/deploy")));
    let states = forge.states();
    let last = states.last().unwrap();
    assert_eq!(
        (last.path.as_str(), &last.body["state"]),
        ("/repos/acme/app/statuses/c0ffee", &json!("success")),
        "{states:?}"
    );
    assert_eq!(last.body["context"], json!("ci/deploy"));
    let name = made["name"].as_str().unwrap();
    assert!(name.starts_with("github__"), "{name}");
    let log = place.run(&format!("logs {name} go")).ends(0).stdout;
    assert!(log.contains("commit c0ffee of 1"), "{log}");

    // The same body again is a duplicate; what is not signed is refused, and its body is not kept.
    let again = post("push", &body, KEY);
    assert!(again.json()["message"].as_str().unwrap().contains("redeliver"), "{again:?}");
    let forged = post("push", b"{ hunter2-body", b"other");
    let line = settled(&place, forged.json()["eventID"].as_str().unwrap());
    assert_eq!((&line["state"], &line["outcome"][0]["by"]), (&json!("refused"), &json!("github")), "{line}");
    for (event, body, by) in [
        ("pull_request", pushed("c0ffee", "main", "src/b.py"), "github"),
        ("push", pushed("c0ffee", "feature", "src/a.py"), "branches"),
        ("push", pushed("c0ffee", "release/1/x", "src/a.py"), "branches"),
        ("push", pushed("c0ffee", "release/1", "docs/a.md"), "paths"),
        ("push", pushed(&"0".repeat(40), "main", "src/a.py"), "push"),
    ] {
        let outcome = came_to(event, &body);
        assert_eq!((&outcome[0]["result"], &outcome[0]["by"]), (&json!("filtered"), &json!(by)), "{outcome}");
    }
    // The body is proved to the other entry as well, which asks for no branch, but it has nothing for its param.
    let all = runs(&place);
    assert_eq!(all.len(), 1, "{all:?}");

    // Any program, with the secret itself.
    let bearer = format!("Bearer {}", String::from_utf8_lossy(KEY));
    let told = server.post("/hooks/deploy", &[("Authorization", &bearer)], br#"{"version": "v7"}"#);
    let outcome = settled(&place, told.json()["eventID"].as_str().unwrap())["outcome"].clone();
    assert_eq!((&outcome[0]["result"], &outcome[1]["result"]), (&json!("filtered"), &json!("fired")), "{outcome}");
    assert_eq!(runs(&place).len(), 2);
    // Sent once more, it is another run.
    let id = deliveries(&place)[0]["id"].clone();
    place.run(&format!("hooks redeliver {id}")).ends(0);
    until("it has started another run", || (runs(&place).len() == 3).then_some(()));
    assert_eq!(server.post("/hooks/nobody", &[], b"{}").status, 404);
}
