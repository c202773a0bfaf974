//! Quotas: never exceeded, lent and taken back, shared fairly, and nobody waits for ever for what is its own.

use super::*;
use crate::sim::rng::Rng;

fn gpus(count: u32) -> Limits {
    Limits { gpus: Some(Amount::whole(count)), ..Limits::default() }
}

fn lent(namespace: &str, own: u32) -> Quota {
    Quota { cohort: Some("lab".to_owned()), ..Quota::new(namespace, gpus(own)) }
}

fn of(namespace: &str, offer: Offer) -> Offer {
    Offer { namespace: namespace.to_owned(), ..offer }
}

fn share(mut offer: Offer, of_a_gpu: &str) -> Offer {
    let request = Request { gpus: Gpus::Share(of_a_gpu.parse().unwrap()), ..Request::default() };
    offer.demand.request = Some(Arc::new(request));
    offer
}

fn shared(gpus: usize) -> Admission {
    let mut node = node("a", gpus);
    node.cpu = Amount::whole(64);
    for gpu in &mut node.gpus {
        gpu.sharing = crate::fleet::Sharing::TimeSlicing { replicas: 10 };
    }
    Admission::new(64, vec![node]).unwrap()
}

fn why(admission: &Admission, task: u32) -> String {
    admission.why(RunKey(1), Slot::new(TaskIx(task), 0)).unwrap().to_string()
}

fn ends(admission: &mut Admission) -> Vec<(u32, u32, Cause)> {
    let all = admission.preemptions();
    all.iter().map(|one| (one.victim.slot.task.0, one.by.slot.task.0, one.cause)).collect()
}

#[test]
fn a_quota_counts_parts_and_is_never_exceeded() {
    let mut admission = shared(16);
    admission.set_quotas(vec![Quota::new("ml", gpus(8))]);
    admission.offer(RunKey(1), &of("ml", offer(1, 0, 1, 7))).unwrap();
    admission.offer(RunKey(1), &of("ml", share(offer(2, 0, 1, 0), "0.5"))).unwrap();
    admission.offer(RunKey(1), &of("ml", offer(3, 0, 1, 1))).unwrap();
    admission.offer(RunKey(1), &of("ml", share(offer(4, 0, 1, 0), "0.5"))).unwrap();
    admission.offer(RunKey(1), &of("other", offer(5, 0, 1, 4))).unwrap();
    // 3 waits for the quota, and 4 does not overtake it; who has no quota goes on.
    assert_eq!(granted(&mut admission), [1, 5, 2]);
    insta::assert_snapshot!(why(&admission, 3), @"namespace `ml` has 7.5 of 8 GPUs in use; 1 more would exceed its quota");
    insta::assert_snapshot!(why(&admission, 4), @"what is left of the quota of namespace `ml` is kept for a task before it");
    admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
    assert_eq!(granted(&mut admission), [3]);
    // What no quota allows waits alone.
    admission.offer(RunKey(1), &of("ml", offer(6, 9, 1, 9))).unwrap();
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    assert_eq!(granted(&mut admission), [4]);
    insta::assert_snapshot!(why(&admission, 6), @"it asks for 9 GPUs, and the quota of the namespace `ml` is 8 at most; `pitcrew quotas set ml` changes it");
    admission.set_quotas(Vec::new());
    assert_eq!(granted(&mut admission), [6]);
}

#[test]
fn what_is_not_used_is_lent_and_the_owner_takes_it_back_from_the_cheapest() {
    let mut admission = admission(32, &[("a", 8)]);
    let theirs = Quota { borrow: gpus(3), ..lent("theirs", 4) };
    admission.set_quotas(vec![lent("ours", 4), theirs]);
    for task in 1..=8 {
        admission.offer(RunKey(1), &of("theirs", Offer { is_preemptible: task != 6, ..offer(task, 0, 1, 1) })).unwrap();
    }
    // Four of its own, and three borrowed at most.
    assert_eq!(granted(&mut admission), [1, 2, 3, 4, 5, 6, 7]);
    insta::assert_snapshot!(why(&admission, 8), @"namespace `theirs` has 7 of 7 GPUs in use; 1 more would exceed its quota");
    let used = admission.quota_uses();
    assert_eq!((used[1].namespace, used[1].borrowed.get(Resource::Gpus)), ("theirs", Amount::whole(3)));
    // One is free; of three more, the youngest go that may, and only what was borrowed: 6 may not.
    admission.offer(RunKey(1), &of("ours", offer(10, 0, 1, 3))).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    assert_eq!(ends(&mut admission), [(7, 10, Cause::Reclaim), (5, 10, Cause::Reclaim)]);
    insta::assert_snapshot!(why(&admission, 10), @"it is within the quota of namespace `ours`, and waits for what others of the cohort `lab` borrowed: 7 of 8 GPUs are in use");
    assert_eq!(granted(&mut admission), [0; 0]);
    admission.release(RunKey(1), Slot::new(TaskIx(7), 0));
    // It is to begin anew, and may not take what it was ended for.
    admission.offer(RunKey(1), &of("theirs", offer(7, 9, 1, 1))).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![]));
    insta::assert_snapshot!(why(&admission, 7), @"it would have to borrow, and what the cohort `lab` can lend is kept for another task");
    admission.release(RunKey(1), Slot::new(TaskIx(5), 0));
    assert_eq!(granted(&mut admission), [10]);
    // 6 may not be ended, though it is younger.
    admission.offer(RunKey(1), &of("ours", offer(11, 0, 1, 1))).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![(4, 11, Cause::Reclaim)]));
    admission.release(RunKey(1), Slot::new(TaskIx(4), 0));
    assert_eq!(granted(&mut admission), [11]);
    // Nothing is borrowed now, so nothing is taken back; and nobody gets more than is there.
    admission.offer(RunKey(1), &of("ours", offer(12, 5, 1, 1))).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![]));
}

#[test]
fn namespaces_share_by_what_they_use_of_their_own_and_by_weight() {
    let mut admission = admission(32, &[("a", 8)]);
    let heavy = Quota { weight: 3, ..lent("heavy", 1) };
    admission.set_quotas(vec![heavy, lent("light", 1), lent("idle", 6)]);
    for task in 0..16 {
        let namespace = if task < 8 { "light" } else { "heavy" };
        admission.offer(RunKey(1), &of(namespace, offer(task, 0, 1, 1))).unwrap();
    }
    let all = granted(&mut admission);
    assert_eq!(all.iter().filter(|task| **task >= 8).count(), 6, "{all:?}");
    // A priority goes before all of that.
    admission.offer(RunKey(1), &of("light", offer(20, 1, 1, 1))).unwrap();
    admission.release(RunKey(1), Slot::new(TaskIx(0), 0));
    assert_eq!(granted(&mut admission), [20]);
}

#[test]
fn namespaces_without_quotas_share_the_machines() {
    let mut admission = admission(32, &[("a", 8)]);
    for task in 0..16 {
        let namespace = if task < 12 { "many" } else { "few" };
        admission.offer(RunKey(1), &of(namespace, offer(task, 0, 1, 1))).unwrap();
    }
    let all = granted(&mut admission);
    assert_eq!(all.iter().filter(|task| **task >= 12).count(), 4, "{all:?}");
}

/// Whoever is first by share takes what becomes free, as long as it is small; the large one gets its turn all the same.
#[test]
fn a_large_task_of_a_namespace_that_uses_much_is_not_overtaken_for_ever() {
    let mut admission = admission(32, &[("a", 4), ("b", 4)]);
    for task in [1, 2, 3] {
        admission.offer(RunKey(1), &of("large", offer(task, 0, 1, 4))).unwrap();
    }
    assert_eq!(granted(&mut admission), [1, 2]);
    // One node stays with it; on the other, small ones of another namespace come and go, two turns each.
    admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
    let mut small: BTreeMap<u32, u32> = BTreeMap::new();
    for turn in 0..40 {
        admission.offer(RunKey(9), &of("small", offer(100 + turn, 0, 1, 1))).unwrap();
        for task in granted(&mut admission) {
            if task == 3 {
                return;
            }
            small.insert(task, turn + 2);
        }
        small.retain(|task, end| {
            if *end <= turn {
                admission.release(RunKey(9), Slot::new(TaskIx(*task), 0));
            }
            *end > turn
        });
    }
    panic!("it waited all the time");
}

/// What is taken back for somebody whose node is away would be lent again, and taken back again, for ever.
#[test]
fn nothing_is_taken_back_for_somebody_whom_no_node_takes_now() {
    let mut nodes = vec![node("away", 4), node("here", 8)];
    nodes[0].gpus.iter_mut().for_each(|gpu| gpu.model = "H100".to_owned());
    nodes[0].standing = Standing::Cordoned;
    let mut admission = Admission::new(32, nodes.clone()).unwrap();
    admission.set_quotas(vec![lent("ours", 4), lent("theirs", 4)]);
    for task in 1..=8 {
        admission.offer(RunKey(1), &of("theirs", offer(task, 0, 1, 1))).unwrap();
    }
    assert_eq!(granted(&mut admission).len(), 8);
    let asks = |task, queue: Option<&str>| {
        let queue = queue.map(str::to_owned);
        let request = Request { gpus: Gpus::Count(4), models: vec!["H100".to_owned()], queue, ..Request::default() };
        of(
            "ours",
            Offer { demand: Demand { request: Some(Arc::new(request)), ..Demand::default() }, ..offer(task, 0, 1, 0) },
        )
    };
    admission.offer(RunKey(1), &asks(10, None)).unwrap();
    admission.offer(RunKey(1), &asks(11, Some("unserved"))).unwrap();
    for task in 20..24 {
        admission.offer(RunKey(1), &of("theirs", offer(task, 0, 1, 1))).unwrap();
        assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![]));
        // Nor is what becomes free kept for it.
        admission.release(RunKey(1), Slot::new(TaskIx(task - 19), 0));
        assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![task], vec![]));
    }
    insta::assert_snapshot!(why(&admission, 10), @"no node has room for it: `here`: it has no GPU of the model H100; `away`: it is cordoned");
    insta::assert_snapshot!(why(&admission, 11), @"no worker serves the queue `unserved`; `pitcrew worker --queue unserved` on a machine starts one");
    nodes[0].standing = Standing::Ready;
    admission.set_nodes(nodes).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    assert_eq!(ends(&mut admission).len(), 4);
}

#[test]
fn what_is_taken_back_is_on_one_node_where_one_node_is_asked_for() {
    let mut admission = admission(32, &[("a", 4), ("b", 4)]);
    admission.set_policy(Policy::Spread);
    admission.set_quotas(vec![lent("ours", 4), lent("theirs", 4)]);
    for task in 1..=7 {
        admission.offer(RunKey(1), &of("theirs", offer(task, 0, 1, 1))).unwrap();
    }
    assert_eq!(granted(&mut admission).len(), 7);
    let on = |admission: &Admission, node: &str| -> Vec<u32> {
        let lease = |task: &u32| admission.lease(RunKey(1), Slot::new(TaskIx(*task), 0)).map(|lease| &lease.node);
        (1..=7).filter(|task| lease(task).is_some_and(|name| name == node)).collect()
    };
    assert_eq!(on(&admission, "b"), [2, 4, 6], "the youngest are on both");
    admission.offer(RunKey(1), &of("ours", offer(10, 0, 1, 4))).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    let all = [6, 4, 2].map(|victim| (victim, 10, Cause::Reclaim));
    assert_eq!(ends(&mut admission), all);
    for task in [2, 4, 6] {
        admission.release(RunKey(1), Slot::new(TaskIx(task), 0));
    }
    assert_eq!(granted(&mut admission), [10]);
}

#[test]
fn nobody_ends_who_could_be_spared() {
    let mut admission = shared(8);
    admission.set_quotas(vec![lent("ours", 4), lent("theirs", 4)]);
    admission.offer(RunKey(1), &of("theirs", Offer { is_preemptible: false, ..offer(1, 0, 1, 2) })).unwrap();
    admission.offer(RunKey(1), &of("theirs", offer(2, 0, 1, 4))).unwrap();
    admission.offer(RunKey(1), &of("theirs", share(offer(3, 0, 1, 0), "0.5"))).unwrap();
    assert_eq!(granted(&mut admission), [1, 2, 3]);
    admission.offer(RunKey(1), &of("ours", offer(10, 0, 1, 3))).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    assert_eq!(ends(&mut admission), [(2, 10, Cause::Reclaim)], "the youngest alone would not do, and need not");
}

/// An older borrower on the right node may end although younger ones elsewhere borrowed as much.
#[test]
fn a_borrower_on_the_node_that_is_needed_may_end_beside_younger_ones_elsewhere() {
    let mut admission = admission(32, &[("a", 4), ("b", 2)]);
    admission.set_quotas(vec![lent("ours", 4), lent("theirs", 4), lent("idle", 2)]);
    for (task, gpus) in [(1, 4), (2, 1), (3, 1)] {
        admission.offer(RunKey(1), &of("theirs", offer(task, 0, 1, gpus))).unwrap();
    }
    assert_eq!(granted(&mut admission), [1, 2, 3]);
    admission.offer(RunKey(1), &of("ours", offer(10, 0, 1, 4))).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    assert_eq!(ends(&mut admission), [(1, 10, Cause::Reclaim)]);
}

#[test]
fn who_is_cancelled_anyway_is_counted_and_nobody_ends_beside_it() {
    let mut admission = admission(32, &[("a", 4)]);
    for task in 1..=4 {
        admission.offer(RunKey(1), &offer(task, 0, 1, 1)).unwrap();
    }
    assert_eq!(granted(&mut admission).len(), 4);
    admission.ends(RunKey(1), Slot::new(TaskIx(1), 0));
    admission.offer(RunKey(1), &offer(10, 5, 1, 1)).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![]));
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    assert_eq!(granted(&mut admission), [10]);
}

/// What is kept for somebody who waits for room, and would borrow it, is no reason to end anybody.
#[test]
fn nobody_ends_for_what_is_only_kept_for_a_borrower() {
    let mut admission = admission(32, &[("a", 4), ("b", 4)]);
    admission.set_quotas(vec![lent("ours", 4), lent("theirs", 4)]);
    for (task, gpus) in [(1, 3), (2, 3)] {
        admission.offer(RunKey(1), &of("theirs", offer(task, 0, 1, gpus))).unwrap();
    }
    assert_eq!(granted(&mut admission), [1, 2]);
    // One is free on each node, so 3 waits for room, and the two are kept for it.
    admission.offer(RunKey(1), &of("theirs", offer(3, 0, 1, 2))).unwrap();
    admission.offer(RunKey(2), &of("ours", offer(10, 0, 1, 1))).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![10], vec![]));
}

/// What is told is the reason by which it was decided: another resource, or a place before the one who waits, is none.
#[test]
fn whoever_is_not_held_back_by_the_quota_is_not_told_so() {
    let mut admission = admission(32, &[("a", 4)]);
    admission.set_quotas(vec![Quota::new("ml", Limits { cpu: Some(Amount::whole(8)), ..gpus(3) })]);
    admission.offer(RunKey(1), &of("ml", offer(1, 0, 1, 2))).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    admission.offer(RunKey(1), &of("ml", offer(3, 0, 1, 2))).unwrap();
    let mut cpu = offer(4, 0, 1, 0);
    cpu.demand.request = Some(Arc::new(Request { cpu: Amount::whole(8), ..Request::default() }));
    admission.offer(RunKey(1), &of("other", Offer { slot: Slot::new(TaskIx(5), 0), ..cpu.clone() })).unwrap();
    assert_eq!(granted(&mut admission), [5]);
    admission.offer(RunKey(1), &of("ml", cpu)).unwrap();
    admission.offer(RunKey(1), &of("ml", offer(6, 0, 1, 1))).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    insta::assert_snapshot!(why(&admission, 4), @"no node has room for it: `a`: 8 cores are asked for and 0 are free");
    insta::assert_snapshot!(why(&admission, 6), @"what is left of the quota of namespace `ml` is kept for a task before it");
}

/// Whoever cannot start because its pool is closed or full keeps nothing of what a cohort lends.
#[test]
fn a_loan_is_not_kept_for_somebody_without_a_slot() {
    let mut admission = admission(32, &[("a", 8)]);
    admission.set_quotas(vec![lent("ours", 2), lent("theirs", 2), lent("idle", 4)]);
    admission.set_pool("other", 1);
    admission.offer(RunKey(1), &of("ours", offer(1, 0, 1, 8))).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    admission.offer(RunKey(1), &of("ours", Offer { pool: Some("other".to_owned()), ..offer(2, 0, 1, 4) })).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    admission.offer(RunKey(1), &of("theirs", offer(3, 0, 1, 4))).unwrap();
    assert_eq!(granted(&mut admission), [0; 0]);
    admission.set_pool("other", 0);
    admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
    assert_eq!(granted(&mut admission), [3]);
    admission.release(RunKey(1), Slot::new(TaskIx(3), 0));
    admission.set_pool("other", 1);
    assert_eq!(granted(&mut admission), [2]);
}

/// Namespaces that offer without end, and begin anew what was ended; whatever happens, limits hold, and nobody who asks
/// for no more than is its own waits for long.
#[test]
fn no_quota_is_ever_exceeded_and_nobody_waits_for_ever_for_what_is_its_own() {
    let (mut reclaimed, mut borrowed) = (0, 0);
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut admission = shared(rng.between(4, 12) as usize);
        let names = ["a", "b", "c", "d"];
        let quota = |rng: &mut Rng, name: &str| {
            let cpu = rng.percent(40).then(|| Amount::whole(rng.between(2, 20) as u32));
            let limits = Limits { cpu, ..gpus(rng.between(1, 5) as u32) };
            let mut quota = Quota { weight: rng.between(1, 4) as u32, ..Quota::new(name, limits) };
            quota.cohort = rng.percent(70).then(|| if rng.percent(80) { "x" } else { "y" }.to_owned());
            quota.borrow.gpus = rng.percent(30).then(|| Amount::whole(rng.between(0, 3) as u32));
            quota
        };
        let mut quotas: Vec<Quota> = names.iter().map(|name| quota(&mut rng, name)).collect();
        quotas.retain(|_| rng.percent(85));
        admission.set_quotas(quotas.clone());
        let mut offers: BTreeMap<Holder, Offer> = BTreeMap::new();
        let mut ends: BTreeMap<Holder, u32> = BTreeMap::new();
        let mut waits: BTreeMap<Holder, u32> = BTreeMap::new();
        for turn in 0..400u32 {
            for n in 0..rng.between(0, 3) as u32 {
                let mut one = Offer { is_preemptible: rng.percent(60), ..offer(n, 0, 1, rng.between(1, 4) as u32) };
                if rng.percent(30) {
                    one = share(one, ["0.1", "0.5", "0.7"][rng.below(3)]);
                }
                let one = of(names[rng.below(4)], one);
                let holder = Holder { run: RunKey(i64::from(turn)), slot: one.slot };
                if turn < 300 && waits.len() < 12 && admission.offer(holder.run, &one).is_ok() {
                    offers.insert(holder, one);
                    waits.insert(holder, turn);
                }
            }
            for grant in admission.grant(Timestamp::UNIX_EPOCH) {
                ends.insert(grant.holder, turn + rng.between(1, 12) as u32);
                waits.remove(&grant.holder);
            }
            admission.sanity_check(false);
            borrowed += admission.quota_uses().iter().filter(|one| !one.borrowed.is_zero()).count();
            let mut again = BTreeSet::new();
            for one in admission.preemptions() {
                assert!(offers[&one.victim].is_preemptible, "seed {seed}");
                reclaimed += 1;
                ends.insert(one.victim, turn);
                again.insert(one.victim);
            }
            for holder in ends.iter().filter(|(_, at)| **at <= turn).map(|(holder, _)| *holder).collect::<Vec<_>>() {
                ends.remove(&holder);
                admission.release(holder.run, holder.slot);
                if again.contains(&holder) {
                    admission.offer(holder.run, &offers[&holder]).unwrap();
                    waits.insert(holder, turn);
                }
            }
            admission.sanity_check(false);
            for (holder, since) in waits.iter().filter(|(_, since)| turn - **since > 150) {
                let (asked, name) =
                    (Amounts::of(offers[holder].demand.request.as_ref().unwrap()), &offers[holder].namespace);
                let own = quotas.iter().find(|quota| quota.namespace == *name);
                let is_own = |resource| {
                    own.and_then(|own| own.limits.get(resource)).is_none_or(|own| asked.get(resource) <= own)
                };
                let is_own = Resource::ALL.into_iter().all(is_own);
                assert!(
                    !is_own,
                    "seed {seed}: {:?} waits since {since}: {}",
                    offers[holder],
                    admission.why(holder.run, holder.slot).unwrap()
                );
            }
        }
        for holder in ends.into_keys() {
            admission.release(holder.run, holder.slot);
        }
        // Where nobody is in the way any more, all are served who could ever be.
        let mut left = usize::MAX;
        while admission.candidates.len() < left {
            left = admission.candidates.len();
            for grant in admission.grant(Timestamp::UNIX_EPOCH) {
                waits.remove(&grant.holder);
                admission.release(grant.holder.run, grant.holder.slot);
            }
        }
        for holder in waits.keys() {
            let why = admission.why(holder.run, holder.slot).unwrap();
            let never = matches!(&why, Blocked::Quota(lack) if lack.cohort.is_none() && lack.asked > lack.most);
            assert!(never, "seed {seed}: {:?} waits for ever: {why}", offers[holder]);
        }
    }
    assert!(reclaimed > 50 && borrowed > 1000, "{reclaimed} were ended, and {borrowed} times somebody borrowed");
}
