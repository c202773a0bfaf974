//! What a command over the pool costs, and a session: `cargo bench -p pitcrew-exec --bench ssh [-- SESSIONS]`; with
//! `-- transfer [MIB]` a file that goes there and back, beside `scp`.
//!
//! A real sshd on loopback. The same command is run: by a local shell (its own time), over the pool, one at a time and
//! many at once, and by paramiko with a connection for each, if `PITCREW_BENCH_PYTHON` names a Python that has it. Then so
//! many sessions, each on a connection of its own, are held open, and the memory of this process is read.

#[path = "../tests/ssh/sshd.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod sshd;
#[path = "../tests/ssh/world.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod world;

#[path = "ssh/transfer.rs"]
mod transfer;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::{Limits, Pool};

const COMMANDS: usize = 100;
const COMMAND: &str = "true";

#[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let sessions = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(100);
    let is_transfer = std::env::args().any(|arg| arg == "transfer");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match is_transfer {
        true => runtime.block_on(transfer::measure(if sessions == 100 { 1024 } else { sessions })),
        false => runtime.block_on(measure(sessions)),
    }
}

async fn measure(sessions: usize) {
    let sshd = sshd::Sshd::start("MaxSessions 100").await;
    let world = world::World::admitted(&sshd);
    let place = world::place(sshd.port);
    let pool = Pool::new(world.setup.clone(), Limits::default());

    let begun = now();
    run(&pool, &place).await;
    println!("connect, sign in and the first command:   {:>8.2?}", begun.elapsed());

    let own = p50((0..COMMANDS).map(|_| {
        let begun = now();
        assert!(Command::new("/bin/sh").args(["-c", COMMAND]).status().unwrap().success());
        begun.elapsed()
    }));
    println!("{COMMANDS} × `{COMMAND}` by a local shell, p50:      {own:>8.2?}");
    let mut times = Vec::new();
    for _ in 0..COMMANDS {
        let begun = now();
        run(&pool, &place).await;
        times.push(begun.elapsed());
    }
    let pooled = p50(times.into_iter());
    println!(
        "{COMMANDS} × over the pool, one at a time, p50:  {pooled:>8.2?}, {:.2?} beyond its own",
        pooled.saturating_sub(own)
    );
    let begun = now();
    join_all((0..COMMANDS).map(|_| run(&pool, &place))).await;
    println!("{COMMANDS} × over the pool, at once, all:        {:>8.2?}", begun.elapsed());
    match paramiko(&world, &sshd) {
        Some(each) => println!(
            "{COMMANDS} × by paramiko, a connection each, p50: {each:>8.2?}, {:.1} times the pool's",
            each.as_secs_f64() / pooled.as_secs_f64()
        ),
        None => println!("paramiko: not measured, set PITCREW_BENCH_PYTHON to a Python that has it"),
    }
    hold(&world, sessions).await;
}

async fn run(pool: &Pool, place: &SshPlace) {
    assert!(pool.get(place).await.unwrap().run(COMMAND, b"").await.unwrap().is_success());
}

/// Memory per session, each with a connection of its own.
async fn hold(world: &world::World, sessions: usize) {
    let sshd = sshd::Sshd::start("MaxStartups 5000").await;
    sshd.admit(&world.dir.path().join("key"));
    let limits = Limits { sessions: 1, connections: sessions, ..Limits::default() };
    let pool = Pool::new(world.setup.clone(), limits);
    let place = world::place(sshd.port);
    let before = resident();
    let begun = now();
    let held = join_all((0..sessions).map(async |_| pool.get(&place).await.unwrap().open("cat").await.unwrap())).await;
    let took = begun.elapsed();
    let each = resident().saturating_sub(before) / sessions.max(1) as u64;
    assert_eq!(held.len(), sessions);
    println!("{sessions} sessions on {sessions} connections: {} KiB each, opened in {took:.2?}", each >> 10);
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn paramiko(world: &world::World, sshd: &sshd::Sshd) -> Option<Duration> {
    const SCRIPT: &str = "
import sys, time, paramiko
port, user, key, times = int(sys.argv[1]), sys.argv[2], sys.argv[3], []
for _ in range(int(sys.argv[4])):
    begun = time.perf_counter()
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect('127.0.0.1', port, user, key_filename=key, look_for_keys=False, allow_agent=False)
    assert client.exec_command(sys.argv[5])[1].channel.recv_exit_status() == 0
    client.close()
    times.append(time.perf_counter() - begun)
print(sorted(times)[len(times) // 2])
";
    let python = std::env::var_os("PITCREW_BENCH_PYTHON")?;
    let key = world.dir.path().join("key");
    let out = Command::new(Path::new(&python))
        .args(["-c", SCRIPT, &sshd.port.to_string(), &sshd::user()])
        .arg(key)
        .args([&COMMANDS.to_string(), COMMAND])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(Duration::from_secs_f64(String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()))
}

fn p50(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times[times.len() / 2]
}
