//! The asking side.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use pitcrew_control::paths::DataDir;
use pitcrew_control::records::What;
use pitcrew_core::engine::record::StopHow;
use pitcrew_core::{RunKey, TaskId};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Answer, Ask, Hello, Role, directory, with_short_path};
use crate::cli::error::invalid;

/// A process that lives answers at once; one that is stopped or wedged must not hold a command up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Cancelling and clearing are committed to the database before they are answered.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// A living process that works on runs of a data directory.
pub struct Peer {
    pub hello: Hello,
    stream: BufReader<UnixStream>,
}

/// All of them.
pub struct Peers(Vec<Peer>);

impl Peers {
    /// Connects to every process of the data directory. Sockets of dead ones are removed.
    pub async fn find(data: &DataDir) -> Peers {
        let mut peers = Vec::new();
        for path in sockets(data) {
            if let Some(peer) = Peer::connect(path).await {
                peers.push(peer);
            }
        }
        Peers(peers)
    }

    /// The process that works on the run.
    pub async fn owner_of(&mut self, run: RunKey) -> Option<&mut Peer> {
        let mut found = None;
        for (at, peer) in self.0.iter_mut().enumerate() {
            if matches!(peer.ask(&Ask::Has { run }, PATIENCE).await, Ok(Answer::Has(true))) {
                found = Some(at);
                break;
            }
        }
        found.and_then(|at| self.0.get_mut(at))
    }

    /// A process that takes any run that nobody works on.
    pub fn server(&mut self) -> Option<&mut Peer> {
        // Of several on one database, the one that leads.
        let servers = self.0.iter_mut().filter(|peer| peer.hello.role == Role::Server);
        servers.max_by_key(|peer| peer.hello.leads)
    }

    /// The process to ask about a run: its owner, or a server, which takes any run that has none.
    pub async fn responsible(&mut self, run: RunKey) -> Option<&mut Peer> {
        if self.owner_of(run).await.is_some() {
            return self.owner_of(run).await;
        }
        self.server()
    }

    /// Tells everybody that the store changed.
    pub async fn look(&mut self) {
        for peer in &mut self.0 {
            // They find out by themselves within a second.
            let _ = peer.ask(&Ask::Look, PATIENCE).await;
        }
    }
}

fn sockets(data: &DataDir) -> Vec<PathBuf> {
    let Ok(entries) = directory(data).and_then(std::fs::read_dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect()
}

impl Peer {
    async fn connect(path: PathBuf) -> Option<Peer> {
        let (dir, name) = (path.parent()?, path.file_name()?.to_str()?);
        let stream = with_short_path(dir, name, |short| {
            let stream = std::os::unix::net::UnixStream::connect(short)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        });
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    let _ = std::fs::remove_file(&path);
                }
                return None;
            }
        };
        let hello = Hello { pid: 0, role: Role::Run, url: String::new(), leads: false };
        let mut peer = Peer { hello, stream: BufReader::new(stream) };
        match peer.ask(&Ask::Hello, PATIENCE).await {
            Ok(Answer::Hello(hello)) => Some(Peer { hello, ..peer }),
            _ => None,
        }
    }

    async fn ask(&mut self, ask: &Ask, patience: Duration) -> anyhow::Result<Answer> {
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        let talk = async {
            self.stream.get_mut().write_all(&line).await?;
            let mut answer = String::new();
            self.stream.read_line(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let pid = self.hello.pid;
        let answer = tokio::time::timeout(patience, talk)
            .await
            .with_context(|| format!("the pitcrew process {pid} did not answer in {} s", patience.as_secs()))?
            .with_context(|| format!("the pitcrew process {pid} cannot be asked"))?;
        if answer.is_empty() {
            bail!("the pitcrew process {pid} ended before it answered; try again");
        }
        match serde_json::from_str(&answer) {
            Ok(Answer::Refused(why)) => Err(invalid(why)),
            Ok(answer) => Ok(answer),
            Err(_) => bail!("the pitcrew process {pid} is of another version; use that version of `pitcrew`"),
        }
    }

    /// Returns when it is written that the run is to stop.
    pub async fn cancel(&mut self, run: RunKey, by: String) -> anyhow::Result<()> {
        self.stop(run, StopHow::default(), by).await
    }

    /// [`Peer::cancel`], so far.
    pub async fn stop(&mut self, run: RunKey, how: StopHow, by: String) -> anyhow::Result<()> {
        self.ask(&Ask::Cancel { run, by, how }, LONG_PATIENCE).await.map(drop)
    }

    pub async fn clear(&mut self, run: RunKey, what: What, by: String) -> anyhow::Result<Vec<(TaskId, i32)>> {
        match self.ask(&Ask::Clear { run, what, by }, LONG_PATIENCE).await? {
            Answer::Cleared(cleared) => Ok(cleared),
            other => bail!("an unexpected answer: {other:?}"),
        }
    }

    pub async fn explain(&mut self, run: RunKey, task: String, map_index: Option<i32>) -> anyhow::Result<Vec<String>> {
        match self.ask(&Ask::Explain { run, task, map_index }, PATIENCE).await? {
            Answer::Reasons(reasons) => Ok(reasons),
            other => bail!("an unexpected answer: {other:?}"),
        }
    }
}
