//! Who goes first, who holds back whom, and what an instance holds.

mod gangs;
mod given;
mod necessary;
mod promised;
mod quotas;
mod turns;

use super::*;
use crate::fleet::{Amount, Gpu, Gpus, Standing};
use crate::id::TaskId;
use crate::ir::{TaskIx, Work};

fn offer(task: u32, priority: i64, slots: u32, gpus: u32) -> Offer {
    let request = Request { gpus: Gpus::Count(gpus), ..Request::default() };
    let demand = Demand { request: (gpus > 0).then(|| Arc::new(request)), ..Demand::default() };
    Offer {
        slot: Slot::new(TaskIx(task), 0),
        gang: None,
        namespace: DEFAULT_NAMESPACE.to_owned(),
        pool: None,
        pool_slots: slots,
        priority,
        is_preemptible: true,
        limit: None,
        demand,
    }
}

fn node(name: &str, gpus: usize) -> Node {
    let gpus = (0..gpus).map(|at| Gpu::new(format!("{name}/{at}"), "A100", 81_920)).collect();
    Node::new(name, Amount::whole(8), 16_384, gpus)
}

fn task() -> Task {
    Task::new(TaskId::new("t").unwrap(), Work::Noop)
}

fn admission(parallelism: u32, nodes: &[(&str, usize)]) -> Admission {
    Admission::new(parallelism, nodes.iter().map(|(name, gpus)| node(name, *gpus)).collect()).unwrap()
}

fn granted(admission: &mut Admission) -> Vec<u32> {
    let tasks = admission.grant(Timestamp::UNIX_EPOCH).iter().map(|grant| grant.holder.slot.task.0).collect();
    admission.sanity_check(false);
    tasks
}

#[test]
fn the_best_goes_first_and_nothing_goes_beyond_a_pool() {
    let mut admission = admission(32, &[]);
    admission.set_pool(DEFAULT_POOL, 4);
    for (task, priority, slots) in [(1, 0, 1), (2, 9, 3), (3, 5, 2), (4, 0, 1)] {
        admission.offer(RunKey(1), &offer(task, priority, slots, 0)).unwrap();
    }
    // 2 takes three slots; 3 wants two and holds the line, although 1 would fit.
    assert_eq!(granted(&mut admission), [2]);
    let why = admission.why(RunKey(1), Slot::new(TaskIx(3), 0)).unwrap();
    insta::assert_snapshot!(why, @"the pool `default_pool` has 3 of 4 slots in use, and it asks for 2");
    admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
    admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
    assert_eq!(granted(&mut admission), [3, 1, 4]);
}

#[test]
fn gpus_are_exact_devices_and_a_waiting_gang_is_not_overtaken_by_small_ones() {
    let mut admission = admission(32, &[("local", 2)]);
    admission.offer(RunKey(1), &offer(1, 0, 1, 1)).unwrap();
    let placed = Placed { node: "local".to_owned(), gpus: vec!["local/0".to_owned()] };
    assert_eq!(admission.grant(Timestamp::UNIX_EPOCH)[0].placed, [placed]);
    admission.offer(RunKey(1), &offer(2, 0, 1, 2)).unwrap();
    admission.offer(RunKey(1), &offer(3, 0, 1, 1)).unwrap();
    admission.offer(RunKey(1), &offer(4, 0, 1, 0)).unwrap();
    assert_eq!(granted(&mut admission), [4]);
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    assert_eq!(granted(&mut admission), [2]);
    let refusal = admission.offer(RunKey(1), &offer(5, 0, 1, 3)).unwrap_err();
    insta::assert_snapshot!(refusal, @"no node can ever take it, not even when it is empty: `local`: 3 GPUs asked for; 2 of its 2 free");
}

#[test]
fn a_waiting_gang_is_not_overtaken_through_another_pool() {
    let mut admission = admission(32, &[("local", 2)]);
    admission.set_pool("other", 8);
    admission.offer(RunKey(1), &offer(1, 0, 1, 1)).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    admission.offer(RunKey(1), &offer(2, 0, 1, 2)).unwrap();
    admission.offer(RunKey(1), &Offer { pool: Some("other".to_owned()), ..offer(3, 0, 1, 1) }).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    let why = admission.why(RunKey(1), Slot::new(TaskIx(3), 0)).unwrap();
    assert_eq!(why, Blocked::Kept);
}

#[test]
fn who_asks_for_more_than_a_pool_has_waits_alone() {
    let mut admission = admission(32, &[]);
    admission.set_pool(DEFAULT_POOL, 2);
    admission.offer(RunKey(1), &offer(1, 9, 3, 0)).unwrap();
    admission.offer(RunKey(1), &offer(2, 0, 1, 0)).unwrap();
    assert_eq!(granted(&mut admission), [2]);
    let why = admission.why(RunKey(1), Slot::new(TaskIx(1), 0)).unwrap();
    insta::assert_snapshot!(why, @"the pool `default_pool` has 1 of 2 slots in use, and it asks for 3");
    admission.set_pool(DEFAULT_POOL, 4);
    assert_eq!(granted(&mut admission), [1]);
}

#[test]
fn a_forgotten_run_holds_nothing() {
    let mut admission = admission(1, &[]);
    for task in 0..3 {
        admission.offer(RunKey(7), &offer(task, 0, 1, 0)).unwrap();
    }
    assert_eq!(granted(&mut admission), [0]);
    admission.adopt(RunKey(8), Slot::new(TaskIx(0), 0), DEFAULT_NAMESPACE, &task(), false, None);
    admission.forget(RunKey(7));
    admission.sanity_check(false);
    assert_eq!(admission.pool_use(DEFAULT_POOL), Some((1, 128)));
}

#[test]
fn nodes_come_and_go_and_leases_stay() {
    let mut admission = admission(32, &[("a", 1), ("b", 1)]);
    for task in 1..=3 {
        admission.offer(RunKey(1), &offer(task, 0, 1, 1)).unwrap();
    }
    let grants = admission.grant(Timestamp::UNIX_EPOCH);
    let nodes: Vec<_> = grants.iter().flat_map(|grant| &grant.placed).map(|placed| placed.node.as_str()).collect();
    assert_eq!(nodes, ["a", "b"]);
    // `a` vanishes: its task may still run there, so what it holds is nobody else's when the node is back.
    admission.set_nodes(vec![node("b", 1)]).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    admission.set_nodes(vec![node("a", 1), Node { standing: Standing::Cordoned, ..node("b", 1) }]).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
    assert_eq!(granted(&mut admission), [0; 0], "`b` is free, and takes no new work");
    let why = admission.why(RunKey(1), Slot::new(TaskIx(3), 0)).unwrap();
    insta::assert_snapshot!(why, @"no node has room for it: `a`: 1 GPU asked for; none of its 1 has as much free; `b`: it is cordoned");
    admission.set_nodes(vec![node("a", 1), node("b", 1)]).unwrap();
    assert_eq!(granted(&mut admission), [3]);
    assert!(admission.set_nodes(vec![node("a", 1), node("a", 1)]).is_err());
    // What a node has that is down is not known: who asks for a lot waits, and holds nobody up.
    let down = Node { standing: Standing::Down("no route".to_owned()), ..node("c", 0) };
    admission.set_nodes(vec![node("a", 1), node("b", 1), down]).unwrap();
    admission.release(RunKey(1), Slot::new(TaskIx(3), 0));
    for (task, gpus) in [(4, 8), (5, 1)] {
        admission.offer(RunKey(1), &offer(task, 0, 1, gpus)).unwrap();
    }
    assert_eq!(granted(&mut admission), [5]);
}

#[test]
fn a_restart_takes_the_same_devices_and_a_smaller_machine_gives_no_more_than_it_has() {
    let mut admission = admission(32, &[("local", 3)]);
    let request = Request { cpu: Amount::whole(6), gpus: Gpus::Count(1), ..Request::default() };
    for (number, gpu) in [(1, "local/2"), (2, "local/0")] {
        let placed = Placed { node: "local".to_owned(), gpus: vec![gpu.to_owned()] };
        admission.adopt(
            RunKey(1),
            Slot::new(TaskIx(number), 0),
            DEFAULT_NAMESPACE,
            &task(),
            false,
            Some((&placed, &request)),
        );
    }
    // 12 of 8 cores are in use.
    admission.sanity_check(true);
    let needs_cpu =
        |cores| Demand { request: Some(Arc::new(Request { cpu: cores, ..request.clone() })), ..Demand::default() };
    admission.offer(RunKey(1), &Offer { demand: needs_cpu(Amount::ONE), ..offer(3, 0, 1, 0) }).unwrap();
    assert!(admission.grant(Timestamp::UNIX_EPOCH).is_empty());
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    let grants = admission.grant(Timestamp::UNIX_EPOCH);
    assert_eq!(grants[0].placed[0].gpus, ["local/1"]);
    admission.sanity_check(false);
}

#[test]
fn the_policy_decides_where_the_next_one_goes() {
    for (policy, nodes) in [(Policy::Pack, ["a", "a"]), (Policy::Spread, ["a", "b"])] {
        let mut admission = admission(32, &[("a", 4), ("b", 4)]);
        admission.set_policy(policy);
        for task in [1, 2] {
            admission.offer(RunKey(1), &offer(task, 0, 1, 1)).unwrap();
        }
        let grants = admission.grant(Timestamp::UNIX_EPOCH);
        let placed: Vec<&str> = grants.iter().map(|grant| grant.placed[0].node.as_str()).collect();
        assert_eq!(placed, nodes, "{policy}");
    }
}

#[test]
fn by_fgd_small_ones_leave_large_nodes_whole_from_the_first_one_on() {
    let mut admission = admission(64, &[("a", 8), ("b", 1), ("c", 2)]);
    let placed = |admission: &mut Admission, task, gpus| {
        admission.offer(RunKey(1), &offer(task, 0, 1, gpus)).unwrap();
        let grants = admission.grant(Timestamp::UNIX_EPOCH);
        grants[0].placed[0].node.clone()
    };
    assert_eq!(placed(&mut admission, 1, 1), "b");
    assert_eq!(placed(&mut admission, 2, 1), "c");
    for task in 1..=2 {
        admission.release(RunKey(1), Slot::new(TaskIx(task), 0));
    }
    // What comes usually is learned: pairs are to find a pair, so one alone does not break one up.
    admission.set_nodes(vec![node("a", 2), node("b", 3)]).unwrap();
    for task in 10..40 {
        placed(&mut admission, task, 2);
        admission.release(RunKey(1), Slot::new(TaskIx(task), 0));
    }
    assert_eq!(placed(&mut admission, 50, 1), "b");
    admission.sanity_check(false);
}

#[test]
fn small_ones_pass_who_waits_for_a_node_that_they_do_not_fill() {
    let mut admission = admission(32, &[("big", 4), ("small", 1)]);
    for (task, gpus) in [(1, 4), (2, 4), (3, 1), (4, 1)] {
        admission.offer(RunKey(1), &offer(task, 0, 1, gpus)).unwrap();
    }
    // 2 waits for `big`; 3 fits `small`; 4 would take a part of what 2 was promised, once 1 is gone.
    assert_eq!(granted(&mut admission), [1, 3]);
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    admission.release(RunKey(1), Slot::new(TaskIx(3), 0));
    assert_eq!(granted(&mut admission), [2, 4]);
}

#[test]
fn a_higher_priority_makes_the_cheapest_end_and_nobody_twice() {
    let mut admission = admission(32, &[("a", 2), ("b", 2)]);
    let ends = |admission: &mut Admission| -> Vec<(u32, u32)> {
        admission.preemptions().iter().map(|one| (one.victim.slot.task.0, one.by.slot.task.0)).collect()
    };
    admission.offer(RunKey(1), &offer(1, 5, 1, 2)).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    for task in [2, 3] {
        admission.offer(RunKey(1), &offer(task, 0, 1, 1)).unwrap();
    }
    assert_eq!(granted(&mut admission), [2, 3]);
    // Of the same priority nobody ends; and one GPU is what the youngest has.
    admission.offer(RunKey(1), &offer(4, 0, 1, 1)).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![]));
    admission.offer(RunKey(1), &offer(5, 1, 1, 1)).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![(3, 5)]));
    admission.set_pool("other", 1);
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![]), "it was told");
    // What becomes free is for whom it was made free.
    admission.release(RunKey(1), Slot::new(TaskIx(3), 0));
    assert_eq!(granted(&mut admission), [5]);
    // One that may not be ended is spared, whatever it costs the others.
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    admission.withdraw(RunKey(1), Slot::new(TaskIx(4), 0));
    admission.offer(RunKey(1), &Offer { is_preemptible: false, ..offer(6, 0, 1, 2) }).unwrap();
    assert_eq!(granted(&mut admission), [6]);
    admission.offer(RunKey(1), &offer(7, 9, 1, 2)).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![(2, 7), (5, 7)]));
}

/// Each finds its own, those before first, and what becomes free for one is not the other's.
#[test]
fn room_is_made_for_several_at_a_time_and_nobody_ends_for_two() {
    let mut admission = admission(32, &[("a", 4), ("b", 4)]);
    let ends = |admission: &mut Admission| -> Vec<(u32, u32)> {
        admission.preemptions().iter().map(|one| (one.victim.slot.task.0, one.by.slot.task.0)).collect()
    };
    for task in 1..=8 {
        admission.offer(RunKey(1), &offer(task, 0, 1, 1)).unwrap();
    }
    assert_eq!(granted(&mut admission).len(), 8);
    for (task, gpus) in [(11, 2), (12, 3), (13, 1), (14, 4)] {
        admission.offer(RunKey(1), &offer(task, 5, 1, gpus)).unwrap();
    }
    assert_eq!(granted(&mut admission), [0; 0]);
    // The youngest have lost least, on each node; for 14 nobody is left on one node.
    let told = ends(&mut admission);
    assert_eq!(told, [(8, 11), (7, 11), (4, 12), (3, 12), (2, 12), (6, 13)]);
    for task in [6, 4, 8, 3] {
        admission.release(RunKey(1), Slot::new(TaskIx(task), 0));
        // Small ones come meanwhile, and find room that is not theirs.
        admission.offer(RunKey(2), &offer(20 + task, 0, 1, 1)).unwrap();
        assert_eq!(granted(&mut admission), if task == 8 { vec![11] } else { vec![] });
        assert_eq!(ends(&mut admission), []);
    }
    for (task, begins) in [(7, vec![13]), (2, vec![12])] {
        admission.release(RunKey(1), Slot::new(TaskIx(task), 0));
        assert_eq!((granted(&mut admission), ends(&mut admission)), (begins, vec![]));
    }
}

/// A person marks a node for a while: that fails nothing. What the machines are is another matter.
#[test]
fn what_people_do_to_a_node_is_waited_for_and_what_it_lacks_is_refused() {
    use crate::fleet::{Effect, Taint};
    let mut gpu = node("gpu", 2);
    gpu.labels.insert("zone".to_owned(), "west".to_owned());
    let mut admission = Admission::new(32, vec![gpu.clone()]).unwrap();
    let zoned = |task, zone: &str, gpus| {
        let mut one = offer(task, 0, 1, 0);
        let node_selector = [("zone".to_owned(), zone.to_owned())].into();
        one.demand.request = Some(Arc::new(Request { gpus: Gpus::Count(gpus), node_selector, ..Request::default() }));
        one
    };
    let refusal = admission.offer(RunKey(1), &zoned(1, "east", 1)).unwrap_err();
    insta::assert_snapshot!(refusal, @"no node can ever take it, not even when it is empty: `gpu`: its labels do not meet `zone = east`");
    let mut marked = gpu.clone();
    marked.taints.push(Taint { key: "maint".to_owned(), value: String::new(), effect: Effect::NoSchedule });
    marked.labels.remove("zone");
    marked.marked.insert("zone".to_owned());
    admission.set_nodes(vec![marked]).unwrap();
    admission.offer(RunKey(1), &offer(2, 0, 1, 1)).unwrap();
    admission.offer(RunKey(1), &zoned(3, "west", 1)).unwrap();
    let refusal = admission.offer(RunKey(1), &offer(4, 0, 1, 3)).unwrap_err();
    insta::assert_snapshot!(refusal, @"no node can ever take it, not even when it is empty: `gpu`: 3 GPUs asked for; 2 of its 2 free");
    assert_eq!(granted(&mut admission), [0; 0]);
    let why = admission.why(RunKey(1), Slot::new(TaskIx(2), 0)).unwrap();
    insta::assert_snapshot!(why, @"no node has room for it: `gpu`: its taint `maint:NoSchedule` is not tolerated");
    admission.set_nodes(vec![gpu]).unwrap();
    assert_eq!(granted(&mut admission), [2, 3]);
}

/// What a node had is known when it is down: what it could never take is refused all the same.
#[test]
fn a_node_that_is_down_is_judged_by_what_is_known_of_it() {
    let down = |gpus| Node { standing: Standing::Down("no route".to_owned()), ..node("c", gpus) };
    let unheard = Node { cpu: Amount::ZERO, memory_mib: 0, ..down(0) };
    let mut admission = Admission::new(32, vec![node("a", 1), down(4)]).unwrap();
    admission.offer(RunKey(1), &offer(1, 0, 1, 4)).unwrap();
    let refusal = admission.offer(RunKey(1), &offer(2, 0, 1, 8)).unwrap_err();
    insta::assert_snapshot!(refusal, @"no node can ever take it, not even when it is empty: `a`: 8 GPUs asked for; 1 of its 1 free; `c`: 8 GPUs asked for; 4 of its 4 free");
    admission.set_nodes(vec![node("a", 1), unheard]).unwrap();
    admission.offer(RunKey(1), &offer(3, 0, 1, 8)).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
}

/// Nodes are configured, and what none of them can take is refused; but a worker may come at any time.
#[test]
fn a_queue_that_nobody_serves_is_waited_for_and_one_whose_workers_cannot_is_refused() {
    let mut admission = admission(32, &[("local", 2)]);
    let asks = |task, gpus: Gpus| {
        let request = Request { gpus, queue: Some("s21".to_owned()), ..Request::default() };
        let demand = Demand { request: Some(Arc::new(request)), ..Demand::default() };
        Offer { demand, ..offer(task, 0, 1, 0) }
    };
    admission.offer(RunKey(1), &asks(1, Gpus::Count(16))).unwrap();
    admission.offer(RunKey(1), &asks(2, Gpus::None)).unwrap();
    admission.offer(RunKey(1), &offer(3, 0, 1, 2)).unwrap();
    assert_eq!(granted(&mut admission), [3], "those who wait for a worker hold nobody back");
    let why = |admission: &Admission, task| admission.why(RunKey(1), Slot::new(TaskIx(task), 0)).unwrap();
    insta::assert_snapshot!(why(&admission, 1), @"no worker serves the queue `s21`; `pitcrew worker --queue s21` on a machine starts one");
    let mut worker = node("s21", 1);
    worker.slots = Some(1);
    worker.labels.insert(format!("{}s21", crate::fleet::QUEUE_LABEL), "true".to_owned());
    admission.set_nodes(vec![node("local", 2), worker]).unwrap();
    assert_eq!(granted(&mut admission), [2]);
    insta::assert_snapshot!(why(&admission, 1), @"no node has room for it: `s21`: its one slot is taken");
    let refusal = admission.offer(RunKey(1), &asks(4, Gpus::Count(2))).unwrap_err();
    insta::assert_snapshot!(refusal, @"no node can ever take it, not even when it is empty: `s21`: 2 GPUs asked for; 1 of its 1 free; `local`: it does not serve the queue `s21`");
}
