//! Gangs on real workers: members begin together, know each other, and end and begin anew as one.

use serde_json::json;

use crate::world::{Process, World, exists};

/// Workers of the queue `gang`, each with a place for one member.
async fn workers(world: &World, names: &[&str]) -> Vec<Process> {
    let mut all = Vec::new();
    for name in names {
        let address = format!("peer-address={name}.test");
        let args = ["--queue", "gang", "--slots", "1", "--label", &address];
        all.push(world.worker(name, &args, &[]).await);
    }
    all
}

/// One member, as it left its line: try, rank, count, head, peers, process, workspace.
#[derive(Debug, Clone, PartialEq)]
struct Member {
    attempt: String,
    rank: String,
    count: String,
    head: String,
    peers: Vec<String>,
    pid: String,
    /// The worker that it ran on.
    worker: String,
}

fn member(world: &World, line: &str) -> Member {
    let mut words = line.split(' ').map(str::to_owned);
    let mut next = || words.next().unwrap_or_default();
    let (attempt, rank, count, head) = (next(), next(), next(), next());
    let peers = next().split(',').map(str::to_owned).collect();
    let (pid, workspace) = (next(), next());
    let below = workspace.strip_prefix(world.dir.to_str().unwrap()).unwrap_or_default();
    let worker = below.split('/').nth(1).unwrap_or_default().to_owned();
    Member { attempt, rank, count, head, peers, pid, worker }
}

/// The members of a try, by rank, once all have begun.
fn begun(world: &World, attempt: &str, count: usize) -> Vec<Member> {
    let of_try = |lines: Vec<String>| -> Vec<Member> {
        let all = lines.iter().map(|line| member(world, line));
        all.filter(|member| member.attempt == attempt).collect()
    };
    world.wait_now(&format!("{count} members of try {attempt}"), || of_try(world.lines("begun")).len() >= count);
    let mut members = of_try(world.lines("begun"));
    members.sort_by(|a, b| a.rank.cmp(&b.rank));
    assert_eq!(members.len(), count, "{members:?}");
    members
}

/// All of one try were told the same, and each is where the others were told that it is.
fn know_each_other(members: &[Member]) {
    for (rank, one) in members.iter().enumerate() {
        assert_eq!((&*one.rank, &*one.count), (&*rank.to_string(), &*members.len().to_string()), "{members:?}");
        assert_eq!((&one.peers, &one.head), (&members[0].peers, &members[0].peers[0]), "{members:?}");
        assert_eq!(one.peers[rank], format!("{}.test", one.worker), "{members:?}");
    }
    let mut nodes: Vec<&String> = members.iter().map(|member| &member.worker).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), members.len(), "a node each: {members:?}");
}

/// A task of so many members that leave a line each, do that, and then wait until they may end.
fn gang(world: &World, nodes: &str, more: &str, and: &str) -> String {
    let line = "$PITCREW_TRY $PITCREW_RANK $PITCREW_NODES $PITCREW_HEAD $PITCREW_PEERS $$ $PITCREW_WORKSPACE";
    format!(
        "  train:\n    queue: gang\n    nodes: {nodes}\n{more}    run: |\n      echo \"{line}\" >> {}\n{and}      \
         while [ ! -e {} ]; do sleep 0.1; done\n      echo rank=$PITCREW_RANK >> \"$PITCREW_OUTPUT\"\n",
        world.effects("begun").display(),
        world.effects("stop").display()
    )
}

/// Why the gang of the first run does not run, or what became of a member.
async fn explained(world: &World, of: &str) -> String {
    world.get(&format!("/api/pitcrew/v1/runs/1/explain/train{of}")).await.to_string()
}

#[tokio::test]
async fn members_begin_together_and_know_each_other() {
    let world = World::new();
    let _workers = workers(&world, &["one", "two", "three"]).await;
    let after = format!(
        "  after:\n    needs: [train]\n    backend: local\n    run: echo {{{{ tasks.train.outputs.rank | join('-') }}}} > {}\n",
        world.effects("after").display()
    );
    world.workflow("train", &format!("{}{after}", gang(&world, "3", "", "")));
    world.trigger("train").await;
    know_each_other(&begun(&world, "1", 3));
    std::fs::write(world.effects("stop"), "").unwrap();
    world.becomes("train", "success").await;
    assert_eq!(world.lines("after"), ["0-1-2"]);
    assert_eq!(world.lines("begun").len(), 3);
}

#[tokio::test]
async fn a_member_that_fails_ends_its_mates_and_all_begin_anew_or_fail_as_one() {
    let world = World::new();
    let _workers = workers(&world, &["one", "two", "three"]).await;
    // The member of rank 1 fails when it may: in each try once all of them have begun.
    let fails = format!(
        "      [ $PITCREW_RANK = 1 ] && while [ ! -e {}$PITCREW_TRY ]; do sleep 0.1; done && exit 3\n",
        world.effects("fail").display()
    );
    world.workflow("train", &gang(&world, "3", "    retries: 1\n    retry_delay: 0s\n", &fails));
    world.trigger("train").await;
    let first = begun(&world, "1", 3);
    know_each_other(&first);
    std::fs::write(world.effects("fail1"), "").unwrap();
    let second = begun(&world, "2", 3);
    know_each_other(&second);
    assert!(first.iter().all(|member| !exists(&member.pid)), "{first:?}");
    // The second try fails as the first one did, and there is no third.
    std::fs::write(world.effects("fail2"), "").unwrap();
    world.becomes("train", "failed").await;
    assert!(second.iter().all(|member| !exists(&member.pid)), "{second:?}");
    assert_eq!(world.lines("begun").len(), 6);
    let listed = world.get("/api/v2/dags/train/dagRuns/r/taskInstances").await;
    let listed = listed["task_instances"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert!(listed.iter().all(|one| one["state"] == "failed" && one["try_number"] == 2), "{listed:?}");
    for mate in ["?map_index=0", "?map_index=2"] {
        let why = explained(&world, mate).await;
        assert!(why.contains("its gang failed: member 1: exit code 3"), "{why}");
    }
}

#[tokio::test]
async fn a_worker_that_vanishes_moves_the_whole_gang() {
    let world = World::new();
    let names = ["one", "two", "three", "four"];
    let mut workers = workers(&world, &names).await;
    world.workflow("train", &gang(&world, "3", "", ""));
    world.trigger("train").await;
    let first = begun(&world, "1", 3);
    know_each_other(&first);
    let lost = names.iter().position(|name| *name == first[1].worker).unwrap();
    workers[lost].kill();
    // It draws on no retries: the task has none.
    let second = begun(&world, "2", 3);
    know_each_other(&second);
    assert!(second.iter().all(|member| member.worker != first[1].worker), "{second:?}");
    assert!(first.iter().all(|member| !exists(&member.pid)), "{first:?}");
    std::fs::write(world.effects("stop"), "").unwrap();
    world.becomes("train", "success").await;
    assert_eq!(world.lines("begun").len(), 6);
}

#[tokio::test]
async fn a_gang_waits_for_as_many_workers_and_a_server_that_dies_finds_it_again() {
    let mut world = World::new();
    let mut workers_of = workers(&world, &["one", "two", "three"]).await;
    world.workflow("train", &gang(&world, "4", "", ""));
    world.trigger("train").await;
    let waits = "it has 4 members with a node each, and only 3 nodes could ever take one: another worker has to come";
    world.wait("it waits for a fourth", async || explained(&world, "").await.contains(waits)).await;
    assert!(world.lines("begun").is_empty());
    workers_of.extend(workers(&world, &["four"]).await);
    let members = begun(&world, "1", 4);
    know_each_other(&members);
    world.restart_server();
    world.server.says("Ctrl-C");
    assert!(members.iter().all(|member| exists(&member.pid)), "{members:?}");
    std::fs::write(world.effects("stop"), "").unwrap();
    world.becomes("train", "success").await;
    assert_eq!(world.lines("begun").len(), 4);
}

#[tokio::test]
async fn a_gang_that_no_nodes_can_ever_take_is_refused_at_once() {
    let world = World::new();
    world.workflow("train", "  train:\n    nodes: 2\n    run: echo hello\n");
    world.trigger("train").await;
    world.becomes("train", "failed").await;
    let why = explained(&world, "?map_index=0").await;
    assert!(why.contains("it has 2 members with a node each, and only 1 node could ever take one"), "{why}");
    // A user ends all of a gang at once.
    let _workers = workers(&world, &["one", "two"]).await;
    world.workflow("stopped", &gang(&world, "2", "", ""));
    world.trigger("stopped").await;
    let members = begun(&world, "1", 2);
    world.ask(reqwest::Method::PATCH, "/api/v2/dags/stopped/dagRuns/r", Some(json!({ "state": "failed" }))).await;
    world.wait("it is over", async || !["running", "queued", ""].contains(&&*world.state("stopped").await)).await;
    assert!(members.iter().all(|member| !exists(&member.pid)), "{members:?}");
    assert_eq!(world.lines("begun").len(), 2);
}
