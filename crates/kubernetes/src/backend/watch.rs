//! Our pods of one namespace, as they change: one list and one watch for all attempts there.
//!
//! What is told is a hint. Whoever follows an attempt asks for its pod by name where a hint does not suffice: so a watch that is
//! late, or broke, delays an end and loses none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::manifest::INSTANCE;
use super::seen::Seen;
use crate::client::{Call, Change, Client, Fault, PODS};

/// Between two tries to read a list.
const AGAIN: Duration = Duration::from_secs(2);

/// What is known of one pod. Each telling counts.
#[derive(Debug, Clone, Default)]
pub struct Told {
    count: u64,
    /// As it was told last, which may be its end.
    pub pod: Option<Arc<Seen>>,
    pub is_there: bool,
}

pub type Hint = watch::Receiver<Told>;
type Teller = watch::Sender<Told>;

/// One namespace of one cluster.
pub struct Namespace {
    pub client: Client,
    pub name: String,
    instance: String,
    followed: Mutex<HashMap<String, Teller>>,
}

impl Namespace {
    /// Listens as long as somebody holds it.
    pub fn new(client: Client, name: String, instance: String) -> Arc<Namespace> {
        let made = Arc::new(Namespace { client, name, instance, followed: Mutex::default() });
        tokio::spawn(listen(Arc::downgrade(&made)));
        made
    }

    /// Hears of this pod from now on, whether it is there or not.
    pub fn follow(&self, pod: &str) -> Hint {
        self.lock().entry(pod.to_owned()).or_insert_with(|| watch::Sender::new(Told::default())).subscribe()
    }

    pub fn forget(&self, pod: &str) {
        self.lock().remove(pod);
    }

    fn tell(&self, pod: Seen, is_there: bool) {
        if let Some(teller) = self.lock().get(&pod.metadata.name) {
            teller.send_modify(|told| *told = Told { count: told.count + 1, pod: Some(Arc::new(pod)), is_there });
        }
    }

    /// What a list does not have is gone, or is not there yet.
    fn tell_all(&self, pods: Vec<Seen>) {
        let mut pods: HashMap<String, Arc<Seen>> =
            pods.into_iter().map(|pod| (pod.metadata.name.clone(), Arc::new(pod))).collect();
        for (name, teller) in self.lock().iter() {
            let pod = pods.remove(name);
            let is_there = pod.is_some();
            teller.send_modify(|told| *told = Told { count: told.count + 1, pod, is_there });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Teller>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(namespace: Weak<Namespace>) {
    loop {
        let Some(of) = namespace.upgrade() else { return };
        let (client, list) = (of.client.clone(), {
            let selector = format!("{INSTANCE}={}", of.instance);
            Call::list(PODS, Some(&of.name)).query("labelSelector", selector)
        });
        drop(of);
        if let Err(fault) = once(&namespace, &client, list).await {
            tracing::debug!("pods cannot be watched: {fault}");
            tokio::time::sleep(fault.after.unwrap_or(AGAIN)).await;
        }
    }
}

/// Until the list is to be read anew.
async fn once(namespace: &Weak<Namespace>, client: &Client, list: Call) -> Result<(), Fault> {
    let (pods, version) = client.all_at::<Seen>(list.clone()).await?;
    match namespace.upgrade() {
        Some(of) => of.tell_all(pods),
        None => return Ok(()),
    }
    let mut changes = client.watch(list, &version).await?;
    loop {
        let change = changes.next::<Seen>().await?;
        let Some(of) = namespace.upgrade() else { return Ok(()) };
        match change {
            Change::Is(pod) => of.tell(pod, true),
            Change::Gone(pod) => of.tell(pod, false),
            Change::Over => return Ok(()),
        }
    }
}
