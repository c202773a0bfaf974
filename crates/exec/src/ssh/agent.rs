//! An SSH agent of ours with one key: whoever talks to it can sign in somewhere with the key, and never has it.
//!
//! Invariants: it names its key and signs sign-ins with it. Everything else it refuses: no other data is signed, SHA-1
//! signs nothing, no key is added, removed or told. What a peer sends is bounded.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use russh::keys::signature::Signer as _;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{LineEnding, Signature};
use russh::keys::{HashAlg, PrivateKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::error::Fault;
use super::key::PrivateKeyText;

/// The name of the socket, in a directory that only its user may enter.
pub const SOCKET: &str = "agent.sock";

/// Messages of the protocol.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Flags of a request to sign with RSA.
const RSA_SHA256: u32 = 2;
const RSA_SHA512: u32 = 4;
/// Of what is signed to sign in.
const USERAUTH_REQUEST: u8 = 50;
/// The largest request.
const MOST: usize = 64 << 10;
/// Peers at a time.
const PEERS: usize = 16;

/// See the module.
pub struct Agent {
    key: PrivateKey,
    /// As the protocol has it.
    public: Vec<u8>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agent(…)")
    }
}

impl Agent {
    /// Reads the key, which takes up to a second of a CPU for one that is encrypted.
    pub fn new(text: &PrivateKeyText) -> Result<Agent, Fault> {
        let key = text.decode()?;
        let public = key.public_key().to_bytes().map_err(|_| Fault::Key {
            words: format!("{} holds a private key that cannot be read: it is damaged", text.origin),
            lasting: true,
        })?;
        Ok(Agent { key, public })
    }

    /// The key, not encrypted: for whoever has to make the agent anew, and can keep a secret.
    pub(crate) fn key(&self) -> io::Result<Zeroizing<String>> {
        self.key.to_openssh(LineEnding::LF).map_err(io::Error::other)
    }

    /// Answers one peer until it goes. `label` is what the key is called in lists.
    pub async fn serve(self: Arc<Self>, mut stream: impl AsyncRead + AsyncWrite + Unpin, label: Arc<str>) {
        let mut length = [0; 4];
        while stream.read_exact(&mut length).await.is_ok() {
            let length = u32::from_be_bytes(length) as usize;
            let mut request = vec![0; length.min(MOST)];
            if length > MOST || stream.read_exact(&mut request).await.is_err() {
                return;
            }
            let (agent, label) = (Arc::clone(&self), Arc::clone(&label));
            let Ok(answer) = tokio::task::spawn_blocking(move || agent.answer(&request, &label)).await else { return };
            let mut framed = Vec::with_capacity(answer.len() + 4);
            put(&mut framed, &answer);
            if stream.write_all(&framed).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &[u8], label: &str) -> Vec<u8> {
        match request.split_first() {
            Some((&REQUEST_IDENTITIES, [])) => {
                let mut answer = vec![IDENTITIES, 0, 0, 0, 1];
                put(&mut answer, &self.public);
                put(&mut answer, label.as_bytes());
                answer
            }
            Some((&SIGN_REQUEST, rest)) => match self.sign(rest) {
                Some(signature) => {
                    let mut answer = vec![SIGN_RESPONSE];
                    put(&mut answer, &signature);
                    answer
                }
                None => vec![FAILURE],
            },
            _ => vec![FAILURE],
        }
    }

    fn sign(&self, mut request: &[u8]) -> Option<Vec<u8>> {
        let (key, data) = (take(&mut request)?, take(&mut request)?);
        let flags = u32::from_be_bytes(request.try_into().ok()?);
        if key != self.public || !is_sign_in(data, &self.public) {
            return None;
        }
        let signature: Signature = match self.key.key_data() {
            KeypairData::Rsa(pair) => {
                let hash = match flags & (RSA_SHA256 | RSA_SHA512) {
                    RSA_SHA256 => HashAlg::Sha256,
                    0 => return None,
                    _ => HashAlg::Sha512,
                };
                (pair, Some(hash)).try_sign(data).ok()?
            }
            _ => self.key.try_sign(data).ok()?,
        };
        Vec::try_from(signature).ok()
    }
}

/// The text that is signed to sign in to an SSH server with this key, as RFC 4252 and OpenSSH have it.
fn is_sign_in(data: &[u8], public: &[u8]) -> bool {
    let read = |mut rest: &[u8]| {
        let _session = take(&mut rest)?;
        rest = rest.strip_prefix(&[USERAUTH_REQUEST])?;
        let (_user, service, method) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
        rest = rest.strip_prefix(&[1])?;
        let (_algorithm, key) = (take(&mut rest)?, take(&mut rest)?);
        if method == b"publickey-hostbound-v00@openssh.com" {
            take(&mut rest)?;
        } else if method != b"publickey" {
            return None;
        }
        Some(service == b"ssh-connection" && key == public && rest.is_empty())
    };
    read(data) == Some(true)
}

/// A text with its length before it.
fn put(to: &mut Vec<u8>, text: &[u8]) {
    to.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(text);
}

fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *from = rest;
    Some(text)
}

/// Peers that are being served; they end with this.
#[derive(Default)]
pub(super) struct Peers(JoinSet<()>);

impl Peers {
    /// Says whether there was room for one more.
    pub fn has_room(&mut self) -> bool {
        while self.0.try_join_next().is_some() {}
        self.0.len() < PEERS
    }

    pub fn add(&mut self, peer: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(peer);
    }
}

/// An agent at a socket of this machine, served in a thread of its own until it is dropped.
pub struct Listening {
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Listening {
    /// Makes the directory, which nobody else may enter, and [`SOCKET`] in it.
    pub fn new(dir: &Path, agent: Agent) -> io::Result<Listening> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
        let _ = std::fs::remove_file(dir.join(SOCKET));
        // A path of its own may be too long for a socket.
        let opened = std::fs::File::open(dir)?;
        let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
        let listener = std::os::unix::net::UnixListener::bind(short)?;
        std::fs::set_permissions(dir.join(SOCKET), std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let agent = Arc::new(agent);
        std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
                let mut peers = Peers::default();
                let accept = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        if peers.has_room() {
                            peers.add(Arc::clone(&agent).serve(stream, "pitcrew".into()));
                        }
                    }
                };
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        })?;
        Ok(Listening { _stop })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use russh::keys::PublicKey;
    use russh::keys::signature::Verifier;

    use super::*;

    fn keygen(kind: &str, bits: &str) -> PrivateKeyText {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k");
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-N", "", "-C", "", "-f"]).arg(&file);
        if !bits.is_empty() {
            command.args(["-b", bits]);
        }
        let made = command.output().expect("this test needs `ssh-keygen`: install openssh-client");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        PrivateKeyText::new(&std::fs::read_to_string(file).unwrap(), "key")
    }

    fn sign_in(method: &str, public: &[u8], more: &[&[u8]]) -> Vec<u8> {
        let mut data = Vec::new();
        put(&mut data, b"session");
        data.push(USERAUTH_REQUEST);
        [b"git".as_slice(), b"ssh-connection", method.as_bytes()].iter().for_each(|text| put(&mut data, text));
        data.push(1);
        [b"algorithm".as_slice(), public].iter().chain(more).for_each(|text| put(&mut data, text));
        data
    }

    fn request(public: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, public);
        put(&mut request, data);
        request.extend(flags.to_be_bytes());
        request
    }

    #[test]
    fn each_type_of_key_is_named_and_signs_a_sign_in() {
        for (kind, bits, flags, told) in [
            ("ed25519", "", 0, "ssh-ed25519"),
            ("ecdsa", "256", 0, "ecdsa-sha2-nistp256"),
            ("ecdsa", "384", 0, "ecdsa-sha2-nistp384"),
            ("ecdsa", "521", 0, "ecdsa-sha2-nistp521"),
            ("rsa", "2048", RSA_SHA256, "rsa-sha2-256"),
            ("rsa", "2048", RSA_SHA512, "rsa-sha2-512"),
        ] {
            let agent = Agent::new(&keygen(kind, bits)).unwrap();
            let listed = agent.answer(&[REQUEST_IDENTITIES], "it");
            assert_eq!(listed[..5], [IDENTITIES, 0, 0, 0, 1]);
            let mut rest = &listed[5..];
            let (public, label) = (take(&mut rest).unwrap(), take(&mut rest).unwrap());
            assert_eq!((public, label, rest), (agent.public.as_slice(), b"it".as_slice(), b"".as_slice()));
            for (method, more) in
                [("publickey", &[][..]), ("publickey-hostbound-v00@openssh.com", &[b"host key".as_slice()])]
            {
                let data = sign_in(method, public, more);
                let answer = agent.answer(&request(public, &data, flags), "");
                assert_eq!(answer[0], SIGN_RESPONSE, "{told}");
                let signature = Signature::try_from(take(&mut &answer[1..]).unwrap()).unwrap();
                assert_eq!(signature.algorithm().as_str(), told);
                let key = PublicKey::from_bytes(public).unwrap();
                assert!(Verifier::verify(&key, &data, &signature).is_ok(), "{told}");
            }
        }
    }

    #[test]
    fn nothing_but_a_sign_in_is_signed_and_nothing_else_is_answered() {
        let (one, other) = (Agent::new(&keygen("ed25519", "")).unwrap(), Agent::new(&keygen("ed25519", "")).unwrap());
        let good = sign_in("publickey", &one.public, &[]);
        assert_eq!(one.answer(&request(&one.public, &good, 0), "")[0], SIGN_RESPONSE);
        let refused = |request: &[u8]| assert_eq!(one.answer(request, ""), [FAILURE], "{request:?}");
        refused(&request(&other.public, &good, 0));
        for data in [
            b"a commit".to_vec(),
            [b"SSHSIG".to_vec(), good.clone()].concat(),
            [good.clone(), b"x".to_vec()].concat(),
            good[..good.len() - 1].to_vec(),
            sign_in("publickey", &other.public, &[]),
            sign_in("publickey", &one.public, &[b"host key"]),
            sign_in("publickey-hostbound-v00@openssh.com", &one.public, &[]),
            sign_in("password", &one.public, &[]),
        ] {
            refused(&request(&one.public, &data, 0));
        }
        let whole = request(&one.public, &good, 0);
        for cut in 0..whole.len() {
            refused(&whole[..cut]);
        }
        // To add, remove and lock keys, and what we do not know.
        for kind in [1, 17, 18, 19, 20, 22, 23, 25, 27, 255] {
            refused(&[kind]);
            refused(&[&[kind], &whole[1..]].concat());
        }
        let rsa = Agent::new(&keygen("rsa", "2048")).unwrap();
        let sha1 = request(&rsa.public, &sign_in("publickey", &rsa.public, &[]), 0);
        assert_eq!(rsa.answer(&sha1, ""), [FAILURE], "SHA-1");
    }

    #[tokio::test]
    async fn a_peer_that_sends_too_much_is_left() {
        let agent = Arc::new(Agent::new(&keygen("ed25519", "")).unwrap());
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let served = tokio::spawn(Arc::clone(&agent).serve(theirs, "".into()));
        ours.write_all(&[0, 0, 0, 1, 99]).await.unwrap();
        let mut answer = [0; 5];
        ours.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0, 0, 0, 1, FAILURE]);
        ours.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        served.await.unwrap();
        assert_eq!(ours.read(&mut answer).await.unwrap(), 0);
    }
}
