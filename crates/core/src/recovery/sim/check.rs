//! What must always hold of a world, and what must hold when nothing happens any more.

use super::super::{Act, Changes, JobRecord, JobState, NodeRecord, NodeState, Record, Recovery, StopWhy};
use jiff::SignedDuration;

use super::server::Last;
use super::world::{Event, Outcome, World};
use crate::state::Exit;

/// Longer than any state of a job lasts that leads on by itself, also if nobody leads at its end.
const LONGEST: SignedDuration = SignedDuration::from_hours(28);

/// After every step.
pub(super) fn always(world: &World) -> Outcome {
    let leads_on = |job: &&JobRecord| !job.state.is_final() && job.state != JobState::Running;
    if let Some(job) = world.server.r.jobs().filter(leads_on).find(|job| world.now > job.since + LONGEST) {
        return Err(format!("{} is {} since {}", job.job, job.state, job.since));
    }
    for (name, machine) in &world.machines {
        let since = world.opted_out.get(name);
        if let Some((at, _)) = machine.repairs.last()
            && since.is_some_and(|since| at > since)
        {
            return Err(format!("{name} has opted out, and was repaired"));
        }
    }
    Ok(())
}

/// What is about to be written.
pub(super) fn written(world: &World, changes: &Changes, in_repair: usize) -> Outcome {
    let r = &world.server.r;
    let now_in_repair = r.in_repair().count();
    if now_in_repair > r.repair_limit() && now_in_repair > in_repair {
        return Err(format!("{now_in_repair} nodes are in repair, and {} may be", r.repair_limit()));
    }
    for record in &changes.records {
        if let Record::Incident(incident) = record
            && incident.outcome == Some(super::super::Outcome::OutOfService)
            && incident.advice.is_conclusive()
            && !incident.is_proven()
        {
            return Err(format!("{} is out of service, as if nothing showed that it is broken", incident.node));
        }
        let Record::Job(job) = record else { continue };
        let is_stopped = world.user_stopped.contains(&job.job);
        if is_stopped && job.state != JobState::UserStopped {
            return Err(format!("{} was stopped by a person, and is {}", job.job, job.state));
        }
        let is_same = |last: &&Last| last.state.is_final() && last.began && last.attempt >= job.attempt;
        if let Some(before) = world.server.last.get(&job.job).filter(is_same)
            && before.state != job.state
        {
            return Err(format!("{} was {}, and is {}", job.job, before.state, job.state));
        }
        let row = world.jobs.attempts.get(&(job.job.clone(), job.attempt));
        let is_well =
            |row: &super::jobs::Attempt| row.ranks.iter().all(|rank| rank.exit.as_ref().is_some_and(Exit::is_success));
        if job.state == JobState::Complete && !row.is_some_and(is_well) {
            return Err(format!("{} is complete, and its ranks are not", job.job));
        }
        let used = job.restarts.iter().filter(|restart| restart.class == super::super::Class::Application).count();
        // A verdict may show later that one more was the application's.
        if used > job.spec.application_restarts as usize + 1 {
            return Err(format!("{} began anew {used} times for failures of its own", job.job));
        }
    }
    Ok(())
}

/// What is wanted of jobs: nobody's work is ended that nothing speaks against. What it is told a second time, with force, it was told
/// before.
pub(super) fn wanted(world: &World, changes: &Changes) -> Outcome {
    for effect in &changes.effects {
        let Act::StopJob { job, attempt, why: StopWhy::Recovery | StopWhy::Drain, force: false } = &effect.act else {
            continue;
        };
        let Some(row) = world.server.r.job(job) else { return Err(format!("{job} is to end, and is not known")) };
        let is_meant = world.meant.contains(&(job.clone(), *attempt));
        let has_reason = |rank: &super::super::RankRecord| {
            let fails = rank.exit.as_ref().is_some_and(|exit| !exit.is_success());
            // One that is out of service may have become so by this very step.
            fails || world.server.r.node(&rank.place.node).is_none_or(|node| node.state != NodeState::Healthy)
        };
        if !is_meant && !row.ranks.iter().any(has_reason) {
            return Err(format!("{job}@{attempt} is to end, and nothing speaks against it: {:?}", row.ranks));
        }
    }
    Ok(())
}

/// Where recovery only watches, an incident lasts as long as its trouble does.
fn is_under_way(r: &Recovery, node: &NodeRecord) -> bool {
    node.state.is_under_way() && !r.open_incident(&node.name).is_some_and(|incident| incident.watched)
}

/// What keeps the world from coming to rest.
pub(super) fn what_is_left(world: &World) -> String {
    let r = &world.server.r;
    let nodes = r.nodes().filter(|node| is_under_way(r, node));
    let nodes: Vec<String> = nodes.map(|node| format!("{} is {}", node.name, node.state)).collect();
    let jobs = world.server.last.iter().filter(|(_, last)| !last.state.is_final());
    let jobs: Vec<String> = jobs.map(|(job, last)| format!("{job} is {}", last.state)).collect();
    let lives = world.jobs.attempts.iter().filter(|(_, row)| row.lives());
    let lives: Vec<String> = lives.map(|((job, attempt), _)| format!("{job}@{attempt} runs")).collect();
    let open: Vec<String> = r.open_effects().map(|effect| format!("{} {}", effect.id, effect.act.name())).collect();
    [nodes, jobs, lives, open].concat().join(", ")
}

impl World {
    pub fn is_at_rest(&self) -> bool {
        let told =
            |event: &Event| matches!(event, Event::Told(_) | Event::Checked(..) | Event::Begin(..) | Event::Again(_));
        self.fault_at.is_none()
            && self.server.todo.is_empty()
            && !self.server.r.nodes().any(|node| is_under_way(&self.server.r, node))
            && self.server.last.values().all(|last| last.state.is_final())
            && self.jobs.waiting.is_empty()
            && !self.jobs.attempts.values().any(|row| row.lives())
            && self.server.r.open_effects().next().is_none()
            && !self.events.values().any(told)
    }
}

/// When nothing happens any more.
pub(super) fn at_rest(world: &World) -> Outcome {
    for node in world.server.r.nodes() {
        let machine = &world.machines[&node.name];
        if machine.fenced != node.fenced {
            return Err(format!("{} is fenced: {}, and should be: {}", node.name, machine.fenced, node.fenced));
        }
        if node.fenced && node.state != NodeState::OutOfService {
            return Err(format!("{} is {} and fenced for ever", node.name, node.state));
        }
    }
    for job in &world.user_stopped {
        let state = world.server.last.get(job);
        if state.is_some_and(|last| last.state != JobState::UserStopped) {
            return Err(format!("{job} was stopped by a person, and is {state:?}"));
        }
    }
    if let Some((job, attempt)) = world.jobs.held.first_key_value() {
        return Err(format!("{job}@{attempt} waits for a verdict for ever"));
    }
    Ok(())
}

/// The first row in which two machines differ.
pub(super) fn difference(a: &Recovery, b: &Recovery) -> String {
    let (a, b) = (a.records(), b.records());
    let differs = a.iter().zip(&b).find(|(a, b)| a != b);
    match differs {
        Some((a, b)) => format!("{a:?}, and {b:?}"),
        None => format!("{} rows, and {}; or a timer", a.len(), b.len()),
    }
}
