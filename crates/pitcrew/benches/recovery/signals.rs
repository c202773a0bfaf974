//! From a sign to the incident, at the default settings: by event on the machine of a worker, of the server and on a host over
//! SSH, where the kernel log of this machine may be written; on hosts whose log a command of one's own reads, by polling.

use std::time::Duration;

use serde_json::Value;

use crate::of_worker;
use crate::site::Site;
use crate::{ROUNDS, said, spread, stamp};

const HOSTS: [&str; 10] = ["s21", "s22", "s23", "s24", "s25", "s26", "s27", "s28", "s29", "s30"];
/// Longer than any of them may take.
const PATIENCE: Duration = Duration::from_secs(16);

pub async fn signals() {
    let runtime = tokio::runtime::Handle::current();
    let events = std::thread::spawn(move || runtime.block_on(by_event()));
    let [log, lost] = by_polling().await;
    match events.join().unwrap() {
        Some([worker, here, host]) => {
            println!(
                "signals    XID in the kernel log → suspicion, by event: a worker's machine  {} (aim ≤ 1)",
                spread(worker)
            );
            println!("signals    the same on the machine of the server  {} (aim ≤ 1)", spread(here));
            println!("signals    the same on a host over SSH  {} (aim ≤ 15)", spread(host));
        }
        None => println!("signals    by event: not measured, since /dev/kmsg cannot be written here"),
    }
    println!("signals    XID in what a command reads on a host every 10 s  {} (aim ≤ 15)", spread(log));
    println!("signals    a GPU of a host that is gone, which tells every 10 s  {} (aim ≤ 15)", spread(lost));
}

/// Of a line that the trail of an incident must have by now.
fn delay(incidents: &[Value], line: &str, since: f64) -> f64 {
    let has = |step: &Value| step["why"].as_str().is_some_and(|why| why.contains(line));
    let at = incidents.iter().find_map(|incident| said(incident, has));
    at.unwrap_or_else(|| panic!("`{line}` is not told: {incidents:#?}")) - since
}

async fn by_event() -> Option<[Vec<f64>; 3]> {
    let write = |line: &str| std::fs::write("/dev/kmsg", format!("{line}\n"));
    write("pitcrew: a benchmark begins").ok()?;
    let policy = "  mode: observe\n  drill: true";
    let worker = of_worker::Machine::of_worker("s33", policy, false);
    let here = of_worker::Machine::new(policy);
    let host = Site::with_real_log(&["s34"], policy).await;
    let (_servers, _worker) = ((worker.world.serve(), here.serve(), host.world.serve()), worker.worker(&[]));
    let pid = std::process::id();
    // By a place on the bus, as of so many GPUs: the same one is told once a minute.
    let xid = |number: usize| format!("Xid (PCI:00fb:{:02x}:{number:02x}): 79, pid={pid}, name=drill", pid % 256);
    let incidents: [&dyn Fn() -> Vec<Value>; 3] = [&|| worker.incidents(), &|| here.incidents(), &|| host.incidents()];
    // Whatever was written before it was followed is history.
    for (number, incidents) in (30..).zip(incidents) {
        host.world.wait("the log is followed", || {
            write(&format!("NVRM: {}", xid(number))).unwrap();
            incidents().iter().any(|incident| incident.to_string().contains(&format!("pid={pid},")))
        });
    }
    let mut written = Vec::new();
    for number in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        written.push(stamp());
        write(&format!("NVRM: {}", xid(number))).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let delays = |incidents: &dyn Fn() -> Vec<Value>| {
        let incidents = incidents();
        written.iter().enumerate().map(|(number, since)| delay(&incidents, &xid(number), *since)).collect()
    };
    Some(incidents.map(delays))
}

/// Of lines of kernel logs, and of GPUs that are gone.
async fn by_polling() -> [Vec<f64>; 2] {
    let site = Site::with(&HOSTS, "  mode: observe").await;
    let _server = site.serve();
    let xid = |number: usize| format!("Xid (PCI:0000:9b:{number:02x}): 79, pid={number}, name=train");
    let (mut lines, mut gone) = (Vec::new(), Vec::new());
    for number in 0..ROUNDS {
        let name = HOSTS[number % HOSTS.len()];
        let machine = site.machine(name);
        lines.push(stamp());
        machine.log(&format!("NVRM: {}", xid(number)));
        tokio::time::sleep(Duration::from_millis(430)).await;
        if number < HOSTS.len() {
            gone.push(stamp());
            machine.set("rows", &machine.rows(&["a"]));
        }
        tokio::time::sleep(Duration::from_millis(430)).await;
    }
    tokio::time::sleep(PATIENCE).await;
    let incidents = site.incidents();
    let told = lines.iter().enumerate().map(|(number, since)| delay(&incidents, &xid(number), *since)).collect();
    let lost = gone.iter().zip(HOSTS).map(|(since, name)| {
        let own: Vec<Value> = incidents.iter().filter(|incident| incident["node"] == name).cloned().collect();
        delay(&own, "lost GPU", *since)
    });
    [told, lost.collect()]
}
