//! One large file there and back as an attempt, digests of both sides included, and by `scp`, which makes none.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::ssh::remote::{Seal, SshBackend, SshConfig};
use pitcrew_exec::ssh::{Limits, Pool};
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Direction, Place, SshPlace, StepSpec, Transfer};
use tokio::sync::mpsc::unbounded_channel;

use crate::{now, sshd, world};

/// The best of so many counts: the machine does other things too.
const ROUNDS: u32 = 3;

struct Open;

impl Seal for Open {
    fn seal(&self, text: &str) -> std::io::Result<String> {
        Ok(text.to_owned())
    }

    fn open(&self, sealed: &str) -> std::io::Result<String> {
        Ok(sealed.to_owned())
    }
}

pub async fn measure(mebibytes: usize) {
    let sshd = sshd::Sshd::start("Subsystem sftp internal-sftp").await;
    let world = world::World::admitted(&sshd);
    let root = world.dir.path();
    let (file, there, back) = (root.join("file"), root.join("there"), root.join("back"));
    let made =
        Command::new("sh").args(["-c", &format!("head -c {mebibytes}M /dev/urandom > \"$0\"")]).arg(&file).status();
    assert!(made.unwrap().success());
    let (sender, mut events) = unbounded_channel();
    let config = SshConfig { instance: "bench".into(), state_dir: root.join("ssh"), seal: Arc::new(Open) };
    let pool = Pool::new(world.setup.clone(), Limits::default());
    let backend = SshBackend::new(config, Arc::new(pool), sender);
    let mut number = 0;
    let mut ours = async |direction, target: &Path| {
        number += 1;
        let id = AttemptId { run: RunKey(1), task: TaskId::new("move").unwrap(), map_index: UNMAPPED, number };
        let mut spec = AttemptSpec::new(id, root.join(format!("attempt-{number}")), "");
        spec.place = Some(Place::Ssh(SshPlace { workdir: Some("/tmp".into()), ..world::place(sshd.port) }));
        let here = if direction == Direction::Upload { file.clone() } else { back.clone() };
        let transfer = Transfer { direction, here, there: there.display().to_string(), mode: None };
        spec.steps = vec![StepSpec::new("move", pitcrew_exec::Command::Transfer(transfer))];
        let _ = std::fs::remove_file(target);
        let begun = now();
        let handle = backend.prepare(&spec);
        backend.start(&handle, spec).await.unwrap();
        loop {
            match events.recv().await.unwrap() {
                BackendEvent::Ended { ended, .. } => break assert!(ended.exit.is_success(), "{ended:?}"),
                _ => continue,
            }
        }
        begun.elapsed()
    };
    let scp = |from: &str, to: &str, target: &Path| {
        let _ = std::fs::remove_file(target);
        let mut command = Command::new("scp");
        command.args(["-q", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "LogLevel=ERROR", "-i"]).arg(root.join("key")).arg("-P").arg(sshd.port.to_string());
        let begun = now();
        assert!(command.args([from, to]).status().unwrap().success());
        begun.elapsed()
    };
    let (here, far) = (file.display().to_string(), format!("{}@127.0.0.1:{}", sshd::user(), there.display()));
    let mut best = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        let times = [
            scp(&here, &far, &there),
            ours(Direction::Upload, &there).await,
            scp(&far, &back.display().to_string(), &back),
            ours(Direction::Download, &back).await,
        ];
        best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
    }
    let rate = |time: Duration| mebibytes as f64 / time.as_secs_f64();
    for (what, scp, ours) in [("up", best[0], best[1]), ("down", best[2], best[3])] {
        println!(
            "{mebibytes} MiB {what}: scp {:.0} MiB/s, ours with both digests {:.0} MiB/s: {:.2} of it",
            rate(scp),
            rate(ours),
            rate(ours) / rate(scp)
        );
    }
}
