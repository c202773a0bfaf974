//! Drills with siblings: a training on three machines of a cluster, of which one breaks.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::agent::CHECK;
use crate::drill::{Drill, variable};

const GANG: &str = "nodes: 3\n    resume_from: s3://checkpoints/train";

/// So often something was done.
fn count(drill: &Drill, what: &str) -> usize {
    drill.done().iter().filter(|one| *one == what).count()
}

fn arns(tasks: &[Value]) -> BTreeSet<String> {
    tasks.iter().map(|task| task["taskArn"].as_str().unwrap().to_owned()).collect()
}

/// The members of an attempt of the gang, by rank; they are on machines of their own, and each knows all of them.
fn members(tasks: &[Value], attempt: &str) -> Vec<Value> {
    let mut members = tasks.to_vec();
    members.sort_by_key(|task| variable(task, "PITCREW_RANK"));
    let ranks: Vec<String> = members.iter().map(|task| variable(task, "PITCREW_RANK")).collect();
    assert_eq!(ranks, ["0", "1", "2"]);
    let machines: BTreeSet<_> = members.iter().map(|task| task["containerInstanceArn"].to_string()).collect();
    assert_eq!(machines.len(), 3, "{members:?}");
    for task in &members {
        assert_eq!((variable(task, "ATTEMPT"), variable(task, "PITCREW_NODES")), (attempt.to_owned(), "3".to_owned()));
        let peers = variable(task, "PITCREW_PEERS");
        assert_eq!(peers, variable(&members[0], "PITCREW_PEERS"));
        let all: Vec<&str> = peers.split(',').collect();
        assert_eq!((all.len(), variable(task, "PITCREW_HEAD").as_str()), (3, all[0]));
        // The addresses of its machines in their network.
        assert!(all.iter().all(|peer| peer.parse::<std::net::IpAddr>().is_ok()), "{peers}");
    }
    members
}

/// The gang runs, and one of its machines breaks: its rank, and the machine.
fn broken(drill: &Drill) -> (Vec<Value>, String) {
    drill.trigger();
    let first = members(&drill.until_all_run(3, &[]), "1");
    drill.until_all_placed(1);
    let machine = drill.agent.machine_of(&first[1]);
    drill.agent.world().machines.get_mut(&machine).unwrap().check = 226;
    (first, machine)
}

/// What must be true once all has happened: each thing once, on the machine that it was meant for, and all members began anew.
fn all_went_well(drill: &Drill, first: &[Value], machine: &str) {
    let second = members(&drill.until_all_run(3, first), "2");
    assert!(second.iter().all(|task| variable(task, "RESUME_FROM") == "s3://checkpoints/train"));
    drill.until_all_placed(2);
    let boots: Vec<u32> = drill.agent.world().machines.values().map(|machine| machine.boot).collect();
    assert_eq!((boots.iter().sum::<u32>(), drill.agent.world().machines[machine].boot), (4, 2));
    // Its siblings were stopped, and nobody else.
    let siblings: BTreeSet<String> = arns(&[first[0].clone(), first[2].clone()]);
    assert_eq!(drill.agent.world().stopped, siblings);
    assert_eq!((count(drill, "reboot"), count(drill, "RunTask train"), count(drill, "StopTask")), (1, 6, 2));
    let instance = drill.agent.world().machines[machine].instance.clone();
    let checks = drill.agent.tasks(CHECK);
    assert!(checks.len() == 2 && checks.iter().all(|check| check["containerInstanceArn"] == *instance), "{checks:?}");
    drill.world.wait("the incident is over", || drill.incidents().iter().all(|one| one["outcome"] == "repaired"));
    assert_eq!(drill.incidents().len(), 1);
    second.iter().for_each(|task| drill.agent.end(task, 0));
    drill.world.wait("the run has succeeded", || drill.run_state() == "success");
    for machine in drill.machines() {
        drill.world.wait("others know that it is free", || drill.agent.status(&machine) == "AVAILABLE");
    }
}

#[test]
fn a_member_whose_machine_breaks_stops_its_siblings_and_all_begin_anew_when_it_is_repaired() {
    let drill = Drill::of(3, GANG, "");
    let _server = drill.serve();
    let (first, machine) = broken(&drill);
    drill.agent.end(&first[1], 1);
    all_went_well(&drill, &first, &machine);
    // In this order: siblings stopped, out of use, the check, the reboot, the check, in use again, and only then all of them.
    let done = drill.done();
    let at = |what: &str| done.iter().position(|one| one == what).unwrap();
    let last = |what: &str| done.iter().rposition(|one| one == what).unwrap();
    assert!(last("StopTask") < at("reboot") && at("StartTask dcgm") < at("reboot"), "{done:?}");
    assert!(at("reboot") < last("StartTask dcgm") && last("StartTask dcgm") < last("ACTIVE"), "{done:?}");
    assert_eq!(done[last("ACTIVE") + 1..], ["RunTask train"; 3], "{done:?}");
}

/// The server is killed once the siblings are stopped, and before anything began anew.
#[test]
fn a_server_that_is_killed_between_the_stop_of_siblings_and_the_restart_loses_and_doubles_nothing() {
    let drill = Drill::of(3, GANG, "");
    let mut server = drill.serve();
    let (first, machine) = broken(&drill);
    drill.agent.hold("StartTask");
    drill.agent.end(&first[1], 1);
    drill.world.wait("its siblings are stopped", || drill.agent.world().stopped.len() == 2);
    drill.world.wait("the check is about to begin", || drill.agent.world().waiting > 0);
    server.kill();
    drill.agent.release();
    let _server = drill.world.serve();
    all_went_well(&drill, &first, &machine);
}

/// A person's stop is no failure: nothing is checked, nothing is repaired, nothing begins anew.
#[test]
fn a_gang_that_a_person_stops_ends_and_its_machines_are_let_alone() {
    let drill = Drill::of(3, GANG, "");
    let _server = drill.serve();
    drill.trigger();
    let first = drill.until_all_run(3, &[]);
    drill.until_all_placed(1);
    drill.world.ok(&["runs", "cancel", "latest"]);
    drill.world.wait("the run is over", || !["running", "queued"].contains(&drill.run_state().as_str()));
    assert_eq!(drill.agent.world().stopped, arns(&first));
    assert_eq!((count(&drill, "DRAINING"), count(&drill, "RunTask train"), drill.incidents().len()), (0, 3, 0));
}

/// Two machines for three members: nothing begins, and it says why.
#[test]
fn a_gang_for_which_there_are_too_few_machines_waits_as_a_whole_and_says_why() {
    let drill = Drill::of(2, GANG, "");
    let _server = drill.serve();
    drill.trigger();
    drill.world.wait("it says why it waits", || {
        let out = drill.world.run(&["logs", "latest"]);
        String::from_utf8_lossy(&out.stdout).contains("waits: of its 3 members 2 would find a machine now")
    });
    assert_eq!(drill.done(), [""; 0], "nothing was started");
    drill.world.ok(&["runs", "cancel", "latest"]);
    drill.world.wait("the run is over", || !["running", "queued"].contains(&drill.run_state().as_str()));
}
