//! What the server and the runner say to each other: JSON, one message a line, over a unix socket.
//!
//! The runner may be older or newer than the server, since it lives as long as its attempts do. Both begin with a hello
//! that carries [`VERSION`], and part when it differs. Within a version only fields with a default may be added.
//!
//! Every request has a number, and exactly one reply has the same. All requests may be repeated without harm, so a
//! broken connection is answered by a new one and the same requests.

use std::collections::BTreeMap;
use std::io;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::backend::{BackendEvent, Handle, Observation};
use crate::spec::AttemptSpec;

pub const VERSION: u32 = 1;

/// More than this in one line is not a message of ours.
const MAX_MESSAGE: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// First on every connection. `base_env` is what processes get besides their own environment.
    Hello {
        version: u32,
        base_env: BTreeMap<String, String>,
        /// As [`ToRunner::Lease`], where there is one.
        #[serde(default)]
        lease_ms: Option<u64>,
    },
    /// Everything that the runner keeps ends at that moment, unless another such message comes before: milliseconds
    /// since the machine started. Without any it keeps for ever. There is no reply.
    Lease {
        until_ms: u64,
    },
    Start {
        seq: u64,
        spec: Box<AttemptSpec>,
        /// The lease reaches at least to there: this may overtake the message that says it.
        #[serde(default)]
        lease_ms: Option<u64>,
    },
    Status {
        seq: u64,
        handles: Vec<Handle>,
    },
    Cancel {
        seq: u64,
        handle: Handle,
        grace: SignedDuration,
        /// Why its end is told as a loss, and not as that somebody wanted it to end.
        #[serde(default)]
        lost: Option<String>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRunner {
    Hello {
        version: u32,
        pid: u32,
    },
    Done {
        seq: u64,
    },
    /// One per handle asked for, in order.
    Status {
        seq: u64,
        observations: Vec<Observation>,
    },
    /// About any attempt, whoever started it.
    Event(BackendEvent),
}

/// A message as it goes over the wire.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    // Maps with string keys, strings and numbers: nothing that JSON cannot hold.
    let mut line = serde_json::to_vec(message).expect("a message is always valid JSON");
    line.push(b'\n');
    line
}

/// The next message; `None` at the end of the connection.
pub async fn next<M: serde::de::DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<Option<M>> {
    line.clear();
    loop {
        let part = from.fill_buf().await?;
        if part.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let (taken, whole) = match part.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (part.len(), false),
        };
        line.extend_from_slice(&part[..taken]);
        from.consume(taken);
        if whole {
            let message = serde_json::from_slice(line)?;
            line.shrink_to(64 << 10);
            return Ok(Some(message));
        }
        if line.len() > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
        }
    }
}
