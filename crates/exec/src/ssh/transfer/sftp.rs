//! One SFTP session: the few requests that transfers need.
//!
//! Invariants: a request that nobody answers ends, as a link that went; what a host says is told as words of its own, and
//! a name that it gives is no path.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use russh_sftp::client::Config;
use russh_sftp::client::error::Error;
use russh_sftp::client::rawsession::{Limits, RawSftpSession, SftpResult};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::Failure;
use crate::ssh::error::clean;
use crate::ssh::remote::Stream;

/// Nothing takes this long on a link that works.
const STALL: Duration = Duration::from_secs(60);
/// The library's own limit counts from when a request is queued, behind others.
const QUEUED: u64 = 3600;
/// Bytes of one read or write, unless the host takes fewer.
const CHUNK: u64 = 128 << 10;
const LEAST_CHUNK: u64 = 1 << 10;
/// The largest answer: that to a read, and lists of names.
const LARGEST_ANSWER: u32 = 1 << 20;
/// Names of one directory.
const MOST_NAMES: usize = 1_000_000;

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";
const LIMITS: &str = "limits@openssh.com";

/// Dropping it closes it.
pub struct Session {
    raw: RawSftpSession,
    extensions: HashMap<String, String>,
    /// Bytes of one read, and of one write.
    pub chunks: (u64, u64),
    /// Where it begins: the home directory of the user, absolute.
    pub home: String,
    _gone: [oneshot::Sender<()>; 2],
}

/// Why a request was not done.
#[derive(Debug)]
pub enum Refused {
    /// The session went, or nobody answers.
    Link(String),
    Missing,
    Denied,
    /// What the host says, which is not much.
    Other(String),
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Link,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Unix seconds.
    pub modified: u32,
}

/// A file that is open there.
pub struct Opened(String);

/// A file system of the host, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    pub free: u64,
    /// For a user who is not root.
    pub available: u64,
    pub total: u64,
}

impl Refused {
    /// `what` says what was to be done: "write `/x`".
    pub fn to(self, what: &str, host: &str) -> Failure {
        match self {
            Refused::Link(words) => Failure::Link(words),
            Refused::Missing => Failure::Lasting(format!("`{host}` cannot {what}: there is no such file or directory")),
            Refused::Denied => Failure::Lasting(format!("`{host}` does not let this user {what}: permission denied")),
            Refused::Other(words) => Failure::Passing(format!("`{host}` cannot {what}; it says `{words}`, no more")),
        }
    }
}

impl Session {
    pub async fn open(stream: Box<dyn Stream>, host: &str) -> Result<Session, Refused> {
        let (one, reads) = oneshot::channel();
        let (two, writes) = oneshot::channel();
        let config = Config { max_packet_len: LARGEST_ANSWER, request_timeout_secs: QUEUED, ..Config::default() };
        let raw = RawSftpSession::new_with_config(Guarded { stream, reads, writes }, config);
        let hello = within(raw.init()).await.map_err(|_| {
            Refused::Link(format!("SFTP of `{host}` said no hello: check `Subsystem sftp` in its sshd_config"))
        })?;
        let mut chunks = (CHUNK, CHUNK);
        if hello.extensions.contains_key(LIMITS) {
            let limits = Limits::from(within(raw.limits()).await?);
            let chunk = |limit: Option<u64>| limit.unwrap_or(CHUNK).clamp(LEAST_CHUNK, CHUNK);
            chunks = (chunk(limits.read_len), chunk(limits.write_len));
        } else {
            // What every server takes.
            chunks = (chunks.0.min(32 << 10), chunks.1.min(32 << 10));
        }
        let home = within(raw.realpath(".")).await?.files.into_iter().next().map(|file| file.filename);
        let home = home.filter(|home| home.starts_with('/')).ok_or_else(|| Refused::Other("no directory".into()))?;
        let home = home.trim_end_matches('/').to_owned();
        Ok(Session { raw, extensions: hello.extensions, chunks, home, _gone: [one, two] })
    }

    /// What the path leads to.
    pub async fn stat(&self, path: &str) -> Result<Option<Stat>, Refused> {
        found(within(self.raw.stat(path)).await.map(|answer| Stat::of(&answer.attrs)))
    }

    /// What is there, itself if it is a link.
    pub async fn lstat(&self, path: &str) -> Result<Option<Stat>, Refused> {
        found(within(self.raw.lstat(path)).await.map(|answer| Stat::of(&answer.attrs)))
    }

    /// The path without links.
    pub async fn real(&self, path: &str) -> Result<Option<String>, Refused> {
        let answer = found(within(self.raw.realpath(path)).await)?;
        Ok(answer.and_then(|name| name.files.into_iter().next()).map(|file| file.filename))
    }

    /// What a directory holds, unsorted, as the host says it.
    pub async fn list(&self, path: &str) -> Result<Vec<(String, Stat)>, Refused> {
        let handle = within(self.raw.opendir(path)).await?.handle;
        let mut names = Vec::new();
        loop {
            match within(self.raw.readdir(handle.as_str())).await {
                Ok(answer) => names.extend(answer.files.into_iter().map(|file| (file.filename, Stat::of(&file.attrs)))),
                Err(Refused::Other(words)) if words == AT_END => break,
                Err(e) => return Err(e),
            }
            if names.len() > MOST_NAMES {
                return Err(Refused::Other(format!("a directory of more than {MOST_NAMES} names")));
            }
        }
        within(self.raw.close(handle)).await?;
        names.retain(|(name, _)| name != "." && name != "..");
        Ok(names)
    }

    /// Makes a directory and those above it.
    pub async fn make_dirs(&self, path: &str, host: &str) -> Result<(), Failure> {
        let mut missing = Vec::new();
        let mut path = path;
        while !path.is_empty() && path != "/" {
            match self.stat(path).await.map_err(|e| e.to(&format!("look at `{path}`"), host))? {
                Some(Stat { kind: Kind::Directory, .. }) => break,
                Some(_) => {
                    return Err(Failure::Lasting(format!("`{path}` on `{host}` is a file, not a directory")));
                }
                None => missing.push(path),
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
        for path in missing.into_iter().rev() {
            let made = self.make_dir(path, None).await;
            made.map_err(|e| e.to(&format!("make the directory `{path}`"), host))?;
        }
        Ok(())
    }

    /// Makes a directory, unless it is there.
    pub async fn make_dir(&self, path: &str, mode: Option<u32>) -> Result<(), Refused> {
        let attrs = FileAttributes { permissions: mode, ..FileAttributes::empty() };
        match within(self.raw.mkdir(path, attrs)).await {
            Ok(_) => Ok(()),
            // Somebody else may have made it at this moment.
            Err(e) => match self.stat(path).await? {
                Some(Stat { kind: Kind::Directory, .. }) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Removes a file, if it is there.
    pub async fn remove(&self, path: &str) -> Result<(), Refused> {
        found(within(self.raw.remove(path)).await).map(drop)
    }

    /// Renames a file over whatever file is at the target. `false`: this host cannot, in one step.
    pub async fn replace(&self, from: &str, to: &str) -> Result<bool, Refused> {
        if !self.extensions.contains_key(POSIX_RENAME) {
            return Ok(false);
        }
        let mut data = Vec::new();
        for path in [from, to] {
            data.extend(u32::try_from(path.len()).unwrap_or(u32::MAX).to_be_bytes());
            data.extend(path.as_bytes());
        }
        let answer = within(self.raw.extended(POSIX_RENAME, data)).await?;
        match answer {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(true),
            Packet::Status(status) => Err(Error::Status(status).into()),
            _ => Err(Refused::Link("the host answers another question than was asked".into())),
        }
    }

    /// Renames a file to where none is.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Refused> {
        within(self.raw.rename(from, to)).await.map(drop)
    }

    /// Opens a file for reading.
    pub async fn read(&self, path: &str) -> Result<Opened, Refused> {
        self.open_file(path, OpenFlags::READ, None).await
    }

    /// Opens a file for writing: a new one, for its owner only, or one that is there.
    pub async fn write(&self, path: &str, is_new: bool) -> Result<Opened, Refused> {
        // Never through a link that somebody put there.
        let new = if is_new { OpenFlags::CREATE | OpenFlags::EXCLUDE } else { OpenFlags::empty() };
        self.open_file(path, OpenFlags::WRITE | new, is_new.then_some(0o600)).await
    }

    async fn open_file(&self, path: &str, flags: OpenFlags, mode: Option<u32>) -> Result<Opened, Refused> {
        let attrs = FileAttributes { permissions: mode, ..FileAttributes::empty() };
        Ok(Opened(within(self.raw.open(path, flags, attrs)).await?.handle))
    }

    /// Errors of writes may come only now.
    pub async fn close(&self, file: Opened) -> Result<(), Refused> {
        within(self.raw.close(file.0)).await.map(drop)
    }

    pub async fn chmod(&self, file: &Opened, mode: u32) -> Result<(), Refused> {
        let attrs = FileAttributes { permissions: Some(mode), ..FileAttributes::empty() };
        within(self.raw.fsetstat(file.0.as_str(), attrs)).await.map(drop)
    }

    pub async fn set_mode(&self, path: &str, mode: u32) -> Result<(), Refused> {
        let attrs = FileAttributes { permissions: Some(mode), ..FileAttributes::empty() };
        within(self.raw.setstat(path, attrs)).await.map(drop)
    }

    pub async fn write_at(&self, file: &Opened, offset: u64, bytes: Vec<u8>) -> Result<(), Refused> {
        within(self.raw.write(file.0.as_str(), offset, bytes)).await.map(drop)
    }

    /// So many bytes; fewer only where the file ends.
    pub async fn read_at(&self, file: &Opened, offset: u64, length: u64) -> Result<Bytes, Refused> {
        let mut all = Vec::new();
        while (all.len() as u64) < length {
            let had = all.len() as u64;
            let wanted = u32::try_from(length - had).unwrap_or(u32::MAX);
            match within(self.raw.read(file.0.as_str(), offset + had, wanted)).await {
                Ok(answer) if answer.data.len() as u64 > length - had => {
                    return Err(Refused::Link("the host sends more than was asked for".into()));
                }
                Ok(answer) if answer.data.is_empty() => break,
                Ok(answer) if all.is_empty() => all = answer.data,
                Ok(answer) => all.extend(answer.data),
                Err(Refused::Other(words)) if words == AT_END => break,
                Err(e) => return Err(e),
            }
        }
        Ok(all.into())
    }

    /// What the file system of a directory has; `None`: this host does not say.
    pub async fn space(&self, path: &str) -> Result<Option<Space>, Refused> {
        if !self.extensions.contains_key(STATVFS) {
            return Ok(None);
        }
        Ok(match within(self.raw.statvfs(path)).await {
            // Some file systems do not know.
            Ok(told) if told.blocks == 0 => None,
            Ok(told) => {
                let bytes = |blocks: u64| blocks.saturating_mul(told.fragment_size);
                Some(Space {
                    free: bytes(told.blocks_free),
                    available: bytes(told.blocks_avail),
                    total: bytes(told.blocks),
                })
            }
            Err(Refused::Link(words)) => return Err(Refused::Link(words)),
            Err(_) => None,
        })
    }
}

impl Stat {
    fn of(attrs: &FileAttributes) -> Stat {
        let mode = attrs.permissions.unwrap_or(0o100_644);
        let kind = match mode & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Link,
            _ => Kind::Other,
        };
        Stat { kind, size: attrs.size.unwrap_or(0), mode: mode & 0o7777, modified: attrs.mtime.unwrap_or(0) }
    }
}

/// The one answer that is no error.
const AT_END: &str = "end of file";

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Status(status) => match status.status_code {
                StatusCode::NoSuchFile => Refused::Missing,
                StatusCode::PermissionDenied => Refused::Denied,
                StatusCode::Eof => Refused::Other(AT_END.into()),
                StatusCode::NoConnection | StatusCode::ConnectionLost => Refused::Link("the host lost it".into()),
                code if status.error_message.is_empty() => Refused::Other(code.to_string()),
                _ => Refused::Other(clean(&status.error_message)),
            },
            Error::Timeout => Refused::Link("the host does not answer".into()),
            _ => Refused::Link("the SFTP session ended".into()),
        }
    }
}

async fn within<T>(request: impl Future<Output = SftpResult<T>>) -> Result<T, Refused> {
    match tokio::time::timeout(STALL, request).await {
        Ok(answer) => answer.map_err(Refused::from),
        Err(_) => Err(Refused::Link(format!("the host did not answer for {} s", STALL.as_secs()))),
    }
}

fn found<T>(answer: Result<T, Refused>) -> Result<Option<T>, Refused> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Refused::Missing) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A channel whose reader and writer end with the session: one that waits for a host to take more would wait for ever
/// after that host is gone.
struct Guarded {
    stream: Box<dyn Stream>,
    reads: oneshot::Receiver<()>,
    writes: oneshot::Receiver<()>,
}

fn is_over(gone: &mut oneshot::Receiver<()>, context: &mut Context<'_>) -> bool {
    Pin::new(gone).poll(context).is_ready()
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if is_over(&mut self.reads, cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if is_over(&mut self.writes, cx) {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
