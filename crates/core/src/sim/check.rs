//! What must hold in every simulated world: after each step, for each change of state, and when all is quiet.

use std::collections::BTreeSet;

use super::world::{Outcome, World};
use crate::engine::record::{SkipReason, Stop, StopHow};
use crate::engine::{Effects, Event, Run, Slot, Transition};
use crate::explain::Reason;
use crate::id::RunKey;
use crate::state::{Exit, RunState, State};

/// What a run was before an event, as far as the checks ask.
pub(super) struct Before {
    state: RunState,
    /// The event ends an attempt that is to be cleared.
    ends_cleared: Option<Slot>,
    /// Those that a person's mark ends, or a stop of the run that may be over by now; with their gangs.
    ended: Vec<Slot>,
    /// The run is cancelled, and ends all.
    is_halted: bool,
    /// Why attempts are being stopped, where time passes and nothing else.
    stops: Vec<(Slot, Stop)>,
}

impl Before {
    pub fn of(run: &Run, event: &Event) -> Self {
        let ends_cleared = match event {
            Event::Ended { slot, attempt, .. } => {
                let cleared = |slot| {
                    let instance = run.instance(slot);
                    instance.stop == Some(Stop::Cleared) && instance.attempt == *attempt && instance.state.is_live()
                };
                run.get(*slot).is_some_and(|_| cleared(*slot)).then_some(*slot)
            }
            _ => None,
        };
        let stops = match event {
            Event::Tick => {
                let ended = |slot: &Slot| run.instance(*slot).state == State::Recovering;
                let slots = run.all_slots().filter(|slot| !ended(slot));
                slots.filter_map(|slot| Some((slot, run.instance(slot).stop?))).collect()
            }
            _ => Vec::new(),
        };
        let slots = run.all_slots();
        let is_ended = |slot: &Slot| matches!(run.instance(*slot).stop, Some(Stop::MarkedFailed | Stop::Cancelled));
        let ended = slots.filter(|slot| run.with_mates(*slot).iter().any(is_ended)).collect();
        let is_halted = run.stopping() >= Some(StopHow::ThenFinally);
        Before { state: run.record.state, ends_cleared, ended, is_halted, stops }
    }
}

/// A final state is left only because a person asked for it, or because the items of a mapping changed after that.
pub(super) fn transitions(run: &Run, before: &Before, event: &Event, fx: &Effects) -> Outcome {
    let asked = matches!(event, Event::Clear { .. } | Event::Mark { .. });
    for t in &fx.transitions {
        let lasting = matches!(run.instance(t.slot).exit, Some(Exit::StartFailed { lasting: true, .. }));
        if lasting && matches!(t.to, State::UpForRetry { .. }) {
            return Err(format!("{} tries again what cannot start", run.workflow.task(t.slot.task).id));
        }
        if let Some(why) = not_ignored(run, before, event, t) {
            return Err(format!("{} failed ({why}), which is to be ignored", run.workflow.task(t.slot.task).id));
        }
        let mapping = t.to == State::Removed || t.from == State::Removed;
        if t.from.is_final() && !asked && !mapping && before.ends_cleared != Some(t.slot) {
            let id = &run.workflow.task(t.slot.task).id;
            return Err(format!("{id} left {} for {} by {event:?}", t.from, t.to));
        }
    }
    let changed = |(slot, stop): &&(Slot, Stop)| {
        let now = run.instance(*slot).stop;
        // Out of time, the run also stops what was to run again.
        let again = matches!(stop, Stop::Cleared | Stop::Preempted | Stop::Gang | Stop::Recovery);
        now != Some(*stop) && !(again && now == Some(Stop::Cancelled) && run.record.stop.is_some())
    };
    if let Some((slot, stop)) = before.stops.iter().find(changed) {
        let (id, now) = (&run.workflow.task(slot.task).id, run.instance(*slot).stop);
        return Err(format!("{id} was being stopped for {stop:?}, and by the time for {now:?}"));
    }
    if before.state.is_final() && !run.record.state.is_final() && !asked {
        return Err(format!("the run left {} by {event:?}", before.state));
    }
    Ok(())
}

/// A task whose failure is ignored fails only where a person says so, where the run ends it, or for what is not there.
fn not_ignored(run: &Run, before: &Before, event: &Event, t: &Transition) -> Option<String> {
    let ignores = run.workflow.task(t.slot.task).ignore_failure && t.to == State::Failed;
    let ends = run.stopping() >= Some(StopHow::ThenFinally) || before.is_halted;
    let instance = run.instance(t.slot);
    let said = matches!(event, Event::Mark { .. })
        || before.ends_cleared == Some(t.slot)
        || before.ended.contains(&t.slot)
        || instance.skip == Some(SkipReason::Invalid);
    (ignores && !ends && !said).then(|| format!("{:?}", instance.exit))
}

/// After each step, when memory is settled.
pub(super) fn world(world: &World) -> Outcome {
    let admission = &world.memory.admission;
    admission.sanity_check(false);
    let mut holders = 0;
    for (key, active) in &world.memory.runs {
        let run = &active.run;
        run.sanity_check();
        for slot in run.all_slots() {
            let instance = run.instance(slot);
            let name = || format!("run {key} {}[{}]", run.workflow.task(slot.task).id, run.map_index(slot));
            let live = instance.state.is_live();
            holders += usize::from(live);
            if instance.stop.is_some() && !world.is_being_ended(*key, slot) {
                return Err(format!("{} is to be ended, and nobody does", name()));
            }
            if live && !world.is_being_started(*key, slot) {
                return Err(format!("{} has its place, and nobody starts it", name()));
            }
            if live != admission.holds(*key, slot) {
                return Err(format!("{} is {}, and holds: {}", name(), instance.state, !live));
            }
            if instance.offered() != admission.why(*key, run.speaker(slot)).is_some() {
                return Err(format!("{} is {}; it and the admission disagree", name(), instance.state));
            }
            if !instance.state.is_final() && run.explain(slot, Some(admission)).is_empty() {
                return Err(format!("{} is {} for no reason", name(), instance.state));
            }
        }
    }
    for (key, active) in &world.memory.runs {
        gangs(*key, &active.run, world)?;
    }
    if holders != admission.live() {
        return Err(format!("{holders} instances are live, and {} hold something", admission.live()));
    }
    // Nothing runs that no run knows of.
    for id in world.backend.alive() {
        let known = world.find(id).is_some_and(|(key, slot)| {
            let instance = world.memory.runs[&key].run.instance(slot);
            instance.attempt == id.number && instance.state.is_live()
        });
        if !known {
            return Err(format!("{id} is alive, and nobody knows"));
        }
        let lease = world.find(id).and_then(|(key, slot)| admission.lease(key, slot));
        if lease.map_or(&[][..], |lease| &lease.ids) != world.backend.gpus(id) {
            return Err(format!("{id} uses {:?}, and holds {lease:?}", world.backend.gpus(id)));
        }
    }
    match world.backend.overused_gpu() {
        Some(gpu) => Err(format!("{gpu} is used beyond what it has")),
        None => Ok(()),
    }
}

/// Members have a node each, and none of them is of another try than its mates.
fn gangs(key: RunKey, run: &Run, world: &World) -> Outcome {
    for task in run.workflow.indices().filter(|task| run.workflow.task(*task).gang.is_some()) {
        let id = &run.workflow.task(task).id;
        let mut nodes = BTreeSet::new();
        for slot in run.slots(task) {
            let instance = run.instance(slot);
            if let Some(lease) = world.memory.admission.lease(key, slot)
                && !nodes.insert(&lease.node)
            {
                return Err(format!("run {key} {id} has two members on {}", lease.node));
            }
            let alive = |number: &u32| world.backend.is_alive(&run.attempt_id(slot, *number));
            let newest = run.slots(task).map(|mate| run.instance(mate).attempt).max().unwrap_or_default();
            if let Some(number) = (1..newest).find(alive) {
                return Err(format!("run {key} {id}: member {} of try {number} lives beside try {newest}", slot.index));
            }
            if instance.state == State::Deferred {
                world.saw("a member waited for its mates");
            }
            match instance.stop {
                Some(Stop::Gang) if instance.state.is_live() => world.saw("a member was ended with its gang"),
                Some(Stop::Preempted) if instance.state.is_live() => world.saw("a gang was preempted"),
                _ => {}
            }
            if instance.lost > 0 && instance.state == State::Scheduled {
                world.saw("a gang was lost");
            }
        }
    }
    Ok(())
}

/// When nothing can happen any more, every run is over; one that waits for the past says so, and may hold others up.
pub(super) fn at_rest(world: &World) -> Outcome {
    for (key, active) in &world.memory.runs {
        let run = &active.run;
        match run.record.state {
            RunState::Success | RunState::Failed | RunState::Cancelled => continue,
            RunState::Queued => {
                let running =
                    |a: &&super::server::Active| a.flow == active.flow && a.run.record.state == RunState::Running;
                let others = world.memory.runs.values().filter(running).count();
                if others < run.workflow.max_active_runs as usize {
                    return Err(format!("run {key} never began"));
                }
                continue;
            }
            RunState::Running => {}
        }
        world.saw("waits for the past for ever");
        let open = || run.all_slots().filter(|slot| !run.instance(*slot).state.is_final());
        if let Some(slot) = open().find(|slot| run.instance(*slot).state != State::None) {
            let id = &run.workflow.task(slot.task).id;
            return Err(format!("run {key} {id} is {} for ever", run.instance(slot).state));
        }
        let reasons = || open().flat_map(|slot| run.explain(slot, None));
        if !reasons().any(|reason| reason == Reason::WaitsForPast) {
            let reasons: Vec<String> = reasons().map(|reason| reason.to_string()).collect();
            return Err(format!("run {key} waits for ever: {}", reasons.join("; ")));
        }
    }
    let stored = world
        .store
        .runs
        .iter()
        .find(|(key, stored)| !stored.record.state.is_final() && !world.memory.runs.contains_key(key));
    if let Some((key, _)) = stored {
        return Err(format!("run {key} was forgotten"));
    }
    match world.memory.admission.live() {
        0 => Ok(()),
        held => Err(format!("{held} instances still hold something")),
    }
}

/// The first thing in which two runs differ that anybody could observe.
pub fn differences(a: &Run, b: &Run) -> Option<String> {
    if a.record != b.record {
        return Some(format!("{:?}, then {:?}", a.record, b.record));
    }
    let (slots_a, slots_b): (Vec<Slot>, Vec<Slot>) = (a.all_slots().collect(), b.all_slots().collect());
    if slots_a != slots_b {
        return Some(format!("{} instances, then {}", slots_a.len(), slots_b.len()));
    }
    for slot in slots_a {
        let (row_a, row_b) = (a.row(slot), b.row(slot));
        if row_a != row_b {
            return Some(format!("{row_a:?}, then {row_b:?}"));
        }
    }
    let (timer_a, timer_b) = (a.next_timer(), b.next_timer());
    (timer_a != timer_b).then(|| format!("next timer {timer_a:?}, then {timer_b:?}"))
}
