//! What we answer to a host while a session lasts: which host key is accepted, and that it may open nothing here but
//! what leads to sockets that we asked it for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::Channel;
use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};

use super::error::clean;
use super::forward::Sockets;
use super::hostkey::{Known, Verdict};

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
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn key(&self) -> Option<PublicKey> {
        self.state().key.clone()
    }

    pub fn verdict(&self) -> Option<Verdict> {
        self.state().verdict.clone()
    }

    /// Why the session ended; empty: it did not, or nobody knows.
    pub fn ended(&self) -> String {
        self.state().ended.clone()
    }
}

/// Answers what the host asks of us.
pub struct Client {
    pub known: Arc<Known>,
    pub seen: Arc<Seen>,
    pub sockets: Sockets,
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
