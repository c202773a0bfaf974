//! People: they are told of what waits for them, once, and nothing waits for a channel that cannot be reached.

use std::io::Write as _;

use serde_json::Value;

use crate::harness::text;
use crate::machine::FALLEN;
use crate::site::Site;

/// Nobody listens there.
const PAGER: &str =
    "channels: {pager: {type: webhook, url: 'http://127.0.0.1:1/'}}\nnotify: [{on: incident, to: pager}]\n";

impl Site {
    /// Notices of the outbox, from the first.
    fn told(&self) -> Vec<Value> {
        let mut told = self.world.json(&["notify", "list", "--output", "json"]).as_array().unwrap().clone();
        told.reverse();
        told
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_told_once_also_by_the_next_server_and_a_channel_that_is_away_holds_nothing_up() {
    let site = Site::new(&["s21"], "  mode: approve", "").await;
    let config = std::fs::OpenOptions::new().append(true).open(site.world.path("pitcrew.yaml"));
    config.unwrap().write_all(PAGER.as_bytes()).unwrap();
    let mut server = site.serve();
    site.machine("s21").log(FALLEN);
    site.world.wait("people are told", || !site.told().is_empty());
    let told = site.told().remove(0);
    assert_eq!((&told["event"], &told["page"]), (&"incident.approval_wanted".into(), &"/incidents/inc-1".into()));
    assert!(told["subject"].as_str().unwrap().starts_with("inc-1: s21 needs: reboot"), "{told}");
    site.again(&mut server);
    // A server elsewhere is asked with the same words, and says the same.
    let mut pages = Vec::new();
    site.world.wait("the next server says where it is", || {
        let log = std::fs::read_to_string(site.world.path("server.log")).unwrap();
        let said = log.lines().filter_map(|line| line.trim().strip_prefix("pages"));
        pages = said.map(|url| url.trim().to_owned()).collect();
        pages.len() == 2
    });
    let url = pages.remove(1);
    let asked = |line: &[&str]| site.world.run(&[line, &["--server", &url]].concat());
    for line in [
        &["incidents", "list"][..],
        &["incidents", "show", "inc-1"],
        &["incidents", "list", "--open", "--output", "json"],
    ] {
        assert_eq!(text(&asked(line)), site.world.ok(line), "{line:?}");
    }
    let refused = asked(&["incidents", "retry", "inc-1"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(asked(&["incidents", "approve", "inc-1"]).status.success());
    site.until_done("s21", &["reboot", "check 1"]);
    site.until("s21", "it serves again", |node| node["standing"] == "ready");
    site.world.wait("that is told", || site.told().len() > 1);
    let told = site.told();
    let events: Vec<&str> = told.iter().map(|notice| notice["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["incident.approval_wanted", "incident.repaired"]);
    assert!(told.iter().all(|notice| notice["state"] == "waiting"), "nobody could be reached: {told:?}");
}

/// Whoever has read that a node is cordoned finds nothing new there, however soon it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_given_nothing_more_once_the_command_that_cordons_it_has_ended() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    site.job("first", 1, "");
    let _server = site.serve();
    // A workflow of this server is known.
    let first = site.trigger("first");
    site.until_begun(&["first.1.0"]);
    site.world.ok(&["nodes", "cordon", "s21"]);
    let run = site.trigger("train");
    // For longer than a server takes to find out by itself.
    for _ in 0..3 {
        site.until_read(site.machine("s21"));
        assert_eq!(site.begun().len(), 1, "{:#}", site.run(&run));
    }
    site.world.ok(&["nodes", "uncordon", "s21"]);
    site.until_begun(&["first.1.0", "train.1.0"]);
    for (name, run) in [("first.1.0", &first), ("train.1.0", &run)] {
        site.end(name, 0);
        site.until_run(run, "success");
    }
}
