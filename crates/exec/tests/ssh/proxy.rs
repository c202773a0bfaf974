//! A way to a server that can be cut, and that can be held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Open,
    /// What is there breaks, what comes is turned away.
    Cut,
    /// Nothing passes, and nothing breaks.
    Stalled,
    /// Breaks when the server has said so many bytes.
    CutAfter(usize),
    /// Breaks when the client has said so many bytes.
    CutAfterSent(usize),
    /// Lets so many bytes through in each direction, and then nothing more.
    StalledAfter(usize),
}

pub struct Proxy {
    pub port: u16,
    way: watch::Sender<Way>,
    accepted: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let (way, seen) = watch::channel(Way::Open);
        let accepted = Arc::new(AtomicUsize::new(0));
        let sent = Arc::new(AtomicUsize::new(0));
        let (count, all_sent) = (accepted.clone(), sent.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (seen, all_sent) = (seen.clone(), all_sent.clone());
                tokio::spawn(async move {
                    if *seen.borrow() == Way::Cut {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let (client_reader, client_writer) = client.into_split();
                    let (server_reader, server_writer) = server.into_split();
                    let up = pass(client_reader, server_writer, seen.clone(), Some(&*all_sent));
                    let down = pass(server_reader, client_writer, seen, None);
                    // Whichever ends first ends both.
                    tokio::select! { () = up => {}, () = down => {} }
                });
            }
        });
        Proxy { port: own_port, way, accepted, sent }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Bytes of clients that were passed on so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// `sent` counts what a client says; none: it is the server who says it.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    sent: Option<&AtomicUsize>,
) {
    let mut passed = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *way.borrow_and_update();
        let most = match (now, sent) {
            (Way::Open, _) | (Way::CutAfter(_), Some(_)) | (Way::CutAfterSent(_), None) => buffer.len(),
            (Way::CutAfter(bytes) | Way::CutAfterSent(bytes) | Way::StalledAfter(bytes), _) if passed < bytes => {
                bytes - passed
            }
            (Way::Cut | Way::CutAfter(_) | Way::CutAfterSent(_), _) => return,
            (Way::Stalled | Way::StalledAfter(_), _) => {
                if way.changed().await.is_err() {
                    return;
                }
                continue;
            }
        };
        let most = most.min(buffer.len());
        tokio::select! {
            changed = way.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer[..most]) => match read {
                Ok(0) | Err(_) => return,
                Ok(bytes) => {
                    passed += bytes;
                    if to.write_all(&buffer[..bytes]).await.is_err() {
                        return;
                    }
                    if let Some(sent) = sent {
                        sent.fetch_add(bytes, Ordering::Relaxed);
                    }
                }
            },
        }
    }
}
