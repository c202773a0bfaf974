//! What breaks on the way: the connection to the server, that of the server to the git host, the disk of the server.

use serde_json::json;

use crate::git_http::Pack;
use crate::proxy::{Proxy, Way};
use crate::world::Delivery;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_goes_on_when_the_link_is_cut_in_the_middle() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    let commit = world.commit("www/version.yaml", "a: 1\n");
    let to_server = Proxy::to(world.port).await;
    world.git.set(Pack::Held);
    let run = world.trigger(world.conf_with(json!({ "ssh_port": to_server.port })));
    world.pitcrew.wait("git fetches", || !world.git.packs().is_empty());
    to_server.set(Way::Cut);
    world.git.set(Pack::Whole);
    // Nobody watches it do so.
    world.pitcrew.wait("the checkout is there", || world.workspace().join("app/www/version.yaml").exists());
    to_server.set(Way::Open);
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    assert_eq!(world.told(&run, "deliver.checkout"), (1, String::new()));
    assert_eq!((world.output(&run, "deliver.checkout", "commit"), world.git.packs().len()), (commit, 1));

    // The git host's own connection breaks: git gives up, and the next try fetches what is new.
    let commit = world.commit("www/version.yaml", "a: 2\n");
    world.git.set(Pack::Cut);
    let run = world.trigger(world.conf("127.0.0.1"));
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    assert_eq!(world.told(&run, "deliver.checkout").0, 2, "{}", world.story(&run));
    assert_eq!(world.output(&run, "deliver.checkout", "commit"), commit);
    assert_eq!(world.git.packs(), [false, true, true], "a clone, and twice only what was missing");
    world.leaves_nothing();
    world.no_secret_anywhere();
}

/// Needs the right to mount; `scripts/test` says so where it is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_server_is_told_and_a_free_one_mends_it() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    std::fs::create_dir(world.workspace()).unwrap();
    let Some(disk) = Disk::mount(world.workspace()) else {
        assert!(std::env::var_os("PITCREW_TEST_MOUNT").is_none(), "this machine can mount, says `PITCREW_TEST_MOUNT`");
        eprintln!("SKIPPED: this user cannot mount a file system");
        return;
    };
    std::fs::write(world.workspace().join("filler"), vec![1; 1750 << 10]).unwrap();
    world.commit_to("app", &[("www/version.yaml", "a: 1\n"), ("large", &noise(400 << 10))]);
    let run = world.trigger(world.conf("127.0.0.1"));
    assert_eq!(world.ended(&run), "failed", "{}", world.story(&run));
    let (attempts, why) = world.told(&run, "deliver.checkout");
    assert_eq!(attempts, 1, "waiting frees no space: {why}");
    let place = format!("{}@127.0.0.1:{}", world.user, world.port);
    for words in ["the disk of this host is full", "free space there", &place, &disk.0.display().to_string()] {
        assert!(why.contains(words), "{words}: {why}");
    }
    std::fs::remove_file(world.workspace().join("filler")).unwrap();
    world.pitcrew.ok(&["runs", "retry", &run, "--failed"]);
    assert_eq!(world.ended(&run), "success", "{}", world.story(&run));
    world.leaves_nothing();
    world.no_secret_anywhere();
}

/// Text that does not get smaller.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 40) as u8 % 90)
    };
    (0..length).map(|_| next()).collect()
}

/// A small file system; no more when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: std::path::PathBuf) -> Option<Disk> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&at);
        mount.status().is_ok_and(|status| status.success()).then_some(Disk(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
