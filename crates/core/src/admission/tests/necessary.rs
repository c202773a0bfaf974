//! Random states: nobody ends for nothing, whoever others end for gets in, and what is told is true.

use super::*;
use crate::fleet::{Gang, Sharing};
use crate::sim::rng::Rng;

/// The namespaces that ask.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

struct World {
    rng: Rng,
    admission: Admission,
    offers: BTreeMap<Holder, Offer>,
}

impl World {
    fn new(seed: u64, has_cohorts: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut nodes = Vec::new();
        for n in 0..rng.between(1, 4) {
            let mut node = node(&format!("n{n}"), rng.between(1, 6) as usize);
            for gpu in &mut node.gpus {
                if rng.percent(40) {
                    gpu.sharing = Sharing::TimeSlicing { replicas: 4 };
                }
            }
            nodes.push(node);
        }
        let mut admission = Admission::new(rng.between(8, 60) as u32, nodes).unwrap();
        admission.set_policy(Policy::ALL[rng.below(3)].1);
        admission.set_pool(DEFAULT_POOL, rng.between(6, 60) as u32);
        admission.set_pool("small", rng.between(0, 4) as u32);
        let mut quotas = Vec::new();
        for name in NAMES {
            let limits = Limits { gpus: Some(Amount::whole(rng.between(1, 6) as u32)), ..Limits::default() };
            let mut quota = Quota { weight: rng.between(1, 3) as u32, ..Quota::new(name, limits) };
            quota.cohort = (rng.percent(70) && has_cohorts).then(|| "lab".to_owned());
            quota.borrow.gpus = rng.percent(30).then(|| Amount::whole(rng.between(0, 4) as u32));
            if rng.percent(70) {
                quotas.push(quota);
            }
        }
        admission.set_quotas(quotas);
        World { rng, admission, offers: BTreeMap::new() }
    }

    fn arrive(&mut self, run: i64) {
        for task in 0..self.rng.between(0, 3) as u32 {
            let rng = &mut self.rng;
            let gpus = match rng.below(8) {
                0 => Gpus::None,
                1 => Gpus::Share("0.5".parse().unwrap()),
                2 => Gpus::Share("0.1".parse().unwrap()),
                _ => Gpus::Count(rng.between(1, 4) as u32),
            };
            let request = Request { gpus, cpu: Amount::whole(rng.between(0, 3) as u32), ..Request::default() };
            let demand = Demand { request: rng.percent(90).then(|| Arc::new(request)), ..Demand::default() };
            let one = Offer {
                gang: rng.percent(12).then(|| Gang::of(rng.between(2, 3) as u32)),
                namespace: NAMES[rng.below(4)].to_owned(),
                pool: rng.percent(15).then(|| "small".to_owned()),
                is_preemptible: rng.percent(65),
                demand,
                ..offer(task, rng.between(0, 3), rng.between(1, 2) as u32, 0)
            };
            let holder = Holder { run: RunKey(run), slot: one.slot };
            if self.admission.candidates.len() < 12 && self.admission.offer(holder.run, &one).is_ok() {
                self.offers.insert(holder, one);
            }
        }
    }

    fn release(&mut self, holders: &[Holder]) {
        holders.iter().for_each(|holder| self.admission.release(holder.run, holder.slot));
    }

    /// All that end with this one.
    fn unit(&self, victim: Holder) -> Vec<Holder> {
        let is_mate = |other: &&Holder| (other.run, other.slot.task) == (victim.run, victim.slot.task);
        let all = self.admission.held.keys().filter(is_mate).copied().collect();
        if self.admission.held[&victim].is_member { all } else { vec![victim] }
    }
}

/// Those who hold something when just these have ended, and nothing else changes.
fn after(admission: &Admission, ended: &[Holder], spared: &[Holder]) -> Admission {
    let mut after = admission.clone();
    for holder in spared {
        after.held.get_mut(holder).unwrap().is_ending = false;
    }
    ended.iter().for_each(|holder| after.release(holder.run, holder.slot));
    after.grant(Timestamp::UNIX_EPOCH);
    after
}

fn ending(admission: &Admission) -> Vec<Holder> {
    admission.held.iter().filter(|(_, held)| held.is_ending).map(|(holder, _)| *holder).collect()
}

/// Plays random work, and hands each decision to end somebody to `check`, with all that was decided at that moment.
fn play(seed: u64, has_cohorts: bool, mut check: impl FnMut(&World, &[Preemption], i64)) {
    let mut world = World::new(seed, has_cohorts);
    for turn in 0..60 {
        world.arrive(turn);
        world.admission.grant(Timestamp::UNIX_EPOCH);
        world.admission.sanity_check(false);
        let told = world.admission.preemptions();
        for one in &told {
            let first = Holder { slot: Slot { index: 0, ..one.victim.slot }, ..one.victim };
            assert!(world.offers[&first].is_preemptible, "seed {seed}, turn {turn}: {one:?}");
        }
        check(&world, &told, turn);
        // Some that were told end at once, others later; and some end by themselves.
        let (all, held) = (ending(&world.admission), world.admission.held.keys().copied());
        let held: Vec<Holder> = held.collect();
        let mut is_gone = |holder: &Holder| world.rng.percent(if all.contains(holder) { 60 } else { 12 });
        let gone: Vec<Holder> = held.into_iter().filter(|holder| is_gone(holder)).collect();
        world.release(&gone);
    }
}

#[test]
fn nobody_ends_for_nothing_and_whoever_others_end_for_gets_in() {
    let (mut ended, mut several) = (0, 0);
    for seed in 0..300 {
        play(seed, false, |world, told, turn| {
            let admission = &world.admission;
            let all = ending(admission);
            several += usize::from(told.iter().any(|one| one.by != told[0].by));
            for (at, one) in told.iter().enumerate() {
                let context = |what: &str| format!("seed {seed}, turn {turn}: {what} {one:?} of {told:?}");
                let gets_in = |admission: &Admission| admission.held.contains_key(&one.by);
                assert!(gets_in(&after(admission, &all, &[])), "{}", context("does not get in"));
                // Those that end for somebody behind it do not count.
                let later = told[at..].iter().filter(|other| other.by != one.by);
                let mut later: Vec<Holder> = later.flat_map(|other| world.unit(other.victim)).collect();
                let early: Vec<Holder> = all.iter().filter(|holder| !later.contains(holder)).copied().collect();
                assert!(gets_in(&after(admission, &early, &later)), "{}", context("does not get in first"));
                let unit = world.unit(one.victim);
                let fewer: Vec<Holder> = early.iter().filter(|holder| !unit.contains(holder)).copied().collect();
                later.extend(unit);
                assert!(!gets_in(&after(admission, &fewer, &later)), "{}", context("could be spared"));
                ended += 1;
            }
        });
    }
    assert!(ended > 300 && several >= 5, "{ended} ended, {several} times for several");
}

/// What is told of somebody in line, looked at for itself.
fn is_true(admission: &Admission, holder: Holder, told: &Blocked) -> bool {
    let candidate = &admission.candidates[&holder];
    let (line, request) = (&candidate.line, candidate.line.request.as_deref());
    let pool = &admission.pools[&line.pool];
    let others = || admission.promised.keys().any(|other| *other != holder);
    let has_room = |gang: Option<&Gang>| {
        let fits = |(_, miss): &(&str, Option<crate::fleet::Miss>)| miss.is_none();
        let nodes = request
            .map_or(usize::MAX, |request| admission.fleet.explain(request).iter().filter(|one| fits(one)).count());
        nodes >= gang.map_or(1, |gang| gang.count as usize)
    };
    let within_quota = admission.quotas.lack(&line.namespace, &candidate.asked).is_none();
    match told {
        Blocked::Parallelism { max } => admission.here() + line.members() > *max,
        Blocked::Pool { used, slots, asked, .. } => (*used, *slots) == (pool.used, pool.slots) && used + asked > *slots,
        Blocked::Quota(lack) => !within_quota && lack.used + lack.asked > lack.most,
        Blocked::QuotaKept { namespace } => {
            within_quota && **namespace == *line.namespace && admission.candidates.len() > 1
        }
        Blocked::CohortKept { .. } => within_quota && admission.candidates.len() > 1,
        Blocked::LoanKept { cohort } => {
            within_quota && admission.owed.get(cohort).is_some_and(|kept| kept.by.1 != holder)
        }
        Blocked::Room { nodes } => !nodes.is_empty() && !has_room(None),
        Blocked::Gang { members, found, .. } => (*found as u32) < *members && !has_room(line.gang.as_ref()),
        Blocked::SlotsKept { .. } => admission.candidates.len() > 1 && !admission.lacks_slots(holder, 0),
        Blocked::PlacesKept => others() && admission.here() + line.members() <= admission.parallelism,
        Blocked::Kept => others() && has_room(line.gang.as_ref()),
        // Nobody takes it, and it does not stand behind anybody either: then it would have been granted.
        Blocked::TooFew(_) | Blocked::Unserved { .. } | Blocked::Behind { .. } => false,
    }
}

#[test]
fn whoever_waits_is_told_what_is_true_and_nobody_waits_without_a_reason() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..300 {
        let mut world = World::new(seed + 5_000, false);
        for turn in 0..60 {
            world.arrive(turn);
            world.admission.grant(Timestamp::UNIX_EPOCH);
            for holder in world.admission.candidates.keys() {
                let told = world.admission.why(holder.run, holder.slot).unwrap();
                assert!(is_true(&world.admission, *holder, &told), "seed {seed}, turn {turn}: {holder:?} {told:?}");
                let name = match told {
                    Blocked::Quota(_)
                    | Blocked::QuotaKept { .. }
                    | Blocked::CohortKept { .. }
                    | Blocked::LoanKept { .. } => "quota",
                    Blocked::Parallelism { .. } | Blocked::PlacesKept => "places",
                    Blocked::Pool { .. } | Blocked::SlotsKept { .. } => "slots",
                    _ => "room",
                };
                *seen.entry(name).or_default() += 1;
            }
            assert!(world.admission.held.keys().all(|holder| world.admission.why(holder.run, holder.slot).is_none()));
            world.admission.preemptions();
            let held: Vec<Holder> = world.admission.held.keys().copied().collect();
            let gone: Vec<Holder> = held.into_iter().filter(|_| world.rng.percent(15)).collect();
            world.release(&gone);
        }
    }
    assert!(seen.len() == 4 && seen.values().all(|count| *count > 300), "{seen:?}");
}
