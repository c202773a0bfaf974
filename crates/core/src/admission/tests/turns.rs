//! Nobody waits for ever: others come without end, and nodes go away.

use super::*;
use crate::sim::rng::Rng;

fn release(admission: &mut Admission, task: u32) {
    admission.release(RunKey(1), Slot::new(TaskIx(task), 0));
}

#[test]
fn a_promise_that_no_node_can_keep_any_more_is_made_anew() {
    let mut admission = admission(32, &[("x", 4), ("y", 4)]);
    for (task, gpus) in [(1, 4), (2, 2), (3, 2)] {
        admission.offer(RunKey(1), &offer(task, 0, 1, gpus)).unwrap();
    }
    assert_eq!(granted(&mut admission), [1, 2, 3]);
    // 4 could have `x` or `y`; small ones take the one, since the other remains.
    admission.offer(RunKey(1), &offer(4, 0, 1, 4)).unwrap();
    assert_eq!(admission.lease(RunKey(1), Slot::new(TaskIx(1), 0)).unwrap().node, "x");
    for (ended, small) in [(2, 5), (3, 6)] {
        admission.offer(RunKey(1), &offer(small, 0, 1, 2)).unwrap();
        assert_eq!(granted(&mut admission), [0; 0]);
        release(&mut admission, ended);
        assert_eq!(granted(&mut admission), [small]);
    }
    admission.set_nodes(vec![node("y", 4)]).unwrap();
    for (ended, small) in [(5, 7), (6, 8)] {
        admission.offer(RunKey(1), &offer(small, 0, 1, 2)).unwrap();
        assert_eq!(granted(&mut admission), [0; 0]);
        release(&mut admission, ended);
        let expected: &[u32] = if ended == 5 { &[] } else { &[4] };
        assert_eq!(granted(&mut admission), expected);
    }
}

/// Small tasks come without end and nodes go for good; whoever asks for a whole node gets one.
#[test]
fn whoever_asks_for_much_is_served_among_endless_small_ones_while_nodes_go() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut nodes: Vec<Node> = ["a", "b", "c", "d"].iter().map(|name| node(name, 4)).collect();
        let mut admission = Admission::new(64, nodes.clone()).unwrap();
        let mut ends: BTreeMap<Holder, i64> = BTreeMap::new();
        let mut waits: BTreeMap<Holder, i64> = BTreeMap::new();
        for turn in 0..300i64 {
            ends.retain(|holder, end| {
                if *end <= turn {
                    admission.release(holder.run, holder.slot);
                }
                *end > turn
            });
            if nodes.len() > 1 && rng.percent(4) {
                let gone = nodes.remove(rng.below(nodes.len()));
                // It is not known for long what became of those on it.
                let leases = |holder: &Holder| admission.lease(holder.run, holder.slot).map(|lease| &lease.node);
                let lost = ends.iter_mut().filter(|(holder, _)| leases(holder) == Some(&gone.name));
                lost.for_each(|(_, end)| *end = turn + 60);
                admission.set_nodes(nodes.clone()).unwrap();
            }
            for task in 0..4 {
                let is_large = rng.percent(5) && waits.len() < 3;
                let gpus = if is_large { 4 } else { rng.between(1, 2) } as u32;
                let holder = Holder { run: RunKey(turn), slot: Slot::new(TaskIx(task), 0) };
                if is_large || admission.candidates.len() < 8 {
                    let namespace = ["x", "y"][rng.below(2)].to_owned();
                    let one = Offer { namespace, is_preemptible: false, ..offer(task, 0, 1, gpus) };
                    admission.offer(holder.run, &one).unwrap();
                    if is_large {
                        waits.insert(holder, turn);
                    }
                }
            }
            for grant in admission.grant(Timestamp::UNIX_EPOCH) {
                ends.insert(grant.holder, turn + rng.between(1, 8));
                waits.remove(&grant.holder);
            }
            admission.sanity_check(false);
            if let Some((holder, since)) = waits.iter().find(|(_, since)| turn - **since > 100) {
                let why = admission.why(holder.run, holder.slot).unwrap();
                panic!("seed {seed}, turn {turn}: {holder:?} waits since {since}: {why}");
            }
        }
    }
}

/// One namespace has a GPU for a week, so it uses more of its own than one whose tasks ask for nothing; both get slots.
#[test]
fn a_namespace_that_holds_a_gpu_gets_slots_beside_endless_tasks_that_ask_for_nothing() {
    for is_pool in [true, false] {
        let mut admission = admission(if is_pool { 32 } else { 4 }, &[("a", 8)]);
        admission.set_pool(DEFAULT_POOL, if is_pool { 4 } else { 32 });
        let of = |namespace: &str, offer: Offer| Offer { namespace: namespace.to_owned(), ..offer };
        admission.offer(RunKey(1), &of("heavy", offer(1, 0, 1, 1))).unwrap();
        assert_eq!(granted(&mut admission), [1]);
        let mut running: Vec<u32> = Vec::new();
        let mut begun = 0;
        for turn in 0..60 {
            admission.offer(RunKey(1), &of("heavy", offer(1000 + turn, 0, 1, 0))).unwrap();
            for n in 0..4 {
                admission.offer(RunKey(1), &of("light", offer(2000 + turn * 4 + n, 0, 1, 0))).unwrap();
            }
            let new = granted(&mut admission);
            begun += new.iter().filter(|task| **task < 2000).count();
            running.extend(new);
            release(&mut admission, running.remove(0));
        }
        assert!((10..40).contains(&begun), "{begun} of 60");
    }
}

/// Tasks that take several slots are not passed for ever by those that take one.
#[test]
fn whoever_asks_for_many_slots_of_a_pool_gets_them_among_endless_small_ones() {
    let mut admission = admission(32, &[("a", 8)]);
    admission.set_pool(DEFAULT_POOL, 4);
    let of = |namespace: &str, offer: Offer| Offer { namespace: namespace.to_owned(), ..offer };
    admission.offer(RunKey(1), &of("heavy", offer(1, 0, 1, 1))).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    admission.offer(RunKey(1), &of("heavy", offer(2, 0, 3, 0))).unwrap();
    let mut running: Vec<u32> = Vec::new();
    for turn in 0..40 {
        for n in 0..2 {
            admission.offer(RunKey(1), &of("light", offer(2000 + turn * 4 + n, 0, 1, 0))).unwrap();
        }
        let new = granted(&mut admission);
        if new.contains(&2) {
            return;
        }
        running.extend(new);
        if !running.is_empty() {
            release(&mut admission, running.remove(0));
        }
    }
    panic!("it never got its slots");
}
