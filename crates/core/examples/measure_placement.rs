//! How long placement takes: `cargo run --release -p pitcrew-core --example measure_placement`.

use std::time::{Duration, Instant};

use pitcrew_core::fleet::replay::{self, Job};
use pitcrew_core::fleet::{
    Amount, Fleet, Gang, Gpu, Gpus, LeaseId, Node, Policy, Promises, Request, Sharing, Workload,
};

#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// 1,213 nodes, as many as in the public trace, of 8 and of 2 GPUs.
fn nodes() -> Vec<Node> {
    let gpu = |node: u32, at: u32| Gpu {
        sharing: Sharing::TimeSlicing { replicas: 1000 },
        ..Gpu::new(format!("{node}/{at}"), "A100", 81_920)
    };
    let node = |n: u32| {
        let count = if n.is_multiple_of(2) { 8 } else { 2 };
        let gpus = (0..count).map(|at| gpu(n, at)).collect();
        Node::new(format!("node-{n:04}"), Amount::whole(96), 393_216, gpus)
    };
    (0..1213).map(node).collect()
}

fn main() {
    let ask = |cpu: u32, gpus: Gpus| Request { cpu: Amount::whole(cpu), gpus, ..Request::default() };
    let kinds: Vec<Request> = (1..=20)
        .flat_map(|n| [ask(n, Gpus::Count(1)), ask(n, Gpus::Share(Amount::milli(40 * n))), ask(n, Gpus::None)])
        .collect();
    for (name, policy) in Policy::ALL {
        let mut fleet = Fleet::new(nodes(), policy, Workload::of(&kinds)).expect("names differ");
        // Half full, and with holes.
        let begun = now();
        for n in 0..4000 {
            let _ = fleet.place(LeaseId(n.to_string()), &kinds[n * 7 % kinds.len()]);
        }
        let each = begun.elapsed() / 4000;
        for n in (0..4000).step_by(3) {
            fleet.release(&LeaseId(n.to_string()));
        }
        let mut gang: Vec<Duration> = (0..101)
            .map(|round| {
                let ids: Vec<LeaseId> = (0..8).map(|at| LeaseId(format!("g{at}"))).collect();
                // Something else happens in between.
                fleet.release(&LeaseId((round * 3 + 1).to_string()));
                let begun = now();
                fleet
                    .place_gang(&ids, &ask(8, Gpus::Count(8)), &Gang::of(8), &Promises::default())
                    .expect("there is room");
                let took = begun.elapsed();
                for id in &ids {
                    fleet.release(id);
                }
                took
            })
            .collect();
        gang.sort();
        let job = |request: &Request| Job {
            request: request.clone(),
            members: 1,
            arrives: 0.0,
            lasts: 0.0,
            ..Job::default()
        };
        let jobs: Vec<Job> = kinds.iter().map(job).collect();
        let mut fleet = Fleet::new(nodes(), policy, Workload::of(&kinds)).expect("names differ");
        let work = replay::inflated(&jobs, fleet.gpus(), 1.3, 42);
        let begun = now();
        let filled = replay::fill(&mut fleet, &work);
        let speed = work.len() as f64 / begun.elapsed().as_secs_f64();
        println!("{name}: {} of {} placed at 1.3 of the GPUs, {speed:.0} a second", filled.placed, work.len());
        println!("{name}: {each:?} a placement of one; a gang of 8 × 8 GPUs p50 {:?}, most {:?}", gang[50], gang[100]);
    }
}
