//! Signs that one look does not show: an error that comes back on one GPU, heat that lasts, a link that falls, a gang that hangs.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::site::{Site, state_of};

/// Errors of applications, of the GPU that the kernel has named. Of two that are the same within a minute one is told.
const FAULTS: [&str; 2] = [
    "NVRM: Xid (PCI:0000:9b:00): 31, pid=7, name=train, MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted",
    "NVRM: Xid (PCI:0000:9b:00): 13, pid=9, name=train, Graphics SM Warp Exception: Out Of Range Address",
];

fn kind(incident: &Value) -> &str {
    incident["signals"][0]["kind"]["kind"].as_str().unwrap_or_default()
}

/// Machines with one GPU each.
async fn single(names: &[&'static str], policy: &str, deadlines: &str) -> Site {
    let site = Site::new(names, policy, deadlines).await;
    for name in names {
        let machine = site.machine(name);
        machine.set("rows", &machine.rows(&["a"]));
    }
    site
}

/// What `nvidia-smi -q` says of the machine's first GPU.
fn driver(machine: &Machine, heat: &str) -> String {
    format!(
        "GPU 00000000:9B:00.0\n    GPU UUID                              : {}\n    Clocks Event Reasons\n        \
         HW Slowdown                       : {heat}\n            HW Thermal Slowdown           : {heat}\n            \
         HW Power Brake Slowdown       : Not Active\n    Temperature\n        GPU Current Temp                  : 91 C\n",
        machine.gpu("a")
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_comes_back_on_one_gpu_under_different_jobs_is_the_gpus() {
    let site = single(&["s21"], "  mode: auto", ", fence: 10m").await;
    site.job("first", 1, "");
    site.job("second", 1, "");
    let _server = site.serve();
    let machine = site.machine("s21");
    let run = site.trigger("first");
    let first = site.until_begun(&["first.1.0"]).remove(0);
    site.until_run(&run, "running");
    machine.name_gpu(&first.gpu);
    machine.log(FAULTS[0]);
    site.until_read(machine);
    site.end("first.1.0", 134);
    site.until_run(&run, "failed");
    assert_eq!(
        (site.incidents().len(), machine.done().len()),
        (0, 0),
        "once is the application's: {:?}",
        site.incidents()
    );
    let run = site.trigger("second");
    let second = site.until_begun(&["first.1.0", "second.1.0"]).remove(1);
    assert_eq!(second.gpu, first.gpu);
    site.until_run(&run, "running");
    machine.set("broken", &second.gpu);
    machine.log(FAULTS[1]);
    site.until_state("s21", "fenced");
    site.until_read(machine);
    assert!(machine.done().is_empty(), "it ends first: {:?}", machine.done());
    site.end("second.1.0", 134);
    let again = site.until_begun(&["first.1.0", "second.1.0", "second.2.0"]).remove(2);
    assert_eq!(again.gpu, first.gpu);
    site.until_done("s21", &["check 2", "reboot", "check 2"]);
    let incident = site.until_over("s21", "repaired");
    assert_eq!((kind(&incident), &incident["class"]), ("repeated", &json!("infrastructure")), "{incident:#}");
    let shown = site.world.ok(&["incidents", "show", "inc-1"]);
    for part in ["XID 13 again", "again on the same GPU within a day", "runbook      XID 13"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    site.end("second.2.0", 0);
    site.until_run(&run, "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_one_job_on_several_gpus_is_the_jobs_and_draws_on_its_retries() {
    let site = single(&["s21", "s22"], "  mode: auto", "").await;
    site.job("train", 2, "    retries: 1\n    retry_delay: 0s\n");
    let _server = site.serve();
    let run = site.trigger("train");
    let names = ["train.1.0", "train.1.1", "train.2.0", "train.2.1"];
    for (attempt, fault) in [1, 2].into_iter().zip(FAULTS) {
        let begun = site.until_begun(&names[..attempt * 2]);
        site.until_run(&run, "running");
        for one in &begun[attempt * 2 - 2..] {
            let machine = site.machine(&one.node);
            machine.name_gpu(&one.gpu);
            machine.log(fault);
            site.until_read(machine);
        }
        site.end(&format!("train.{attempt}.1"), 134);
    }
    let failed = site.until_run(&run, "failed");
    assert!(failed["tasks"].to_string().contains("begun anew 1 times of 1"), "{failed:#}");
    assert!(site.incidents().is_empty(), "{:#?}", site.incidents());
    assert!(["s21", "s22"].iter().all(|name| site.machine(name).done().is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_gang_that_hangs_all_nodes_are_checked_and_the_sick_one_is_repaired() {
    let site = single(&["s21", "s22"], "  mode: auto", "").await;
    let at = site.world.path("jobs");
    site.world.workflow(
        "train",
        &format!(
            "workflow: train\ntasks:\n  train:\n    nodes: 2\n    resources: {{gpu: 1}}\n    hang: {{pattern: all-reduce is stuck}}\n    \
             run: |\n      cd '{}' || exit 1\n      echo train.$ATTEMPT.$PITCREW_RANK ${{HOME##*/}} $CUDA_VISIBLE_DEVICES - >>begun\n      \
             [ $ATTEMPT = 2 ] && exit 0\n      [ $PITCREW_RANK = 0 ] && echo all-reduce is stuck\n      exec sleep 1000\n",
            at.display()
        ),
    );
    // The one that is told of writes; the other one holds it up.
    let sick = site.machine("s22");
    sick.set("broken", &sick.gpu("a"));
    let _server = site.serve();
    let run = site.trigger("train");
    site.until_run(&run, "success");
    let well = site.until_over("s21", "passed");
    let repaired = site.until_over("s22", "repaired");
    assert_eq!((kind(&well), kind(&repaired)), ("log_pattern", "log_pattern"));
    assert_eq!(site.machine("s21").done(), ["check 2"]);
    site.until_done("s22", &["check 2", "reboot", "check 1"]);
    assert!(repaired["jobs"].to_string().contains("train") && well["jobs"].to_string().contains("train"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_stays_hot_is_told_to_people_and_its_node_stays_in_use() {
    let policy = "  mode: auto\n  look: 1s\n  thermal: {for: 3s}";
    let site = single(&["s21"], policy, ", suspected: 4s").await;
    let machine = site.machine("s21");
    machine.set("smi-q", &driver(machine, "Not Active"));
    let _server = site.serve();
    machine.set("smi-q", &driver(machine, "Active"));
    let incident = site.until_incident("s21", "is told", |incident| kind(incident) == "thermal");
    assert_eq!((&incident["watched"], &incident["gpus"]), (&json!(true), &json!([machine.gpu("a")])), "{incident:#}");
    assert!(incident["signals"][0]["evidence"].to_string().contains("for heat at 91 °C, for 3s"), "{incident:#}");
    assert_eq!(site.node("s21")["standing"], "ready");
    site.until_over("s21", "observed");
    site.until_read(machine);
    assert_eq!((site.incidents().len(), machine.done().len()), (1, 0), "told once while it stands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_falls_fails_its_check_and_the_gpu_is_reset() {
    let site = single(&["s21"], "  mode: auto\n  look: 1s\n  nvlink: {for: 0s}", "").await;
    let machine = site.machine("s21");
    let links = |text: &str| machine.set("links", &format!("GPUs:\n    gpuId 0:\n        {text}\n"));
    machine.set("smi-q", &driver(machine, "Not Active"));
    links("U U");
    let _server = site.serve();
    let looks = || machine.read("looks").lines().count();
    let before = looks();
    site.world.wait("its links were seen", || looks() > before + 1);
    links("U D");
    let reset = format!("reset {}", machine.gpu("a"));
    site.until_done("s21", &["check 2", &reset, "check 2"]);
    let incident = site.until_over("s21", "repaired");
    assert_eq!((kind(&incident), state_of(&incident)), ("nv_link", ""), "{incident:#}");
    assert!(incident["trail"].to_string().contains("down, and up before: NVLink 1"), "{incident:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_takes_too_long_is_ended_where_it_runs() {
    let site = Site::new(&["s21"], "  mode: auto\n  inconclusive: out_of_service", ", check: 4s").await;
    let machine = site.machine("s21");
    machine.set("hold-check", "");
    let _server = site.serve();
    machine.log(Machine::ODD);
    site.world.wait("it is checked", || machine.read("check-pid").contains('\n'));
    let pid = machine.read("check-pid").trim().to_owned();
    let is_gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    site.world.wait("its check is ended", is_gone);
    assert!(std::fs::exists(site.world.path("machines/s21/hold-check")).unwrap(), "it was not let go");
    site.until_over("s21", "out_of_service");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_the_real_kernel_log_of_a_host_is_heard_at_once_and_nothing_stays_there_when_nobody_listens() {
    let write = |line: &str| std::fs::write("/dev/kmsg", format!("{line}\n"));
    if let Err(error) = write("pitcrew: a test begins") {
        eprintln!("NOT TESTED: /dev/kmsg cannot be written: {error}");
        return;
    }
    // Nobody asks in this time.
    let site = Site::with_real_log(&["s61"], "  mode: observe\n  drill: true\n  watch: 1h").await;
    let mut server = site.world.serve();
    site.until("s61", "it is ready", |node| node["standing"] == "ready");
    let pid = std::process::id();
    let line =
        format!("NVRM: Xid (PCI:00fa:{:02x}:{:02x}): 79, pid={pid}, name=drill, by a test", pid / 32 % 256, pid % 32);
    // Whatever was written before it was followed is history.
    site.world.wait("the log is followed", || {
        write(&line).unwrap();
        site.incidents().iter().any(|incident| incident["signals"].to_string().contains(&format!("pid={pid},")))
    });
    // Its loops are told where they are, and so can be told from those of others.
    let loops = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains("PITCREW_NODE='s61'")).count()
    };
    assert!(loops() > 0);
    server.kill();
    site.world.wait("no loop is left on the host", || loops() == 0);
}
