//! What recovery itself takes, from a failed task to its next beginning on the same machine, at the default settings: all
//! but the check, the time that the machine is down, and the job's own start.

use std::time::Duration;

use crate::machine::Machine;
use crate::site::Site;
use crate::work::{self, Work};
use crate::{POLICY, ROUNDS, left, seconds, spread, stamp};

/// How long nobody listens on the machine.
const DOWN: Duration = Duration::from_millis(700);
const STEPS: [&str; 6] = [
    "suspicion → fenced, and what failed there has ended",
    "→ check begun on the machine",
    "check answered → verdict",
    "verdict → repair ordered on the machine",
    "machine back → check of the repair begun there",
    "that check answered → the job begins there",
];

pub async fn steps() {
    let mut site = Site::with(&["s21"], POLICY).await;
    work::make(&site);
    let _server = site.world.serve();
    site.until("s21", "it is ready", |node| node["standing"] == "ready");
    let (mut told, mut rows) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (before, steps) = recover(&mut site).await;
        if round > 0 {
            told.push(before);
            rows.push(steps);
        }
    }
    for (number, name) in STEPS.iter().enumerate() {
        println!("steps      {name}  {}", spread(rows.iter().map(|row| row[number]).collect()));
    }
    let all = spread(rows.iter().map(|row| row.iter().sum()).collect());
    println!("steps      all of recovery's own  {all} (aim ≤ 2)");
    println!("steps      beside that: the task has ended → suspicion  {}", spread(told));
}

/// What one recovery took: until it was suspected, and the steps.
async fn recover(site: &mut Site) -> (f64, [f64; STEPS.len()]) {
    let (mut work, _) = Work::begin(site);
    let machine = site.machine("s21");
    machine.set("when", "");
    machine.set("broken", &format!("{} {}", machine.gpu("a"), machine.gpu("b")));
    machine.set("hold-reboot", "");
    let ended = work.end(site, 1).at;
    site.world.wait("it is rebooted", || !when(machine, "reboot").is_empty());
    let machine = site.machine_mut("s21");
    machine.cut();
    tokio::time::sleep(DOWN).await;
    machine.remove("hold-reboot");
    while machine.has("away") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    machine.sshd.up().await;
    let back = stamp();
    let begun = work.begun(site).at;
    let incident = site.until_over("s21", "repaired");
    work.finish(site);
    let opened: jiff::Timestamp = incident["opened"].as_str().unwrap().parse().unwrap();
    let (opened, machine) = (seconds(opened), site.machine("s21"));
    let (checks, answers) = (when(machine, "check"), when(machine, "checked"));
    let (fenced, verdict) = (left(&incident, "fenced"), left(&incident, "checking"));
    let steps = [
        fenced - opened,
        checks[0] - fenced,
        verdict - answers[0],
        when(machine, "reboot")[0] - verdict,
        checks[1] - back,
        begun - answers[1],
    ];
    (opened - ended, steps)
}

/// When a script of the machine came to this.
fn when(machine: &Machine, what: &str) -> Vec<f64> {
    let text = machine.read("when");
    let read = |line: &str| line.strip_prefix(what)?.strip_prefix(' ')?.parse().ok();
    text.lines().filter_map(read).collect()
}
