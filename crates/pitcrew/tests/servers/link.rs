//! A way between a server and what it needs that can be cut: a relay of bytes in a thread of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Link {
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
    target: watch::Sender<String>,
}

impl Link {
    /// Leads to `HOST:PORT`.
    pub fn to(target: &str) -> Link {
        let (is_cut, cut) = watch::channel(false);
        let (target, leads_to) = watch::channel(target.to_owned());
        let (told, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((from, _)) = listener.accept().await {
                    tokio::spawn(relay(from, leads_to.borrow().clone(), cut.clone()));
                }
            });
        });
        let address = address.recv_timeout(Duration::from_secs(30)).expect("a port is free");
        Link { address, is_cut, target }
    }

    /// From now on it leads there.
    pub fn turn_to(&self, target: &str) {
        self.target.send_replace(target.to_owned());
    }

    /// What goes over it breaks, and nothing gets through until [`Link::heal`].
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub fn heal(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn relay(mut from: TcpStream, target: String, mut cut: watch::Receiver<bool>) {
    if *cut.borrow_and_update() {
        return;
    }
    let Ok(mut to) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => {}
        _ = cut.wait_for(|is_cut| *is_cut) => {}
    }
}
