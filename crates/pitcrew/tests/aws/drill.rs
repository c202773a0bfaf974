//! Drills of recovery on a cluster of ECS: from a task that fails to the job that runs again, through everything between.

use serde_json::Value;

use crate::agent::{Agent, CHECK};
use crate::harness::{Running, World};
use crate::moto::Moto;

pub struct Drill {
    pub world: World,
    pub agent: Agent,
    pub machine: String,
    pub moto: Moto,
}

impl Drill {
    /// A cluster of so many machines, and the workflow `train`, of one task that may be tried again so often.
    pub fn new(machines: usize, retries: u32) -> Drill {
        Drill::with(machines, retries, "")
    }

    /// With more under `ecs` of its configuration.
    pub fn with(machines: usize, retries: u32, ecs: &str) -> Drill {
        Drill::made(machines, &format!("retries: {retries}"), ecs, "")
    }

    /// With more said of the task, and of the server.
    pub fn of(machines: usize, task: &str, config: &str) -> Drill {
        Drill::made(machines, task, "", config)
    }

    fn made(machines: usize, task: &str, ecs: &str, config: &str) -> Drill {
        let moto = Moto::start();
        let agent = Agent::start(&moto, machines);
        let mut world = World::new();
        moto.serve(&mut world);
        world.env.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
        world.env.push(("AWS_ENDPOINT_URL", agent.url.clone()));
        let config = format!(
            "ecs: {{clusters: [gpus], check: {CHECK}{ecs}}}\n\
             recovery: {{mode: auto, deadlines: {{observe: 1s, recheck: 1s, suspected: 5s}}}}\n{config}"
        );
        std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
        world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
        let workflow = format!(
            "workflow: train\ntasks:\n  train:\n    backend: {{ecs: {{cluster: gpus, task_definition: train}}}}\n    {task}\n"
        );
        world.workflow("train", &workflow);
        let machine = agent.machine();
        Drill { world, agent, machine, moto }
    }

    /// A server that knows the machines, and that they are well.
    pub fn serve(&self) -> Running {
        let server = self.world.serve();
        for machine in self.machines() {
            let has_all = || self.node_of(&machine)["gpus"].as_array().is_some_and(|all| all.len() == 2);
            self.world.wait("its machine is a node", has_all);
            self.world.wait("recovery has looked at it", || self.agent.status(&machine) == "AVAILABLE");
        }
        server
    }

    pub fn machines(&self) -> Vec<String> {
        self.agent.world().machines.keys().cloned().collect()
    }

    pub fn node_of(&self, machine: &str) -> Value {
        let out = self.world.run(&["nodes", "show", machine, "--output", "json"]);
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    pub fn trigger(&self) {
        self.world.wait("the workflow is there", || self.world.run(&["dags", "trigger", "train"]).status.success());
    }

    /// As many tasks as are wanted run, and none of them is one of these.
    pub fn until_all_run(&self, count: usize, but: &[Value]) -> Vec<Value> {
        let is_new = |task: &Value| but.iter().all(|one| one["taskArn"] != task["taskArn"]);
        let new = || -> Vec<Value> { self.agent.all_running().into_iter().filter(is_new).collect() };
        self.world.wait("all tasks run", || new().len() == count);
        new()
    }

    /// Which instances the members of an attempt are on, as their server knows it.
    pub fn until_all_placed(&self, attempt: u64) {
        self.machines().iter().for_each(|machine| self.until_placed_on(machine, attempt));
    }

    pub fn begin(&self) -> Value {
        self.trigger();
        self.until_running(&[])
    }

    /// The task that runs, which is none of these.
    pub fn until_running(&self, but: &[&Value]) -> Value {
        let other = |task: &Value| but.iter().all(|one| one["taskArn"] != task["taskArn"]);
        self.world.wait("a task runs", || self.agent.running().is_some_and(|task| other(&task)));
        let task = self.agent.running().unwrap();
        let arn = task["taskArn"].as_str().unwrap().to_owned();
        assert!(other(&task), "{arn}");
        task
    }

    /// Which instance the attempt is on, as its server knows it.
    pub fn until_placed(&self, attempt: u64) {
        self.until_placed_on(&self.machine, attempt);
    }

    pub fn until_placed_on(&self, machine: &str, attempt: u64) {
        self.world.wait("the server knows where it is", || {
            let tasks = self.node_of(machine)["tasks"].clone();
            tasks.as_array().is_some_and(|all| all.iter().any(|task| task["attempt"] == attempt))
        });
    }

    pub fn incidents(&self) -> Vec<Value> {
        self.world.json(&["incidents", "list", "--output", "json"]).as_array().unwrap().clone()
    }

    pub fn run_state(&self) -> String {
        self.world.json(&["runs", "show", "latest", "--output", "json"])["state"].as_str().unwrap().to_owned()
    }

    pub fn done(&self) -> Vec<String> {
        self.agent.world().done.clone()
    }
}

/// A variable of the environment of a task.
pub fn variable(task: &Value, name: &str) -> String {
    let all = task["overrides"]["containerOverrides"][0]["environment"].as_array().unwrap();
    let found = all.iter().find(|pair| pair["name"] == name).unwrap_or_else(|| panic!("{name} in {task}"));
    found["value"].as_str().unwrap().to_owned()
}

/// Weaknesses 1, 3, 5, 13, 14 and 16, all of the way.
#[test]
fn a_sick_machine_is_drained_checked_rebooted_and_verified_and_the_job_begins_anew() {
    let drill = Drill::new(1, 0);
    let _server = drill.serve();
    let first = drill.begin();
    assert_eq!(variable(&first, "ATTEMPT"), "1");
    drill.until_placed(1);
    drill.agent.world().machines.get_mut(&drill.machine).unwrap().check = 226;
    drill.agent.end(&first, 1);
    let second = drill.until_running(&[&first]);
    assert_eq!(variable(&second, "ATTEMPT"), "2", "{second}");
    drill.until_placed(2);

    // In this order, and each of them once: out of use, the check on this very machine (which takes a moment of being active),
    // the reboot, the check that lets it serve again.
    let done = drill.done();
    let checked = ["ACTIVE", "StartTask dcgm", "DRAINING"];
    let expected = [&["RunTask train", "DRAINING"], &checked[..], &["reboot"], &checked, &["ACTIVE", "RunTask train"]];
    assert_eq!(done, expected.concat());
    let checks = drill.agent.tasks(CHECK);
    let instance = drill.agent.world().machines[&drill.machine].instance.clone();
    assert!(checks.iter().all(|check| check["containerInstanceArn"] == *instance), "{checks:?}");
    assert_eq!(drill.agent.world().machines[&drill.machine].boot, 2);
    drill.world.wait("others know that it is used again", || drill.agent.status(&drill.machine) == "IN_PROGRESS");
    drill.world.wait("the incident is over", || drill.incidents().iter().all(|one| one["outcome"] == "repaired"));
    let incidents = drill.incidents();
    assert_eq!((incidents.len(), &incidents[0]["verdict"]), (1, &Value::from("fail")), "{incidents:?}");

    drill.agent.end(&second, 0);
    drill.world.wait("the run has succeeded", || drill.run_state() == "success");
    drill.world.wait("others know that it is free", || drill.agent.status(&drill.machine) == "AVAILABLE");
}

/// A check that passes: the machine is let alone, and the failure was the job's own.
#[test]
fn a_machine_that_passes_its_check_is_not_rebooted_and_the_job_fails() {
    let drill = Drill::new(1, 0);
    let _server = drill.serve();
    let task = drill.begin();
    drill.until_placed(1);
    drill.agent.end(&task, 1);
    drill.world.wait("the run has failed", || drill.run_state() == "failed");
    drill.world.wait("it serves again", || drill.agent.status(&drill.machine) == "AVAILABLE");
    let done = drill.done();
    assert_eq!(done, ["RunTask train", "DRAINING", "ACTIVE", "StartTask dcgm", "DRAINING", "ACTIVE"]);
    assert_eq!(drill.agent.world().machines[&drill.machine].boot, 1);
    let incidents = drill.incidents();
    assert_eq!((incidents.len(), &incidents[0]["outcome"]), (1, &Value::from("passed")), "{incidents:?}");
}

/// SSM does not reach the machine, so it is rebooted from outside: by EC2, once, and believed when it is another boot.
#[test]
fn a_machine_that_ssm_does_not_reach_is_rebooted_by_ec2() {
    let drill = Drill::new(1, 0);
    let _server = drill.serve();
    drill.world.wait("its boot is known", || drill.agent.world().told > 0);
    let first = drill.begin();
    drill.until_placed(1);
    {
        let mut world = drill.agent.world();
        let machine = world.machines.get_mut(&drill.machine).unwrap();
        (machine.check, machine.ssm) = (226, false);
    }
    drill.agent.end(&first, 1);
    let second = drill.until_running(&[&first]);
    assert_eq!(variable(&second, "ATTEMPT"), "2", "{second}");
    let done = drill.done();
    let checked = ["ACTIVE", "StartTask dcgm", "DRAINING"];
    let expected =
        [&["RunTask train", "DRAINING"], &checked[..], &["RebootInstances"], &checked, &["ACTIVE", "RunTask train"]];
    assert_eq!(done, expected.concat());
    assert_eq!(drill.agent.world().machines[&drill.machine].boot, 2);
    drill.agent.end(&second, 0);
    drill.world.wait("the run has succeeded", || drill.run_state() == "success");
}

/// A machine that came up anew and is as bad is not rebooted again, in whichever way: it is stopped and started, on other hardware,
/// if that is allowed.
#[test]
fn a_machine_that_no_reboot_mends_is_stopped_and_started_and_the_job_begins_anew() {
    let drill = Drill::with(1, 0, ", stop_start: true");
    let _server = drill.serve();
    drill.world.wait("its boot is known", || drill.agent.world().told > 0);
    let first = drill.begin();
    drill.until_placed(1);
    {
        let mut world = drill.agent.world();
        let machine = world.machines.get_mut(&drill.machine).unwrap();
        (machine.check, machine.worn) = (226, true);
    }
    drill.agent.end(&first, 1);
    let second = drill.until_running(&[&first]);
    assert_eq!(variable(&second, "ATTEMPT"), "2", "{second}");
    let checked = ["ACTIVE", "StartTask dcgm", "DRAINING"];
    let repairs: [&[&str]; 2] = [&["reboot"], &["StopInstances", "StartInstances"]];
    let repaired = repairs.map(|repair| [repair, &checked].concat()).concat();
    let expected = [&["RunTask train", "DRAINING"], &checked[..], &repaired, &["ACTIVE", "RunTask train"]];
    assert_eq!(drill.done(), expected.concat());
    assert_eq!(drill.agent.world().machines[&drill.machine].boot, 3);
    drill.agent.end(&second, 0);
    drill.world.wait("the run has succeeded", || drill.run_state() == "success");
    let incidents = drill.incidents();
    assert_eq!((incidents.len(), &incidents[0]["outcome"]), (1, &Value::from("repaired")), "{incidents:?}");
}

/// A server is killed while it has a machine drained: the next one drains it, once more at worst, and goes on from there.
#[test]
fn a_server_that_is_killed_while_it_drains_a_machine_is_followed_by_one_that_goes_on() {
    let drill = Drill::new(1, 0);
    let mut server = drill.serve();
    let first = drill.begin();
    drill.until_placed(1);
    drill.agent.world().machines.get_mut(&drill.machine).unwrap().check = 226;
    drill.agent.hold("UpdateContainerInstancesState");
    drill.agent.end(&first, 1);
    drill.world.wait("it is being drained", || drill.agent.world().waiting > 0);
    server.kill();
    drill.agent.release();
    let _server = drill.world.serve();
    let second = drill.until_running(&[&first]);
    assert_eq!(variable(&second, "ATTEMPT"), "2", "{second}");
    let done = drill.done();
    let of = |what: &str| done.iter().filter(|one| *one == what).count();
    assert_eq!((of("reboot"), of("StartTask dcgm"), of("RunTask train")), (1, 2, 2), "{done:?}");
    drill.agent.end(&second, 0);
    drill.world.wait("the run has succeeded", || drill.run_state() == "success");
    assert_eq!(drill.incidents().len(), 1);
}

/// A server is killed between the stop of a machine and its start: the next one starts it, and stops it no more.
#[test]
fn a_machine_that_a_server_had_stopped_when_it_was_killed_is_started_by_the_next_one() {
    let drill = Drill::with(1, 0, ", stop_start: true");
    let mut server = drill.serve();
    drill.world.wait("its boot is known", || drill.agent.world().told > 0);
    let first = drill.begin();
    drill.until_placed(1);
    {
        let mut world = drill.agent.world();
        world.mute = true;
        let machine = world.machines.get_mut(&drill.machine).unwrap();
        (machine.check, machine.worn) = (226, true);
    }
    drill.agent.end(&first, 1);
    let is_asked = || drill.agent.world().holds.contains("DescribeInstances") && drill.agent.world().waiting > 0;
    drill.world.wait("it is stopped", is_asked);
    server.kill();
    drill.agent.world().mute = false;
    drill.agent.release();
    let _server = drill.world.serve();
    let second = drill.until_running(&[&first]);
    assert_eq!(variable(&second, "ATTEMPT"), "2", "{second}");
    let done = drill.done();
    let of = |what: &str| done.iter().filter(|one| *one == what).count();
    assert_eq!((of("reboot"), of("StopInstances"), of("StartInstances")), (1, 1, 1), "{done:?}");
    drill.agent.end(&second, 0);
    drill.world.wait("the run has succeeded", || drill.run_state() == "success");
    let incidents = drill.incidents();
    assert_eq!((incidents.len(), &incidents[0]["outcome"]), (1, &Value::from("repaired")), "{incidents:?}");
}

/// What a person has drained stays so, whatever recovery did there meanwhile.
#[test]
fn a_machine_that_a_person_drained_stays_drained_after_it_was_checked() {
    let drill = Drill::new(1, 0);
    let _server = drill.serve();
    let task = drill.begin();
    drill.until_placed(1);
    let instance = drill.agent.world().machines[&drill.machine].instance.clone();
    let input = serde_json::json!({ "cluster": "gpus", "containerInstances": [instance], "status": "DRAINING" });
    drill.agent.ecs("UpdateContainerInstancesState", &input);
    drill.agent.end(&task, 1);
    drill.world.wait("the run has failed", || drill.run_state() == "failed");
    drill.world.wait("the incident is over", || {
        let all = drill.incidents();
        !all.is_empty() && all.iter().all(|one| one["outcome"] == "passed")
    });
    drill.world.wait("it is let go of", || drill.agent.status(&drill.machine) == "AVAILABLE");
    assert_eq!(drill.agent.instance(&drill.machine)["status"], "DRAINING");
}
