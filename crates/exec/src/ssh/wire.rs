//! The stream below a connection: a socket, or a channel of the jump host before it.
//!
//! It can be cut from outside, which ends the task that reads it whatever that waits for; and it remembers the first
//! bytes, for a message about a server that speaks something else.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How much of a hello is kept.
const HELLO: usize = 255;

pub enum Stream {
    Socket(TcpStream),
    Channel(ChannelStream<Msg>),
}

pub struct Wire {
    stream: Stream,
    /// `None`: it was cut.
    cut: Option<oneshot::Receiver<()>>,
    hello: Hello,
    heard: usize,
}

/// What came first, up to the first line break after which SSH begins.
#[derive(Clone, Default)]
pub struct Hello(Arc<Mutex<Vec<u8>>>);

/// Cuts the wire when it goes.
pub struct Cut {
    _cut: oneshot::Sender<()>,
}

impl Wire {
    pub fn new(stream: Stream) -> (Wire, Cut, Hello) {
        let (sender, cut) = oneshot::channel();
        let hello = Hello::default();
        (Wire { stream, cut: Some(cut), hello: hello.clone(), heard: 0 }, Cut { _cut: sender }, hello)
    }

    fn was_cut(&mut self, cx: &mut Context<'_>) -> bool {
        let waiting = self.cut.as_mut().is_some_and(|cut| Pin::new(cut).poll(cx).is_pending());
        if !waiting {
            self.cut = None;
        }
        !waiting
    }
}

impl Hello {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HELLO.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The first line, if the server said anything that is not SSH.
    pub fn other_protocol(&self) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = |line: &[u8]| line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-");
        let is_ssh = kept.split(|byte| *byte == b'\n').any(begins);
        let first = kept.split(|byte| *byte == b'\n').next().unwrap_or_default();
        (!is_ssh && !kept.is_empty()).then(|| super::error::clean(&String::from_utf8_lossy(first)))
    }

    /// The server's software, as it names itself.
    pub fn software(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = kept.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"SSH-")).unwrap_or_default();
        super::error::clean(&String::from_utf8_lossy(line))
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "closed here")
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.was_cut(cx) {
            return Poll::Ready(Err(aborted()));
        }
        let before = buf.filled().len();
        let read = match &mut this.stream {
            Stream::Socket(socket) => Pin::new(socket).poll_read(cx, buf),
            Stream::Channel(channel) => Pin::new(channel).poll_read(cx, buf),
        };
        if this.heard < HELLO {
            let new = &buf.filled()[before..];
            this.heard += new.len();
            this.hello.add(new);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.was_cut(cx) {
            return Poll::Ready(Err(aborted()));
        }
        match &mut this.stream {
            Stream::Socket(socket) => Pin::new(socket).poll_write(cx, buf),
            Stream::Channel(channel) => Pin::new(channel).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Socket(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Channel(channel) => Pin::new(channel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Socket(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Channel(channel) => Pin::new(channel).poll_shutdown(cx),
        }
    }
}
