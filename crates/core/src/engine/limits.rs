//! The limits inside a run: `max_active_tasks`, a task's `max_parallel`, a mapped group's `max_parallel`.
//!
//! Invariant: an instance that is `scheduled` is either offered to the admission or in [`Waiting`], never both; and
//! nothing waits here that the limits would let go. Whatever has a limit goes through [`Waiting`], so that what became
//! ready just now does not overtake what is better and was ready before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::apply::Step;
use super::{Offer, Run, Slot};
use crate::ir::{GroupIx, MapUnit, TaskIx};
use crate::state::State;

/// Scheduled instances that a limit holds back, by priority, then task, then map index.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(BTreeMap<(Reverse<i64>, TaskIx), BTreeSet<u32>>);

impl Waiting {
    pub fn contains(&self, priority: i64, slot: Slot) -> bool {
        self.0.get(&(Reverse(priority), slot.task)).is_some_and(|set| set.contains(&slot.index))
    }

    fn insert(&mut self, priority: i64, slot: Slot) {
        self.0.entry((Reverse(priority), slot.task)).or_default().insert(slot.index);
    }

    fn remove(&mut self, priority: i64, slot: Slot) {
        let key = (Reverse(priority), slot.task);
        if let Some(set) = self.0.get_mut(&key) {
            set.remove(&slot.index);
            if set.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().flat_map(|((_, task), set)| set.iter().map(|index| Slot { task: *task, index: *index }))
    }
}

/// What holds a scheduled instance back inside its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// `max_active_tasks` of the workflow.
    ByRun(u32),
    /// The places that are left of `max_active_tasks` are kept for a gang.
    ForGang(u32),
    /// `max_parallel` of the task.
    ByTask(u32),
    /// `max_parallel` of the mapped group.
    ByGroup(u32),
}

impl Run {
    /// Instances that are ready but held back by a limit of the run, the best first.
    pub fn held_back(&self) -> impl Iterator<Item = Slot> + '_ {
        self.waiting.slots()
    }

    /// The limit that stands against offering this instance now.
    pub(crate) fn held(&self, slot: Slot) -> Option<Held> {
        if let Some(max) = self.workflow.max_active_tasks {
            if self.active + self.asks_for(slot.task) > max {
                return Some(Held::ByRun(max));
            }
            let own = (Reverse(self.workflow.task(slot.task).priority), slot.task);
            let mut before = self.waiting.0.range(..own).map(|((_, task), _)| self.asks_for(*task));
            if before.any(|asked| asked > 1 && self.active + asked > max) {
                return Some(Held::ForGang(max));
            }
        }
        if let Some(max) = self.workflow.task(slot.task).max_parallel
            && self.tasks[slot.task.at()].active >= max
        {
            return Some(Held::ByTask(max));
        }
        let (group, max) = self.group_limit(slot.task)?;
        let under_way = &self.groups[group.at()].under_way;
        let held = !under_way.contains(&slot.index) && under_way.len() as u32 >= max;
        held.then_some(Held::ByGroup(max))
    }

    /// The instance no longer holds or asks for anything.
    pub(super) fn leave(&mut self, slot: Slot) {
        self.active -= 1;
        self.tasks[slot.task.at()].active -= 1;
    }

    pub(super) fn enter(&mut self, slot: Slot) {
        self.active += 1;
        self.tasks[slot.task.at()].active += 1;
        if let Some((group, _)) = self.group_limit(slot.task) {
            self.groups[group.at()].under_way.insert(slot.index);
        }
    }

    /// The mapped group of a task, if it has a `max_parallel`.
    pub(super) fn group_limit(&self, task: TaskIx) -> Option<(GroupIx, u32)> {
        let Some(MapUnit::Group(group)) = self.tasks[task.at()].unit else { return None };
        Some((group, self.workflow.group(group).max_parallel?))
    }

    fn is_limited(&self, task: TaskIx) -> bool {
        self.workflow.max_active_tasks.is_some()
            || self.workflow.task(task).max_parallel.is_some()
            || self.group_limit(task).is_some()
    }

    /// Is something at this index of a mapped group ready, live, or between two tries?
    pub(super) fn goes_on(&self, group: GroupIx, index: u32) -> bool {
        self.groups[group.at()].tasks.iter().any(|task| {
            let state = self.get(Slot::new(*task, index)).map_or(State::None, |instance| instance.state);
            state != State::None && !state.is_final()
        })
    }
}

impl Step<'_> {
    /// Offers a scheduled instance to the admission; by way of the limits, if it has any. A gang is offered once all of its
    /// members are ready.
    pub(super) fn offer(&mut self, slot: Slot) {
        let mates = self.run.with_mates(slot);
        if mates.iter().any(|mate| self.run.instance(*mate).state != State::Scheduled) {
            return;
        }
        if self.run.is_limited(slot.task) {
            let priority = self.run.workflow.task(slot.task).priority;
            mates.into_iter().for_each(|mate| self.run.waiting.insert(priority, mate));
        } else {
            self.ask(self.run.speaker(slot));
        }
    }

    fn ask(&mut self, slot: Slot) {
        let demand = match self.eval.demand(self.run, slot) {
            Ok(demand) => demand,
            Err(error) => return self.fail_all_of(slot, error),
        };
        for mate in self.run.with_mates(slot) {
            self.run.enter(mate);
            self.run.instance_mut(mate).offered = true;
        }
        let task = self.run.workflow.task(slot.task);
        self.fx.offers.push(Offer {
            slot,
            gang: task.gang.clone().filter(|_| self.run.is_member(slot)),
            namespace: self.run.workflow.namespace.clone(),
            pool: task.pool.clone(),
            pool_slots: task.pool_slots,
            priority: task.priority,
            is_preemptible: task.is_preemptible,
            limit: task.timeout.and_then(|timeout| timeout.checked_add(task.grace)),
            demand,
        });
    }

    /// Takes back whatever a scheduled instance, or its gang, asked for.
    pub(super) fn withdraw(&mut self, slot: Slot) {
        let priority = self.run.workflow.task(slot.task).priority;
        let speaker = self.run.speaker(slot);
        for mate in self.run.with_mates(slot) {
            if !std::mem::take(&mut self.run.instance_mut(mate).offered) {
                self.run.waiting.remove(priority, mate);
                continue;
            }
            self.run.leave(mate);
            if mate == speaker {
                self.fx.withdrawn.push(mate);
            }
        }
    }

    /// Leaves only the newest offer of each instance that still asks.
    pub(super) fn drop_dead_offers(&mut self) {
        if self.fx.withdrawn.is_empty() || self.fx.offers.is_empty() {
            return;
        }
        let mut seen = BTreeSet::new();
        self.fx.offers.reverse();
        self.fx.offers.retain(|offer| self.run.instance(offer.slot).offered && seen.insert(offer.slot));
        self.fx.offers.reverse();
    }

    /// Takes their place from indices of mapped groups at which nothing goes on.
    pub(super) fn free_groups(&mut self) {
        for (group, index) in std::mem::take(&mut self.left) {
            if !self.run.goes_on(group, index) {
                self.run.groups[group.at()].under_way.remove(&index);
            }
        }
    }

    /// Offers what the limits let go by now, best first. Says whether there was any.
    pub(super) fn offer_waiting(&mut self) -> bool {
        if self.run.waiting.is_empty() {
            return false;
        }
        let going = self.run.pick_waiting();
        for (priority, slot) in &going {
            // A bad demand before this one may have stopped the run.
            if self.run.instance(*slot).state == State::Scheduled {
                self.run.with_mates(*slot).into_iter().for_each(|mate| self.run.waiting.remove(*priority, mate));
                self.ask(*slot);
            }
        }
        !going.is_empty()
    }
}

impl Run {
    /// What may go, in order, each counted against the limits of those behind it.
    fn pick_waiting(&self) -> Vec<(i64, Slot)> {
        let mut going = Vec::new();
        let mut entering: BTreeMap<GroupIx, BTreeSet<u32>> = BTreeMap::new();
        let max = self.workflow.max_active_tasks.unwrap_or(u32::MAX);
        let mut room = max.saturating_sub(self.active) as usize;
        for ((Reverse(priority), task), indices) in &self.waiting.0 {
            let asked = self.asks_for(*task) as usize;
            if room < asked {
                // Nobody behind a gang takes the places that it needs.
                break;
            }
            if asked > 1 {
                room -= asked;
                going.push((*priority, Slot::new(*task, 0)));
                continue;
            }
            let limit = self.workflow.task(*task).max_parallel.unwrap_or(u32::MAX);
            let open = limit.saturating_sub(self.tasks[task.at()].active) as usize;
            let open = open.min(room);
            let picked: Vec<u32> = match self.group_limit(*task) {
                None => indices.iter().copied().take(open).collect(),
                Some((group, max)) => {
                    let entering = entering.entry(group).or_default();
                    let inside: BTreeSet<u32> = self.groups[group.at()].under_way.union(entering).copied().collect();
                    let places = (max as usize).saturating_sub(inside.len());
                    let begun = inside.iter().copied().filter(|index| indices.contains(index));
                    let fresh = indices.iter().copied().filter(|index| !inside.contains(index)).take(places);
                    let picked: Vec<u32> = begun.chain(fresh).take(open).collect();
                    entering.extend(&picked);
                    picked
                }
            };
            room -= picked.len();
            going.extend(picked.into_iter().map(|index| (*priority, Slot::new(*task, index))));
        }
        going
    }
}
