//! Gangs are granted whole or not at all, wait for all their nodes, and are starved by nobody.

use super::*;
use crate::fleet::{Gang, Topology};
use crate::sim::rng::Rng;

/// A gang of so many members with so many GPUs each.
fn gang(task: u32, count: u32, gpus: u32) -> Offer {
    Offer { gang: Some(Gang::of(count)), ..offer(task, 0, 1, gpus) }
}

fn slot(task: u32, index: u32) -> Slot {
    Slot::new(TaskIx(task), index)
}

fn why(admission: &Admission, task: u32) -> Blocked {
    admission.why(RunKey(1), slot(task, 0)).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Who has to end, and for whom.
fn ends(admission: &mut Admission) -> Vec<(u32, u32)> {
    let told = admission.preemptions();
    let mut ends: Vec<(u32, u32)> = told.iter().map(|one| (one.victim.slot.task.0, one.by.slot.task.0)).collect();
    ends.sort_unstable();
    ends
}

#[test]
fn a_gang_holds_nothing_until_it_has_all_and_each_member_gives_back_its_own() {
    let mut admission = admission(32, &[("a", 2), ("b", 2), ("c", 2)]);
    admission.offer(RunKey(1), &offer(1, 0, 1, 2)).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    for task in [2, 3] {
        admission.offer(RunKey(1), &gang(task, 3, 1)).unwrap();
    }
    assert_eq!((granted(&mut admission), admission.live()), (vec![], 1), "two gangs wait, and hold nothing");
    insta::assert_snapshot!(why(&admission, 2), @"2 of its 3 members would find a node now, and they begin together: `a`: 1 GPU asked for; none of its 2 has as much free");
    admission.release(RunKey(1), slot(1, 0));
    let grants = admission.grant(Timestamp::UNIX_EPOCH);
    let nodes: Vec<&str> = grants[0].placed.iter().map(|placed| placed.node.as_str()).collect();
    assert_eq!((nodes, grants.len(), admission.live()), (vec!["a", "b", "c"], 2, 6));
    admission.sanity_check(false);
    assert_eq!(admission.pool_use(DEFAULT_POOL), Some((6, 128)));
    for index in 0..3 {
        assert_eq!(admission.lease(RunKey(1), slot(2, index)).unwrap().ids.len(), 1);
        admission.release(RunKey(1), slot(2, index));
        admission.release(RunKey(1), slot(2, index));
        admission.sanity_check(false);
    }
    assert_eq!(admission.gpu_use(), (3, 6));
}

#[test]
fn what_can_never_be_is_refused_and_where_a_worker_may_come_it_is_waited_for() {
    let mut admission = admission(6, &[("a", 2), ("b", 1)]);
    let refused = |admission: &mut Admission, offer: &Offer| admission.offer(RunKey(1), offer).unwrap_err();
    insta::assert_snapshot!(refused(&mut admission, &gang(1, 3, 1)), @"it has 3 members with a node each, and only 2 nodes could ever take one");
    insta::assert_snapshot!(refused(&mut admission, &gang(1, 2, 2)), @"it has 2 members with a node each, and only 1 node could ever take one; of the others, `b`: 2 GPUs asked for; 1 of its 1 free");
    insta::assert_snapshot!(refused(&mut admission, &gang(1, 2, 3)), @"no node can ever take it, not even when it is empty: `a`: 3 GPUs asked for; 2 of its 2 free; `b`: 3 GPUs asked for; 1 of its 1 free");
    insta::assert_snapshot!(refused(&mut admission, &gang(1, 7, 0)), @"it has 7 members that run at a time, and all tasks together are 6 at most (`parallelism` of the server)");
    let topology = Some(Topology { label: "rack".to_owned(), is_required: true });
    let near = Offer { gang: Some(Gang { topology, ..Gang::of(2) }), ..gang(1, 2, 1) };
    insta::assert_snapshot!(refused(&mut admission, &near), @"it has 2 members with a node each, and no node could ever take one that agree in the label `rack`");
    let mut worker = node("w", 1);
    worker.labels.insert(crate::fleet::BACKEND_LABEL.to_owned(), "worker".to_owned());
    worker.labels.insert(format!("{}default", crate::fleet::QUEUE_LABEL), "true".to_owned());
    admission.set_nodes(vec![node("a", 2), node("b", 1), worker]).unwrap();
    admission.offer(RunKey(1), &gang(1, 4, 1)).unwrap();
    admission.offer(RunKey(1), &offer(2, 0, 1, 2)).unwrap();
    assert_eq!(granted(&mut admission), [2], "it holds nobody up while its nodes are not there");
    insta::assert_snapshot!(why(&admission, 1), @"it has 4 members with a node each, and only 3 nodes could ever take one: another worker has to come");
}

#[test]
fn pools_quotas_and_parallelism_count_all_members() {
    let nodes = || [("a", 4), ("b", 4)];
    let mut short = admission(3, &nodes());
    short.offer(RunKey(1), &offer(1, 0, 1, 0)).unwrap();
    short.offer(RunKey(1), &offer(2, 0, 1, 0)).unwrap();
    assert_eq!(granted(&mut short), [1, 2]);
    short.offer(RunKey(1), &gang(3, 2, 1)).unwrap();
    short.offer(RunKey(2), &offer(4, 0, 1, 0)).unwrap();
    assert_eq!(granted(&mut short), [0; 0], "the place that is left is kept for the gang");
    short.release(RunKey(1), slot(1, 0));
    assert_eq!(granted(&mut short), [3]);
    let mut pool = admission(32, &nodes());
    pool.set_pool(DEFAULT_POOL, 3);
    pool.offer(RunKey(1), &Offer { pool_slots: 2, ..gang(1, 2, 1) }).unwrap();
    assert_eq!(granted(&mut pool), [0; 0]);
    insta::assert_snapshot!(why(&pool, 1), @"the pool `default_pool` has 0 of 3 slots in use, and it asks for 4");
    let mut quota = admission(32, &nodes());
    let limits = Limits { gpus: Some(Amount::whole(3)), ..Limits::default() };
    quota.set_quotas(vec![Quota::new(DEFAULT_NAMESPACE, limits)]);
    quota.offer(RunKey(1), &gang(1, 2, 2)).unwrap();
    quota.offer(RunKey(1), &gang(2, 2, 1)).unwrap();
    assert_eq!(granted(&mut quota), [2]);
    insta::assert_snapshot!(why(&quota, 1), @"it asks for 4 GPUs, and the quota of the namespace `default` is 3 at most; `pitcrew quotas set default` changes it");
}

#[test]
fn a_gang_whose_backend_finds_its_machines_counts_all_members_and_takes_no_nodes() {
    let elsewhere = |task: u32, count: u32| {
        let gang = Gang { is_elsewhere: true, ..Gang::of(count) };
        Offer { gang: Some(gang), ..offer(task, 0, 1, 0) }
    };
    let mut admission = admission(4, &[("a", 1)]);
    assert!(matches!(admission.offer(RunKey(1), &elsewhere(1, 5)), Err(Refusal::Parallelism { members: 5, max: 4 })));
    admission.offer(RunKey(1), &elsewhere(1, 3)).unwrap();
    admission.offer(RunKey(1), &elsewhere(2, 3)).unwrap();
    admission.offer(RunKey(1), &offer(3, 0, 1, 1)).unwrap();
    assert_eq!(granted(&mut admission), [1, 3], "the second has no place, and is in nobody's way");
    assert_eq!((admission.live(), admission.lease(RunKey(1), slot(1, 0))), (4, None));
    for rank in 0..3 {
        assert!(admission.holds(RunKey(1), slot(1, rank)));
        admission.release(RunKey(1), slot(1, rank));
    }
    assert_eq!(granted(&mut admission), [2]);
}

#[test]
fn a_gang_ends_whole_for_others_and_costs_the_sum() {
    let mut admission = admission(32, &[("a", 2), ("b", 2)]);
    admission.offer(RunKey(1), &Offer { is_preemptible: false, ..offer(1, 0, 1, 1) }).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    admission.offer(RunKey(1), &gang(2, 2, 1)).unwrap();
    assert_eq!(granted(&mut admission), [2]);
    // Two GPUs of one node: only where the gang has one of them.
    admission.offer(RunKey(1), &offer(3, 1, 1, 2)).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![(2, 3)]));
    for index in 0..2 {
        assert!(admission.held[&Holder { run: RunKey(1), slot: slot(2, index) }].is_ending, "all of it ends");
        admission.release(RunKey(1), slot(2, index));
    }
    assert_eq!(granted(&mut admission), [3]);
    // For a gang either all end that are in its way, or none.
    admission.offer(RunKey(1), &Offer { priority: 2, ..gang(4, 2, 2) }).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![]));
    admission.release(RunKey(1), slot(1, 0));
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![(3, 4)]));
    admission.release(RunKey(1), slot(3, 0));
    assert_eq!(granted(&mut admission), [4]);
    // One alone is ended rather than a gang, although the gang is younger.
    for index in 0..2 {
        admission.release(RunKey(1), slot(4, index));
    }
    for one in [offer(5, 0, 1, 2), gang(6, 2, 0), offer(7, 0, 1, 2)] {
        admission.offer(RunKey(1), &one).unwrap();
    }
    assert_eq!(granted(&mut admission), [5, 6, 7]);
    admission.offer(RunKey(1), &offer(8, 1, 1, 1)).unwrap();
    assert_eq!((granted(&mut admission), ends(&mut admission)), (vec![], vec![(7, 8)]));
}

/// Small work comes without end, and each lasts at most so long; a gang that waits has its nodes in time.
#[test]
fn no_stream_of_small_work_starves_a_gang() {
    const LONGEST: i64 = 100;
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut admission = admission(40, &[("a", 4), ("b", 4), ("c", 4), ("d", 4)]);
        let mut ends: BTreeMap<Holder, i64> = BTreeMap::new();
        let mut asked: BTreeMap<Holder, i64> = BTreeMap::new();
        let (mut begun, mut made) = (0, 0);
        for now in 0..1_250 {
            ends.retain(|holder, end| {
                if *end <= now {
                    admission.release(holder.run, holder.slot);
                }
                *end > now
            });
            while admission.candidates.len() < 8 {
                made += 1;
                admission.offer(RunKey(made), &offer(0, 0, 1, rng.between(0, 2) as u32)).unwrap();
            }
            if now % 250 == 50 && now < 1_000 {
                made += 1;
                let one = gang(1, rng.between(2, 4) as u32, rng.between(2, 4) as u32);
                admission.offer(RunKey(made), &one).unwrap();
                asked.insert(Holder { run: RunKey(made), slot: one.slot }, now);
            }
            for grant in admission.grant(at(now)) {
                if let Some(since) = asked.remove(&grant.holder) {
                    begun += 1;
                    // Those that were in line before it go before it, and last as long as those that ran.
                    assert!(now - since <= 2 * LONGEST, "seed {seed}: a gang waited for {} seconds", now - since);
                }
                let end = now + rng.between(1, LONGEST);
                for index in 0..grant.placed.len().max(1) as u32 {
                    ends.insert(Holder { slot: Slot { index, ..grant.holder.slot }, ..grant.holder }, end);
                }
            }
            admission.sanity_check(false);
        }
        assert_eq!((begun, asked.len()), (4, 0), "seed {seed}");
    }
}
