//! Files that a worker left, where the server that took them ends, or where others of the run cannot be had any more.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::AttemptId;
use pitcrew_exec::worker::protocol::{About, Changes, Enrol, File, PROTOCOL, Sync};
use pitcrew_exec::worker::{Wire, WireError};
use reqwest::Method;
use serde_json::json;

use crate::world::{PATIENCE, Server, Start, World, now, wait, wait_now};

/// A machine that comes for work and runs nothing.
struct Machine {
    wire: Wire,
    about: About,
    credential: String,
    seq: u64,
}

impl Machine {
    async fn enrol(world: &World, server: &Server) -> Machine {
        let wish = json!({ "queues": ["far"], "expires": "1h", "uses": 1 });
        let token = world.ask(Method::POST, server, "/api/pitcrew/v1/workers/token", Some(wish)).await;
        let wire = Wire::new(&server.url, token["token"].as_str().unwrap()).unwrap();
        let about: About = serde_json::from_value(json!({
            "version": "1.2.3", "host": "far", "data_dir": "/srv/worker", "program": "/opt/pitcrew",
            "queues": ["far"], "slots": 1,
        }))
        .unwrap();
        let wish = Enrol { protocol: PROTOCOL, name: "far".to_owned(), about: about.clone(), credential: None };
        let enrolled = wire.enrol(&wish).await.unwrap();
        let wire = wire.with_bearer(&enrolled.credential);
        Machine { wire, about, credential: enrolled.credential, seq: 0 }
    }

    /// Says that it has nothing until it is ordered something.
    async fn ordered(&mut self) -> AttemptId {
        let begun = now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "it is given nothing");
            self.seq += 1;
            let text = json!({
                "protocol": PROTOCOL, "incarnation": 1, "seq": self.seq, "about": self.about, "has": [], "wait_ms": 500,
                "probe": { "cores": 4, "memory_mib": 4096, "host": "far", "smi": "Absent", "gpus": [], "remarks": [] },
            });
            let sync: Sync = serde_json::from_value(text).unwrap();
            let answer = self.wire.sync(&sync, Duration::from_secs(30)).await.unwrap();
            if let Some(order) = answer.start.into_iter().next() {
                return order.handle.id;
            }
        }
    }

    /// Tells that the attempt made a link of this name.
    async fn leaves(&self, id: &AttemptId, name: &str) -> Result<(), WireError> {
        let link = File::Link { to: "anything".to_owned() };
        let put = BTreeMap::from([(format!("workspace/{name}"), link)]);
        self.wire.changes(id, &Changes { put, removed: Vec::new() }).await
    }
}

#[tokio::test]
async fn what_a_worker_left_is_known_to_be_here_before_the_worker_forgets_it() {
    let Some(world) = World::new("left") else { return };
    world.workflow("far", "workflow: far\ntasks:\n  a: {queue: far, run: 'true'}\n");
    let start = Start { data: "one", env: &[("PITCREW_LOST_AFTER", "10s")], ..Start::default() };
    let mut server = world.start(&start);
    world.knows(&server, "far").await;
    let mut machine = Machine::enrol(&world, &server).await;
    world.trigger(&server, "far", "a").await;
    let id = machine.ordered().await;
    machine.leaves(&id, "first").await.unwrap();
    let home = world.query(&format!("select home from run_files where run = {}", id.run));
    assert!(!home.is_empty(), "whoever leads next does not know that there is something here");

    // Another machine has files of the run, and stays away.
    server.kill();
    world.query(&format!("insert into run_files (run, home, version) values ({}, 'nobody', 1)", id.run));
    let server = world.start(&start);
    wait_now("it leads", &server.log, || server.has_said("this server leads"));
    machine.wire = Wire::new(&server.url, &machine.credential).unwrap();
    // Whoever looks at the run is not kept waiting.
    let listed = world.get(&server, &format!("/api/pitcrew/v1/runs/{}/artifacts", id.run)).await;
    assert_eq!(listed["elsewhere"], true, "{listed}");
    world.get(&server, "/workflows/far/runs/a/files").await;
    let mut said = String::new();
    wait("the worker is told that they never come", &server.log, async || {
        match machine.wire.manifest(&id).await {
            Err(WireError::Refused(410, why)) => said = why,
            Err(WireError::Unreachable(_)) | Ok(_) => return false,
            Err(other) => panic!("{other}"),
        }
        true
    })
    .await;
    assert!(said.contains("cannot be had") && said.contains("begin a new run"), "{said}");
    machine.leaves(&id, "second").await.unwrap();
    for name in ["first", "second"] {
        let path = world.dir.join(format!("one/runs/{}/workspace/{name}", id.run));
        assert!(path.symlink_metadata().is_ok(), "{name}");
    }
}
