//! Remote attempts over the connections of a [`Pool`].

use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::host::{Channel, Hosts, Ran, Stream, Unreached};
use crate::place::SshPlace;
use crate::ssh::agent::Agent;
use crate::ssh::{DialError, End, Forward, Frame, LinkError, Pool, RemoteProcess};

/// Bytes that are handed on at once.
const CHUNK: usize = 32 << 10;

#[async_trait]
impl Hosts for Pool {
    async fn run(&self, place: &SshPlace, command: &str, input: &[u8]) -> Result<Ran, Unreached> {
        let done = self.get(place).await?.run(command, input).await?;
        let code = match done.end {
            End::Code(code) => i32::try_from(code).ok(),
            End::Signal(_) | End::Unknown => None,
        };
        Ok(Ran { code, stdout: done.stdout, stderr: done.stderr })
    }

    async fn open(&self, place: &SshPlace, command: &str) -> Result<Channel, Unreached> {
        let RemoteProcess { mut input, mut output } = self.get(place).await?.open(command).await?;
        let (ours, theirs) = tokio::io::duplex(CHUNK);
        let (mut from_us, mut to_us) = tokio::io::split(theirs);
        // Both end with the side that ends first: the channel, or whoever holds `ours`.
        tokio::spawn(async move {
            let mut buffer = vec![0; CHUNK];
            while let Ok(read @ 1..) = from_us.read(&mut buffer).await {
                if input.write(&buffer[..read]).await.is_err() {
                    return;
                }
            }
            let _ = input.close().await;
        });
        tokio::spawn(async move {
            while let Some(frame) = output.next().await {
                let Frame::Stdout(bytes) = frame else { continue };
                if to_us.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            let _ = to_us.shutdown().await;
        });
        let (read, write) = tokio::io::split(ours);
        Ok(Channel { input: Box::new(write), output: Box::new(read) })
    }

    async fn forward(
        &self,
        place: &SshPlace,
        path: &str,
        agent: Arc<Agent>,
        label: &str,
    ) -> Result<Forward, Unreached> {
        Ok(Pool::forward(self, place, path, agent, label).await?)
    }

    async fn sftp(&self, place: &SshPlace) -> Result<Box<dyn Stream>, Unreached> {
        Ok(Box::new(self.bulk().get(place).await?.sftp().await?))
    }
}

impl From<DialError> for Unreached {
    fn from(error: DialError) -> Self {
        Unreached { lasting: error.lasting(), words: error.to_string() }
    }
}

impl From<LinkError> for Unreached {
    fn from(error: LinkError) -> Self {
        Unreached { lasting: error.lasting(), words: error.to_string() }
    }
}
