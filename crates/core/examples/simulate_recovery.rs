//! Runs many simulated worlds of recovery: `simulate_recovery [--seed SEED] [--runs N] [--threads N] [--everything]`.
//!
//! Prints each failing seed with the end of its trace, how often everything was seen, and `N passed, M failed`; the exit
//! code is 1 if any failed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pitcrew_core::recovery::sim::{self, Options};

fn main() -> ExitCode {
    let (mut from, mut runs, mut threads) = (0_u64, 1_000_u64, 2_u64);
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok());
        let target = match arg.as_str() {
            "--everything" => {
                options.everything = true;
                continue;
            }
            "--seed" => &mut from,
            "--runs" => &mut runs,
            "--threads" => &mut threads,
            _ => return usage(),
        };
        let Some(value) = number() else { return usage() };
        *target = value;
    }
    let next = AtomicU64::new(from);
    let failures = Mutex::new(BTreeMap::new());
    let seen: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let steps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + runs {
                        break;
                    }
                    match sim::run(seed, options) {
                        Ok(trace) => {
                            steps.fetch_add(trace.steps, Ordering::Relaxed);
                            let mut seen = seen.lock().expect("nobody panics with it");
                            trace.seen.iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
                        }
                        Err(failure) => {
                            let mut failures = failures.lock().expect("nobody panics with it");
                            if failures.len() < 3 {
                                eprintln!("{failure}\n");
                            }
                            failures.insert(seed, failure.message);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("all threads have ended");
    for (seed, message) in failures.iter().take(20) {
        println!("failed: seed {seed}: {}", message.chars().take(300).collect::<String>());
    }
    let seen = seen.into_inner().expect("all threads have ended");
    println!("{} steps; seen: {seen:?}", steps.into_inner());
    println!("{} passed, {} failed", runs - failures.len() as u64, failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: simulate_recovery [--seed SEED] [--runs N] [--threads N] [--everything]");
    ExitCode::from(2)
}
