//! Hosts that cannot be reached, or that are no SSH servers: what is said, and how soon.

use pitcrew_exec::ssh::{Defaults, Draft, Fault, scan};
use pitcrew_exec::{Hop, SshPlace};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::sshd::{Sshd, free_port, user};
use crate::world::{World, place};

fn keyed() -> World {
    let world = World::new();
    world.offer(&world.key("key", "ed25519", ""));
    world
}

/// A server that says `hello` to whoever comes and reads on, or closes at once.
async fn server(hello: &'static str, closes: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(hello.as_bytes()).await.unwrap();
                if !closes {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_by_what_is_wrong() {
    let world = keyed();
    let (said, lasting) = world.refused(&SshPlace { host: "no-such-host.invalid".into(), ..place(22) }).await;
    assert!(
        said.starts_with("cannot find `no-such-host.invalid`: ") && said.ends_with("check the name of the host"),
        "{said}"
    );
    assert!(!lasting);

    let port = free_port();
    let (said, lasting) = world.refused(&place(port)).await;
    assert_eq!(said, format!("`127.0.0.1:{port}` refuses connections: is sshd running, is the port right?"));
    assert!(!lasting);
}

#[tokio::test]
async fn a_port_that_takes_no_connection_is_given_up_in_time() {
    // A queue for one, which is full: the kernel drops whoever comes next, as a firewall does.
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = tokio::net::TcpStream::connect(address).await.unwrap();
    let place = SshPlace { timeout_s: 1, ..place(address.port()) };
    let (said, lasting) = keyed().refused(&place).await;
    assert_eq!(
        said,
        format!("no answer from `{address}` within 1 s: check the address, the private link and the firewall")
    );
    assert!(!lasting);
}

#[tokio::test]
async fn what_is_no_ssh_server_is_told_by_what_it_says() {
    let world = keyed();
    for (hello, closes, part, lasts) in [
        ("", false, "took the connection and then said nothing for 1 s", false),
        ("", true, "closed the connection before it said hello", false),
        ("Exceeded MaxStartups\r\n", true, "(`MaxStartups`)", false),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", true, "not as an SSH server (`HTTP/1.1 400 Bad Request`)", true),
        ("220 mail\x1b[2J`\r\n", false, "not as an SSH server (`220 mail [2J`)", true),
        ("SSH-2.0-Odd\r\n", true, "broke during the key exchange", false),
        ("SSH-2.0-Odd\r\n", false, "said nothing for 1 s", false),
        ("SSH-1.5-Old\r\n", false, "not as an SSH server (`SSH-1.5-Old`)", true),
    ] {
        let port = server(hello, closes).await;
        let (said, lasting) = world.refused(&SshPlace { timeout_s: 1, ..place(port) }).await;
        assert!(said.contains(part), "{hello:?}: {said}");
        assert_eq!(lasting, lasts, "{hello:?}: {said}");
    }
}

#[tokio::test]
async fn a_server_without_a_common_cipher_is_told_with_what_it_offers() {
    let sshd = Sshd::start("Ciphers aes128-cbc").await;
    let (said, lasting) = keyed().refused(&place(sshd.port)).await;
    assert_eq!(said, "`127.0.0.1` and pitcrew share no cipher: it offers aes128-cbc");
    assert!(lasting);
}

#[tokio::test]
async fn a_host_is_reached_through_others_and_each_is_checked() {
    let (outer, inner) = (Sshd::start("").await, Sshd::start("").await);
    let world = World::admitted(&inner);
    outer.admit(&world.dir.path().join("key"));
    let hop = Hop { host: "127.0.0.1".into(), port: outer.port, user: user(), key: None };
    let through = SshPlace { jump: vec![hop.clone()], ..place(inner.port) };
    let connection = world.connect(&through).await.unwrap();
    assert!(connection.facts.is_new && connection.facts.host_key.starts_with("ED25519 SHA256:"));
    assert_eq!(world.setup.pins.pins().await.unwrap().len(), 2);
    drop(connection);

    // What is wrong with a hop is told of the hop.
    outer.admit(&world.key("other", "ed25519", ""));
    let (said, lasting) = world.refused(&through).await;
    let via = format!("via `{}@127.0.0.1:{}`: `127.0.0.1` accepts none of the keys", user(), outer.port);
    assert!(said.starts_with(&via) && lasting, "{said}");
    outer.admit(&world.dir.path().join("key"));

    // The way on may be closed, by the settings of the hop or because nobody is there.
    let nobody = SshPlace { jump: vec![hop], ..place(free_port()) };
    let (said, lasting) = world.refused(&nobody).await;
    assert!(said.contains("opens no way to `127.0.0.1:") && !lasting, "{said}");
    let closed = Sshd::start("AllowTcpForwarding no").await;
    closed.admit(&world.dir.path().join("key"));
    let hop = Hop { host: "127.0.0.1".into(), port: closed.port, user: user(), key: None };
    let (said, _) = world.refused(&SshPlace { jump: vec![hop], ..place(inner.port) }).await;
    assert!(said.contains("`AllowTcpForwarding`"), "{said}");
}

#[tokio::test]
async fn the_file_of_the_user_names_address_key_and_way() {
    let (outer, inner) = (Sshd::start("").await, Sshd::start("").await);
    let world = World::new();
    let key = world.key("key", "ed25519", "");
    outer.admit(&key);
    inner.admit(&key);
    let me = user();
    world.home(
        ".ssh/config",
        &format!(
            "Host gpu\n HostName 127.0.0.1\n Port {}\n User {me}\n ProxyJump door\nHost door\n HostName localhost\n \
             Port {}\n HostKeyAlias the-door\nHost *\n IdentityFile {}\n",
            inner.port,
            outer.port,
            key.display()
        ),
    );
    let file = world.setup.config_file().unwrap();
    let place = Draft::new("gpu").place(&file, &Defaults::default()).unwrap();
    assert_eq!((place.port, place.user.as_str(), place.jump.len()), (inner.port, me.as_str(), 1));
    let connection = world.connect(&place).await.unwrap();
    assert!(connection.facts.key.contains(&key.display().to_string()), "{}", connection.facts.key);
    let names: Vec<String> = world.setup.pins.pins().await.unwrap().into_iter().map(|pin| pin.name).collect();
    assert_eq!(names, ["the-door".to_owned(), format!("[127.0.0.1]:{}", inner.port)]);

    world.home(".ssh/config", "Host gpu\n ProxyCommand nc %h %p\n");
    let (said, lasting) = world.refused(&SshPlace { jump: Vec::new(), ..place }).await;
    assert!(said.contains("`ProxyCommand` runs a program") && lasting, "{said}");
}

#[tokio::test]
async fn a_host_key_can_be_looked_at_without_signing_in() {
    let sshd = Sshd::start("").await;
    let world = World::new();
    let key = scan(&place(sshd.port), &world.setup).await.unwrap();
    assert_eq!(key.to_openssh().unwrap().trim(), sshd.host_key("ed25519"));
    assert!(world.setup.pins.pins().await.unwrap().is_empty());
    let error = scan(&place(free_port()), &world.setup).await.unwrap_err();
    assert!(matches!(error.fault, Fault::ClosedPort { .. }));
}
