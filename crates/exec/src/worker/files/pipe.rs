//! Between bytes that come and go over the network, and a disk that makes whoever uses it wait.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::CHUNK;

/// How long a transfer may stand still: a proxy that keeps a connection and passes nothing on must not hold up others.
pub const STILL: Duration = Duration::from_secs(60);
/// Parts that may wait for the disk.
const QUEUE: usize = 8;

/// The reading end, for a thread that may wait.
pub struct Pipe {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    is_broken: bool,
}

impl Pipe {
    /// Lets `work` read what the stream brings, on a thread of its own. The stream is read to its end, or until `work` is
    /// done.
    pub async fn through<T: Send + 'static, E: std::fmt::Display>(
        stream: impl Stream<Item = Result<Bytes, E>>,
        work: impl FnOnce(&mut Pipe) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (sender, parts) = mpsc::channel(QUEUE);
        let done =
            tokio::task::spawn_blocking(move || work(&mut Pipe { parts, current: Bytes::new(), is_broken: false }));
        let mut stream = std::pin::pin!(stream);
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| io::Error::other(error.to_string()));
            if sender.send(part).await.is_err() {
                break;
            }
        }
        drop(sender);
        done.await.map_err(io::Error::other)
    }

    /// Whether the stream failed: then what came of it is not the fault of a disk.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.parts.blocking_recv() {
                Some(Ok(part)) => self.current = part,
                Some(Err(error)) => {
                    self.is_broken = true;
                    return Err(error);
                }
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.current.len());
        into[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// The same stream, which fails when nothing comes of it for so long.
pub fn lively<E: std::fmt::Display>(
    stream: impl Stream<Item = Result<Bytes, E>>,
    patience: Duration,
) -> impl Stream<Item = Result<Bytes, String>> {
    futures::stream::unfold(Some(Box::pin(stream)), move |stream| async move {
        let mut stream = stream?;
        match tokio::time::timeout(patience, stream.next()).await {
            Ok(Some(Ok(part))) => Some((Ok(part), Some(stream))),
            Ok(Some(Err(error))) => Some((Err(error.to_string()), None)),
            Ok(None) => None,
            Err(_) => Some((Err(format!("nothing came for {} s", patience.as_secs())), None)),
        }
    })
}

/// The first `size` bytes of a file, in parts.
pub fn chunks(file: File, size: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let file = tokio::fs::File::from_std(file).take(size);
    futures::stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let mut part = Vec::with_capacity(CHUNK);
        match (&mut file).take(CHUNK as u64).read_to_end(&mut part).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(part.into()), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_stands_still_ends_and_is_told_from_what_came_to_its_end() {
        let part = || futures::stream::iter([Ok::<_, String>(Bytes::from_static(b"abc"))]);
        let read = |pipe: &mut Pipe| {
            let mut bytes = Vec::new();
            (pipe.read_to_end(&mut bytes).is_ok(), pipe.is_broken(), bytes.len())
        };
        let whole = Pipe::through(lively(part(), STILL), read).await.unwrap();
        assert_eq!(whole, (true, false, 3));
        let stalled = lively(part().chain(futures::stream::pending()), Duration::from_millis(20));
        assert_eq!(Pipe::through(stalled, read).await.unwrap(), (false, true, 3));
    }
}
