//! The three tables of DynamoDB of the system before: imported, and written for those who still read them.

use serde_json::{Value, json};

use crate::agent::{Agent, CHECK, Row};
use crate::drill::Drill;
use crate::harness::{World, text};
use crate::moto::Moto;

fn dynamo(moto: &Moto, operation: &str, input: &Value) -> Value {
    moto.json("dynamodb", &format!("DynamoDB_20120810.{operation}"), input)
}

fn table(moto: &Moto, name: &str, key: &str) {
    let input = json!({
        "TableName": name, "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": "S" }],
    });
    dynamo(moto, "CreateTable", &input);
}

fn put(moto: &Moto, table: &str, item: Value) {
    dynamo(moto, "PutItem", &json!({ "TableName": table, "Item": item }));
}

/// Texts as items have them.
fn s(text: &str) -> Value {
    json!({ "S": text })
}

/// The rows of a list of the command line.
fn rows(world: &World, kind: &str) -> Vec<Value> {
    world.json(&["aws", kind, "--output", "json"]).as_array().unwrap().clone()
}

/// The field of each row.
fn each<'a>(rows: &'a [Value], name: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[name].as_str().unwrap_or("-")).collect()
}

/// A cluster of two machines with tables that the system before has filled, as it did: lists of several kinds, no types kept.
fn filled(moto: &Moto, agent: &Agent) -> [String; 2] {
    table(moto, "jobs-of-old", "job_id");
    table(moto, "ecs_task", "ecs_task_id");
    table(moto, "ecs_node", "node_name");
    let (machines, instances): (Vec<String>, Vec<String>) =
        agent.world().machines.iter().map(|(id, machine)| (id.clone(), machine.instance.clone())).unzip();
    let id = |arn: &str| arn.rsplit('/').next().unwrap().to_owned();
    let list = |texts: &[&str]| json!({ "L": texts.iter().map(|text| s(text)).collect::<Vec<_>>() });
    for item in [
        json!({ "job_id": s("llm-1"), "num_nodes": { "N": "2" }, "assigned_nodes": list(&["gpu-1", "gpu-2"]),
            "submitted_container_inst_ids": list(&["c1", "c2"]), "submitted_ecs_task_ids": list(&["t1", "t2"]),
            "retry": { "N": "1" }, "job_status": s("FAILED") }),
        json!({ "job_id": s("llm-2"), "num_nodes": s("1"), "assigned_nodes": s("gpu-1"),
            "submitted_ecs_task_ids": s("t3,t4"), "job_status": s("COMPLETE") }),
        json!({ "job_id": s("llm-3"), "num_nodes": s("1"), "job_status": s("HAPPY") }),
        // Written by a Pitcrew before.
        json!({ "job_id": s("7-train"), "job_status": s("COMPLETE"), "pitcrew_version": { "N": "1" } }),
    ] {
        put(moto, "jobs-of-old", item);
    }
    for (key, job, retry) in [("t1", "llm-1", json!({ "N": "1" })), ("t9", "llm-1", json!({ "M": {} }))] {
        put(
            moto,
            "ecs_task",
            json!({ "ecs_task_id": s(key), "node_name": s("gpu-1"), "node_index_in_job": { "N": "0" }, "job_id": s(job),
                "job_num_nodes": { "N": "2" }, "task_def_arn": s("llm:11"), "container_inst_id": s("c1"),
                "container_instance_arn": s(&instances[0]), "retry": retry, "task_status": s("TERMINATED") }),
        );
    }
    let gone = instances[0].replace(&id(&instances[0]), "00000000-0000-4000-8000-000000000000");
    for (name, arn, status) in [
        ("gpu-1", &instances[0], "AVAILABLE"),
        ("gpu-2", &instances[1], "REBOOTING"),
        // The same machine, as it was called before it was registered anew.
        ("gpu-2-old", &instances[1], "UNKNOWN"),
        ("gpu-3", &gone, "FAILED"),
    ] {
        put(
            moto,
            "ecs_node",
            json!({ "node_name": s(name), "container_instance_id": s(&id(arn)), "container_instance_arn": s(arn),
                "node_status": s(status), "ip": s("10.0.0.7"), "ibdev": list(&["mlx5_0", "mlx5_1"]) }),
        );
    }
    put(moto, "ecs_node", json!({ "node_name": s("gpu-4"), "ip": s("10.0.0.9") }));
    [machines[0].clone(), machines[1].clone()]
}

/// What lasts of the system before is taken over once, and what cannot be read hinders nothing else.
#[test]
fn nodes_that_were_not_well_are_cordoned_and_the_history_of_jobs_is_kept() {
    let moto = Moto::start();
    let agent = Agent::start(&moto, 2);
    let [well, sick] = filled(&moto, &agent);
    let mut world = World::new();
    moto.serve(&mut world);
    world.env.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
    world.env.push(("AWS_ENDPOINT_URL", agent.url.clone()));
    world.env.push(("JOB_TABLE_NAME", "jobs-of-old".to_owned()));
    std::fs::write(world.path("pitcrew.yaml"), "ecs: {clusters: [gpus]}\n").unwrap();
    world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
    let import = |args: &[&str]| {
        let out = world.run(&[&["aws", "import", "--output", "json"], args].concat());
        // Some of it is bad, and is said to be.
        assert_eq!(out.status.code(), Some(1), "{}", text(&out));
        serde_json::from_slice::<Value>(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out)))
    };
    let would = import(&["--dry-run"]);
    assert_eq!(would["cordoned"], json!([{ "node": sick, "node_name": "gpu-2", "status": "REBOOTING" }]), "{would}");
    assert!(rows(&world, "jobs").is_empty() && rows(&world, "nodes").is_empty(), "nothing was written");
    assert_eq!(agent.instance(&sick)["status"], "ACTIVE");

    // A machine that could not be taken out of use all the way is not taken over yet.
    agent.world().undrained = true;
    let cut = text(&world.run(&["aws", "import", "--jobs", "none", "--tasks", "none"]));
    assert!(cut.contains("ECS still gives it tasks; import again"), "{cut}");
    assert_eq!(agent.instance(&sick)["status"], "ACTIVE");
    agent.world().undrained = false;

    let report = import(&[]);
    assert_eq!(report["cordoned"], would["cordoned"], "{report}");
    let counts = |report: &Value| -> Vec<(String, [u64; 5])> {
        let count = |table: &Value, name: &str| table[name].as_u64().unwrap();
        let of = |table: &Value| ["added", "changed", "same", "ours", "bad"].map(|name| count(table, name));
        let tables = report["tables"].as_array().unwrap();
        tables.iter().map(|table| (table["table"].as_str().unwrap().to_owned(), of(table))).collect()
    };
    let expected = [("ecs_node", [1, 0, 3, 0, 1]), ("jobs-of-old", [2, 0, 0, 1, 1]), ("ecs_task", [1, 0, 0, 0, 1])];
    assert_eq!(counts(&report), expected.map(|(name, counts)| (name.to_owned(), counts)));
    let problems = report["problems"].as_array().unwrap();
    let told: Vec<String> = problems
        .iter()
        .map(|problem| [&problem["table"], &problem["key"], &problem["why"]].map(|v| v.as_str().unwrap()).join(" "))
        .collect();
    let gone = "`gpu-3`: it was `FAILED`, and no machine of a cluster is known for it: nothing is cordoned";
    assert!(cut.contains(gone), "{cut}");
    let happy = told.iter().find(|told| told.starts_with("jobs-of-old llm-3 ")).unwrap_or_else(|| panic!("{told:?}"));
    assert!(happy.starts_with("jobs-of-old llm-3 `HAPPY` is none of `PENDING_HEALTHCHECK`"), "{happy}");
    let rest: Vec<&str> = told.iter().map(String::as_str).filter(|one| one != happy).collect();
    let bad_task = "ecs_task t9 `retry` is no number, but a map";
    assert_eq!(rest, ["ecs_node gpu-4 it has no `node_status`", bad_task]);

    let jobs = rows(&world, "jobs");
    assert_eq!(
        (each(&jobs, "job_id"), each(&jobs, "job_status")),
        (vec!["llm-1", "llm-2"], vec!["FAILED", "COMPLETE"])
    );
    assert_eq!((&jobs[0]["retry"], &jobs[0]["assigned_nodes"]), (&json!(1), &json!(["gpu-1", "gpu-2"])));
    assert_eq!(jobs[1]["submitted_ecs_task_ids"], json!(["t3", "t4"]), "a list is a list");
    assert_eq!((&jobs[1]["origin"], &jobs[1]["source"]), (&json!("imported"), &json!("jobs-of-old")));
    assert_eq!(each(&rows(&world, "tasks"), "ecs_task_id"), ["t1"]);
    let listed = world.ok(&["aws", "jobs", "--status", "COMPLETE"]);
    assert!(listed.contains("llm-2") && !listed.contains("llm-1") && listed.contains("imported"), "{listed}");
    assert!(world.fails(2, &["aws", "jobs", "--status", "DONE"]).contains("`--status`: `DONE` is none of"));
    assert_eq!(agent.instance(&sick)["status"], "DRAINING", "ECS gives it nothing new either");
    assert_eq!(agent.instance(&well)["status"], "ACTIVE");

    // A server knows it as it was left; what people then say of it stays, also after another import.
    let _server = world.serve();
    let show = |name: &str| -> Value {
        serde_json::from_slice(&world.run(&["nodes", "show", name, "--output", "json"]).stdout).unwrap_or_default()
    };
    world.wait("its machines are nodes", || show(&sick)["cluster"] == "gpus" && show(&well)["cluster"] == "gpus");
    assert_eq!((&show(&sick)["is_cordoned"], &show(&well)["is_cordoned"]), (&json!(true), &json!(false)));
    let remarks = show(&sick)["remarks"].to_string();
    assert!(remarks.contains("it was `REBOOTING` when it was imported"), "{remarks}");
    let nodes = rows(&world, "nodes");
    assert_eq!(each(&nodes, "node_name"), ["gpu-1", "gpu-2", "gpu-3"], "{nodes:?}");
    assert_eq!(each(&nodes, "node_status"), ["AVAILABLE", "REBOOTING", "FAILED"]);
    assert_eq!(each(&nodes, "origin"), ["pitcrew", "pitcrew", "imported"]);
    assert_eq!((&nodes[1]["node"], &nodes[1]["ibdev"]), (&json!(sick), &json!("mlx5_0,mlx5_1")));
    world.ok(&["nodes", "uncordon", &sick]);
    let again = import_again(&world);
    assert_eq!(
        counts(&again).iter().map(|(_, counts)| counts[..3].to_vec()).collect::<Vec<_>>(),
        [vec![0, 0, 4], vec![0, 0, 2], vec![0, 0, 1]]
    );
    assert_eq!((&again["cordoned"], &show(&sick)["is_cordoned"]), (&json!([]), &json!(false)));

    // A table that is not there is one problem, and the others are read.
    let out = world.run(&["aws", "import", "--jobs", "none"]);
    let told = text(&out);
    assert!(
        out.status.code() == Some(1) && told.contains("`none`: ") && told.contains("; `JOB_TABLE_NAME` names another")
    );
    assert!(told.contains("ecs_task"), "{told}");
}

fn import_again(world: &World) -> Value {
    let out = world.run(&["aws", "import", "--output", "json"]);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out)))
}

impl Drill {
    /// A row as DynamoDB has it; null if it is not there.
    fn row(&self, table: &str, key: (&str, &str)) -> Value {
        let key = json!({ key.0: s(key.1) });
        dynamo(&self.moto, "GetItem", &json!({ "TableName": table, "Key": key, "ConsistentRead": true }))["Item"]
            .clone()
    }

    fn job(&self, key: &str) -> Value {
        self.row("ecs_job", ("job_id", key))
    }

    fn node_status(&self) -> String {
        let row = self.row("ecs_node", ("node_name", &self.machine));
        row["node_status"]["S"].as_str().unwrap_or_default().to_owned()
    }

    fn task_status(&self, task: &Value) -> String {
        let id = task["taskArn"].as_str().unwrap().rsplit('/').next().unwrap();
        let row = self.row("ecs_task", ("ecs_task_id", id));
        row["task_status"]["S"].as_str().unwrap_or_default().to_owned()
    }

    fn until_job(&self, key: &str, status: &str) {
        self.world.wait(&format!("`{key}` is {status}"), || self.job(key)["job_status"]["S"] == status);
    }

    /// The check that runs.
    fn check(&self) -> Value {
        let running = || self.agent.tasks(CHECK).into_iter().find(|task| task["lastStatus"] == "RUNNING");
        self.world.wait("a check runs", || running().is_some());
        running().unwrap()
    }

    /// The states of a row in the order in which they were written, without repeats.
    fn states(&self, table: &str, key: &str) -> Vec<String> {
        let world = self.agent.world();
        let of = |row: &&Row| row.written && row.table == table && row.key == key;
        let mut all: Vec<String> = world.rows.iter().filter(of).map(|row| row.status.clone()).collect();
        all.dedup();
        all
    }
}

/// Weaknesses 8, 10, 17, 18 and 20, as those see it who read the tables: each state after the one before, whatever happens to the
/// server and to DynamoDB; no write undoes a newer one.
#[test]
fn the_tables_follow_a_drill_from_the_failure_to_the_end_also_when_they_are_away() {
    let drill = Drill::with(1, 0, ", tables: true");
    table(&drill.moto, "ecs_job", "job_id");
    table(&drill.moto, "ecs_task", "ecs_task_id");
    table(&drill.moto, "ecs_node", "node_name");
    // The system before knows the machine's address, which we do not.
    put(
        &drill.moto,
        "ecs_node",
        json!({ "node_name": s(&drill.machine), "node_status": s("UNKNOWN"), "ip": s("10.0.0.7") }),
    );
    let mut server = drill.serve();
    let first = drill.begin();
    drill.until_placed(1);
    drill.until_job("1-train", "IN_PROGRESS");
    // What the system before says is its own until it was imported.
    let refused = |row: &Row| row.key == drill.machine && !row.written;
    drill.world.wait("its machine is to be written", || drill.agent.world().rows.iter().any(refused));
    assert_eq!(drill.node_status(), "UNKNOWN");
    drill.world.ok(&["aws", "import"]);
    drill.world.wait("its machine is in use", || drill.node_status() == "IN_PROGRESS");
    drill.world.wait("its task is there", || drill.task_status(&first) == "IN_PROGRESS");

    drill.agent.world().held = true;
    drill.agent.end(&first, 1);
    let check = drill.check();
    drill.until_job("1-train", "PENDING_HEALTHCHECK");
    drill.world.wait("its machine is checked", || drill.node_status() == "PENDING_HEALTHCHECK");
    drill.world.wait("its task has ended", || drill.task_status(&first) == "TERMINATED");
    server.kill();
    drill.agent.end(&check, 226);
    let server_again = drill.world.serve();
    drill.world.wait("its machine is rebooted", || drill.node_status() == "REBOOTING");
    let waits = |drill: &Drill| drill.job("1-train")["job_status"]["S"].as_str().unwrap_or_default().to_owned();
    drill.world.wait("its job will begin anew", || ["PENDING_RESTART", "RESTARTING"].contains(&waits(&drill).as_str()));

    // Recovery goes on without DynamoDB, and so does the next server.
    let check = drill.check();
    drill.agent.world().tables_away = true;
    drill.agent.end(&check, 0);
    let second = drill.until_running(&[&first]);
    drill.until_placed(2);
    assert_ne!(drill.job("1-train")["job_status"]["S"], "IN_PROGRESS", "nobody could write it");
    let mut server = server_again;
    server.kill();
    let _server = drill.world.serve();
    drill.agent.world().tables_away = false;
    drill.until_job("1-train", "IN_PROGRESS");
    let job = drill.job("1-train");
    let id = second["taskArn"].as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!((&job["retry"], &job["num_nodes"]), (&json!({ "N": "1" }), &json!({ "N": "1" })), "{job}");
    assert_eq!(job["submitted_ecs_task_ids"], json!({ "L": [s(id)] }), "a list, of this attempt");
    assert_eq!(job["assigned_nodes"], json!({ "L": [s(&drill.machine)] }));
    drill.world.wait("its machine is used again", || drill.node_status() == "IN_PROGRESS");
    drill.agent.end(&second, 0);
    drill.until_job("1-train", "COMPLETE");
    drill.world.wait("its machine is free", || drill.node_status() == "AVAILABLE");
    drill.world.wait("its task is done", || drill.task_status(&second) == "COMPLETE");
    assert_eq!(drill.task_status(&first), "TERMINATED", "an end changes no earlier attempt");
    assert_eq!(drill.row("ecs_node", ("node_name", &drill.machine))["ip"], s("10.0.0.7"), "what is not ours stays");

    // In the order of the system before; what lay between two rounds may be missing.
    let jobs = drill.states("ecs_job", "1-train");
    let order = ["IN_PROGRESS", "PENDING_HEALTHCHECK", "PENDING_RESTART", "RESTARTING", "IN_PROGRESS", "COMPLETE"];
    assert!(is_within(&jobs, &order), "{jobs:?}");
    let nodes = drill.states("ecs_node", &drill.machine);
    let order = [
        "UNKNOWN",
        "AVAILABLE",
        "IN_PROGRESS",
        "PENDING",
        "PENDING_HEALTHCHECK",
        "PENDING",
        "REBOOTING",
        "PENDING",
        "AVAILABLE",
        "IN_PROGRESS",
        "AVAILABLE",
    ];
    assert!(is_within(&nodes, &order), "{nodes:?}");

    // Somebody newer has written it: what this server still says of it is not.
    drill.agent.world().held = false;
    let third = drill.begin();
    drill.until_job("2-train", "IN_PROGRESS");
    let mut newer = drill.job("2-train");
    newer["pitcrew_version"] = json!({ "N": "99999999999999999999" });
    put(&drill.moto, "ecs_job", newer.clone());
    drill.agent.end(&third, 0);
    let refused = |row: &Row| row.key == "2-train" && row.status == "COMPLETE" && !row.written;
    drill.world.wait("its end is to be written", || drill.agent.world().rows.iter().any(refused));
    assert_eq!(drill.job("2-train"), newer);
}

/// All of them, in this order, perhaps with gaps.
fn is_within(states: &[String], order: &[&str]) -> bool {
    let mut rest = order.iter();
    states.iter().all(|state| rest.any(|next| next == state))
}
