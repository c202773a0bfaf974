//! Orders to a node against an API server that refuses some of them: what may not be done now leads to nothing harder, and what
//! people did to a node stays theirs.

mod server;

use std::time::Duration;

use pitcrew_kubernetes::Client;
use pitcrew_kubernetes::fleet::{CORDONED, KubeFleet, Outcome};
use pitcrew_kubernetes::pod::Container;
use pitcrew_kubernetes::reboot::{BOOT, How};
use serde_json::{Value, json};

use server::Server;

/// Nobody waits for so long.
const LONG: Duration = Duration::from_secs(300);

fn fleet(server: &Server) -> KubeFleet {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let config = json!({
        "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": server.url } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let client = Client::find(Some(&path), None, &|_| None).unwrap();
    KubeFleet { client, selector: None, resource: "nvidia.com/gpu".to_owned(), owner: "me".to_owned() }
}

fn annotation() -> How {
    How::Annotation { key: "reboot.example/wanted".to_owned(), value: None }
}

fn pod() -> How {
    How::Pod(Container { image: "tools:1".to_owned(), ..Container::default() })
}

async fn reboot(server: &Server, how: &How, within: Duration) -> Outcome {
    fleet(server).reboot(how, "ops", "n1", "b1", "inc-1/n1/4", within).await
}

fn annotations(server: &Server) -> Value {
    server.state().node["metadata"]["annotations"].clone()
}

#[tokio::test]
async fn a_reboot_that_may_not_be_ordered_yet_is_ordered_once_it_may() {
    let server = Server::start();
    server.state().refusals.push(("PATCH nodes", 403));
    assert_eq!(reboot(&server, &annotation(), LONG).await, Outcome::Done);
    assert_eq!(annotations(&server), json!({ BOOT: "b1", "reboot.example/wanted": "b1" }));

    let server = Server::start();
    server.state().status = json!({ "phase": "Running", "containerStatuses": [{ "state": { "running": {} } }] });
    server.state().refusals.extend([("POST pods", 403), ("POST pods", 400)]);
    assert_eq!(reboot(&server, &pod(), LONG).await, Outcome::Done);
    let state = server.state();
    assert_eq!((state.done.as_slice(), state.pods.len()), (&["POST pods".to_owned()][..], 1));
}

#[tokio::test]
async fn what_is_forbidden_to_the_end_of_its_time_is_known_not_to_have_happened() {
    for (how, call) in [(annotation(), "PATCH nodes"), (pod(), "POST pods")] {
        let server = Server::start();
        server.state().refusals.extend([(call, 403); 100]);
        let outcome = reboot(&server, &how, Duration::from_millis(1)).await;
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("not now")), "{outcome:?}");
        let done = server.state().done.clone();
        assert!(done.is_empty(), "{done:?}");
    }
}

#[tokio::test]
async fn an_order_of_which_nobody_knows_what_became_is_not_said_to_have_been_refused() {
    // It broke in the middle, and the node came up anew: that is what was wanted.
    let server = Server::start();
    server.state().refusals.push(("PATCH nodes", 500));
    server.state().is_heeded = true;
    assert_eq!(reboot(&server, &annotation(), LONG).await, Outcome::Done);

    let server = Server::start();
    server.state().refusals.push(("POST pods", 500));
    server.state().refusals.extend([("POST pods", 404); 100]);
    let outcome = reboot(&server, &pod(), LONG).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_node_that_came_up_anew_meanwhile_is_not_rebooted_and_nothing_harder_follows() {
    for how in [annotation(), pod()] {
        let server = Server::start();
        server.state().node["status"]["nodeInfo"]["bootID"] = json!("b2");
        let outcome = reboot(&server, &how, LONG).await;
        assert_eq!(outcome, Outcome::Unknown("it is in another boot already".to_owned()));
        assert!(server.state().done.is_empty());
    }
    // As its pod finds it on the node.
    let server = Server::start();
    let ended = json!({ "terminated": { "exitCode": 86, "reason": "Error" } });
    server.state().status = json!({ "phase": "Failed", "containerStatuses": [{ "state": ended }] });
    let outcome = reboot(&server, &pod(), LONG).await;
    assert_eq!(outcome, Outcome::Unknown("it is in another boot already".to_owned()));
}

#[tokio::test]
async fn a_reboot_that_somebody_disturbs_is_ordered_for_the_node_as_it_is_now() {
    let server = Server::start();
    server.state().refusals.extend([("PATCH nodes", 409), ("PATCH nodes", 409)]);
    let fleet = fleet(&server);
    assert_eq!(fleet.reboot(&annotation(), "ops", "n1", "b1", "w", LONG).await, Outcome::Done);
    fleet.withdraw(&annotation(), "n1", "b0").await.unwrap();
    assert_eq!(annotations(&server)[BOOT], "b1", "that is another order");
    fleet.withdraw(&annotation(), "n1", "b1").await.unwrap();
    assert_eq!(annotations(&server), json!({}));
}

#[tokio::test]
async fn what_a_person_cordoned_stays_cordoned_also_where_our_mark_was_left() {
    let server = Server::start();
    let fleet = fleet(&server);
    let is_cordoned = || server.state().node["spec"]["unschedulable"] == true;
    fleet.cordon("n1").await.unwrap();
    assert_eq!((is_cordoned(), &annotations(&server)[CORDONED]), (true, &json!("me")));
    fleet.uncordon("n1").await.unwrap();
    assert_eq!((is_cordoned(), annotations(&server)), (false, json!({})));

    // `kubectl uncordon` leaves our mark, and later that person cordons it for reasons of their own.
    fleet.cordon("n1").await.unwrap();
    server.state().node["spec"] = json!({});
    fleet.unmark("n1").await.unwrap();
    assert_eq!(annotations(&server), json!({}));
    server.state().node["spec"] = json!({ "unschedulable": true });
    fleet.cordon("n1").await.unwrap();
    fleet.uncordon("n1").await.unwrap();
    assert!(is_cordoned());

    // While it is ours, the mark stays.
    server.state().node["spec"] = json!({});
    fleet.cordon("n1").await.unwrap();
    fleet.unmark("n1").await.unwrap();
    assert_eq!(annotations(&server)[CORDONED], "me");
}
