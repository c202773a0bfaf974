//! The start of an attempt: its place, the call that starts its task, and what is in the way of that.
//!
//! Invariant: whatever was asked of ECS before is looked for first, and each try asks for the same.

use std::io;
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use pitcrew_exec::spec::{HEAD, PEERS};

use super::super::gang::{Seats, Unseated};
use super::super::marks::{Known, Mark, Sent};
use super::super::plan;
use super::super::watch::Shared;
use super::{Definitions, FIRST_PAUSE, Follow, LONGEST_PAUSE, Next, Work, lock};
use crate::client::ecs::{Definition, Listed, Needs, Where};
use crate::client::{Client, Fault, Kind};
use crate::clock;

/// How long the members of a gang wait for each other to come: they are started together, unless a server died between.
const MATES: SignedDuration = SignedDuration::from_mins(10);

impl Follow {
    /// What its task takes of a machine. `known`: definitions that its mates named; all of a gang are of one revision.
    pub async fn needs(&self, host: &Shared, known: &mut Definitions) -> Result<Needs, Unseated> {
        let work = &mut *self.work.lock().await;
        let name = work.sent.run.definition.clone();
        let definition = match known.get(&name) {
            Some(definition) => definition.clone(),
            None => {
                let definition = host.definition(&name).await?;
                known.insert(name, definition.clone());
                definition
            }
        };
        settle(&mut work.sent, &definition).map_err(Unseated::Never)?;
        Ok(definition.needs(work.sent.run.overrides.as_ref()))
    }

    /// Binds it to its machine, in every try from now on, and tells it of its mates.
    pub async fn take_seat(
        &self,
        host: &Shared,
        known: &mut Definitions,
        seats: &Seats,
        rank: usize,
    ) -> Result<(), Unseated> {
        if self.task().is_some() || self.has_seat() {
            return Ok(());
        }
        let needs = self.needs(host, known).await?;
        let work = &mut *self.work.lock().await;
        let (Some(machine), Some(overrides)) = (seats.machines.get(rank), &mut work.sent.run.overrides) else {
            return Err(Unseated::Never(format!("there is no place for member {rank} among those of its gang")));
        };
        let head = seats.peers.first().cloned().unwrap_or_default();
        overrides.env.extend([(PEERS.to_owned(), seats.peers.join(",")), (HEAD.to_owned(), head)]);
        plan::check_size(overrides).map_err(Unseated::Never)?;
        work.sent.run.on = Where::Machine(machine.clone());
        work.sent.seated = Some(seats.at);
        work.sent.needs = Some(needs);
        work.since = clock::instant();
        work.sent.write(&self.handle.dir)?;
        if let Some(notice) = &seats.notice {
            self.say(work, notice)?;
        }
        lock(&self.seen).seat = Some((machine.clone(), needs));
        self.hurry();
        Ok(())
    }

    /// The word that its task is started by, and its definition, if nobody has looked for one yet.
    pub async fn is_sought(&self) -> Option<(String, String)> {
        let work = self.work.lock().await;
        (!work.was_sought).then(|| (work.sent.run.started_by.clone(), work.sent.run.definition.clone()))
    }

    /// It was looked for, and this is its task.
    pub async fn adopt(&self, task: Option<String>) -> io::Result<()> {
        let work = &mut *self.work.lock().await;
        work.was_sought = true;
        if let Some(task) = task {
            self.has_task(work, task)?;
        }
        Ok(())
    }

    fn has_task(&self, work: &mut Work, task: String) -> io::Result<()> {
        Known { arn: task.clone() }.write(&self.handle.dir)?;
        lock(&self.seen).task = Some(task);
        work.since = clock::instant();
        self.hurry();
        Ok(())
    }

    /// What becomes of it while its gang has no machines.
    pub async fn unseated(&self, host: &Shared, why: &Unseated) -> io::Result<Next> {
        let work = &mut *self.work.lock().await;
        self.tried.send_replace(true);
        if self.has_seat() || self.is_cancelled() || self.task().is_some() {
            self.hurry();
            return Ok(Next::Look);
        }
        match why {
            Unseated::Mates if work.sent.at.is_none_or(|at| clock::now() - MATES < at) => {
                self.put_off(FIRST_PAUSE);
                Ok(Next::Look)
            }
            Unseated::Mates => {
                let reason = "not all members of its gang came to be started".to_owned();
                self.end_unstarted(host, work, Exit::start_failed(reason))
            }
            Unseated::Stranded => {
                let reason =
                    "others of its gang run already, started by another server whose files are not here".to_owned();
                self.end_unstarted(host, work, Exit::start_failed(reason))
            }
            Unseated::Later(why) => self.wait(work, why),
            Unseated::Room(why) => self.wait_for_room(host, work, why),
            Unseated::Never(why) => self.end_unstarted(host, work, Exit::cannot_start(why.clone())),
        }
    }

    /// Starts it, or finds that it was started.
    pub async fn begin(&self, host: &Shared) -> io::Result<Next> {
        let begun = self.begin_now(host).await;
        self.tried.send_replace(true);
        begun
    }

    async fn begin_now(&self, host: &Shared) -> io::Result<Next> {
        let work = &mut *self.work.lock().await;
        if self.task().is_some() {
            return Ok(Next::Look);
        }
        match self.try_begin(host, work).await {
            Ok(Begun::Task(task)) => {
                self.has_task(work, task)?;
                if let Err(fault) = self.stop(&host.client).await {
                    tracing::warn!(attempt = %self.handle.id, "cannot stop it: {fault}");
                }
                Ok(Next::Look)
            }
            Ok(Begun::Over(exit)) => self.end_unstarted(host, work, exit),
            Ok(Begun::Waits(why)) => self.wait(work, &why),
            Err(fault) => match fault.kind {
                Kind::Throttled | Kind::Unreached => self.wait(work, &fault.to_string()),
                Kind::Capacity => self.wait_for_room(host, work, &fault.to_string()),
                Kind::NotFound | Kind::Denied | Kind::Invalid | Kind::Conflict => {
                    self.end_unstarted(host, work, Exit::cannot_start(fault.to_string()))
                }
            },
        }
    }

    /// Room may come, but it is not waited for for ever; least of all while mates hold theirs.
    fn wait_for_room(&self, host: &Shared, work: &mut Work, why: &str) -> io::Result<Next> {
        let (waited, most) = match (work.sent.seated, work.sent.at) {
            // Time in which no server ran is no time in which it waited.
            (Some(_), _) => (clock::instant() - work.since, host.timing.seated),
            (None, Some(at)) if clock::now() > at => {
                (clock::now().duration_since(at).unsigned_abs(), host.timing.capacity)
            }
            (None, _) => (Duration::ZERO, host.timing.capacity),
        };
        if waited >= most && !waited.is_zero() {
            let reason = format!("no room within {} s: {why}", most.as_secs());
            return self.end_unstarted(host, work, Exit::start_failed(reason));
        }
        self.wait(work, why)
    }

    /// What it waits for is said once in its log, and the pauses grow.
    fn wait(&self, work: &mut Work, why: &str) -> io::Result<Next> {
        self.put_off(work.pause);
        work.pause = (work.pause * 2).min(LONGEST_PAUSE);
        if work.told_waiting.as_deref() != Some(why) {
            work.told_waiting = Some(why.to_owned());
            self.say(work, &format!("waits: {why}"))?;
        }
        Ok(Next::Look)
    }

    async fn try_begin(&self, host: &Shared, work: &mut Work) -> Result<Begun, Fault> {
        let (client, cluster) = (&host.client, self.place.cluster.as_str());
        if let Some(task) = self.find(client, &work.sent, work.perhaps_asked).await? {
            return Ok(Begun::Task(task));
        }
        if self.cancel().is_some() {
            let asked_at = work.sent.at.filter(|_| work.perhaps_asked);
            let age = asked_at.map(|at| clock::now().duration_since(at).unsigned_abs());
            // ECS may know of it and not tell yet.
            return Ok(match age.is_some_and(|age| age < host.timing.unmentioned) {
                true => Begun::Waits("it is to stop, and ECS may not know it yet".to_owned()),
                false => Begun::Over(Exit::Cancelled),
            });
        }
        let definition = host.definition(&work.sent.run.definition).await?;
        if let Err(why) = settle(&mut work.sent, &definition) {
            return Ok(Begun::Over(Exit::cannot_start(why)));
        }
        let unwritten = |e: io::Error| Fault::invalid("ecs:RunTask", format!("cannot write `sent.json`: {e}"));
        work.sent.write(&self.handle.dir).map_err(unwritten)?;
        let placing = host.gate.placing().await;
        let asked = client.run_task(&work.sent.run).await;
        drop(placing);
        // Where nobody answered, it may have begun; the token keeps it from beginning twice.
        work.perhaps_asked = true;
        match asked {
            Ok(task) => Ok(Begun::Task(task.task_arn)),
            // The token was used with other words, such as another environment, by whoever had this attempt before.
            Err(fault) if fault.kind == Kind::Conflict => match self.find(client, &work.sent, true).await? {
                Some(task) => Ok(Begun::Task(task)),
                None => Err(fault),
            },
            Err(fault) if fault.kind == Kind::NotFound && fault.code.contains("ClusterNotFound") => {
                Ok(Begun::Over(Exit::cannot_start(format!("there is no cluster `{cluster}`: {fault}"))))
            }
            Err(fault) => Err(fault),
        }
    }

    /// The task that was started for this attempt, if ECS knows one; `stopped` ones are looked for as well.
    async fn find(&self, client: &Client, sent: &Sent, stopped: bool) -> Result<Option<String>, Fault> {
        let cluster = self.place.cluster.as_str();
        let word = sent.run.started_by.as_str();
        let found = client.list_tasks(cluster, Listed::StartedBy(word)).await?;
        if let Some(task) = found.into_iter().next() {
            return Ok(Some(task));
        }
        let family = sent.run.definition.parse::<crate::arn::Family>().ok().filter(|_| stopped);
        let Some(family) = family else { return Ok(None) };
        let over = client.list_tasks(cluster, Listed::Stopped(&family.name)).await?;
        let known = client.tasks(cluster, &over).await?;
        let ours = known.whole()?.into_iter().find(|task| task.started_by.as_deref() == Some(word));
        Ok(ours.map(|task| task.task_arn))
    }
}

enum Begun {
    Task(String),
    Waits(String),
    Over(Exit),
}

/// Fixes which revision and which container it is, so that every try asks for the same.
fn settle(sent: &mut Sent, definition: &Definition) -> Result<(), String> {
    if !definition.task_definition_arn.is_empty() {
        sent.run.definition.clone_from(&definition.task_definition_arn);
    }
    let Some(overrides) = &mut sent.run.overrides else { return Ok(()) };
    let all = || {
        let names: Vec<_> = definition.container_definitions.iter().map(|c| format!("`{}`", c.name)).collect();
        names.join(", ")
    };
    match definition.container(&overrides.container) {
        Some(_) => Ok(()),
        None if overrides.container.is_empty() => {
            let main = definition.main().ok_or("its task definition has no container")?;
            overrides.container.clone_from(&main.name);
            Ok(())
        }
        None => Err(format!("its task definition has no container `{}`; it has: {}", overrides.container, all())),
    }
}
