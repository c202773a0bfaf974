//! Which host keys are accepted, and what is said of those that are not.

use pitcrew_exec::{HostKeys, SshPlace};

use crate::sshd::Sshd;
use crate::world::{World, place};

#[tokio::test]
async fn a_new_host_is_recorded_and_a_changed_one_is_refused_with_both_fingerprints() {
    let mut sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let of_connection = SshPlace { connection: Some("gpu".into()), ..place(sshd.port) };
    assert!(world.connect(&of_connection).await.unwrap().facts.is_new);
    let known = world.connect(&place(sshd.port)).await.unwrap().facts;
    assert!(!known.is_new);
    let pins = world.setup.pins.pins().await.unwrap();
    assert_eq!((pins.len(), pins[0].name.as_str()), (1, format!("[127.0.0.1]:{}", sshd.port).as_str()));
    assert!(pins[0].who.ends_with(" (connection gpu)"), "{}", pins[0].who);

    sshd.down();
    sshd.change_host_key("ed25519");
    sshd.up().await;
    let (said, lasting) = world.refused(&place(sshd.port)).await;
    assert!(said.starts_with("the host key of `127.0.0.1` changed: expected ") && lasting, "{said}");
    assert!(said.contains(&format!("expected {} (pinned 20", known.host_key)), "{said}");
    assert!(said.contains(", got ED25519 SHA256:") && said.contains("ssh_host_ed25519_key.pub"), "{said}");
    assert!(said.contains(&format!("`pitcrew ssh hosts forget 127.0.0.1:{}`", sshd.port)), "{said}");
    // Nothing was sent to it that signs in.
    assert!(!sshd.log().contains("publickey"), "{}", sshd.log());

    assert_eq!(world.setup.pins.remove(&pins[0].name).await.unwrap(), 1);
    assert!(world.connect(&place(sshd.port)).await.unwrap().facts.is_new);
}

#[tokio::test]
async fn a_host_with_another_type_of_key_than_the_known_one_is_no_known_host() {
    let sshd = Sshd::with_host_keys(&["rsa", "ed25519"], "").await;
    let world = World::admitted(&sshd);
    // The known type is asked for, though another one would be preferred.
    let name = format!("[127.0.0.1]:{}", sshd.port);
    let known = world.home(".ssh/known_hosts", &format!("{name} {}\n", sshd.host_key("rsa")));
    let facts = world.connect(&place(sshd.port)).await.unwrap().facts;
    assert!(facts.host_key.starts_with("RSA ") && !facts.is_new);

    let other = Sshd::start("").await;
    other.admit(&world.dir.path().join("key"));
    let line = format!("[127.0.0.1]:{} {}\n", other.port, sshd.host_key("rsa"));
    std::fs::write(&known, format!("# a comment\n\n{line}")).unwrap();
    let (said, lasting) = world.refused(&place(other.port)).await;
    assert!(said.contains("changed: expected RSA SHA256:") && said.contains("known_hosts line 3)"), "{said}");
    assert!(said.contains("ssh-keygen -R '[127.0.0.1]:") && lasting, "{said}");
}

#[tokio::test]
async fn known_hosts_may_be_hashed_and_revoked_and_strict_takes_no_other() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let strict = SshPlace { host_keys: HostKeys::Strict, ..place(sshd.port) };
    let (said, lasting) = world.refused(&strict).await;
    assert!(said.contains("`127.0.0.1` is not in known_hosts (it shows ED25519 SHA256:") && lasting, "{said}");
    assert!(said.contains(&format!("`pitcrew ssh hosts trust 127.0.0.1:{}`", sshd.port)), "{said}");
    assert!(world.setup.pins.pins().await.unwrap().is_empty());

    let name = format!("[127.0.0.1]:{}", sshd.port);
    let file = world.home(".ssh/known_hosts", &format!("{name} {}\n", sshd.host_key("ed25519")));
    let hashed = std::process::Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output().unwrap();
    assert!(hashed.status.success() && !std::fs::read_to_string(&file).unwrap().contains("127.0.0.1"));
    assert!(!world.connect(&strict).await.unwrap().facts.is_new);

    world.home(".ssh/known_hosts", &format!("@revoked * {}\n", sshd.host_key("ed25519")));
    for policy in [HostKeys::AcceptNew, HostKeys::Strict] {
        let (said, lasting) = world.refused(&SshPlace { host_keys: policy, ..place(sshd.port) }).await;
        assert!(said.contains("is marked as revoked (") && said.contains("known_hosts line 1)") && lasting, "{said}");
    }
}

#[tokio::test]
async fn a_pinned_key_is_found_whatever_its_type() {
    let sshd = Sshd::with_host_keys(&["ed25519", "rsa"], "").await;
    let world = World::admitted(&sshd);
    let pinned =
        |fingerprint: &str| SshPlace { host_keys: HostKeys::Pinned(fingerprint.to_owned()), ..place(sshd.port) };
    for kind in ["ed25519", "rsa"] {
        let listed = std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(sshd.dir.path().join(format!("host_{kind}.pub")))
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let fingerprint = listed.split(' ').nth(1).unwrap();
        let facts = world.connect(&pinned(fingerprint)).await.unwrap().facts;
        assert!(facts.host_key.ends_with(fingerprint), "{}", facts.host_key);
    }
    let (said, lasting) = world.refused(&pinned("SHA256:nobody")).await;
    assert!(said.contains("is not the pinned one: expected SHA256:nobody, got ED25519 SHA256:") && lasting, "{said}");
    assert!(world.setup.pins.pins().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_lets_nobody_in() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    std::fs::create_dir_all(world.dir.path().join("data/ssh")).unwrap();
    std::fs::write(world.dir.path().join("data/ssh/known_hosts"), "what\n").unwrap();
    let (said, lasting) = world.refused(&place(sshd.port)).await;
    assert!(said.contains("cannot be checked: `") && said.contains("line 1 is damaged") && lasting, "{said}");
}
