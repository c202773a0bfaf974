//! Others pass whoever is promised nodes, and it begins as soon as if they had not.

use super::*;
use crate::fleet::{Gang, Sharing};
use crate::sim::rng::Rng;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn limited(offer: Offer, seconds: i64) -> Offer {
    Offer { limit: Some(SignedDuration::from_secs(seconds)), ..offer }
}

fn why(admission: &Admission, task: u32) -> Blocked {
    admission.why(RunKey(1), Slot::new(TaskIx(task), 0)).unwrap()
}

/// What it is promised is the node that is free soonest, as far as that is known; on others everybody goes on.
#[test]
fn nobody_passes_on_promised_nodes_however_short_it_is() {
    let mut admission = admission(32, &[("a", 4), ("b", 4)]);
    admission.offer(RunKey(1), &offer(1, 0, 1, 3)).unwrap();
    admission.offer(RunKey(1), &limited(offer(2, 0, 1, 3), 1000)).unwrap();
    assert_eq!(granted(&mut admission), [1, 2]);
    admission.offer(RunKey(1), &offer(3, 0, 1, 4)).unwrap();
    for task in [4, 5] {
        admission.offer(RunKey(1), &limited(offer(task, 0, 1, 1), 1)).unwrap();
    }
    let cores = Request { cpu: Amount::whole(8), ..Request::default() };
    let demand = Demand { request: Some(Arc::new(cores)), ..Demand::default() };
    admission.offer(RunKey(1), &Offer { demand, ..offer(6, 0, 1, 0) }).unwrap();
    assert_eq!(granted(&mut admission), [4, 6], "3 waits for `b`, and for no cores");
    assert_eq!(admission.lease(RunKey(1), Slot::new(TaskIx(4), 0)).unwrap().node, "a");
    assert_eq!(why(&admission, 5), Blocked::Kept);
    admission.release(RunKey(1), Slot::new(TaskIx(2), 0));
    assert_eq!(granted(&mut admission), [3], "the other ended early");
}

/// Whoever waits for room has its slot when it comes, of its pool and of all.
#[test]
fn slots_are_kept_for_whoever_is_promised_room() {
    for is_pool in [true, false] {
        let mut admission = admission(if is_pool { 32 } else { 3 }, &[("a", 2)]);
        admission.set_pool(DEFAULT_POOL, if is_pool { 3 } else { 32 });
        admission.offer(RunKey(1), &offer(1, 0, 1, 1)).unwrap();
        assert_eq!(granted(&mut admission), [1]);
        for (task, gpus) in [(2, 2), (3, 0), (4, 0)] {
            admission.offer(RunKey(1), &offer(task, 0, 1, gpus)).unwrap();
        }
        assert_eq!(granted(&mut admission), [3]);
        admission.release(RunKey(1), Slot::new(TaskIx(1), 0));
        assert_eq!(granted(&mut admission), [2, 4]);
    }
}

/// Its namespace uses more than the other, whose tasks ask for nothing and come without end.
#[test]
fn places_of_all_that_run_are_kept_for_a_gang_until_they_suffice() {
    let mut admission = admission(4, &[("a", 2), ("b", 2), ("c", 2), ("d", 2)]);
    let of = |namespace: &str, offer: Offer| Offer { namespace: namespace.to_owned(), ..offer };
    admission.offer(RunKey(1), &of("heavy", offer(1, 0, 1, 1))).unwrap();
    assert_eq!(granted(&mut admission), [1]);
    admission.offer(RunKey(1), &of("heavy", Offer { gang: Some(Gang::of(3)), ..offer(2, 0, 1, 1) })).unwrap();
    let mut running = Vec::new();
    for turn in 0..20 {
        for n in 0..2 {
            admission.offer(RunKey(1), &of("light", offer(100 + turn * 2 + n, 0, 1, 0))).unwrap();
        }
        let new = granted(&mut admission);
        if new.contains(&2) {
            return;
        }
        running.extend(new);
        if !running.is_empty() {
            admission.release(RunKey(1), Slot::new(TaskIx(running.remove(0)), 0));
        }
    }
    panic!("it never got its places");
}

/// What runs, until when, and what comes of one seed: the same whatever is granted.
#[derive(Clone)]
struct World {
    seed: u64,
    admission: Admission,
    ends: BTreeMap<Holder, i64>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let count = rng.between(2, 5);
        let nodes: Vec<Node> = (0..count)
            .map(|n| {
                let mut node = node(&format!("n{n}"), rng.between(2, 8) as usize);
                for gpu in &mut node.gpus {
                    if rng.percent(30) {
                        gpu.sharing = Sharing::TimeSlicing { replicas: 4 };
                    }
                }
                node
            })
            .collect();
        let mut admission = Admission::new(rng.between(6, 40) as u32, nodes).unwrap();
        admission.set_pool(DEFAULT_POOL, rng.between(5, 40) as u32);
        admission.set_policy(Policy::ALL[rng.below(3)].1);
        let limits = Limits { gpus: Some(Amount::whole(rng.between(4, 12) as u32)), ..Limits::default() };
        if rng.percent(50) {
            admission.set_quotas(vec![Quota::new("x", limits)]);
        }
        World { seed, admission, ends: BTreeMap::new() }
    }

    /// What somebody asks for, and what it says of its time, which says little of how long it lasts.
    fn offer(rng: &mut Rng, task: u32) -> Offer {
        let is_large = rng.percent(12);
        let gpus = match rng.below(5) {
            _ if is_large => Gpus::Count(rng.between(2, 6) as u32),
            0 => Gpus::None,
            1 => Gpus::Share("0.25".parse().unwrap()),
            _ => Gpus::Count(rng.between(1, 2) as u32),
        };
        let request = Request {
            gpus,
            cpu: Amount::whole(rng.between(0, if is_large { 6 } else { 3 }) as u32),
            memory_mib: rng.between(0, 4) as u64 * 1024,
            ..Request::default()
        };
        let gang = rng.percent(if is_large { 50 } else { 5 }).then(|| Gang::of(rng.between(2, 3) as u32));
        let limit = rng.percent(60).then(|| SignedDuration::from_secs(rng.between(1, 40)));
        let namespace = ["x", "y"][rng.below(2)].to_owned();
        let demand = Demand { request: Some(Arc::new(request)), ..Demand::default() };
        Offer { gang, namespace, limit, is_preemptible: false, demand, ..offer(task, 0, 1, 0) }
    }

    /// Who ended by now ends; then whoever can begin does.
    fn turn(&mut self, now: i64) -> Vec<Holder> {
        let admission = &mut self.admission;
        self.ends.retain(|holder, end| {
            if *end <= now {
                admission.release(holder.run, holder.slot);
            }
            *end > now
        });
        let grants = admission.grant(at(now));
        admission.sanity_check(false);
        for grant in &grants {
            let mut rng = Rng::new(self.seed ^ (grant.holder.run.0 as u64) << 8 ^ u64::from(grant.holder.slot.task.0));
            for index in 0..grant.placed.len() as u32 {
                let member = Holder { slot: Slot { index, ..grant.holder.slot }, ..grant.holder };
                self.ends.insert(member, now + rng.between(1, 30));
            }
        }
        grants.into_iter().map(|grant| grant.holder).collect()
    }

    /// When it would begin on the nodes that it is promised, were nobody else in line.
    fn begins_alone(&self, holder: Holder, now: i64) -> i64 {
        let mut alone = self.clone();
        let others: Vec<Holder> = alone.admission.candidates.keys().copied().filter(|other| *other != holder).collect();
        others.iter().for_each(|other| alone.admission.withdraw(other.run, other.slot));
        let promised = &self.admission.promised[&holder].nodes;
        let mut nodes: Vec<Node> = self.admission.fleet.nodes().map(|(node, _)| node.clone()).collect();
        for node in nodes.iter_mut().filter(|node| !promised.contains(&node.name)) {
            node.standing = Standing::Cordoned;
        }
        alone.admission.set_nodes(nodes).unwrap();
        let begins = (now..now + 200).find(|now| alone.turn(*now).contains(&holder));
        begins.unwrap_or_else(|| panic!("seed {}: {holder:?} never begins alone", self.seed))
    }
}

/// The same world with and without those that pass: nobody who was promised nodes begins later with them.
#[test]
fn nobody_who_is_promised_nodes_begins_later_for_those_that_pass() {
    let (mut passed, mut sooner, mut promises) = (0, 0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        let mut rng = Rng::new(seed + 1_000_000);
        let mut begins: BTreeMap<Holder, i64> = BTreeMap::new();
        for now in 0..120 {
            for task in 0..3 {
                let one = World::offer(&mut rng, task);
                if world.admission.candidates.len() < 12 {
                    // What no node could ever take is refused.
                    let _ = world.admission.offer(RunKey(now), &one);
                }
            }
            let begun = world.turn(now);
            for holder in &begun {
                match begins.remove(holder) {
                    Some(alone) => {
                        assert!(now <= alone, "seed {seed}: {holder:?} begins at {now}, and alone it would at {alone}");
                        sooner += usize::from(now < alone);
                    }
                    None => passed += usize::from(!begins.is_empty()),
                }
            }
            let promised = &world.admission.promised;
            for (holder, Promised { number, .. }) in promised {
                let Candidate { line, rank, .. } = &world.admission.candidates[holder];
                let is_older = |other: &Candidate| other.line.namespace == line.namespace && other.rank < *rank;
                // Those before it in line have every right to go first.
                let is_first = promised.values().all(|other| other.number >= *number)
                    && !world.admission.candidates.values().any(is_older);
                if !begins.contains_key(holder) && is_first {
                    begins.insert(*holder, world.begins_alone(*holder, now));
                    promises += 1;
                }
            }
        }
    }
    assert!(passed > 500 && promises > 500, "{passed} passed, {promises} were promised, {sooner} began sooner");
}
