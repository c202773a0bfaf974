//! The watcher of one cluster: starts what is to be started, asks ECS about all that runs, many at a time, and lets
//! each attempt take what was seen.
//!
//! Invariant: it is correct alone. Whoever hears of an event only lets it look earlier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use pitcrew_core::AttemptId;
use pitcrew_exec::EventSender;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::follow::{Follow, Next};
use super::gang::Unseated;
use super::{Gate, Timing};
use crate::client::ecs::{BATCH, Definition, Task};
use crate::client::{Client, Fault};
use crate::clock;

/// Attempts that are worked on at the same time.
const AT_ONCE: usize = 8;
/// After what is not ECS's fault.
const PAUSE: Duration = Duration::from_secs(1);
/// A question that takes longer is not waited for.
const SLOW: Duration = Duration::from_secs(2);
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
    /// Held while machines are chosen for a gang: the next one is not to have the same.
    pub seating: tokio::sync::Mutex<()>,
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
            seating: tokio::sync::Mutex::default(),
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
    pub(super) fn all(&self) -> Vec<Arc<Follow>> {
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
                    What::Begin(None) => follow.begin(self).await,
                    What::Begin(Some(why)) => follow.unseated(self, &why).await,
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
                    follow.put_off(PAUSE);
                }
            }
        }
    }

    /// What is to be done now: each can wait for ECS without the others.
    fn due(self: &Arc<Self>) -> Vec<BoxFuture<'static, ()>> {
        let until = clock::instant() + self.timing.soonest / 4;
        let due: Vec<_> = self.all().into_iter().filter(|follow| follow.take_up(until)).collect();
        let (begun, new): (Vec<_>, Vec<_>) = due.into_iter().partition(|follow| follow.task().is_some());
        let mut work: Vec<BoxFuture<'static, ()>> = Vec::new();
        if !new.is_empty() {
            work.push(Arc::clone(self).begin(new).boxed());
        }
        work.extend(begun.chunks(BATCH).map(|batch| Arc::clone(self).look(batch.to_vec()).boxed()));
        work
    }

    async fn begin(self: Arc<Self>, new: Vec<Arc<Follow>>) {
        let work = self.seated(new.clone()).await;
        self.each(work.into_iter().map(|(follow, why)| (follow, What::Begin(why))).collect()).await;
        new.iter().for_each(|follow| follow.put_down());
    }

    /// Of what ECS does not tell now, and only of that, the next look is put off.
    async fn look(self: Arc<Self>, batch: Vec<Arc<Follow>>) {
        let names: Vec<String> = batch.iter().filter_map(|follow| follow.task()).collect();
        let warn = |fault: &Fault| tracing::warn!(cluster = %self.cluster, "cannot ask ECS about tasks: {fault}");
        match self.client.tasks(&self.cluster, &names).await {
            Ok(known) => {
                known.untold.first().iter().for_each(|(_, fault)| warn(fault));
                let mut tasks: HashMap<String, Task> =
                    known.tasks.into_iter().map(|task| (task.task_arn.clone(), task)).collect();
                let mut seen = Vec::new();
                for follow in &batch {
                    let arn = follow.task().unwrap_or_default();
                    match known.untold.iter().any(|(untold, _)| *untold == arn) {
                        true => follow.untold(),
                        false => seen.push((Arc::clone(follow), What::Seen(tasks.remove(&arn)))),
                    }
                }
                self.each(seen).await;
            }
            Err(fault) => {
                warn(&fault);
                batch.iter().for_each(|follow| follow.untold());
            }
        }
        batch.iter().for_each(|follow| follow.put_down());
    }
}

enum What {
    /// Unless it is of a gang that has no machines, for that reason.
    Begin(Option<Arc<Unseated>>),
    Seen(Option<Task>),
}

/// Goes on until it is aborted. While a question is new, what becomes due gathers for the next; one that takes its time is not
/// waited for.
async fn run(this: Arc<Shared>) {
    let mut at_work = FuturesUnordered::new();
    let mut gathers = clock::instant();
    loop {
        if at_work.is_empty() || clock::instant() >= gathers {
            let work = this.due();
            if !work.is_empty() {
                gathers = clock::instant() + SLOW;
                at_work.extend(work);
            }
        }
        let next = this.all().iter().filter_map(|follow| follow.due()).min();
        let next = next.map(|at| if at_work.is_empty() { at } else { at.max(gathers) });
        tokio::select! {
            () = this.poke.notified() => {}
            () = until(next) => {}
            Some(()) = at_work.next() => {}
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
