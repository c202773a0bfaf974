//! Connections of servers to the runner. Any number may be open; each is told every event.
//!
//! Invariant: no connection can hold up the runner. One that reads too slowly is cut off; its server comes back and asks
//! what it missed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};

use super::Runner;
use crate::backend::BackendEvent;
use crate::local::place::Place;
use crate::local::protocol::{self, FromRunner, ToRunner, VERSION};

/// Messages that may wait for one server.
const QUEUE: usize = 1 << 16;
/// Bytes that are joined into one write.
const BATCH: usize = 256 << 10;

/// The servers that listen.
#[derive(Default)]
pub struct Connections(RefCell<Vec<Rc<Connection>>>);

struct Connection {
    queue: mpsc::Sender<Rc<[u8]>>,
    /// Told when it did not keep up.
    cut: Notify,
}

impl Connection {
    fn send(&self, line: Rc<[u8]>) {
        if self.queue.try_send(line).is_err() {
            self.cut.notify_one();
        }
    }
}

impl Connections {
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Sends an event to all; who cannot take it is cut off.
    pub fn tell(&self, event: BackendEvent) {
        if self.is_empty() {
            return;
        }
        let line: Rc<[u8]> = protocol::encode(&FromRunner::Event(event)).into();
        self.0.borrow().iter().for_each(|connection| connection.send(Rc::clone(&line)));
    }
}

/// Begins to listen, for this user alone.
pub fn listen(place: &Place) -> io::Result<UnixListener> {
    // We hold the lock: a socket that exists belongs to nobody.
    let _ = std::fs::remove_file(place.socket());
    let (address, _dir) = place.socket_address()?;
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(address);
    rustix::process::umask(mask);
    listener
}

/// Accepts servers for ever.
pub async fn accept(runner: &Rc<Runner>, listener: &UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let runner = Rc::clone(runner);
                tokio::task::spawn_local(async move {
                    if let Err(error) = serve(&runner, stream).await {
                        super::note(&format!("a connection broke: {error}"));
                    }
                });
            }
            Err(error) => {
                super::note(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(super::RECORD_EVERY).await;
            }
        }
    }
}

async fn serve(runner: &Rc<Runner>, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} is not ours")));
    }
    let (read, write) = stream.into_split();
    let (sender, queue) = mpsc::channel(QUEUE);
    let connection = Rc::new(Connection { queue: sender, cut: Notify::new() });
    let mut writer = tokio::task::spawn_local(write_all(write, queue));
    let result = tokio::select! {
        result = read_all(runner, BufReader::with_capacity(64 << 10, read), &connection) => result,
        () = connection.cut.notified() => Err(io::Error::new(io::ErrorKind::TimedOut, "the server reads too slowly")),
        _ = &mut writer => Ok(()),
    };
    writer.abort();
    runner.connections.0.borrow_mut().retain(|other| !Rc::ptr_eq(other, &connection));
    runner.changed.notify_waiters();
    result
}

async fn read_all(
    runner: &Rc<Runner>,
    mut read: BufReader<OwnedReadHalf>,
    connection: &Rc<Connection>,
) -> io::Result<()> {
    let mut line = Vec::new();
    let mut base_env = Rc::new(BTreeMap::new());
    let mut understood = false;
    while let Some(message) = protocol::next(&mut read, &mut line).await? {
        let reply = match message {
            ToRunner::Hello { version, base_env: env, lease_ms } => {
                connection
                    .send(protocol::encode(&FromRunner::Hello { version: VERSION, pid: std::process::id() }).into());
                base_env = Rc::new(env);
                understood = version == VERSION;
                if understood {
                    // Without one it is a server that only asks, or a worker that has not heard from its own yet.
                    lease_ms.into_iter().for_each(|until| runner.lease(until));
                    // Not sooner: the hello comes before all events.
                    runner.connections.0.borrow_mut().push(Rc::clone(connection));
                    runner.changed.notify_waiters();
                }
                continue;
            }
            // It read our version, and should have told its user and gone.
            _ if !understood => return Err(io::Error::new(io::ErrorKind::InvalidData, "no hello, or another version")),
            ToRunner::Start { seq, spec, lease_ms } => {
                lease_ms.into_iter().for_each(|until| runner.lease(until));
                runner.start(spec, Rc::clone(&base_env));
                FromRunner::Done { seq }
            }
            ToRunner::Status { seq, handles } => {
                FromRunner::Status { seq, observations: handles.iter().map(|h| runner.observe(h)).collect() }
            }
            ToRunner::Lease { until_ms } => {
                runner.lease(until_ms);
                continue;
            }
            ToRunner::Cancel { seq, handle, grace, lost } => {
                runner.cancel(&handle, grace, lost);
                FromRunner::Done { seq }
            }
        };
        connection.send(protocol::encode(&reply).into());
    }
    Ok(())
}

/// Writes what is queued, joining what waits together.
async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Rc<[u8]>>) {
    let mut batch = Vec::new();
    while let Some(first) = queue.recv().await {
        batch.extend_from_slice(&first);
        while batch.len() < BATCH
            && let Ok(more) = queue.try_recv()
        {
            batch.extend_from_slice(&more);
        }
        if write.write_all(&batch).await.is_err() {
            return;
        }
        batch.clear();
        batch.shrink_to(BATCH);
    }
}
