//! A receiver for the notification at the end of the demo: what a chat would get, shown on the terminal.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use tokio::net::TcpListener;

/// Listens as long as it lives.
pub struct Webhook {
    address: SocketAddr,
    received: Received,
    task: tokio::task::JoinHandle<()>,
}

type Received = Arc<Mutex<Vec<String>>>;

impl Webhook {
    /// Listens on a free port of the loopback address.
    pub async fn start() -> anyhow::Result<Webhook> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let received = Received::default();
        let router = Router::new().route("/notify", post(receive)).layer(DefaultBodyLimit::max(64 << 10));
        let served = axum::serve(listener, router.with_state(received.clone()));
        let task = tokio::spawn(async move { drop(served.await) });
        Ok(Webhook { address, received, task })
    }

    pub fn url(&self) -> String {
        format!("http://{}/notify", self.address)
    }

    /// The bodies that came so far.
    pub fn received(&self) -> Vec<String> {
        self.received.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(State(received): State<Received>, body: String) -> &'static str {
    received.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(body);
    "ok"
}
