//! A worker on a machine with eight GPUs that says what a real one says, over real HTTP: how its devices do, where its kernel
//! log ends, and what its driver answers when it is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use pitcrew_exec::gpu::kernel_log::{KernelLog, Told};
use pitcrew_exec::gpu::{Probe, Reading, Smi};
use pitcrew_exec::worker::errands;
use pitcrew_exec::worker::protocol::{
    About, Answer, Enrol, Enrolled, Errand, ErrandDone, ErrandEnd, Load, PROTOCOL, Sync,
};
use reqwest::Client;

pub const GPUS: u32 = 8;
/// As often as a worker asks its own devices.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// How often a worker waits for an answer, at most.
const WAIT_MS: u64 = 25_000;

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// What `nvidia-smi -q` says of so many GPUs that are well: the parts that are read, and as much again as it says beside.
pub fn smi(name: &str) -> String {
    let gpu = |index: u32| {
        let beside = "        Some Clock Or Counter Of Its          : 1980 MHz\n".repeat(180);
        format!(
            "GPU 00000000:{:02X}:00.0\n    Product Name                          : NVIDIA H100 80GB HBM3\n    \
             GPU UUID                              : {}\n    GPU Recovery Action                   : None\n    ECC Errors\n        \
             Volatile\n            SRAM Uncorrectable Parity     : 0\n            DRAM Uncorrectable            : 0\n        \
             Aggregate\n            SRAM Threshold Exceeded       : No\n    Remapped Rows\n        \
             Uncorrectable Error               : 0\n        Pending                           : No\n        \
             Remapping Failure Occurred        : No\n    Clocks\n{beside}\n",
            0x10 + index,
            uuid(name, index)
        )
    };
    (0..GPUS).map(gpu).collect()
}

pub fn uuid(name: &str, index: u32) -> String {
    format!("GPU-{name}-{index}")
}

/// Until the server is gone.
pub async fn worker(url: String, token: String, number: usize) {
    let name = format!("gpu-{number}");
    let client = Client::builder().no_proxy().build().unwrap();
    let root = format!("{url}/api/pitcrew/v1/worker");
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: name.clone(),
        data_dir: "/var/lib/pitcrew/worker".to_owned(),
        program: "/usr/bin/pitcrew".to_owned(),
        queues: vec!["default".to_owned()],
        slots: 8,
        labels: Default::default(),
        cpu: None,
        memory_mib: None,
        resources: Default::default(),
        place: Some(name.clone()),
        errands: vec![errands::ASK.to_owned()],
    };
    let enrol = Enrol { protocol: PROTOCOL, name: name.clone(), about: about.clone(), credential: None };
    let answer = client.post(format!("{root}/enrol")).bearer_auth(token).json(&enrol).send().await.unwrap();
    let Enrolled { credential, .. } = answer.error_for_status().unwrap().json().await.unwrap();
    let smi: Arc<str> = smi(&name).into();
    let (mut server, mut is_greeted, mut probed) = (None, false, None::<Instant>);
    let mut done: Vec<ErrandDone> = Vec::new();
    for seq in 1.. {
        let is_due = probed.is_none_or(|at| at.elapsed() >= PROBE_EVERY);
        let sync = Sync {
            protocol: PROTOCOL,
            incarnation: 1,
            seq,
            about: (seq == 1).then(|| about.clone()),
            draining: false,
            drained: false,
            prefetch: 0,
            has: Vec::new(),
            probe: is_due.then(|| probe(&name, seq)),
            load: Some(Load { load1: 0.5, load5: Some(0.5), load15: Some(0.5), memory_used_mib: 1024 + seq }),
            clock: None,
            wait_ms: if seq == 1 || is_due || !done.is_empty() { 0 } else { WAIT_MS },
            server: server.clone(),
            keeps: Vec::new(),
            brings_logs: true,
            kernel: (!is_greeted).then(|| Box::new(kernel(&name))),
            done: done.clone(),
        };
        let answer = client.post(format!("{root}/sync")).bearer_auth(&credential).json(&sync).send().await;
        let Ok(answer) = answer else { return };
        let answer: Answer = answer.error_for_status().unwrap().json().await.unwrap();
        probed = if is_due { Some(now()) } else { probed };
        is_greeted |= answer.kernel.is_some();
        done.retain(|done| !answer.heard.contains(&done.id));
        done.extend(answer.errands.iter().map(|errand| answered(errand, &name, &smi)));
        server = Some(answer.server);
    }
}

fn probe(name: &str, seq: u64) -> Probe {
    let reading = |index: u32| Reading {
        index,
        uuid: uuid(name, index),
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_mib: Some(81_559),
        used_mib: Some(1_000 + seq),
        use_percent: Some((seq % 100) as f64),
        power_watts: Some(300.0 + seq as f64),
        celsius: Some(60.0),
        ..Reading::default()
    };
    Probe {
        cores: Some(192),
        memory_mib: Some(2_000_000),
        host: Some(name.to_owned()),
        boot: Some(format!("boot of {name}")),
        smi: Smi::Answered,
        gpus: (0..GPUS).map(reading).collect(),
        remarks: Vec::new(),
    }
}

fn kernel(name: &str) -> KernelLog {
    let told = Told::Records { first: 1, last: 5_000, micros: 60_000_000, records: Vec::new() };
    KernelLog { boot: format!("boot of {name}"), up: Some(SignedDuration::from_secs(600)), told }
}

fn answered(errand: &Errand, name: &str, smi: &str) -> ErrandDone {
    let stdout = match () {
        () if errand.script.contains("nvidia-smi -q") => smi.to_owned(),
        () if errand.script.contains("boot_id") => format!("boot of {name}\n"),
        () => format!("{GPUS}\n"),
    };
    ErrandDone { id: errand.id.clone(), end: ErrandEnd::Ran { code: Some(0), stdout, stderr: String::new() } }
}
