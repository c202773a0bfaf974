//! The watcher of one cluster: starts what is to be started, asks ECS about all that runs, many at a time, and lets
//! each attempt take what was seen.
//!
//! Invariant: it is correct alone. Whoever hears of an event only lets it look earlier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use pitcrew_core::AttemptId;
use pitcrew_exec::EventSender;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::follow::{Follow, Next};
use super::{Gate, Timing};
use crate::client::ecs::{BATCH, Definition, Task};
use crate::client::{Client, Fault};
use crate::clock;

/// Attempts that are worked on at the same time.
const AT_ONCE: usize = 8;
/// After ECS could not be asked: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Task definitions that are remembered; a revision never changes.
const REMEMBERED: usize = 1000;

/// See the module.
pub struct Watch {
    pub shared: Arc<Shared>,
    task: AbortHandle,
}

pub struct Shared {
    pub client: Client,
    pub cluster: String,
    pub timing: Timing,
    pub events: EventSender,
    pub gate: Gate,
    live: Mutex<HashMap<AttemptId, Arc<Follow>>>,
    poke: Notify,
    definitions: Mutex<HashMap<String, Arc<Definition>>>,
    /// The machine of each container instance that was asked for; that never changes.
    machines: Mutex<HashMap<String, String>>,
}

impl Watch {
    pub fn new(client: Client, cluster: String, timing: Timing, events: EventSender, gate: Gate) -> Watch {
        let shared = Arc::new(Shared {
            client,
            cluster,
            timing,
            events,
            gate,
            live: Mutex::default(),
            poke: Notify::new(),
            definitions: Mutex::default(),
            machines: Mutex::default(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared))).abort_handle();
        Watch { shared, task }
    }

    /// From now on the attempt is looked after.
    pub fn follow(&self, made: Follow) -> Arc<Follow> {
        let mut live = lock(&self.shared.live);
        let entry = live.entry(made.handle.id.clone()).or_insert_with(|| Arc::new(made));
        let entry = Arc::clone(entry);
        drop(live);
        self.shared.poke.notify_one();
        entry
    }

    pub fn followed(&self, id: &AttemptId) -> Option<Arc<Follow>> {
        lock(&self.shared.live).get(id).cloned()
    }

    /// Looks at an attempt now.
    pub fn look(&self, follow: &Follow) {
        follow.hurry();
        self.shared.poke.notify_one();
    }

    /// Looks at the attempt that has this task now; says whether there is one.
    pub fn wake(&self, task: &str) -> bool {
        let found = self.shared.all().into_iter().find(|follow| follow.task().as_deref() == Some(task));
        found.map(|follow| self.look(&follow)).is_some()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn all(&self) -> Vec<Arc<Follow>> {
        lock(&self.live).values().cloned().collect()
    }

    /// The client for another region than the cluster's.
    pub fn client_of(&self, region: Option<&str>) -> Result<Client, Fault> {
        match region.filter(|region| *region != self.client.region()) {
            Some(region) => self.client.in_region(region),
            None => Ok(self.client.clone()),
        }
    }

    /// A task definition. One revision is asked for once; a family names another one from time to time.
    pub async fn definition(&self, name: &str) -> Result<Arc<Definition>, Fault> {
        let is_fixed = name.parse::<crate::arn::Family>().is_ok_and(|family| family.revision.is_some());
        if let Some(known) = lock(&self.definitions).get(name).filter(|_| is_fixed) {
            return Ok(known.clone());
        }
        let definition = Arc::new(self.client.definition(name).await?);
        let mut all = lock(&self.definitions);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(definition.task_definition_arn.clone(), definition.clone());
        if is_fixed {
            all.insert(name.to_owned(), definition.clone());
        }
        Ok(definition)
    }

    /// The id of the machine under a container instance; `None`: ECS does not know it any more.
    pub async fn machine(&self, instance: &str) -> Result<Option<String>, Fault> {
        if let Some(known) = lock(&self.machines).get(instance) {
            return Ok(Some(known.clone()));
        }
        let known = self.client.instances(&self.cluster, &[instance.to_owned()]).await?;
        let machine = known.into_iter().next().map(|instance| instance.ec2_instance_id).filter(|id| !id.is_empty());
        if let Some(machine) = &machine {
            let mut all = lock(&self.machines);
            if all.len() >= REMEMBERED {
                all.clear();
            }
            all.insert(instance.to_owned(), machine.clone());
        }
        Ok(machine)
    }

    /// Lets attempts take what was seen of them, several at a time.
    async fn each(&self, work: Vec<(Arc<Follow>, What)>) {
        let mut work = futures::stream::iter(work)
            .map(|(follow, what)| async move {
                let next = match what {
                    What::Begin => follow.begin(self).await,
                    What::Seen(task) => follow.advance(self, task.as_ref()).await,
                };
                (follow, next)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((follow, next)) = work.next().await {
            match next {
                Ok(Next::Look) => {}
                Ok(Next::Over) => {
                    lock(&self.live).remove(&follow.handle.id);
                    follow.over.notify_waiters();
                }
                Err(error) => {
                    let dir = follow.handle.dir.display();
                    tracing::warn!(attempt = %follow.handle.id, "cannot write in `{dir}`: {error}");
                    follow.put_off(FIRST_PAUSE);
                }
            }
        }
    }

    /// Looks at what is due.
    async fn look(&self) -> Result<(), Fault> {
        let now = clock::instant();
        let due: Vec<_> =
            self.all().into_iter().filter(|follow| follow.due() <= now + self.timing.soonest / 4).collect();
        let (begun, new): (Vec<_>, Vec<_>) = due.into_iter().partition(|follow| follow.task().is_some());
        self.each(new.into_iter().map(|follow| (follow, What::Begin)).collect()).await;
        for batch in begun.chunks(BATCH) {
            let names: Vec<String> = batch.iter().filter_map(|follow| follow.task()).collect();
            let known = match self.client.tasks(&self.cluster, &names).await {
                Ok(known) => known,
                Err(fault) => {
                    batch.iter().for_each(|follow| follow.put_off(FIRST_PAUSE));
                    return Err(fault);
                }
            };
            let mut tasks: HashMap<String, Task> =
                known.tasks.into_iter().map(|task| (task.task_arn.clone(), task)).collect();
            let mut seen = Vec::new();
            for follow in batch {
                let task = follow.task().and_then(|arn| tasks.remove(&arn));
                seen.push((Arc::clone(follow), What::Seen(task)));
            }
            self.each(seen).await;
        }
        Ok(())
    }
}

enum What {
    Begin,
    Seen(Option<Task>),
}

/// Goes on until it is aborted.
async fn run(this: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match this.look().await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(fault) => {
                tracing::warn!(cluster = %this.cluster, "cannot ask ECS about tasks: {fault}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        }
        let next = this.all().iter().map(|follow| follow.due()).min();
        tokio::select! {
            () = this.poke.notified() => {}
            () = until(next) => {}
        }
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
