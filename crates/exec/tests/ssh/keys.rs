//! Signing in: keys of every kind and form, refusals, the agent, and a key that was replaced.

use std::sync::atomic::Ordering;

use pitcrew_exec::SshPlace;

use crate::sshd::{Sshd, until};
use crate::world::{Agent, World, place};

#[tokio::test]
async fn every_kind_of_key_signs_in_however_its_text_was_kept() {
    let sshd = Sshd::start("").await;
    let world = World::new();
    for (name, kind, passphrase) in
        [("a", "ed25519", ""), ("b", "ecdsa", ""), ("c", "rsa", ""), ("d", "ed25519", "a pass phrase")]
    {
        let key = world.key(name, kind, passphrase);
        sshd.admit(&key);
        world.offer_text(&std::fs::read_to_string(&key).unwrap(), Some(passphrase));
        let connection = world.connect(&place(sshd.port)).await.unwrap();
        assert!(connection.facts.key.ends_with(" of secret `test`"), "{}", connection.facts.key);
    }
    // PEM as older programs and AWS give it, plain and encrypted.
    for (name, passphrase) in [("e", ""), ("f", "secret")] {
        let key = world.dir.path().join(name);
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "rsa", "-m", "PEM", "-N", passphrase, "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        sshd.admit(&key);
        let text = std::fs::read_to_string(&key).unwrap();
        assert!(text.contains("BEGIN RSA PRIVATE KEY"));
        let kept = text.replace('\n', "\\n");
        for text in [text.replace('\n', "\r\n"), kept, format!("  {}", text.trim_end())] {
            world.offer_text(&text, Some(passphrase));
            world.connect(&place(sshd.port)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_told_before_anything_is_connected() {
    let sshd = Sshd::start("").await;
    let world = World::new();
    let key = world.key("key", "ed25519", "right");
    let text = std::fs::read_to_string(&key).unwrap();
    for (text, passphrase, words) in [
        (text.as_str(), None, "secret `test` is an encrypted key: give its `passphrase`"),
        (text.as_str(), Some("wrong"), "secret `test` is an encrypted key, and the passphrase does not fit"),
        (
            "ssh-ed25519 AAAA",
            None,
            "secret `test` holds no private key: it begins with `ssh-ed25519` (that is the public half)",
        ),
        (&text[..100], None, "secret `test` is cut off: it has no line `-----END … PRIVATE KEY-----`"),
    ] {
        world.offer_text(text, passphrase);
        assert_eq!(world.refused(&place(sshd.port)).await, (words.to_owned(), true));
    }
    assert!(!sshd.log().contains("Connection from"), "{}", sshd.log());
}

#[tokio::test]
async fn a_refused_key_is_told_with_its_fingerprint_and_looked_up_anew_once() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let (right, wrong) = (world.dir.path().join("key"), world.key("wrong", "ed25519", ""));
    world.offer(&wrong);
    let (said, lasting) = world.refused(&place(sshd.port)).await;
    assert!(said.starts_with("`127.0.0.1` accepts none of the keys offered for `") && lasting, "{said}");
    assert!(said.contains("(ED25519 SHA256:") && said.contains(" of secret `test`)"), "{said}");
    assert!(!said.contains("PRIVATE"), "{said}");
    assert_eq!(world.keys.refreshed.swap(0, Ordering::Relaxed), 1);
    until("sshd saw one sign-in, and its end", || {
        let log = sshd.log();
        log.matches("Connection closed by").count() == 1 && log.matches("Connection reset by").count() == 0
    })
    .await;

    // It was replaced meanwhile: the newer one signs in, on the same connection.
    *world.keys.newer.lock().unwrap() = Some(std::fs::read_to_string(&right).unwrap());
    world.connect(&place(sshd.port)).await.unwrap();
    assert_eq!(world.keys.refreshed.load(Ordering::Relaxed), 1);

    // A user that is not there is refused with the same words: sshd does not tell.
    let nobody = SshPlace { user: "no-such-user".into(), ..place(sshd.port) };
    let (said, lasting) = world.refused(&nobody).await;
    assert!(said.contains("none of the keys offered for `no-such-user`") && lasting, "{said}");
}

#[tokio::test]
async fn a_host_that_wants_something_else_than_a_key_is_told_apart() {
    for (settings, part) in [
        ("AuthenticationMethods publickey,password\nPasswordAuthentication yes", "wants also `password`"),
        ("PubkeyAuthentication no\nPasswordAuthentication yes", "sign in by `password` only"),
    ] {
        let sshd = Sshd::start(settings).await;
        let world = World::admitted(&sshd);
        let (said, lasting) = world.refused(&place(sshd.port)).await;
        assert!(said.contains(part) && lasting, "{said}");
    }
    let sshd = Sshd::start("MaxAuthTries 1").await;
    let world = World::admitted(&sshd);
    world.offer(&world.key("wrong", "ed25519", ""));
    let (said, lasting) = world.refused(&place(sshd.port)).await;
    assert!(said.contains("accepts none of the keys offered") && lasting, "{said}");
}

#[tokio::test]
async fn without_a_named_key_the_agent_and_the_home_directory_are_asked() {
    let sshd = Sshd::start("").await;
    let mut world = World::new();
    let (said, lasting) = world.refused(&place(sshd.port)).await;
    assert!(said.contains("there is no key to sign in") && said.contains("name one (`key`)") && lasting, "{said}");

    let key = world.key("key", "ed25519", "");
    sshd.admit(&key);
    let home = world.home(".ssh/id_ed25519", &std::fs::read_to_string(&key).unwrap());
    world.connect(&place(sshd.port)).await.unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (said, _) = world.refused(&place(sshd.port)).await;
    assert!(said.contains("others can read `") && said.contains("(0644): `chmod 600 "), "{said}");

    // An agent has many keys; five are offered, as sshd ends the connection after six.
    let rsa = world.key("rsa", "rsa", "");
    sshd.admit(&rsa);
    let agent = Agent::start(world.dir.path(), &[&rsa]).await;
    world.setup.agent = Some(agent.socket.clone());
    let connection = world.connect(&place(sshd.port)).await.unwrap();
    assert!(connection.facts.key.starts_with("RSA SHA256:") && connection.facts.key.ends_with(" of the agent"));
    drop(agent);
    std::fs::remove_file(world.setup.agent.as_ref().unwrap()).ok();
    let others: Vec<_> = (0..7).map(|n| world.key(&format!("other{n}"), "ed25519", "")).collect();
    let others: Vec<_> = others.iter().map(|path| path.as_path()).collect();
    let _agent = Agent::start(world.dir.path(), &others).await;
    let (said, lasting) = world.refused(&place(sshd.port)).await;
    assert_eq!((said.matches("of the agent").count(), lasting), (5, true), "{said}");

    // The one that the file of the user names comes first, and alone if it says so.
    let text = format!("IdentityFile {}\nIdentitiesOnly yes\n", rsa.display());
    world.home(".ssh/config", &text);
    let connection = world.connect(&place(sshd.port)).await.unwrap();
    assert!(connection.facts.key.contains("/rsa`"), "{}", connection.facts.key);
    world.setup.agent = Some(world.dir.path().join("nobody-listens"));
    std::fs::remove_file(world.setup.home.join(".ssh/config")).unwrap();
    let (said, _) = world.refused(&place(sshd.port)).await;
    assert!(said.contains("the agent at `") && said.contains("cannot be asked"), "{said}");
}
