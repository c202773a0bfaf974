//! The SSH side of a machine of a drill: a server of our own on loopback, so that Pitcrew reaches the machine as it reaches any.
//!
//! Only the key of the drill gets in, and what it asks to be run is run in the directory of the machine. While the machine is
//! down, connections break and new ones are closed at once.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::{AbortHandle, JoinSet};

use super::machine::Machine;

/// Bytes on the way between a connection and its session.
const PIPE: usize = 256 << 10;
/// For a sign-in with a key that nobody knows.
const REJECTION: Duration = Duration::from_millis(100);

/// The keys of a drill: one that every machine shows, and one that opens all of them.
pub struct Keys {
    pub host: PrivateKey,
    pub user: PrivateKey,
}

impl Keys {
    pub fn new() -> anyhow::Result<Keys> {
        Ok(Keys { host: key()?, user: key()? })
    }

    /// The private half of the user's, as a file holds it.
    pub fn user_file(&self) -> anyhow::Result<String> {
        let text = self.user.to_openssh(LineEnding::LF).context("cannot write a key")?;
        Ok(text.to_string())
    }

    /// The public half of the host's.
    pub fn host_line(&self) -> anyhow::Result<String> {
        self.host.public_key().to_openssh().context("cannot write a key")
    }
}

fn key() -> anyhow::Result<PrivateKey> {
    let mut seed = [0u8; 32];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| anyhow::anyhow!("this computer gives no random numbers"))?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// Answers for a machine until it is dropped.
pub struct Host {
    pub port: u16,
    task: AbortHandle,
}

impl Host {
    pub async fn start(machine: Arc<Machine>, keys: &Keys) -> anyhow::Result<Host> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on the loopback address")?;
        let port = listener.local_addr()?.port();
        let config = Config {
            keys: vec![keys.host.clone()],
            auth_rejection_time: REJECTION,
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: None,
            nodelay: true,
            ..Config::default()
        };
        let guest = Guest { machine, key: keys.user.public_key().clone(), open: HashMap::new() };
        let task = tokio::spawn(serve(listener, Arc::new(config), guest)).abort_handle();
        Ok(Host { port, task })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, config: Arc<Config>, guest: Guest) {
    let mut is_up = guest.machine.is_up();
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if *is_up.borrow() => {
                    guests.spawn(one(stream, Arc::clone(&config), guest.clone()));
                }
                // Nobody is there.
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a machine of a drill cannot be connected to"),
            },
            changed = is_up.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*is_up.borrow_and_update() {
                    guests.abort_all();
                }
            }
            Some(_) = guests.join_next(), if !guests.is_empty() => {}
        }
    }
}

/// A connection. Between it and its session there is a pipe, so that it can be cut without a word.
async fn one(mut stream: TcpStream, config: Arc<Config>, guest: Guest) {
    let (mut near, far) = tokio::io::duplex(PIPE);
    let session = async {
        match run_stream(config, far, guest).await {
            Ok(running) => drop(running.await),
            Err(error) => tracing::debug!(%error, "a connection to a machine of a drill ended early"),
        }
    };
    // Whichever ends first ends the other.
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut stream, &mut near) => {}
        () = session => {}
    }
}

/// Whoever has connected.
struct Guest {
    machine: Arc<Machine>,
    key: PublicKey,
    open: HashMap<ChannelId, Channel<Msg>>,
}

impl Clone for Guest {
    fn clone(&self) -> Guest {
        Guest { machine: Arc::clone(&self.machine), key: self.key.clone(), open: HashMap::new() }
    }
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let is_known = key.public_key.key_data() == self.key.key_data();
        Ok(if is_known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.open.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let Some(channel) = self.open.remove(&id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let command = String::from_utf8_lossy(command).into_owned();
        tokio::spawn(run(Arc::clone(&self.machine), channel, command));
        Ok(())
    }
}

/// Runs a command on the machine, with the channel as its input and output.
async fn run(machine: Arc<Machine>, channel: Channel<Msg>, command: String) {
    let (mut read, write) = channel.split();
    let spawned = Command::new("/bin/sh")
        .args(["-c", &command])
        .env_clear()
        .envs(machine.env())
        .current_dir(machine.dir().join("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let code = match spawned {
        Err(error) => {
            // The answer to one who has gone is for nobody.
            let _ = write.extended_data_bytes(1, format!("{error}\n")).await;
            126
        }
        Ok(mut child) => {
            let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let feed = tokio::spawn(async move {
                if let Some(mut input) = input {
                    let _ = tokio::io::copy(&mut read.make_reader(), &mut input).await;
                }
            });
            let (mut to_output, mut to_errors) = (write.make_writer(), write.make_writer_ext(Some(1)));
            let say = async {
                if let Some(mut output) = output {
                    let _ = tokio::io::copy(&mut output, &mut to_output).await;
                }
            };
            let complain = async {
                if let Some(mut errors) = errors {
                    let _ = tokio::io::copy(&mut errors, &mut to_errors).await;
                }
            };
            tokio::join!(say, complain);
            let ended = child.wait().await;
            feed.abort();
            ended.ok().and_then(|status| status.code()).map_or(137, |code| code as u32)
        }
    };
    if let Err(error) = machine.look().await {
        tracing::error!("a machine of a drill is broken: {error:#}");
    }
    let _ = write.exit_status(code).await;
    let _ = write.eof().await;
    let _ = write.close().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use russh::client;
    use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
    use tokio::sync::mpsc;

    use super::*;

    struct Caller;

    impl client::Handler for Caller {
        type Error = russh::Error;

        async fn check_server_key(&mut self, _key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
            Ok(true)
        }
    }

    /// Whether this key gets in.
    async fn opens(port: u16, key: &PrivateKey) -> bool {
        let config = Arc::new(client::Config::default());
        let mut session = client::connect(config, ("127.0.0.1", port), Caller).await.unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
        session.authenticate_publickey("drill", key).await.unwrap().success()
    }

    #[tokio::test]
    async fn only_the_key_of_the_drill_gets_in() {
        let dir = std::env::temp_dir().join(format!("pitcrew-host-{}", uuid::Uuid::now_v7()));
        let (sender, _happened) = mpsc::unbounded_channel();
        let machine = Arc::new(Machine::make(dir.clone(), "m1", 1, Duration::ZERO, sender).unwrap());
        let keys = Keys::new().unwrap();
        let host = Host::start(machine, &keys).await.unwrap();
        assert!(opens(host.port, &keys.user).await);
        assert!(!opens(host.port, &keys.host).await);
        assert!(!opens(host.port, &Keys::new().unwrap().user).await);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
