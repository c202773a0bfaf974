//! Hands one message to one channel.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_exec::aws::Aws;
use pitcrew_store::Store;

use super::config::{Channel, Kind};
use super::http::Clients;
use super::message::Message;
use super::secrets::Lookup;
use crate::vault::Vault;

use super::{mail, slack, sns, webhook};

/// What sending needs.
#[derive(Clone)]
pub struct Sender {
    pub clients: Clients,
    pub secrets: Lookup,
    pub aws: Aws,
}

/// Why a channel did not take a message. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub error: String,
    /// Another try may help.
    pub passing: bool,
    /// How long the other side asks us to wait.
    pub wait: Option<Duration>,
}

impl Failed {
    /// Another try may help.
    pub fn passing(error: impl Into<String>) -> Failed {
        Failed { error: error.into(), passing: true, wait: None }
    }

    /// Another try would fail in the same way.
    pub fn lasting(error: impl Into<String>) -> Failed {
        Failed { error: error.into(), passing: false, wait: None }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl Sender {
    pub fn new(store: Store, vault: Vault, aws: Aws) -> anyhow::Result<Sender> {
        Ok(Sender { clients: Clients::new()?, secrets: Lookup { store, vault }, aws })
    }

    /// Returns when the channel has taken the message, within the channel's timeout.
    pub async fn send(&self, channel: &Channel, message: &Message, now: Timestamp) -> Result<(), Failed> {
        let sending = async {
            match &channel.kind {
                Kind::Slack(slack) => slack::send(self, channel, slack, message, now).await,
                Kind::Mail(mail) => mail::send(self, channel, mail, message).await,
                Kind::Sns(sns) => sns::send(self, sns, message).await,
                Kind::Webhook(webhook) => webhook::send(self, channel, webhook, message, now).await,
                Kind::Forge => Err(Failed::lasting("a forge takes the states of runs and no messages")),
            }
        };
        match tokio::time::timeout(channel.timeout, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(Failed::passing(format!("no answer within {:?}", channel.timeout))),
        }
    }
}
