//! One host on the way: the way to it, its key, and signing in.
//!
//! Invariant: every step has an end in time, so a host that says nothing costs [`SshPlace::timeout_s`] and no more.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{Algorithm, PublicKey};
use russh::{AlgorithmKind, Preferred, SshId};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::auth::{Login, Offers};
use super::client::{Client, Seen};
use super::config_file::{ConfigFile, HostSettings};
use super::connect::{Connection, Facts, Setup};
use super::error::{Fault, clean};
use super::forward::Sockets;
use super::hostkey::{self, Known, Verdict};
use super::pins::Pin;
use super::wire::{Cut, Hello, Stream, Wire};
use crate::clock;
use crate::place::{HostKeys, SshPlace};

/// A host that says nothing for this long is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Unanswered questions after which it is not.
const KEEP_ALIVE_TIMES: usize = 3;
/// Messages that wait for one channel; whoever has one takes them at once.
const CHANNEL_BUFFER: usize = 32;

/// Every type of host key.
pub fn all_types(_: &Algorithm) -> bool {
    true
}

/// All types but those that were seen.
fn other_types(seen: &[Algorithm]) -> impl Fn(&Algorithm) -> bool + use<> {
    let seen = seen.to_vec();
    move |offered| !seen.iter().any(|seen| hostkey::is_same_type(seen, offered))
}

/// One host on the way.
pub struct Stage<'a> {
    place: &'a SshPlace,
    setup: &'a Setup,
    /// The place itself comes after its jump hosts.
    hop: usize,
    host: &'a str,
    port: u16,
    user: &'a str,
    policy: &'a HostKeys,
}

/// What a handshake goes by.
pub struct Terms {
    pub known: Arc<Known>,
    /// How often a silent host is asked whether it is there, and how often in vain.
    keep_alive: Option<Duration>,
    keep_alive_times: usize,
    pub deadline: Instant,
    window: u32,
}

/// The host showed a key that is accepted.
pub struct Greeted {
    handle: Handle<Client>,
    seen: Arc<Seen>,
    sockets: Sockets,
    cut: Cut,
    hello: Hello,
    pub key: PublicKey,
    is_new: bool,
}

impl<'a> Stage<'a> {
    /// A jump host by its number, or, after the last of them, the place itself.
    pub fn of(place: &'a SshPlace, setup: &'a Setup, hop: usize) -> Stage<'a> {
        let (host, port, user, policy) = match (place.jump.get(hop), &place.host_keys) {
            (None, policy) => (&place.host, place.port, &place.user, policy),
            // A pinned key is that of the place.
            (Some(jump), HostKeys::Pinned(_)) => (&jump.host, jump.port, &jump.user, &HostKeys::AcceptNew),
            (Some(jump), policy) => (&jump.host, jump.port, &jump.user, policy),
        };
        Stage { place, setup, hop, host, port, user, policy }
    }

    /// What is known of it before it is asked, and its address.
    pub async fn known(&self, file: &ConfigFile) -> Result<(HostSettings, Known, String), Fault> {
        let settings = file.settings(self.host, Some(self.user), Some(self.port))?;
        // The way there is that of the place; only what would run a program is refused above.
        let address = settings.host_name.clone().unwrap_or_else(|| self.host.to_owned());
        let files = self.setup.known_hosts(&settings);
        let name = hostkey::name_of(&settings, self.host, self.port);
        let pins = self.setup.pins.as_ref();
        let known = Known::load(&address, self.port, name, self.policy, &files, pins).await?;
        Ok((settings, known, address))
    }

    pub async fn reach(&self, file: &ConfigFile, outer: Option<Connection>) -> Result<Connection, Fault> {
        let (settings, known, address) = self.known(file).await?;
        let offers = Offers::gather(self.place, self.hop, &settings, self.setup).await?;
        let terms = self.terms(known, &settings);
        let mut greeted = self.host_key(&address, outer.as_ref(), &terms).await?;
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
        let (key, mark) = timeout_at(terms.deadline, login.sign_in(&mut greeted.handle, offers))
            .await
            .map_err(|_| self.mute(&address, " while signing in"))??;
        let facts = Facts {
            host_key: hostkey::told(&greeted.key),
            is_new: greeted.is_new,
            software: greeted.hello.software(),
            key,
            took: Duration::ZERO,
        };
        let Greeted { handle, seen, sockets, cut, .. } = greeted;
        Ok(Connection { handle, seen, sockets, facts, mark, _cut: cut, outer: outer.map(Box::new) })
    }

    pub fn terms(&self, known: Known, settings: &HostSettings) -> Terms {
        Terms {
            known: Arc::new(known),
            keep_alive: match self.place.keep_alive_s.map(u64::from).or(settings.keep_alive_s) {
                None => Some(KEEP_ALIVE),
                Some(seconds) => Some(Duration::from_secs(seconds)).filter(|every| !every.is_zero()),
            },
            keep_alive_times: settings.keep_alive_times.unwrap_or(KEEP_ALIVE_TIMES),
            deadline: clock::instant() + Duration::from_secs(self.place.timeout_s.into()),
            window: self.setup.window,
        }
    }

    /// Connects, up to the host key. A pinned fingerprint tells no type, so each type that the host has is asked for.
    async fn host_key(&self, address: &str, outer: Option<&Connection>, terms: &Terms) -> Result<Greeted, Fault> {
        let mut seen_types: Vec<Algorithm> = Vec::new();
        let mut first: Option<Fault> = None;
        loop {
            let stream = self.stream(address, outer, terms.deadline).await?;
            let (fault, seen) = match self.greet(stream, terms, &other_types(&seen_types)).await {
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

    pub async fn stream(&self, address: &str, outer: Option<&Connection>, deadline: Instant) -> Result<Stream, Fault> {
        let at = at_port(address, self.port);
        let Some(outer) = outer else { return self.socket(address, &at, deadline).await.map(Stream::Socket) };
        let open = outer.handle().channel_open_direct_tcpip(address, self.port.into(), "127.0.0.1", 0);
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
    pub async fn greet(
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
        window_size: terms.window,
        channel_buffer_size: CHANNEL_BUFFER,
        preferred: Preferred { key: types.into(), ..Preferred::DEFAULT },
        inactivity_timeout: None,
        keepalive_interval: terms.keep_alive,
        keepalive_max: terms.keep_alive_times,
        nodelay: true,
        ..client::Config::default()
    }
}
