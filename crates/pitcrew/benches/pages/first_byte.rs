//! The first byte of every page and of every read of the API, and of lists narrowed and ordered in ways of their own.

use std::io::Read;
use std::process::Command;

use jiff::SignedDuration;

use super::serve::{Server, now, percentile, today};
use super::{FLOW, WIDE};

/// Requests of each address.
const TIMES: usize = 40;

/// What the table of routes does not say: queries that people and scripts use. `BEFORE` and `AFTER` are two and three
/// days ago.
const QUERIES: [&str; 33] = [
    "/workflows?q=flow_1&tag=team3&show=active",
    "/workflows/wide?runs=100",
    "/workflows/wide?runs=25&before=MIDDLE",
    "/workflows/flow_007/runs?state=failed",
    "/runs?state=failed",
    "/runs?state=running",
    "/runs?type=manual",
    "/runs?type=backfill",
    "/runs?workflow=flow_007&state=failed",
    "/runs?from=AFTER&to=BEFORE",
    "/runs?due_from=AFTER&due_to=BEFORE&state=failed",
    "/runs?before=MIDDLE",
    "/workflows/wide/runs/RUN?state=success&page=4",
    "/audit?who=fill",
    "/audit?event=run.",
    "/api/v2/dags?limit=100&dag_id_pattern=%25flow_1%25&order_by=-dag_id",
    "/api/v2/dags/~/dagRuns?limit=100&order_by=-start_date",
    "/api/v2/dags/~/dagRuns?limit=100&order_by=end_date&state=failed&state=success",
    "/api/v2/dags/~/dagRuns?limit=100&offset=9000",
    "/api/v2/dags/~/dagRuns?limit=100&run_type=backfill",
    "/api/v2/dags/~/dagRuns?limit=100&run_id_pattern=%25nothing%25",
    "/api/v2/dags/~/dagRuns?limit=100&run_id_pattern=%25scheduled%25",
    "/api/v2/dags/~/dagRuns?limit=100&start_date_gte=AFTER&start_date_lte=BEFORE",
    "/api/v2/dags/~/dagRuns?limit=100&logical_date_gte=AFTER&order_by=-logical_date",
    "/api/v2/dags/flow_007/dagRuns?limit=100&order_by=-end_date",
    "/api/v2/dags/~/dagRuns/~/taskInstances?limit=100",
    "/api/v2/dags/~/dagRuns/~/taskInstances?limit=100&state=failed",
    "/api/v2/dags/~/dagRuns/~/taskInstances?limit=100&order_by=-start_date",
    "/api/v2/dags/~/dagRuns/~/taskInstances?limit=100&state=failed&order_by=-end_date",
    "/api/v2/dags/flow_007/dagRuns/~/taskInstances?limit=100&order_by=-start_date",
    "/api/v2/dags/~/dagRuns/~/taskInstances?limit=100&start_date_gte=AFTER&start_date_lte=BEFORE",
    "/api/v2/eventLogs?limit=100&event=run.trigger&order_by=-when",
    "/api/v2/eventLogs?limit=100&after=AFTER&before=BEFORE",
];

/// What is asked of the server, by surface.
fn addresses(server: &Server) -> Vec<(&'static str, String)> {
    let newest = server.json("GET", &format!("/api/v2/dags/{WIDE}/dagRuns?limit=1&order_by=-run_after"), "");
    let run_id = newest["dag_runs"][0]["dag_run_id"].as_str().expect("a run of the wide workflow");
    let run_id = run_id.replace('+', "%2B");
    let all = server.runs();
    let ago = |days: i64| (today() - SignedDuration::from_hours(24 * days)).to_string();
    let surface = |path: &str| if path.starts_with("/api/") { "api" } else { "pages" };
    let routes = Command::new(env!("CARGO_BIN_EXE_pitcrew")).args(["internal", "routes"]).output().unwrap().stdout;
    let mut addresses = Vec::new();
    for line in String::from_utf8_lossy(&routes).lines() {
        let [method, _, path] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        // A stream's first byte says nothing; what never ends cannot be read to its end.
        let is_stream = path.contains("/live/") || path.ends_with("/events") || path.ends_with("/wait");
        if method != "GET" || is_stream || path.starts_with("/assets/") {
            continue;
        }
        for workflow in [WIDE, FLOW] {
            let task = if workflow == WIDE { "stage_00.task_001" } else { "train" };
            let run = if workflow == WIDE { run_id.as_str() } else { "~" };
            let all = all.to_string();
            let path = path.split('/').map(|part| match part {
                "{workflow}" | "{dag}" | "{dag_id}" => workflow,
                "{run_key}" => &all,
                "{run}" | "{run_id}" | "{dag_run_id}" => run,
                "{task}" | "{task_id}" => task,
                "{map_index}" => "-1",
                "{try_number}" | "{attempt}" | "{task_try_number}" | "{version_number}" => "1",
                other => other,
            });
            let path = path.collect::<Vec<_>>().join("/");
            // Other things have to be named, and there are none; a route without a workflow is asked once.
            if !path.contains('{') && (workflow == WIDE || path.contains(FLOW)) {
                addresses.push((surface(&path), path));
            }
        }
    }
    for query in QUERIES {
        let path = query.replace("AFTER", &ago(3)).replace("BEFORE", &ago(2)).replace("RUN", &run_id);
        addresses.push((surface(query), path.replace("MIDDLE", &(all / 2).to_string())));
    }
    addresses
}

/// Asks once: milliseconds to the first byte, the status, and how many bytes came.
fn ask(server: &Server, path: &str) -> (f64, String, u64) {
    let begun = now();
    let mut stream = server.send("GET", path, "");
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let rest = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    (took, String::from_utf8_lossy(&first[9..]).into_owned(), rest)
}

pub fn measure(server: &Server) {
    let mut worst = [("pages", 150.0, 0.0_f64, String::new(), 0), ("api", 50.0, 0.0, String::new(), 0)];
    println!("first byte in ms, {TIMES} requests of each address: p50, p95, status, KiB");
    for (surface, path) in addresses(server) {
        let answers: Vec<(f64, String, u64)> = (0..TIMES).map(|_| ask(server, &path)).collect();
        let mut times: Vec<f64> = answers.iter().map(|(took, ..)| *took).collect();
        let (p50, p95) = (percentile(&mut times, 0.5), percentile(&mut times, 0.95));
        let (_, status, bytes) = &answers[0];
        let of = &mut worst[usize::from(surface == "api")];
        let mark = if p95 > of.1 { "  ← over" } else { "" };
        println!("  {p50:7.1} {p95:7.1}  {status} {:6}  {path}{mark}", bytes >> 10);
        // What is not there is refused quickly, which tells nothing.
        if status.starts_with(['2', '3']) {
            of.4 += 1;
            if p95 > of.2 {
                (of.2, of.3) = (p95, path);
            }
        }
    }
    for (what, aim, p95, path, count) in worst {
        println!("first byte {what:<27} slowest p95 {p95:.1} ms (aim ≤ {aim}) of {count} addresses: {path}");
    }
    println!(
        "           resident memory             {:.0} MiB, at most {:.0} MiB",
        server.memory("VmRSS"),
        server.memory("VmHWM")
    );
}
