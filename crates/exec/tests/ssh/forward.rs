//! Sockets on a host that lead to an agent here, and hosts that open what they were not asked for.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use pitcrew_exec::ssh::agent::Agent;
use pitcrew_exec::ssh::{Limits, LinkError, Pool, PrivateKeyText};
use russh::keys::PrivateKey;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Server as _, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::sshd::{Sshd, keygen, until};
use crate::world::{World, place};

fn agent(world: &World) -> Arc<Agent> {
    let file = world.key("lent", "ed25519", "");
    Arc::new(Agent::new(&PrivateKeyText::new(&std::fs::read_to_string(file).unwrap(), "key")).unwrap())
}

/// What `ssh-add -l` says at the socket.
fn listed(socket: &Path) -> Option<String> {
    let out = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", socket).output().unwrap();
    out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_leads_to_the_agent_until_it_is_dropped() {
    let sshd = Sshd::start("").await;
    let world = World::admitted(&sshd);
    let (pool, place, agent) = (Pool::new(world.setup.clone(), Limits::default()), place(sshd.port), agent(&world));
    let path = world.dir.path().join("agent.sock");
    let socket = path.to_str().unwrap();
    let forward = pool.forward(&place, socket, agent.clone(), "the-label").await.unwrap();
    let said = listed(&path).unwrap();
    assert!(said.lines().count() == 1 && said.contains("the-label (ED25519)"), "{said}");
    for refused in [&["-D"][..], &["-x"], &["-d", "key"]] {
        let mut command = Command::new("ssh-add");
        command.args(refused).current_dir(world.dir.path()).env("SSH_AUTH_SOCK", &path).env("SSH_ASKPASS", "true");
        assert!(!command.output().unwrap().status.success(), "{refused:?}");
    }
    // It keeps the connection, and no session of it.
    assert_eq!(pool.close_idle(std::time::Duration::ZERO).await, 0);
    assert!(!forward.is_closed());

    // A second one at the same place is refused, as the socket is there.
    let error = pool.forward(&place, socket, agent.clone(), "").await.err().unwrap();
    assert!(matches!(error, LinkError::NoForward { .. }) && error.lasting(), "{error}");
    assert_eq!(listed(&path), Some(said.clone()));
    // Each socket leads to its own agent, on one connection.
    let beside = world.dir.path().join("beside.sock");
    let other = world.key("other", "ecdsa", "");
    let other = PrivateKeyText::new(&std::fs::read_to_string(other).unwrap(), "key");
    let other = pool.forward(&place, beside.to_str().unwrap(), Arc::new(Agent::new(&other).unwrap()), "other").await;
    assert!(listed(&beside).unwrap().contains("other (ECDSA)") && listed(&path) == Some(said));
    drop(other);
    until("nobody answers beside it", || listed(&beside).is_none()).await;

    // Whoever waits for an answer does not wait for ever.
    let mut waits = tokio::net::UnixStream::connect(&path).await.unwrap();
    waits.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
    waits.read_exact(&mut [0; 9]).await.unwrap();
    drop(forward);
    let gone = async { while !matches!(waits.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.unwrap();
    until("nobody answers there", || listed(&path).is_none()).await;
    // Nothing holds the connection any more.
    let closed = async {
        while pool.close_idle(std::time::Duration::ZERO).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), closed).await.unwrap();
    assert_eq!(sshd.logins(), 1);
}

#[tokio::test]
async fn a_host_that_makes_no_sockets_says_which_setting_forbids_it() {
    for settings in ["AllowStreamLocalForwarding no", "DisableForwarding yes"] {
        let sshd = Sshd::start(settings).await;
        let world = World::admitted(&sshd);
        let pool = Pool::new(world.setup.clone(), Limits::default());
        let (place, agent) = (place(sshd.port), agent(&world));
        let path = world.dir.path().join("s");
        let error = pool.forward(&place, path.to_str().unwrap(), agent.clone(), "").await.err().unwrap();
        let said = error.to_string();
        assert!(said.contains("`AllowStreamLocalForwarding`") && said.contains("use a token"), "{said}");
        assert!(error.lasting());
        let long = format!("/{}", "x".repeat(107));
        let said = pool.forward(&place, &long, agent, "").await.err().unwrap().to_string();
        assert!(said.contains("would be too long"), "{said}");
        // Commands go on as before.
        assert!(pool.get(&place).await.unwrap().run("true", b"").await.unwrap().is_success());
    }
}

/// A host that opens every kind of channel to its clients, and notes what they take.
#[derive(Clone, Default)]
struct Hostile {
    handle: Arc<Mutex<Option<server::Handle>>>,
}

impl server::Server for Hostile {
    type Handler = Hostile;

    fn new_client(&mut self, _: Option<std::net::SocketAddr>) -> Hostile {
        self.clone()
    }
}

impl server::Handler for Hostile {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        *self.handle.lock().unwrap() = Some(session.handle());
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(id)?;
        session.exit_status_request(id, 0)?;
        session.close(id)?;
        Ok(())
    }

    async fn streamlocal_forward(&mut self, _: &str, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn cancel_streamlocal_forward(&mut self, _: &str, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Asks a client's agent for its keys through a channel to this socket, if it takes one.
async fn keys_through(host: &server::Handle, path: &str) -> Option<Vec<u8>> {
    let mut stream = host.channel_open_forwarded_streamlocal(path).await.ok()?.into_stream();
    stream.write_all(&[0, 0, 0, 1, 11]).await.ok()?;
    let mut answer = vec![0; 9];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer[4..].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_opens_nothing_that_it_was_not_asked_for() {
    let world = World::new();
    world.offer(&world.key("key", "ed25519", ""));
    keygen(&world.dir.path().join("host"), "ed25519", "");
    let host_key = PrivateKey::read_openssh_file(world.dir.path().join("host")).unwrap();
    let config = Arc::new(server::Config { keys: vec![host_key], ..server::Config::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut hostile = Hostile::default();
    let seen = hostile.handle.clone();
    tokio::spawn(async move { hostile.run_on_socket(config, &listener).await });

    let (pool, place) = (Pool::new(world.setup.clone(), Limits::default()), place(port));
    assert!(pool.get(&place).await.unwrap().run("true", b"").await.unwrap().is_success());
    let host = seen.lock().unwrap().clone().unwrap();
    let refused = async |wanted: &str| {
        assert!(host.channel_open_session().await.is_err(), "a session");
        assert!(host.channel_open_agent().await.is_err(), "an agent");
        assert!(host.channel_open_x11("127.0.0.1", 1).await.is_err(), "X11");
        assert!(host.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err(), "a way on");
        assert!(host.channel_open_direct_streamlocal("/run/x").await.is_err(), "a socket here");
        assert!(host.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err(), "a port");
        for path in ["", "/", "/tmp/other", &format!("{wanted}x"), &format!("/{wanted}")] {
            assert!(keys_through(&host, path).await.is_none(), "{path:?}");
        }
    };
    let wanted = "/home/u/agent.sock";
    refused(wanted).await;
    assert!(keys_through(&host, wanted).await.is_none());

    let agent = agent(&world);
    let forward = pool.forward(&place, wanted, agent, "l").await.unwrap();
    assert_eq!(keys_through(&host, wanted).await, Some(vec![12, 0, 0, 0, 1]));
    refused(wanted).await;
    // Many at a time, without a word: a few are taken, and each that goes makes room.
    let mut open = Vec::new();
    while let Ok(channel) = host.channel_open_forwarded_streamlocal(wanted).await {
        open.push(channel);
        assert!(open.len() < 100, "without end");
    }
    assert!(!open.is_empty());
    open.pop().unwrap().close().await.unwrap();
    let again = async {
        while keys_through(&host, wanted).await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), again).await.unwrap();

    drop(forward);
    assert!(keys_through(&host, wanted).await.is_none());
    refused(wanted).await;
    assert!(pool.get(&place).await.unwrap().run("true", b"").await.unwrap().is_success());
}
