//! One connection: through the jump hosts to the host, its key checked at each, signed in at each.
//!
//! Invariants: every step has an end in time, so a host that says nothing costs [`SshPlace::timeout_s`] per hop and no
//! more; what is given up is closed at once; a host opens no channel to us but to sockets that we asked it for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Handle, Msg, Session};
use russh::keys::{Algorithm, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, Disconnect, Preferred, SshId};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::auth::{KeySource, Login, Offers};
use super::config_file::{ConfigFile, HostSettings};
use super::error::{DialError, Fault, clean};
use super::forward::Sockets;
use super::hostkey::{self, Known, Verdict};
use super::pins::{HostKeyStore, Pin};
use super::wire::{Cut, Hello, Stream, Wire};
use crate::clock;
use crate::place::{HostKeys, SshPlace};

/// A host that says nothing for this long is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Unanswered questions after which it is not.
const KEEP_ALIVE_TIMES: usize = 3;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes of a command's output under way.
const WINDOW: u32 = 256 << 10;
/// Messages that wait for one channel; whoever has one takes them at once.
const CHANNEL_BUFFER: usize = 32;

/// What connecting needs beyond the place.
#[derive(Clone)]
pub struct Setup {
    pub keys: Arc<dyn KeySource>,
    pub pins: Arc<dyn HostKeyStore>,
    /// Where `.ssh` is.
    pub home: PathBuf,
    /// The socket of an agent.
    pub agent: Option<PathBuf>,
}

impl Setup {
    /// With the home directory and the agent of this process.
    pub fn of_process(keys: Arc<dyn KeySource>, pins: Arc<dyn HostKeyStore>) -> Setup {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME").unwrap_or_else(|| PathBuf::from("/nonexistent"));
        Setup { keys, pins, home, agent: path("SSH_AUTH_SOCK") }
    }

    /// `~/.ssh/config`, as it is now.
    pub fn config_file(&self) -> Result<ConfigFile, Fault> {
        ConfigFile::load(&self.home)
    }

    fn known_hosts(&self, settings: &HostSettings) -> Vec<PathBuf> {
        let mut files = settings.known_hosts.clone();
        if files.is_empty() {
            files = ["known_hosts", "known_hosts2"].map(|name| self.home.join(".ssh").join(name)).into();
        }
        files.push("/etc/ssh/ssh_known_hosts".into());
        files
    }
}

/// A connection that is signed in. Dropping it closes it, and the ways through jump hosts with it.
pub struct Connection {
    handle: Handle<Client>,
    seen: Arc<Seen>,
    sockets: Sockets,
    pub facts: Facts,
    _cut: Cut,
    /// The jump host that it goes through.
    _outer: Option<Box<Connection>>,
}

/// What was learnt while connecting.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// `ED25519 SHA256:…`.
    pub host_key: String,
    /// The host was not known before.
    pub is_new: bool,
    /// As the server names itself.
    pub software: String,
    /// Which key signed in.
    pub key: String,
    /// All of it, jump hosts included.
    pub took: Duration,
}

impl Connection {
    pub(super) fn handle(&self) -> &Handle<Client> {
        &self.handle
    }

    pub(super) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Why it ended, in words.
    pub fn why_closed(&self) -> String {
        match self.seen.ended() {
            words if words.is_empty() => "the connection ended".to_owned(),
            words => words,
        }
    }

    /// Says goodbye, so that the host logs a clean end, and waits a moment for it to be sent.
    pub async fn close(mut self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
        let _ = tokio::time::timeout(GOODBYE, &mut self.handle).await;
    }
}

/// Connects and signs in. Looks keys up first: without one, nothing is connected.
pub async fn connect(place: &SshPlace, setup: &Setup) -> Result<Connection, DialError> {
    let began = clock::instant();
    let file = setup.config_file()?;
    let mut connection: Option<Connection> = None;
    for (at, hop) in place.jump.iter().enumerate() {
        // A pinned key is that of the place.
        let policy = match &place.host_keys {
            HostKeys::Pinned(_) => &HostKeys::AcceptNew,
            policy => policy,
        };
        let stage = Stage { place, setup, hop: at, host: &hop.host, port: hop.port, user: &hop.user, policy };
        let reached = stage.reach(&file, connection.take()).await;
        connection = Some(reached.map_err(|fault| DialError { via: Some(hop.to_string()), fault })?);
    }
    let SshPlace { host, port, user, host_keys, jump, .. } = place;
    let stage = Stage { place, setup, hop: jump.len(), host, port: *port, user, policy: host_keys };
    let mut connection = stage.reach(&file, connection).await?;
    connection.facts.took = clock::instant() - began;
    Ok(connection)
}

/// The key that a host shows, without signing in to it.
pub async fn scan(place: &SshPlace, setup: &Setup) -> Result<PublicKey, DialError> {
    let SshPlace { host, port, user, host_keys, .. } = place;
    let stage = Stage { place, setup, hop: 0, host, port: *port, user, policy: host_keys };
    let settings = setup.config_file()?.settings(host, Some(user), Some(*port))?;
    let name = hostkey::name_of(&settings, host, *port);
    let known = Known::load(host, *port, name, &HostKeys::Strict, &[], setup.pins.as_ref()).await?;
    let terms = stage.terms(known, &settings);
    let stream = stage.stream(settings.host_name.as_deref().unwrap_or(host), None, terms.deadline).await?;
    match stage.greet(stream, &terms, &known_types(&[])).await {
        Ok(greeted) => Ok(greeted.key),
        Err((fault, seen)) => seen.key().ok_or_else(|| fault.into()),
    }
}

/// All types but those that were seen.
fn known_types(seen: &[Algorithm]) -> impl Fn(&Algorithm) -> bool + use<> {
    let seen = seen.to_vec();
    move |offered| !seen.iter().any(|seen| hostkey::is_same_type(seen, offered))
}

/// One host on the way.
struct Stage<'a> {
    place: &'a SshPlace,
    setup: &'a Setup,
    hop: usize,
    host: &'a str,
    port: u16,
    user: &'a str,
    policy: &'a HostKeys,
}

/// What a handshake goes by.
struct Terms {
    known: Arc<Known>,
    /// How often a silent host is asked whether it is there, and how often in vain.
    keep_alive: Option<Duration>,
    keep_alive_times: usize,
    deadline: Instant,
}

/// The host showed a key that is accepted.
struct Greeted {
    handle: Handle<Client>,
    seen: Arc<Seen>,
    sockets: Sockets,
    cut: Cut,
    hello: Hello,
    key: PublicKey,
    is_new: bool,
}

impl Stage<'_> {
    async fn reach(&self, file: &ConfigFile, outer: Option<Connection>) -> Result<Connection, Fault> {
        let settings = file.settings(self.host, Some(self.user), Some(self.port))?;
        // The way there is that of the place; only what would run a program is refused above.
        let address = settings.host_name.as_deref().unwrap_or(self.host);
        let files = self.setup.known_hosts(&settings);
        let name = hostkey::name_of(&settings, self.host, self.port);
        let pins = self.setup.pins.as_ref();
        let known = Known::load(address, self.port, name, self.policy, &files, pins).await?;
        let offers = Offers::gather(self.place, self.hop, &settings, self.setup).await?;
        let terms = self.terms(known, &settings);
        let mut greeted = self.host_key(address, outer.as_ref(), &terms).await?;
        if greeted.is_new {
            self.record(&terms.known, &greeted.key).await?;
        }
        let login = Login {
            host: self.host,
            user: self.user,
            place: self.place,
            hop: self.hop,
            setup: self.setup,
            seen: &greeted.seen,
        };
        let key = timeout_at(terms.deadline, login.sign_in(&mut greeted.handle, offers))
            .await
            .map_err(|_| self.mute(address, " while signing in"))??;
        let facts = Facts {
            host_key: hostkey::told(&greeted.key),
            is_new: greeted.is_new,
            software: greeted.hello.software(),
            key,
            took: Duration::ZERO,
        };
        let Greeted { handle, seen, sockets, cut, .. } = greeted;
        Ok(Connection { handle, seen, sockets, facts, _cut: cut, _outer: outer.map(Box::new) })
    }

    fn terms(&self, known: Known, settings: &HostSettings) -> Terms {
        Terms {
            known: Arc::new(known),
            keep_alive: match settings.keep_alive_s {
                None => Some(KEEP_ALIVE),
                Some(seconds) => Some(Duration::from_secs(seconds)).filter(|every| !every.is_zero()),
            },
            keep_alive_times: settings.keep_alive_times.unwrap_or(KEEP_ALIVE_TIMES),
            deadline: clock::instant() + Duration::from_secs(self.place.timeout_s.into()),
        }
    }

    /// Connects, up to the host key. A pinned fingerprint tells no type, so each type that the host has is asked for.
    async fn host_key(&self, address: &str, outer: Option<&Connection>, terms: &Terms) -> Result<Greeted, Fault> {
        let mut seen_types: Vec<Algorithm> = Vec::new();
        let mut first: Option<Fault> = None;
        loop {
            let stream = self.stream(address, outer, terms.deadline).await?;
            let (fault, seen) = match self.greet(stream, terms, &known_types(&seen_types)).await {
                Ok(greeted) => return Ok(greeted),
                Err(failed) => failed,
            };
            let is_other = terms.known.is_pinned() && matches!(fault, Fault::HostKeyNotPinned { .. });
            match seen.key() {
                Some(key) if is_other && seen_types.len() < 2 => {
                    seen_types.push(key.algorithm());
                    first = first.or(Some(fault));
                }
                // It has no other type: what was wrong is the key that it showed.
                _ => return Err(first.unwrap_or(fault)),
            }
        }
    }

    async fn stream(&self, address: &str, outer: Option<&Connection>, deadline: Instant) -> Result<Stream, Fault> {
        let at = at_port(address, self.port);
        let Some(outer) = outer else { return self.socket(address, &at, deadline).await.map(Stream::Socket) };
        let open = outer.handle.channel_open_direct_tcpip(address, self.port.into(), "127.0.0.1", 0);
        let jump = match self.hop.checked_sub(1).and_then(|before| self.place.jump.get(before)) {
            Some(jump) => jump.host.clone(),
            None => self.host.to_owned(),
        };
        match timeout_at(deadline, open).await {
            Ok(Ok(channel)) => Ok(Stream::Channel(channel.into_stream())),
            Ok(Err(russh::Error::ChannelOpenFailure(why))) => {
                Err(Fault::Forward { jump, at, why: clean(&format!("{why:?}")) })
            }
            Ok(Err(error)) => Err(Fault::Broke { host: jump, stage: "the way on", why: clean(&error.to_string()) }),
            Err(_) => Err(Fault::SilentPort { at, seconds: self.place.timeout_s }),
        }
    }

    /// Tries each address of the host, each for its share of the time.
    async fn socket(&self, address: &str, at: &str, deadline: Instant) -> Result<TcpStream, Fault> {
        let silent = || Fault::SilentPort { at: at.to_owned(), seconds: self.place.timeout_s };
        let unknown = |why: String| Fault::UnknownHost { host: address.to_owned(), why };
        let found = timeout_at(deadline, tokio::net::lookup_host((address, self.port))).await;
        let found = found.map_err(|_| unknown("the name server does not answer".into()))?;
        let found: Vec<_> = found.map_err(|error| unknown(no_such_name(&error)))?.collect();
        let mut fault = unknown("it has no address".into());
        for (tried, socket) in found.iter().enumerate() {
            let left = deadline.saturating_duration_since(clock::instant());
            let share = left / u32::try_from(found.len() - tried).unwrap_or(1);
            fault = match tokio::time::timeout(share, TcpStream::connect(socket)).await {
                Ok(Ok(stream)) => {
                    keep_watch(&stream);
                    return Ok(stream);
                }
                Err(_) => silent(),
                Ok(Err(error)) => match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => Fault::ClosedPort { at: at.to_owned() },
                    std::io::ErrorKind::TimedOut => silent(),
                    _ => Fault::NoRoute { at: at.to_owned(), why: error.to_string() },
                },
            };
        }
        Err(fault)
    }

    /// Shakes hands, up to the host key; asks for the types that `wanted` names.
    async fn greet(
        &self,
        stream: Stream,
        terms: &Terms,
        wanted: &impl Fn(&Algorithm) -> bool,
    ) -> Result<Greeted, (Fault, Arc<Seen>)> {
        let seen = Arc::new(Seen::default());
        let sockets = Sockets::default();
        let client = Client { known: terms.known.clone(), seen: seen.clone(), sockets: sockets.clone() };
        let types: Vec<Algorithm> = terms.known.algorithms().into_iter().filter(wanted).collect();
        let (wire, cut, hello) = Wire::new(stream);
        let config = Arc::new(config(types, terms));
        let shaken = timeout_at(terms.deadline, client::connect_stream(config, wire, client)).await;
        let fault = match shaken {
            Ok(Ok(handle)) => {
                let kept = (seen.key(), seen.verdict());
                if let (Some(key), Some(verdict)) = kept {
                    return Ok(Greeted { handle, seen, sockets, cut, hello, key, is_new: verdict == Verdict::New });
                }
                Fault::Broke {
                    host: self.host.to_owned(),
                    stage: "the key exchange",
                    why: "it showed no host key".into(),
                }
            }
            Ok(Err(error)) => match seen.verdict() {
                Some(Verdict::Refused(fault)) => fault,
                _ => self.no_greeting(error, &hello, &seen),
            },
            Err(_) => match hello.other_protocol() {
                Some(said) => Fault::NotSsh { at: at_port(self.host, self.port), said },
                None => self.mute(self.host, ""),
            },
        };
        Err((fault, seen))
    }

    fn mute(&self, address: &str, doing: &'static str) -> Fault {
        Fault::Mute { at: at_port(address, self.port), seconds: self.place.timeout_s, doing }
    }

    fn no_greeting(&self, error: russh::Error, hello: &Hello, seen: &Seen) -> Fault {
        let host = self.host.to_owned();
        if let Some(said) = hello.other_protocol() {
            // So sshd tells whom it has no room for, before it says what it is.
            return match said.starts_with("Exceeded MaxStartups") || said.starts_with("Not allowed at this time") {
                true => Fault::NoHello { host },
                false => Fault::NotSsh { at: at_port(self.host, self.port), said },
            };
        }
        match error {
            russh::Error::NoCommonAlgo { kind, theirs, .. } => {
                let what = match kind {
                    AlgorithmKind::Kex => "key exchange",
                    AlgorithmKind::Key => "type of host key",
                    AlgorithmKind::Cipher => "cipher",
                    AlgorithmKind::Compression => "compression",
                    AlgorithmKind::Mac => "MAC",
                };
                Fault::NoCommonAlgorithm { host, what, theirs: clean(&theirs.join(", ")) }
            }
            russh::Error::WrongServerSig => Fault::WrongSignature { host },
            russh::Error::Version => Fault::NotSsh { at: at_port(self.host, self.port), said: hello.software() },
            _ if hello.is_empty() => Fault::NoHello { host },
            error => {
                let why = match seen.ended() {
                    said if said.is_empty() => clean(&error.to_string()),
                    said => said,
                };
                Fault::Broke { host, stage: "the key exchange", why }
            }
        }
    }

    async fn record(&self, known: &Known, key: &PublicKey) -> Result<(), Fault> {
        let who = match &self.place.connection {
            Some(connection) => format!("{} (connection {connection})", self.user),
            None => self.user.to_owned(),
        };
        let pin = Pin { name: known.name().to_owned(), key: key.clone(), at: clock::now(), who };
        match self.setup.pins.add(pin).await {
            Ok(None) => Ok(()),
            Ok(Some(other)) => Err(known.overtaken(key, other)),
            Err(error) => Err(Fault::HostKeyStore { host: self.host.to_owned(), why: error.to_string() }),
        }
    }
}

/// `host:port`, as it can be typed.
fn at_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn no_such_name(error: &std::io::Error) -> String {
    let said = error.to_string();
    let said = said.strip_prefix("failed to lookup address information: ").unwrap_or(&said);
    clean(said).to_lowercase()
}

/// No delay for small messages; a peer that is gone is noticed, also while something waits to be sent.
fn keep_watch(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let longest = KEEP_ALIVE * u32::try_from(KEEP_ALIVE_TIMES + 1).unwrap_or(4);
    let _ = sockopt::set_tcp_user_timeout(stream, u32::try_from(longest.as_millis()).unwrap_or(60_000));
}

fn config(types: Vec<Algorithm>, terms: &Terms) -> client::Config {
    client::Config {
        client_id: SshId::Standard("SSH-2.0-Pitcrew".into()),
        window_size: WINDOW,
        channel_buffer_size: CHANNEL_BUFFER,
        preferred: Preferred { key: types.into(), ..Preferred::DEFAULT },
        inactivity_timeout: None,
        keepalive_interval: terms.keep_alive,
        keepalive_max: terms.keep_alive_times,
        nodelay: true,
        ..client::Config::default()
    }
}

/// What a session told while it went on.
#[derive(Default)]
pub struct Seen(Mutex<State>);

#[derive(Default)]
struct State {
    key: Option<PublicKey>,
    verdict: Option<Verdict>,
    ended: String,
}

impl Seen {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self) -> Option<PublicKey> {
        self.state().key.clone()
    }

    fn verdict(&self) -> Option<Verdict> {
        self.state().verdict.clone()
    }

    /// Why the session ended; empty: it did not, or nobody knows.
    pub fn ended(&self) -> String {
        self.state().ended.clone()
    }
}

/// Answers what the host asks of us.
pub struct Client {
    known: Arc<Known>,
    seen: Arc<Seen>,
    sockets: Sockets,
}

/// Channels that the host opens: a reply that is dropped is a refusal.
impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        // Certificates are not asked for, so none is taken.
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let verdict = self.known.judge(key);
        let is_accepted = !matches!(verdict, Verdict::Refused(_));
        let mut state = self.seen.state();
        // A later key exchange shows the key again; by then a new one is known.
        match &state.key {
            Some(first) if first.key_data() != key.key_data() => return Ok(false),
            Some(_) => return Ok(true),
            None => {}
        }
        state.key = Some(key.clone());
        state.verdict = Some(verdict);
        Ok(is_accepted)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        self.seen.state().ended = match reason {
            DisconnectReason::ReceivedDisconnect(said) => clean(&said.message),
            DisconnectReason::Error(russh::Error::Disconnect | russh::Error::HUP) => "the host closed it".to_owned(),
            DisconnectReason::Error(russh::Error::KeepaliveTimeout) => "the host does not answer any more".to_owned(),
            DisconnectReason::Error(error) => clean(&error.to_string()),
        };
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sockets.open(path, channel, reply).await;
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}
