//! Files to and from a real host, over links that break, with servers that die, and onto disks that are full.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::Exit;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::ssh::remote::{Seal, SshBackend, SshConfig};
use pitcrew_exec::ssh::{Limits, Pool};
use pitcrew_exec::{
    AttemptSpec, Backend, BackendEvent, Command, Direction, Ended, EventSender, Handle, Observation, Place, SshPlace,
    StepSpec, Transfer,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::proxy::{Proxy, Way};
use crate::sshd::{Sshd, until};
use crate::world::{World, place};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

struct Open;

impl Seal for Open {
    fn seal(&self, text: &str) -> std::io::Result<String> {
        Ok(text.to_owned())
    }

    fn open(&self, sealed: &str) -> std::io::Result<String> {
        Ok(sealed.to_owned())
    }
}

/// A backend, a link, and directories on both ends of it.
struct Ground {
    world: World,
    sshd: Sshd,
    proxy: Proxy,
    backend: SshBackend,
    events: UnboundedReceiver<BackendEvent>,
    here: PathBuf,
    there: PathBuf,
    count: AtomicU32,
}

impl Ground {
    async fn new() -> Ground {
        Ground::with("Subsystem sftp internal-sftp").await
    }

    async fn with(settings: &str) -> Ground {
        let sshd = Sshd::start(settings).await;
        let world = World::admitted(&sshd);
        let proxy = Proxy::to(sshd.port).await;
        let root = world.dir.path().canonicalize().unwrap();
        let (here, there) = (root.join("here"), root.join("there"));
        std::fs::create_dir(&here).unwrap();
        std::fs::create_dir(&there).unwrap();
        let (backend, events) = backend(&world);
        Ground { world, sshd, proxy, backend, events, here, there, count: AtomicU32::new(0) }
    }

    /// As after the death of the server.
    fn restart(&mut self) {
        (self.backend, self.events) = backend(&self.world);
    }

    fn spec(&self, transfer: Transfer) -> AttemptSpec {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let id = AttemptId { run: RunKey(1), task: TaskId::new("move").unwrap(), map_index: UNMAPPED, number };
        let mut spec = AttemptSpec::new(id, self.here.with_file_name(format!("attempt-{number}")), "");
        let workdir = Some(self.there.display().to_string());
        spec.place = Some(Place::Ssh(SshPlace { workdir, timeout_s: 5, ..place(self.proxy.port) }));
        spec.steps = vec![StepSpec::new("move", Command::Transfer(transfer))];
        spec
    }

    fn upload(&self, from: &str, to: &str) -> AttemptSpec {
        self.spec(Transfer { direction: Direction::Upload, here: self.here.join(from), there: to.into(), mode: None })
    }

    fn download(&self, from: &str, to: &str) -> AttemptSpec {
        self.spec(Transfer { direction: Direction::Download, here: self.here.join(to), there: from.into(), mode: None })
    }

    async fn start(&self, spec: AttemptSpec) -> Handle {
        let handle = self.backend.prepare(&spec);
        self.backend.start(&handle, spec).await.unwrap();
        handle
    }

    async fn ended(&mut self, handle: &Handle) -> Ended {
        let end = async {
            loop {
                match self.events.recv().await.unwrap() {
                    BackendEvent::Ended { id, ended } if id == handle.id => return ended,
                    BackendEvent::Lost { reason, .. } => panic!("{reason}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.expect("it hangs")
    }

    async fn run(&mut self, spec: AttemptSpec) -> (Ended, String) {
        let handle = self.start(spec).await;
        let ended = self.ended(&handle).await;
        (ended, self.log(&handle).await)
    }

    /// What a transfer that must succeed leaves.
    async fn moved(&mut self, spec: AttemptSpec) -> (Ended, String) {
        let (ended, log) = self.run(spec).await;
        assert!(ended.exit.is_success(), "{ended:?}: {log}");
        (ended, log)
    }

    /// What a transfer says that must fail; it is not to be tried again.
    async fn refused(&mut self, spec: AttemptSpec) -> String {
        let (ended, log) = self.run(spec).await;
        assert_eq!(ended.exit, Exit::Code { code: 78 }, "{log}");
        assert_eq!(ended.failed_step.as_deref(), Some("move"));
        assert!(ended.tail.contains("error: "), "{ended:?}");
        self.nothing_is_left();
        log
    }

    async fn log(&self, handle: &Handle) -> String {
        let chunk = self.backend.logs(handle, 0, 1 << 20).await.unwrap();
        chunk.records.into_iter().map(|record| record.text + "\n").collect()
    }

    fn bytes(&self, name: &str, size: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..size as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        let path = self.here.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &bytes).unwrap();
        bytes
    }

    fn nothing_is_left(&self) {
        assert_eq!(parts(&self.there).chain(parts(&self.here)).collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

fn backend(world: &World) -> (SshBackend, UnboundedReceiver<BackendEvent>) {
    let (sender, events): (EventSender, _) = unbounded_channel();
    let backoff = (Duration::from_millis(1), Duration::from_millis(50));
    let pool = Pool::new(world.setup.clone(), Limits { backoff, ..Limits::default() });
    let state_dir = world.dir.path().join("ssh");
    let config = SshConfig { instance: "test".into(), state_dir, seal: Arc::new(Open) };
    (SshBackend::new(config, Arc::new(pool), sender), events)
}

/// Unfinished files below a directory.
fn parts(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with(".part") {
                found.push(entry.path());
            }
        }
    }
    found.into_iter()
}

/// Bytes of the one part below a directory.
fn part_size(dir: &Path) -> u64 {
    parts(dir).filter_map(|path| path.metadata().ok()).map(|about| about.len()).sum()
}

fn sha256(path: &Path) -> String {
    let out = std::process::Command::new("sha256sum").stdin(std::fs::File::open(path).unwrap()).output().unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

fn number(ended: &Ended, name: &str) -> u64 {
    ended.outputs.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name}: {:?}", ended.outputs))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_there_and_back_byte_for_byte_and_only_when_it_differs() {
    let mut ground = Ground::new().await;
    let bytes = ground.bytes("model.bin", 9 * MIB + 12_345);
    std::fs::set_permissions(ground.here.join("model.bin"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let digest = sha256(&ground.here.join("model.bin"));
    let (ended, log) = ground.moved(ground.upload("model.bin", "deep/er/model.bin")).await;
    let there = ground.there.join("deep/er/model.bin");
    assert!(std::fs::read(&there).unwrap() == bytes);
    assert_eq!(there.metadata().unwrap().permissions().mode() & 0o777, 0o750);
    let outputs = &ended.outputs;
    assert_eq!((&outputs["sha256"], number(&ended, "bytes")), (&json!(digest), bytes.len() as u64));
    assert_eq!([number(&ended, "files"), number(&ended, "resumed_bytes"), number(&ended, "unchanged")], [1, 0, 0]);
    assert!(outputs["seconds"].as_f64().unwrap() >= 0.0 && ended.steps[0].name == "move", "{ended:?}");
    assert!(log.contains(&digest) && log.contains("9.0 MiB"), "{log}");

    // The same again moves nothing; a file in whose place a directory is named goes into it.
    let sent = ground.proxy.sent();
    let (ended, log) = ground.moved(ground.upload("model.bin", "deep/er")).await;
    assert!(number(&ended, "unchanged") == 1 && log.contains("unchanged"), "{log}");
    assert!(ground.proxy.sent() - sent < MIB);

    // Of the same size, with other content: it is replaced, and keeps the mode that it has there.
    std::fs::set_permissions(&there, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut other = bytes.clone();
    other[5 * MIB] ^= 1;
    std::fs::write(ground.here.join("model.bin"), &other).unwrap();
    let (ended, _) = ground.moved(ground.upload("model.bin", "deep/er/model.bin")).await;
    assert_eq!(number(&ended, "unchanged"), 0);
    assert!(std::fs::read(&there).unwrap() == other);
    assert_eq!(there.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let (ended, _) = ground.moved(ground.download("deep/er/model.bin", "back/")).await;
    let back = ground.here.join("back/model.bin");
    assert!(std::fs::read(&back).unwrap() == other);
    assert_eq!(ended.outputs["sha256"], json!(sha256(&back)));
    let (ended, _) = ground.moved(ground.download("deep/er/model.bin", "back")).await;
    assert_eq!(number(&ended, "unchanged"), 1);
    let mut spec = ground.download("deep/er/model.bin", "back");
    let Command::Transfer(transfer) = &mut spec.steps[0].command else { panic!() };
    transfer.mode = Some(0o640);
    ground.moved(spec).await;
    assert_eq!(back.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    ground.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_goes_there_and_back_with_names_of_all_kinds_and_nothing_that_leads_out() {
    let mut ground = Ground::new().await;
    let names =
        ["a b", "it's \"q\"", "line\nbreak\n", "-rf", "sub/deep/ü", "sub/.hidden", "$HOME `x`", "sub/empty file"];
    for name in names {
        ground.bytes(&format!("tree/{name}"), if name.ends_with("file") { 0 } else { 1000 + name.len() });
    }
    std::fs::create_dir_all(ground.here.join("tree/nothing")).unwrap();
    std::fs::write(ground.here.join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", ground.here.join("tree/out")).unwrap();
    std::os::unix::fs::symlink("a b", ground.here.join("tree/in")).unwrap();
    let (ended, log) = ground.moved(ground.upload("tree", "copy of it/tree")).await;
    assert_eq!(number(&ended, "files"), names.len() as u64 + 1);
    assert!(log.contains("left out `out`"), "{log}");
    let there = ground.there.join("copy of it/tree");
    assert!(there.join("nothing").is_dir() && !there.join("out").exists());
    for name in names.into_iter().chain(["in"]) {
        let (ours, theirs) = (std::fs::read(ground.here.join("tree").join(name)), std::fs::read(there.join(name)));
        assert!(ours.unwrap() == theirs.unwrap(), "{name:?}");
    }
    let digest = ended.outputs["sha256"].clone();

    // And back, where somebody put a link that leads out.
    std::os::unix::fs::symlink("/etc/passwd", there.join("out")).unwrap();
    let (ended, log) = ground.moved(ground.download("copy of it/tree", "back")).await;
    assert!(ended.outputs["sha256"] == digest && log.contains("left out `out`"), "{log}");
    let back = ground.here.join("back");
    assert!(back.join("nothing").is_dir() && !back.join("out").exists());
    for name in names {
        let (ours, theirs) = (std::fs::read(back.join(name)), std::fs::read(there.join(name)));
        assert!(ours.unwrap() == theirs.unwrap(), "{name:?}");
    }
    std::fs::write(back.join("-rf"), "changed").unwrap();
    let (ended, _) = ground.moved(ground.download("copy of it/tree", "back")).await;
    assert_eq!(number(&ended, "unchanged"), names.len() as u64);
    ground.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_again_and_again_costs_little() {
    let mut ground = Ground::new().await;
    let bytes = ground.bytes("model.bin", 20 * MIB);
    ground.proxy.set(Way::CutAfterSent(8 * MIB));
    let (ended, log) = ground.moved(ground.upload("model.bin", "model.bin")).await;
    assert!(std::fs::read(ground.there.join("model.bin")).unwrap() == bytes);
    assert!(number(&ended, "resumed_bytes") >= 8 * MIB as u64 && log.contains("connected again"), "{log}");
    assert!(ground.proxy.sent() < 2 * bytes.len(), "{}", ground.proxy.sent());

    ground.proxy.set(Way::CutAfter(8 * MIB));
    let (ended, log) = ground.moved(ground.download("model.bin", "back")).await;
    assert!(std::fs::read(ground.here.join("back")).unwrap() == bytes);
    assert!(number(&ended, "resumed_bytes") >= 8 * MIB as u64, "{log}");
    ground.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_the_middle_goes_on_where_it_was() {
    let mut ground = Ground::new().await;
    let bytes = ground.bytes("model.bin", 16 * MIB);
    for (spec, at, to) in [
        (ground.upload("model.bin", "model.bin"), ground.there.clone(), ground.there.join("model.bin")),
        (ground.download("model.bin", "back"), ground.here.clone(), ground.here.join("back")),
    ] {
        ground.proxy.set(Way::StalledAfter(8 * MIB));
        let handle = ground.start(spec.clone()).await;
        until("half of it is there", || part_size(&at) >= 4 * MIB as u64).await;
        ground.restart();
        ground.proxy.set(Way::Open);
        // The scheduler asks first, and may start it again as well.
        let seen = ground.backend.attach(&handle).await;
        assert!(matches!(seen, Observation::Running { .. }), "{seen:?}");
        ground.backend.start(&handle, spec).await.unwrap();
        let ended = ground.ended(&handle).await;
        let log = ground.log(&handle).await;
        assert!(ended.exit.is_success() && number(&ended, "resumed_bytes") >= 4 * MIB as u64, "{ended:?}: {log}");
        assert!(std::fs::read(to).unwrap() == bytes);
        ground.nothing_is_left();
        // Later it is over, whoever asks.
        ground.restart();
        assert_eq!(ground.backend.attach(&handle).await, Observation::Ended(ended));
        ground.backend.cleanup(&handle).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_somebody_changed_is_begun_anew_and_a_source_that_changes_is_told() {
    let mut ground = Ground::new().await;
    let bytes = ground.bytes("model.bin", 16 * MIB);
    ground.proxy.set(Way::StalledAfter(8 * MIB));
    let handle = ground.start(ground.upload("model.bin", "model.bin")).await;
    until("half of it is there", || part_size(&ground.there) >= 4 * MIB as u64).await;
    ground.restart();
    let part = parts(&ground.there).next().unwrap();
    assert_eq!(part.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let file = std::fs::OpenOptions::new().write(true).open(part).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"other", 1000).unwrap();
    ground.proxy.set(Way::Open);
    ground.backend.attach(&handle).await;
    let ended = ground.ended(&handle).await;
    assert!(ended.exit.is_success() && number(&ended, "resumed_bytes") == 0, "{ended:?}");
    assert!(std::fs::read(ground.there.join("model.bin")).unwrap() == bytes);

    for (spec, at, source) in [
        (ground.upload("model.bin", "next"), ground.there.clone(), ground.here.join("model.bin")),
        (ground.download("model.bin", "next"), ground.here.clone(), ground.there.join("model.bin")),
    ] {
        ground.restart();
        ground.proxy.set(Way::StalledAfter(8 * MIB));
        let handle = ground.start(spec).await;
        until("half of it is there", || part_size(&at) >= 4 * MIB as u64).await;
        std::io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).open(source).unwrap(), b"more")
            .unwrap();
        ground.proxy.set(Way::Open);
        let ended = ground.ended(&handle).await;
        // Another attempt may find it at rest.
        assert_eq!(ended.exit, Exit::Code { code: 1 }, "{ended:?}");
        assert!(ended.tail.contains(" changed while it was "), "{ended:?}");
        assert!(!at.join("next").exists());
        ground.nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_in_the_middle_leaves_no_part_on_either_side() {
    let mut ground = Ground::new().await;
    ground.bytes("model.bin", 16 * MIB);
    std::fs::copy(ground.here.join("model.bin"), ground.there.join("source.bin")).unwrap();
    let download = ground.download("source.bin", "back");
    for (spec, at) in [(ground.upload("model.bin", "x"), ground.there.clone()), (download, ground.here.clone())] {
        // Also one that another server began.
        for dies in [false, true] {
            // On a connection of its own.
            ground.restart();
            ground.proxy.set(Way::StalledAfter(8 * MIB));
            let mut spec = spec.clone();
            spec.id.number += if dies { 100 } else { 0 };
            spec.dir = spec.dir.with_extension(dies.to_string());
            let handle = ground.start(spec).await;
            until("half of it is there", || part_size(&at) >= 4 * MIB as u64).await;
            if dies {
                ground.restart();
            }
            ground.backend.cancel(&handle, SignedDuration::from_secs(5)).await.unwrap();
            ground.proxy.set(Way::Open);
            let ended = ground.ended(&handle).await;
            assert_eq!(ended.exit, Exit::Cancelled, "{ended:?}");
            ground.nothing_is_left();
            ground.backend.cleanup(&handle).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_told_at_once() {
    let mut ground = Ground::new().await;
    ground.bytes("file", 10);
    let told = ground.refused(ground.upload("none.bin", "x")).await;
    assert!(told.contains("there is no file or directory `") && told.contains("none.bin` on this machine"), "{told}");
    let told = ground.refused(ground.download("none.bin", "x")).await;
    assert!(told.contains("none.bin`: there is no such file or directory"), "{told}");
    std::fs::write(ground.there.join("plain"), "x").unwrap();
    let told = ground.refused(ground.upload("file", "plain/x")).await;
    assert!(told.contains("plain`") && told.contains("not a directory"), "{told}");
    // Nobody may make anything there, not even root.
    let told = ground.refused(ground.upload("file", "/proc/pitcrew/x")).await;
    assert!(told.contains("make the directory `/proc/pitcrew`"), "{told}");
    let told = ground.refused(ground.upload("file", "a/../../x")).await;
    assert!(told.contains("goes up by `..`"), "{told}");
    assert!(!ground.here.join("x").exists() && !ground.there.join("x").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_sftp_and_one_without_a_shell() {
    let mut ground = Ground::with("").await;
    ground.bytes("file", 100_000);
    let told = ground.refused(ground.upload("file", "x")).await;
    assert!(told.contains("serves no files over SFTP") && told.contains("Subsystem sftp internal-sftp"), "{told}");

    // For files only: digests are made by reading back.
    let mut ground = Ground::with("Subsystem sftp internal-sftp\nForceCommand internal-sftp").await;
    let bytes = ground.bytes("file", 300_000);
    let (_, log) = ground.moved(ground.upload("file", "x")).await;
    assert!(log.contains("reading the file back") && std::fs::read(ground.there.join("x")).unwrap() == bytes, "{log}");
    ground.moved(ground.download("x", "back")).await;
    assert!(std::fs::read(ground.here.join("back")).unwrap() == bytes);
    ground.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_does_not_come_back_is_given_up() {
    let mut ground = Ground::new().await;
    ground.bytes("model.bin", 4 * MIB);
    ground.proxy.set(Way::CutAfterSent(MIB));
    let mut spec = ground.upload("model.bin", "model.bin");
    // The pauses are made of it.
    if let Some(Place::Ssh(place)) = &mut spec.place {
        place.timeout_s = 1;
    }
    let handle = ground.start(spec).await;
    until("some of it is there", || part_size(&ground.there) > 0).await;
    ground.sshd.down();
    ground.proxy.set(Way::Cut);
    let ended = ground.ended(&handle).await;
    let log = ground.log(&handle).await;
    assert_eq!(ended.exit, Exit::Code { code: 1 }, "{log}");
    assert!(log.contains("given up after 5 tries without progress"), "{log}");
    assert!(log.contains("is left on `") && log.contains("until it can be reached"), "{log}");
    // The next server knows of it.
    ground.restart();
    assert!(part_size(&ground.there) > 0);
    ground.sshd.up().await;
    ground.proxy.set(Way::Open);
    until("it is removed", || parts(&ground.there).next().is_none()).await;
}

/// A disk of 3 MiB: one that is known to be too small, and one that another fills meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_host_is_named_and_nothing_is_left_on_it() {
    let mut ground = Ground::new().await;
    ground.bytes("model.bin", 4 * MIB);
    let at = ground.there.join("disk");
    std::fs::create_dir(&at).unwrap();
    let Some(_mounted) = Mounted::new(&at, "3m") else { return };
    let told = ground.refused(ground.upload("model.bin", "disk/model.bin")).await;
    assert!(told.contains("the disk of `") && told.contains("is full (`") && told.contains("4.0 MiB needed"), "{told}");

    ground.bytes("model.bin", 2 * MIB);
    ground.proxy.set(Way::StalledAfter(MIB));
    let handle = ground.start(ground.upload("model.bin", "disk/model.bin")).await;
    until("some of it is there", || part_size(&at) > 0).await;
    std::fs::write(at.join("other"), vec![1; 3 * MIB]).unwrap_err();
    ground.proxy.set(Way::Open);
    let ended = ground.ended(&handle).await;
    let told = ground.log(&handle).await;
    assert_eq!(ended.exit, Exit::Code { code: 78 }, "{told}");
    assert!(told.contains("is full (`") && told.contains("free space there"), "{told}");
    ground.nothing_is_left();
}

struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, size: &str) -> Option<Mounted> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("SKIP: a small disk needs the right to mount one");
            return None;
        }
        Some(Mounted(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
