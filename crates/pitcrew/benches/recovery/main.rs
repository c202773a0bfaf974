//! The figures of recovery in `docs/PERFORMANCE.md`, on the real binary: `cargo bench --profile release -p pitcrew --bench
//! recovery [-- NAME…]`; the names are `steps`, `spare`, `signals` and `watched`.
//!
//! Machines are those of the drills in `tests/recovery`: real sshds on loopback, on which a check and a reboot are scripts
//! that say when they ran. All clocks are that of this machine. Nothing here passes or fails; it prints.

#[path = "../../tests/aws/harness.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod harness;
#[path = "../../tests/recovery/machine.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod machine;
#[path = "../../tests/signals/machine.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod of_worker;
#[path = "../../tests/recovery/site.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod site;
#[path = "../../../exec/tests/ssh/sshd.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod sshd;

mod signals;
mod simulated;
mod spare;
mod steps;
mod watched;
mod work;

use serde_json::Value;

/// Recoveries that are measured; one more comes before, which connects.
const ROUNDS: usize = 20;
/// Nothing but what would keep the same machine from being repaired again and again.
const POLICY: &str = "  mode: auto\n  reboots_per_day: 1000\n  remediations_per_week: 1000\n  repair_share: 100%";

/// Seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn stamp() -> f64 {
    seconds(jiff::Timestamp::now())
}

fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_nanosecond() as f64 / 1e9
}

/// When the trail of an incident first says this.
fn said(incident: &Value, is_it: impl Fn(&Value) -> bool) -> Option<f64> {
    let step = incident["trail"].as_array()?.iter().find(|step| is_it(step))?;
    Some(seconds(step["at"].as_str()?.parse().ok()?))
}

/// When it left this state.
fn left(incident: &Value, state: &str) -> f64 {
    let at = said(incident, |step| step["from"] == state && step["to"] != state);
    at.unwrap_or_else(|| panic!("it never left {state}: {incident:#}"))
}

/// Seconds, as p50 and worst.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(p50), Some(worst)) = (values.get(values.len() / 2), values.last()) else { return "none".to_owned() };
    format!("p50 {p50:.3} s, worst {worst:.3} s of {}", values.len())
}

fn is_asked(name: &str) -> bool {
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-') && !word.contains('=')).collect();
    asked.is_empty() || asked.iter().any(|word| word == name)
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    if is_asked("steps") {
        steps::steps().await;
    }
    if is_asked("spare") {
        spare::spare().await;
    }
    if is_asked("signals") {
        signals::signals().await;
    }
    if is_asked("watched") {
        watched::watched().await;
    }
}
