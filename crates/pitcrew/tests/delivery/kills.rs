//! The server is killed in each step of a delivery, and started again: the run goes on as if nothing had been.

use serde_json::json;

use crate::gates::GATES;
use crate::git_http::Pack;
use crate::proxy::{Proxy, Way};
use crate::world::{self, Delivery};

/// One run, and a kill in each of its steps: while the key is looked up, while the server is connected to, while each
/// step is in the middle of its work there, and while the variables are set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_each_step_does_each_once_and_leaves_nothing() {
    let mut world = Delivery::new(&["127.0.0.1"]).await;
    let commit = world.commit("www/version.yaml", "a: 10.0\n");
    let (to_aws, to_server) = (Proxy::to(world.moto.port()).await, Proxy::to(world.port).await);
    world.kill();
    world.pitcrew.env.push(("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", to_aws.port)));
    GATES.iter().for_each(|(step, ..)| world.gates.shut(step));
    world.git.set(Pack::Held);

    // The key is looked up.
    to_aws.set(Way::Stalled);
    world.start();
    let run = world.trigger(world.conf_with(json!({ "ssh_port": to_server.port })));
    world.pitcrew.wait("the key is asked for", || to_aws.accepted() > 0);
    world.kill();
    to_aws.set(Way::Open);

    // The server is connected to.
    to_server.set(Way::Stalled);
    world.start();
    world.pitcrew.wait("it is connected to", || to_server.accepted() > 0);
    world.kill();
    to_server.set(Way::Open);

    world.start();
    world.pitcrew.wait("whoami runs", || world.gates.is_held("connect"));
    world.no_secret_anywhere();
    world.kill();
    world.gates.open("connect");

    world.start();
    world.pitcrew.wait("git fetches", || !world.git.packs().is_empty());
    world.no_secret_anywhere();
    world.kill();
    world.git.set(Pack::Whole);

    world.start();
    world.pitcrew.wait("the version file is read", || world.gates.is_held("versions"));
    world.kill();
    world.gates.open("versions");

    // The variables are set by the server itself, in a moment: before, in or after it.
    world.start();
    world.pitcrew.wait("the variables are set", || world.states(&run, "deliver.remember") != ["none"]);
    world.kill();

    world.start();
    world.pitcrew.wait("it is cleaned up", || world.gates.is_held("clean-up"));
    world.kill();
    world.gates.open("clean-up");

    // At the very end: what is to be removed is removed by the next.
    world.start();
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    world.kill();
    world.start();

    // There are no other repositories.
    for instance in world.instances(&run).iter().filter(|instance| instance["task_id"] != "more") {
        assert_eq!((&instance["state"], &instance["try_number"]), (&json!("success"), &json!(1)), "{instance}");
    }
    for (step, ..) in GATES {
        assert_eq!(world.gates.calls(step), 1, "{step}");
    }
    assert_eq!(world.git.packs().len(), 1);
    assert_eq!(world.output(&run, "deliver.checkout", "commit"), commit);
    let variables = world.pitcrew.json(&["variables", "list", "--output", "json"]);
    assert_eq!(world::values(&variables), json!({ "a": "10.0" }));
    let set = world.get("/api/v2/eventLogs?event=variable.set");
    assert_eq!(set["total_entries"], 1, "{set}");
    world.leaves_nothing();
    world.no_secret_anywhere();
}
