//! Nodes of a cluster: seen, fenced, checked, repaired.

use std::time::Duration;

use pitcrew_ecs::check::{self, Checked, Plan};
use pitcrew_ecs::client::ecs::Listed;
use pitcrew_ecs::client::{MachineState, Ran};
use pitcrew_ecs::fleet::{EcsFleet, Outcome};
use serde_json::{Value, json};

use crate::cluster::{CONTAINER_INSTANCE, Cluster, MACHINE};
use crate::harness::client;

fn fleet(cluster: &Cluster) -> EcsFleet {
    EcsFleet { look: Duration::from_millis(20), ..EcsFleet::new(client(cluster), "gpus") }
}

fn plan(word: &str) -> Plan {
    let mut plan = Plan::new("gpus", "train", CONTAINER_INSTANCE, word);
    plan.look = Duration::from_millis(20);
    plan.limit = Duration::from_secs(60);
    plan
}

/// What the container of the check does.
fn does(cluster: &Cluster, script: &str) {
    cluster.state().command = Some(script.to_owned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_nodes_and_are_fenced_by_draining() {
    let cluster = Cluster::start();
    let fleet = fleet(&cluster);
    let node = fleet.node(MACHINE).await.unwrap().unwrap();
    assert_eq!((node.cpu_milli, node.memory_mib, node.gpus.len(), node.free_gpus.len()), (4000, 1000, 2, 0));
    assert_eq!(node.labels["ecs.instance-type"], "p5.48xlarge");
    assert_eq!((node.is_active, node.agent, node.status.as_deref()), (true, true, Some("AVAILABLE")));
    assert_eq!(fleet.node("i-none").await.unwrap(), None);
    fleet.fence(CONTAINER_INSTANCE, "us", Some("PENDING_HEALTHCHECK")).await.unwrap();
    let node = fleet.node(MACHINE).await.unwrap().unwrap();
    assert_eq!((node.is_active, node.is_draining, node.status.as_deref()), (false, true, Some("PENDING_HEALTHCHECK")));
    assert!(!node.labels.contains_key("pitcrew-fenced-by"), "{:?}", node.labels);
    // Once more, as after a crash.
    fleet.fence(CONTAINER_INSTANCE, "us", None).await.unwrap();
    fleet.unfence(CONTAINER_INSTANCE, "us", "AVAILABLE").await.unwrap();
    let node = fleet.node(MACHINE).await.unwrap().unwrap();
    assert_eq!((node.is_active, node.status.as_deref()), (true, Some("AVAILABLE")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_has_drained_stays_drained() {
    let cluster = Cluster::start();
    let fleet = fleet(&cluster);
    // Also where we had drained it before, and another one of us.
    fleet.fence(CONTAINER_INSTANCE, "us", None).await.unwrap();
    fleet.unfence(CONTAINER_INSTANCE, "us", "AVAILABLE").await.unwrap();
    cluster.state().machine.draining = true;
    for owner in ["us", "nobody else"] {
        fleet.fence(CONTAINER_INSTANCE, owner, Some("PENDING")).await.unwrap();
        fleet.unfence(CONTAINER_INSTANCE, owner, "AVAILABLE").await.unwrap();
        let node = fleet.node(MACHINE).await.unwrap().unwrap();
        assert_eq!((node.is_draining, node.status.as_deref()), (true, Some("AVAILABLE")));
    }
    cluster.state().machine.draining = false;
    fleet.fence(CONTAINER_INSTANCE, "us", None).await.unwrap();
    fleet.unfence(CONTAINER_INSTANCE, "them", "AVAILABLE").await.unwrap();
    assert!(fleet.node(MACHINE).await.unwrap().unwrap().is_draining);
}

/// What a server stopped and could not start any more is started by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_stopped_is_started_and_one_that_runs_goes_on() {
    let cluster = Cluster::start();
    let fleet = fleet(&cluster);
    cluster.state().machine.state = "stopped";
    assert_eq!(fleet.look(MACHINE).await.unwrap().state, Some(MachineState::Stopped));
    for _ in 0..2 {
        fleet.start(MACHINE).await.unwrap();
    }
    let look = fleet.look(MACHINE).await.unwrap();
    assert_eq!((look.state, cluster.state().machine.boot), (Some(MachineState::Running), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakness_17_lists_of_ecs_are_read_to_their_last_page() {
    let cluster = Cluster::start();
    let client = client(&cluster);
    cluster.answer("ListContainerInstances", 200, json!({"containerInstanceArns": ["one"], "nextToken": "more"}));
    assert_eq!(client.list_instances("gpus", None).await.unwrap(), ["one", CONTAINER_INSTANCE]);
    assert_eq!(cluster.inputs("ListContainerInstances")[1]["nextToken"], "more");
    cluster.answer("ListTasks", 200, json!({"taskArns": ["one"], "nextToken": "more"}));
    cluster.answer("ListTasks", 200, json!({"taskArns": ["two"]}));
    assert_eq!(client.list_tasks("gpus", Listed::Running("train")).await.unwrap(), ["one", "two"]);
    assert_eq!(cluster.inputs("ListTasks")[1]["nextToken"], "more");
}

/// Weaknesses 3 and 15: a reboot is believed by its boot, its result is read, and there are more ways than one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_ends_the_boot_that_it_was_meant_for_and_no_other() {
    let cluster = Cluster::start();
    let fleet = fleet(&cluster);
    let before = fleet.look(MACHINE).await.unwrap();
    let boot = before.boot_id.clone().unwrap();
    assert_eq!((before.agent, before.gpus, before.state), (true, Some(2), Some(MachineState::Running)));
    assert_eq!(fleet.reboot(MACHINE, Some(&boot)).await, Outcome::Done);
    let after = fleet.look(MACHINE).await.unwrap();
    assert_ne!(after.boot_id.as_ref(), Some(&boot));
    // The same order, delivered once more: it is another boot, and nothing happens.
    assert_eq!(fleet.reboot(MACHINE, Some(&boot)).await, Outcome::Unknown("it is in another boot already".into()));
    assert_eq!(fleet.look(MACHINE).await.unwrap().boot_id, after.boot_id);
    assert!(matches!(fleet.reboot(MACHINE, Some("$(reboot)")).await, Outcome::Refused(_)));

    assert_eq!(fleet.hard_reboot(MACHINE).await, Outcome::Done);
    assert_eq!(fleet.stop_start(MACHINE, Duration::from_secs(60)).await, Outcome::Done);
    assert_eq!(cluster.state().machine.boot, 4);

    // That SSM does not reach it says nothing of its boot.
    cluster.state().machine.online = false;
    cluster.state().machine.agent = false;
    let look = fleet.look(MACHINE).await.unwrap();
    assert_eq!((look.boot_id, look.agent), (None, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_came_to_is_read() {
    let cluster = Cluster::start();
    let fleet = fleet(&cluster);
    cluster.state().machine.says = (1, "", "GPU is in use");
    let refused = fleet.reset_gpus(MACHINE, &["GPU-1".into()]).await;
    let expected = "`nvidia-smi --gpu-reset -i GPU-1` ended with exit code 1: GPU is in use";
    assert_eq!(refused, Outcome::Refused(expected.into()));
    cluster.state().machine.says = (124, "", "");
    assert!(matches!(fleet.reset_gpus(MACHINE, &[]).await, Outcome::Unknown(_)), "it was ended at its limit");
    cluster.state().machine.says = (0, "reset", "");
    assert_eq!(fleet.reset_gpus(MACHINE, &[]).await, Outcome::Done);
    assert!(matches!(fleet.reset_gpus(MACHINE, &["x; reboot".into()]).await, Outcome::Refused(_)));
    // Delivered to nobody is not "done" and not "failed".
    let late = json!({"Status": "TimedOut", "StatusDetails": "DeliveryTimedOut", "ResponseCode": -1});
    cluster.answer("GetCommandInvocation", 200, late);
    assert_eq!(fleet.reset_gpus(MACHINE, &[]).await, Outcome::Unknown("SSM: DeliveryTimedOut".into()));
    let denied = json!({"__type": "AccessDeniedException", "message": "no"});
    cluster.answer("SendCommand", 400, denied);
    let Outcome::Refused(why) = fleet.reboot(MACHINE, None).await else { panic!() };
    assert!(why.contains("allow `ssm:SendCommand`"), "{why}");
    // What is lost on the way may have happened, and is not said twice.
    cluster.answer("SendCommand", 500, json!({"__type": "InternalServerError"}));
    let before = cluster.count("SendCommand");
    assert!(matches!(fleet.reboot(MACHINE, None).await, Outcome::Unknown(_)));
    assert_eq!(cluster.count("SendCommand"), before + 1);
    let ran = fleet.command(MACHINE, &["echo a", "exit 3"], "x", Duration::from_secs(10)).await.unwrap();
    assert!(matches!(ran, Ran::Ended { code: 0, .. }));
    // Whatever it begins there ends with it, also when nobody waits for it any more.
    let sent = cluster.inputs("SendCommand").last().unwrap()["Parameters"].clone();
    let script = pitcrew_exec::limited::limited("echo a\nexit 3", Duration::from_secs(10));
    assert_eq!(sent, json!({ "commands": [script], "executionTimeout": ["10"] }));
}

/// Weakness 1: the node that failed is the one that is checked; and its log comes along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_runs_on_the_instance_that_is_meant_and_is_asked_for_once() {
    let cluster = Cluster::start();
    let client = client(&cluster);
    does(&cluster, "echo level $LEVEL; exit 226");
    let mut plan = plan("incident-7-1");
    plan.env.insert("LEVEL".into(), "2".into());
    plan.gpus = Some(8);
    let Checked::Ran { code, log, task } = check::run(&client, &plan).await else { panic!() };
    assert_eq!((code, log.as_str()), (226, "level 2\n"));
    let started = &cluster.inputs("StartTask")[0];
    assert_eq!(started["containerInstances"], json!([CONTAINER_INSTANCE]));
    assert!(started["startedBy"].as_str().unwrap().len() <= 36);
    // Asked for again, after a restart for example: the same task answers.
    assert_eq!(check::run(&client, &plan).await, Checked::Ran { code, log, task });
    assert_eq!(cluster.count("StartTask"), 1);
}

/// Weaknesses 5 and 6: GPUs that are held are waited for; what never ran is no verdict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_could_not_run_is_no_verdict() {
    let cluster = Cluster::start();
    let client = client(&cluster);
    let busy = || json!({"tasks": [], "failures": [{"arn": CONTAINER_INSTANCE, "reason": "RESOURCE:GPU"}]});
    does(&cluster, "exit 0");
    for _ in 0..3 {
        cluster.answer("StartTask", 200, busy());
    }
    assert!(matches!(check::run(&client, &plan("a")).await, Checked::Ran { code: 0, .. }));
    let why = |checked: Checked| match checked {
        Checked::NotRun { why, .. } => why,
        other => panic!("{other:?}"),
    };
    for _ in 0..2000 {
        cluster.answer("StartTask", 200, busy());
    }
    let short = Plan { limit: Duration::from_millis(200), ..plan("b") };
    let told = why(check::run(&client, &short).await);
    assert!(told.contains("could not be started in time") && told.contains("RESOURCE:GPU"), "{told}");
    cluster.state().answers.clear();

    does(&cluster, "echo begins; exec sleep 600");
    let Checked::NotRun { why: told, .. } = check::run(&client, &Plan { word: "c".into(), ..short }).await else {
        panic!()
    };
    assert!(told.contains("it did not end within"), "{told}");
    assert_eq!(cluster.count("StopTask"), 1, "and it is not left behind");
    // It went down with its machine.
    does(&cluster, "exec sleep 600");
    cluster.lose(&plan("d").started_by());
    let told = why(check::run(&client, &plan("d")).await);
    assert!(told.contains("Host EC2"), "{told}");
    // Weakness 21: another family than the one that was asked for.
    let other = json!({"taskDefinition": {
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:123456789012:task-definition/train-2:1", "family": "train-2",
    }});
    cluster.state().definition = Some(other);
    assert!(why(check::run(&client, &plan("e")).await).contains("ECS gave `arn:"), "exact families");
    let missing: Value = json!({"__type": "ClientException", "message": "Unable to describe task definition."});
    cluster.answer("DescribeTaskDefinition", 400, missing);
    assert!(why(check::run(&client, &plan("f")).await).contains("Unable to describe"));
}
