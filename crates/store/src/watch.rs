//! Waking up those who wait for a change of runs.
//!
//! A wake-up is a hint: it may come for nothing and several changes may share one, but no change stays untold
//! for longer than the poll interval behind it. So whoever wakes looks at what is true.

use tokio::sync::watch;

/// Something that wakes when runs were created or changed; see [`Store::subscribe`](crate::Store::subscribe).
#[derive(Debug, Clone)]
pub struct Subscription(watch::Receiver<u64>);

impl Subscription {
    /// Waits until something has changed since the last call, or since the subscription was made.
    /// Waits for ever once the store is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The sending end, one per store.
#[derive(Debug, Clone)]
pub(crate) struct Bell(watch::Sender<u64>);

impl Bell {
    pub fn new() -> Self {
        Bell(watch::Sender::new(0))
    }

    pub fn ring(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    pub fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }

    pub fn has_one_listener(&self) -> bool {
        self.0.receiver_count() == 1
    }

    /// Waits until the last listener has gone.
    pub async fn unheard(&self) {
        self.0.closed().await;
    }
}
