//! Quotas count what was given of GPUs, which may be more than what was asked for.

use super::*;
use crate::fleet::{MigInstance, Part, Sharing};
use crate::sim::rng::Rng;

fn gpus(count: &str) -> Limits {
    Limits { gpus: Some(count.parse().unwrap()), ..Limits::default() }
}

fn asks(task: u32, gpus: Gpus) -> Offer {
    let request = Request { gpus, ..Request::default() };
    let demand = Demand { request: Some(Arc::new(request)), ..Demand::default() };
    Offer { namespace: "ml".to_owned(), demand, ..offer(task, 0, 1, 0) }
}

fn cut(name: &str, gpus: usize, sharing: &Sharing) -> Node {
    let mut node = node(name, gpus);
    node.gpus.iter_mut().for_each(|gpu| gpu.sharing = sharing.clone());
    node
}

fn used(admission: &Admission) -> String {
    admission.quota_uses()[0].used.get(Resource::Gpus).to_string()
}

fn why(admission: &Admission, task: u32) -> String {
    admission.why(RunKey(1), Slot::new(TaskIx(task), 0)).unwrap().to_string()
}

#[test]
fn a_part_counts_as_large_as_the_gpu_gives_it() {
    let slices = Sharing::TimeSlicing { replicas: 4 };
    let mut admission = Admission::new(32, vec![cut("a", 2, &slices)]).unwrap();
    admission.set_quotas(vec![Quota::new("ml", gpus("1"))]);
    for task in 1..=5 {
        admission.offer(RunKey(1), &asks(task, Gpus::Share("0.1".parse().unwrap()))).unwrap();
    }
    assert_eq!(granted(&mut admission), [1, 2, 3, 4]);
    insta::assert_snapshot!(why(&admission, 5), @"namespace `ml` has 1 of 1 GPU in use; 0.25 more would exceed its quota");
    // The GPUs are cut into larger parts: what is held is more, and nothing more is given until enough is back.
    admission.set_nodes(vec![cut("a", 2, &Sharing::Mps { replicas: 2 })]).unwrap();
    assert_eq!(used(&admission), "2");
    for task in 1..=3 {
        assert!(admission.grant(Timestamp::UNIX_EPOCH).is_empty());
        admission.release(RunKey(1), Slot::new(TaskIx(task), 0));
        admission.sanity_check(true);
    }
    assert_eq!((granted(&mut admission), used(&admission)), (vec![5], "1".to_owned()));
    // A node that is gone: what it gave counts as it did.
    admission.set_nodes(vec![node("b", 1)]).unwrap();
    assert_eq!(used(&admission), "1");
    admission.release(RunKey(1), Slot::new(TaskIx(4), 0));
    assert_eq!(used(&admission), "0.5");
}

/// Before it is placed, the most that any node would give has to be free; after that it counts what it was given.
#[test]
fn memory_of_a_gpu_counts_as_the_part_that_it_becomes() {
    let nodes = || vec![cut("a", 1, &Sharing::Whole), cut("b", 1, &Sharing::Mps { replicas: 4 })];
    let mut admission = Admission::new(32, nodes()).unwrap();
    admission.set_policy(Policy::Pack);
    admission.set_quotas(vec![Quota::new("ml", gpus("1.5"))]);
    admission.offer(RunKey(2), &Offer { namespace: "other".to_owned(), ..offer(1, 0, 1, 1) }).unwrap();
    assert_eq!(granted(&mut admission), [1], "`a` is taken");
    for task in 1..=4 {
        admission.offer(RunKey(1), &asks(task, Gpus::MemoryMib(15_000))).unwrap();
    }
    assert_eq!((granted(&mut admission), used(&admission)), (vec![1, 2, 3], "0.75".to_owned()));
    insta::assert_snapshot!(why(&admission, 4), @"namespace `ml` has 0.75 of 1.5 GPUs in use; 1 more would exceed its quota");
    // Without the node that would give a whole one, a quarter is the most.
    admission.set_nodes(nodes().split_off(1)).unwrap();
    assert_eq!((granted(&mut admission), used(&admission)), (vec![4], "1".to_owned()));
    let instances = (0..3).map(|n| MigInstance { id: format!("MIG-{n}"), profile: "2g.20gb".to_owned() }).collect();
    let mut mig = Admission::new(32, vec![cut("m", 1, &Sharing::Mig { instances })]).unwrap();
    mig.set_quotas(vec![Quota::new("ml", gpus("0.6"))]);
    for task in 1..=3 {
        mig.offer(RunKey(1), &asks(task, Gpus::Mig { profile: "2g.20gb".to_owned(), count: 1 })).unwrap();
    }
    assert_eq!((granted(&mut mig), used(&mig)), (vec![1, 2], "0.5714".to_owned()));
}

/// Whatever is asked for and however GPUs are cut, no namespace holds more devices than its quota says.
#[test]
fn what_is_held_of_devices_is_never_more_than_the_quota() {
    let (mut held, mut grants) = (0, 0);
    for seed in 0..80 {
        let mut rng = Rng::new(seed);
        let nodes: Vec<Node> = (0..3)
            .map(|n| {
                let sharing = match rng.below(4) {
                    0 => Sharing::Whole,
                    1 => Sharing::TimeSlicing { replicas: rng.between(2, 7) as u32 },
                    2 => Sharing::Mps { replicas: rng.between(2, 5) as u32 },
                    _ => {
                        let profile = |at: usize| ["1g.10gb", "2g.20gb", "3g.40gb"][at % 3].to_owned();
                        let one = |at| MigInstance { id: format!("MIG-{n}-{at}"), profile: profile(at) };
                        Sharing::Mig { instances: (0..3).map(one).collect() }
                    }
                };
                // Instances of two GPUs would have the same names.
                cut(&format!("n{n}"), if matches!(sharing, Sharing::Mig { .. }) { 1 } else { 3 }, &sharing)
            })
            .collect();
        let mut admission = Admission::new(64, nodes).unwrap();
        admission.set_policy(Policy::ALL[rng.below(3)].1);
        let most = Amount::ten_thousandths(rng.between(5_000, 50_000) as u64);
        admission.set_quotas(vec![Quota::new("ml", Limits { gpus: Some(most), ..Limits::default() })]);
        for turn in 0..60 {
            let gpus = match rng.below(4) {
                0 => Gpus::Count(rng.between(1, 2) as u32),
                1 => Gpus::Share(Amount::ten_thousandths(rng.between(1, 9_999) as u64)),
                2 => Gpus::MemoryMib(rng.between(1, 81_920) as u64),
                _ => Gpus::Mig { profile: "2g.20gb".to_owned(), count: 1 },
            };
            let _ = admission.offer(RunKey(turn), &asks(0, gpus));
            grants += admission.grant(Timestamp::UNIX_EPOCH).len();
            admission.sanity_check(false);
            let parts = admission.fleet().leases().values().flat_map(|lease| &lease.devices);
            let part = |part: Part| match part {
                Part::Share(part) => part,
                Part::Instance(at) => Amount::ten_thousandths([1, 2, 3][at] * 10_000 / 7),
            };
            let sum: Amount = parts.map(|device| part(device.part)).sum();
            assert!(sum <= most, "seed {seed}: {sum} of {most} are held");
            held += usize::from(sum + Amount::ONE > most);
            let holders: Vec<Holder> = admission.held.keys().copied().filter(|_| rng.percent(10)).collect();
            holders.iter().for_each(|holder| admission.release(holder.run, holder.slot));
        }
    }
    assert!(held > 1000 && grants > 500, "{held} times the quota was nearly full, after {grants} grants");
}
