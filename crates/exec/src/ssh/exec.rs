//! A command on a host: its input, its output in two streams, its end.
//!
//! Invariants: a task of its own takes whatever arrives on the channel, so one that nobody reads holds no other one up;
//! the end is told once both the exit status and the last of the output are there, in whatever order they came; without
//! an exit status the end is unknown.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelStream, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::connect::Facts;
use super::error::{LinkError, clean};
use super::slot::Slot;

/// Bytes of each stream that [`Lease::run`] keeps.
const MOST_KEPT: usize = 4 << 20;
/// Bytes that may wait for a reader of [`ProcessOut`].
const MOST_WAITING: usize = 16 << 20;
/// Bytes that are handed on at once.
const CHUNK: usize = 32 << 10;

/// A session on a host, for one command. Dropping it closes it.
pub struct Lease(Option<(Channel<Msg>, Slot)>);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Code(u32),
    /// By its name without `SIG`.
    Signal(String),
    /// The host did not say. It is not known whether the command did what it should.
    Unknown,
}

/// A command that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// More came than is kept.
    pub is_cut: bool,
}

impl Done {
    pub fn is_success(&self) -> bool {
        self.end == End::Code(0)
    }
}

/// What comes from a command, in the order in which it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A command under way. Dropping both of its halves closes its session; what it is told then is up to the host.
pub struct RemoteProcess {
    pub input: ProcessIn,
    pub output: ProcessOut,
}

/// The input of a command.
pub struct ProcessIn {
    channel: Arc<ChannelWriteHalf<Msg>>,
    ended: watch::Receiver<bool>,
    host: Arc<str>,
}

/// The output of a command.
pub struct ProcessOut {
    frames: mpsc::UnboundedReceiver<Frame>,
    waiting: Arc<AtomicUsize>,
    end: oneshot::Receiver<Result<End, LinkError>>,
    host: Arc<str>,
}

impl Lease {
    pub(super) fn new(channel: Channel<Msg>, slot: Slot) -> Lease {
        Lease(Some((channel, slot)))
    }

    /// What was learnt while connecting.
    pub fn facts(&self) -> Option<&Facts> {
        self.0.as_ref().map(|(_, slot)| &slot.connection().facts)
    }

    /// Runs a command with this input, to its end.
    pub async fn run(self, command: &str, stdin: &[u8]) -> Result<Done, LinkError> {
        self.open(command).await?.finish(stdin).await.1
    }

    /// Whether the host has this subsystem; it is begun and left at once. `None`: it does not say.
    pub async fn has_subsystem(mut self, name: &str) -> Option<bool> {
        let (mut channel, slot) = self.0.take()?;
        channel.request_subsystem(true, name).await.ok()?;
        let has = loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => break Some(true),
                Some(ChannelMsg::Failure) => break Some(false),
                Some(ChannelMsg::Close) | None => break None,
                Some(_) => {}
            }
        };
        // Closes it.
        drop(Lease(Some((channel, slot))));
        has
    }

    /// Starts a command.
    pub async fn open(mut self, command: &str) -> Result<RemoteProcess, LinkError> {
        let gone = || LinkError::Lost { host: String::new(), why: "its session went".into() };
        let Some((channel, slot)) = self.0.take() else { return Err(gone()) };
        let host = slot.host().clone();
        let (reader, writer) = channel.split();
        let writer = Arc::new(writer);
        let (frame_sender, frames) = mpsc::unbounded_channel();
        let (sent_sender, sent) = oneshot::channel();
        let (end_sender, end) = oneshot::channel();
        let (ended_sender, ended) = watch::channel(false);
        let waiting = Arc::new(AtomicUsize::new(0));
        let drain = Drain { writer: writer.clone(), frames: frame_sender, waiting: waiting.clone(), slot };
        let command = command.to_owned();
        // In a task from the first message on: whoever waits may go away, and the session is closed then.
        tokio::spawn(async move {
            let sent = drain.writer.exec(true, command).await;
            let _ = sent_sender.send(sent.map_err(|error| drain.slot.lost(&clean(&error.to_string()))));
            let end = drain.run(reader).await;
            let _ = ended_sender.send(true);
            let _ = end_sender.send(end);
        });
        sent.await.unwrap_or_else(|_| Err(gone()))?;
        let input = ProcessIn { channel: writer, ended, host: host.clone() };
        Ok(RemoteProcess { input, output: ProcessOut { frames, waiting, end, host } })
    }
}

impl Lease {
    /// Begins to talk SFTP with the host.
    pub async fn sftp(mut self) -> Result<SftpStream, LinkError> {
        let gone = || LinkError::Lost { host: String::new(), why: "its session went".into() };
        let Some((mut channel, slot)) = self.0.take() else { return Err(gone()) };
        // In a task: whoever waits may go away, and the session is closed then.
        let asked = tokio::spawn(async move {
            if let Err(error) = channel.request_subsystem(true, "sftp").await {
                return Err(slot.lost(&clean(&error.to_string())));
            }
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) => return Ok(SftpStream { stream: channel.into_stream(), _slot: slot }),
                    Some(ChannelMsg::Failure) => {
                        let _ = channel.close().await;
                        return Err(LinkError::NoSftp { host: slot.host().to_string() });
                    }
                    Some(_) => {}
                    None => return Err(slot.lost("")),
                }
            }
        });
        asked.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// A session that talks SFTP. Dropping it closes it.
pub struct SftpStream {
    stream: ChannelStream<Msg>,
    _slot: Slot,
}

impl AsyncRead for SftpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SftpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some((channel, slot)), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            let _ = channel.close().await;
            drop(slot);
        });
    }
}

impl RemoteProcess {
    /// Gives it this input, and waits for its end. Also whether all of the input was sent, whatever became of it.
    pub async fn finish(self, stdin: &[u8]) -> (bool, Result<Done, LinkError>) {
        let RemoteProcess { mut input, mut output } = self;
        let write = async {
            // A command that wants no more input has its reasons; its end tells them.
            let is_sent = input.write(stdin).await.is_ok();
            let _ = input.close().await;
            is_sent
        };
        let read = async {
            let mut done = Done { end: End::Unknown, stdout: Vec::new(), stderr: Vec::new(), is_cut: false };
            while let Some(frame) = output.next().await {
                let (kept, bytes) = match frame {
                    Frame::Stdout(bytes) => (&mut done.stdout, bytes),
                    Frame::Stderr(bytes) => (&mut done.stderr, bytes),
                };
                let room = MOST_KEPT - kept.len();
                done.is_cut |= bytes.len() > room;
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            done.end = output.end().await?;
            Ok(done)
        };
        tokio::join!(write, read)
    }
}

impl ProcessIn {
    /// Waits until the host takes it all; fails when the command ends before.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        for chunk in bytes.chunks(CHUNK) {
            let sent = self.channel.data_bytes(Bytes::copy_from_slice(chunk));
            let mut ended = self.ended.clone();
            let is_sent = tokio::select! {
                sent = sent => sent.is_ok(),
                _ = ended.wait_for(|ended| *ended) => false,
            };
            if !is_sent {
                return Err(self.lost());
            }
        }
        Ok(())
    }

    /// Tells the command that there is no more input.
    pub async fn close(&mut self) -> Result<(), LinkError> {
        self.channel.eof().await.map_err(|_| self.lost())
    }

    pub(super) fn lost(&self) -> LinkError {
        LinkError::Lost { host: self.host.to_string(), why: "the command takes no more input".into() }
    }
}

impl ProcessOut {
    /// `None`: there is no more, see [`ProcessOut::end`].
    pub async fn next(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        self.waiting.fetch_sub(frame.len(), Ordering::Relaxed);
        Some(frame)
    }

    /// How it ended; output that was not taken is dropped.
    pub async fn end(mut self) -> Result<End, LinkError> {
        while self.next().await.is_some() {}
        let ProcessOut { end, host, .. } = self;
        let gone = || LinkError::Lost { host: host.to_string(), why: "its session went".into() };
        end.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Frame {
    fn len(&self) -> usize {
        match self {
            Frame::Stdout(bytes) | Frame::Stderr(bytes) => bytes.len(),
        }
    }
}

/// Takes what arrives on a channel until the host has closed it, or nobody wants it any more.
struct Drain {
    writer: Arc<ChannelWriteHalf<Msg>>,
    frames: mpsc::UnboundedSender<Frame>,
    waiting: Arc<AtomicUsize>,
    slot: Slot,
}

impl Drain {
    async fn run(self, mut reader: ChannelReadHalf) -> Result<End, LinkError> {
        let mut end = None;
        let (mut at_end, mut is_closed) = (false, false);
        loop {
            let message = tokio::select! {
                message = reader.wait() => message,
                () = self.frames.closed() => return self.give_up(reader, self.slot.lost("nobody waits for it")).await,
            };
            match message {
                None => break,
                Some(ChannelMsg::Data { data }) => {
                    if !self.hand_on(Frame::Stdout(data)) {
                        return self.overrun(reader).await;
                    }
                }
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                    if !self.hand_on(Frame::Stderr(data)) {
                        return self.overrun(reader).await;
                    }
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => end = Some(End::Code(exit_status)),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    let name = match signal_name {
                        russh::Sig::Custom(name) => clean(&name),
                        known => format!("{known:?}"),
                    };
                    end = Some(End::Signal(name));
                }
                Some(ChannelMsg::Eof) => at_end = true,
                Some(ChannelMsg::Close) => is_closed = true,
                Some(ChannelMsg::Failure) => return self.give_up(reader, self.slot.refused()).await,
                Some(_) => {}
            }
        }
        match end {
            Some(end) if at_end || is_closed => Ok(end),
            None if is_closed => Ok(End::Unknown),
            _ => Err(self.slot.lost("")),
        }
    }

    /// Says whether there was room.
    fn hand_on(&self, frame: Frame) -> bool {
        let more = frame.len();
        let has_room = self.waiting.fetch_add(more, Ordering::Relaxed) + more <= MOST_WAITING;
        if has_room {
            let _ = self.frames.send(frame);
        }
        has_room
    }

    async fn overrun(&self, reader: ChannelReadHalf) -> Result<End, LinkError> {
        let host = self.slot.host().to_string();
        self.give_up(reader, LinkError::Overrun { host, most: MOST_WAITING }).await
    }

    /// Closes the channel from here. What still comes is dropped: once we have closed, the library tells no more of it.
    async fn give_up(&self, reader: ChannelReadHalf, why: LinkError) -> Result<End, LinkError> {
        // First of all nothing waits for us any more, or the message that closes could wait for it in turn.
        drop(reader);
        let _ = self.writer.close().await;
        Err(why)
    }
}
