//! What remote attempts need of a connection: to run a command on a host, and to talk with one that runs there.
//!
//! The command lines are fixed and short, without a quote that some login shell reads differently; everything else goes
//! by stdin.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::place::SshPlace;
use crate::ssh::Forward;
use crate::ssh::agent::Agent;

/// Runs commands on hosts, over connections that it makes and keeps.
#[async_trait]
pub trait Hosts: Send + Sync + 'static {
    /// Runs a command with the login shell of the user, to its end. What it prints is bounded.
    async fn run(&self, place: &SshPlace, command: &str, input: &[u8]) -> Result<Ran, Unreached>;

    /// Starts a command and leaves it running; it gets the end of its stdin when the channel is dropped.
    async fn open(&self, place: &SshPlace, command: &str) -> Result<Channel, Unreached>;

    /// Makes a socket on the host that leads to the agent while what is returned lives. `label` is what its key is
    /// called there.
    async fn forward(&self, place: &SshPlace, path: &str, agent: Arc<Agent>, label: &str)
    -> Result<Forward, Unreached>;

    /// Begins to talk SFTP, on connections of their own: what moves much must not be before what is small.
    async fn sftp(&self, place: &SshPlace) -> Result<Box<dyn Stream>, Unreached>;
}

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A command that ended.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// `None` when a signal ended it, or nobody knows.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A command that runs.
pub struct Channel {
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    pub output: Box<dyn AsyncRead + Send + Unpin>,
}

/// Why a host could not be talked to, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    pub words: String,
    /// Neither waiting nor trying again can help: a refused key, a changed host key.
    pub lasting: bool,
}

impl Unreached {
    /// It may be different in a moment.
    pub fn passing(words: impl Into<String>) -> Self {
        Unreached { words: words.into(), lasting: false }
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
