//! What effects do to the true world. Each is performed once by a server that leads, and again by the next one if it is open.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::super::{Act, Advice, CheckOutcome, Effect, EffectId, Input, Rung};
use super::world::{Event, Outcome, World};

impl World {
    pub fn perform_next(&mut self) -> Outcome {
        let Some(effect) = self.server.todo.pop_front() else { return Ok(()) };
        if !self.server.r.is_open(&effect.id) {
            return Ok(());
        }
        if effect.act.is_once() {
            if let EffectId::Node { node, .. } = &effect.id {
                if let Some(facts) = self.facts_now(node) {
                    self.tell_whole(facts)?;
                }
                if !self.server.r.is_open(&effect.id) {
                    return Ok(());
                }
            }
            self.tell(Input::Begun { effect: effect.id.clone() })?;
            let begun = self.server.r.effect(&effect.id).is_some_and(|effect| effect.begun);
            if !begun {
                return Ok(());
            }
            if self.may_crash(60) {
                self.saw("crashed before an effect");
                let twin = self.server.r.clone();
                return self.crash(&twin);
            }
        }
        self.say(|| format!("perform {} {:?}", effect.id, effect.act));
        self.perform(&effect)?;
        if self.may_crash(if effect.act.is_once() { 60 } else { 5 }) {
            self.saw("crashed after an effect");
            let twin = self.server.r.clone();
            return self.crash(&twin);
        }
        Ok(())
    }

    fn perform(&mut self, effect: &Effect) -> Outcome {
        let id = effect.id.clone();
        match &effect.act {
            Act::Fence { node, .. } => self.set_fenced(node, true, id),
            Act::Unfence { node } => self.set_fenced(node, false, id),
            Act::RunCheck { node, gpus, .. } => self.check(node, gpus, id),
            Act::Drain { node, gpus } => {
                self.machines.get_mut(node).expect("a machine").fenced = true;
                self.drain(id, node, gpus);
            }
            Act::ResetGpu { node, gpus } => return self.reset(node, gpus, id),
            Act::Reboot { node, boot_id } => return self.reboot(node, Rung::Reboot, boot_id.as_ref(), id),
            Act::HardReboot { node, boot_id } => return self.reboot(node, Rung::HardReboot, boot_id.as_ref(), id),
            Act::Replace { node } => return self.reboot(node, Rung::Replace, None, id),
            Act::Observe { node } => {
                let seen = self.machines[node].seen();
                self.send(Input::Observed { node: node.clone(), seen });
            }
            Act::StopJob { job, attempt, why, force } => self.stop(job, *attempt, *why, *force),
            Act::RestartJob { job, attempt, exclude, not_before, .. } => {
                self.restart(job, *attempt, exclude, *not_before, id);
            }
            Act::FailJob { job, attempt, leave, .. } => {
                // Left to itself, which may be said of what a person stopped as well.
                if self.user_stopped.contains(job) && !leave {
                    return Err(format!("{job} was stopped by a person, and is said to have failed"));
                }
                self.give_up(job, *attempt, *leave);
                self.send(Input::Done { effect: id });
            }
            Act::Notify { .. } | Act::Cancel { .. } => self.send(Input::Done { effect: id }),
        }
        Ok(())
    }

    fn set_fenced(&mut self, node: &str, fenced: bool, id: EffectId) {
        self.machines.get_mut(node).expect("a machine").fenced = fenced;
        self.send(Input::Done { effect: id });
    }

    /// Until nothing runs there any more; whoever leads next looks anew.
    pub fn drain(&mut self, id: EffectId, node: &str, gpus: &BTreeSet<String>) {
        if !self.server.r.is_open(&id) {
            return;
        }
        let is_meant = |gpu: &String| gpus.is_empty() || gpus.contains(gpu);
        if self.jobs.on(node).any(|(_, _, rank)| rank.place.gpus.iter().any(is_meant)) {
            let (node, gpus) = (node.to_owned(), gpus.clone());
            return self.at(SignedDuration::from_secs(60), Event::Drain(id, node, gpus));
        }
        self.send(Input::Done { effect: id });
    }

    fn check(&mut self, node: &str, gpus: &BTreeSet<String>, id: EffectId) {
        let machine = &self.machines[node];
        let dice = self.rng.below(100);
        if !machine.answers() {
            if dice < 50 {
                self.send(Input::EffectFailed { effect: id, why: "no line".to_owned(), certain: true });
            }
            return;
        }
        let fault = machine.fault.clone().filter(|fault| gpus.is_empty() || gpus.contains(&fault.gpu));
        let outcome = match fault {
            Some(fault) => match dice {
                0..5 => CheckOutcome::Pass,
                5..15 => CheckOutcome::Inconclusive,
                15..20 => CheckOutcome::Infrastructure,
                _ => {
                    let advice = match (fault.fix, dice % 2) {
                        (Some(Rung::ResetGpu), _) => Advice::ResetGpu,
                        (Some(Rung::Replace) | None, 0) => Advice::Replace,
                        (_, 0) => Advice::Reboot,
                        (_, _) => Advice::Check,
                    };
                    CheckOutcome::Fail { gpus: vec![fault.gpu], advice }
                }
            },
            None => match dice {
                0..4 => CheckOutcome::Inconclusive,
                4..8 => CheckOutcome::Infrastructure,
                _ => CheckOutcome::Pass,
            },
        };
        let machine = self.machines.get_mut(node).expect("a machine");
        match &outcome {
            CheckOutcome::Fail { .. } | CheckOutcome::Inconclusive => machine.evidence = true,
            // A fault that a check does not see may be found, and treated, once more.
            CheckOutcome::Pass => {
                if let Some(fault) = &mut machine.fault {
                    fault.done.clear();
                    fault.restarted = false;
                }
            }
            CheckOutcome::Infrastructure => {}
        }
        if self.rng.percent(5) {
            return self.saw("a check never answered");
        }
        let wait = SignedDuration::from_secs(self.rng.between(2, 200));
        let boot = self.machines[node].boot;
        self.at(wait, Event::Checked(node.to_owned(), boot, id, outcome));
    }

    /// What runs on a machine does not survive that it goes down, or comes up anew.
    pub fn checked(&mut self, node: &str, boot: u32, effect: EffectId, outcome: CheckOutcome) -> Outcome {
        let machine = &self.machines[node];
        let is_same = machine.boot == boot && machine.starting.is_none();
        let outcome = if is_same { outcome } else { CheckOutcome::Infrastructure };
        self.tell(Input::CheckEnded { effect, outcome, evidence: String::new() })
    }

    /// What must hold of every repair, whichever it is.
    fn may_repair(&mut self, node: &str, rung: Rung, gpus: &BTreeSet<String>, id: &EffectId) -> Outcome {
        if !self.performed.insert(id.clone()) {
            return Err(format!("{id} is done twice"));
        }
        if let Some((key, _, _)) = self
            .jobs
            .on(node)
            .find(|(_, _, rank)| rung != Rung::ResetGpu || rank.place.gpus.iter().any(|gpu| gpus.contains(gpu)))
        {
            return Err(format!("{rung} of {node} kills {}@{}", key.0, key.1));
        }
        let now = self.now;
        let is_meant = |gpu: &String| {
            let incident = self.server.r.open_incident(node);
            incident.is_some_and(|incident| incident.gpus.is_empty() || incident.gpus.contains(gpu))
        };
        let is_first = self.server.r.open_incident(node).is_none_or(|incident| incident.tried.len() <= 1);
        let meant = self.machines[node].fault.as_ref().is_some_and(|fault| is_meant(&fault.gpu));
        let machine = self.machines.get_mut(node).expect("a machine");
        // Another rung of the same incident needs no more than the first did.
        if !machine.evidence && is_first {
            return Err(format!("{rung} of {node}, which has shown nothing but that it is away, or is mended"));
        }
        machine.repairs.push((now, rung));
        let within = |hours| now - SignedDuration::from_hours(hours);
        let week = machine.repairs.iter().filter(|(at, _)| *at > within(7 * 24)).count();
        let reboots = machine.repairs.iter().filter(|(at, rung)| *at > within(24) && rung.is_reboot()).count();
        let policy = self.server.r.policy();
        if week > policy.remediations_per_week as usize || reboots > policy.reboots_per_day as usize {
            return Err(format!("{rung} of {node} is beyond its budget: {:?}", machine.repairs));
        }
        if let Some(fault) = machine.fault.as_mut().filter(|_| meant) {
            if fault.done.contains(&rung) {
                return Err(format!("{rung} of {node} twice for fault {}", fault.number));
            }
            if fault.restarted && rung.is_reboot() {
                return Err(format!("{rung} of {node}, which has come up anew since fault {}", fault.number));
            }
            fault.done.push(rung);
        }
        Ok(())
    }

    fn reset(&mut self, node: &str, gpus: &BTreeSet<String>, id: EffectId) -> Outcome {
        if !self.machines[node].answers() {
            let certain = self.rng.percent(70);
            self.send(Input::EffectFailed { effect: id, why: "no line".to_owned(), certain });
            return Ok(());
        }
        self.may_repair(node, Rung::ResetGpu, gpus, &id)?;
        self.saw("a GPU was reset");
        if self.rng.percent(15) {
            let certain = self.rng.percent(70);
            self.send(Input::EffectFailed { effect: id, why: "busy".to_owned(), certain });
            return Ok(());
        }
        self.machines.get_mut(node).expect("a machine").reset();
        self.send(Input::Done { effect: id });
        Ok(())
    }

    fn reboot(&mut self, node: &str, rung: Rung, boot_id: Option<&String>, id: EffectId) -> Outcome {
        let machine = &self.machines[node];
        let is_soft = rung == Rung::Reboot;
        if boot_id.is_some_and(|boot_id| *boot_id != machine.boot_id()) {
            // It came up anew meanwhile; its boot id is asked for where the reboot is ordered.
            self.saw("a reboot was not needed");
            self.send(Input::EffectFailed { effect: id, why: "another boot".to_owned(), certain: false });
            return Ok(());
        }
        if (is_soft && !machine.answers()) || machine.starting.is_some() || self.rng.percent(5) {
            let certain = self.rng.percent(50);
            self.send(Input::EffectFailed { effect: id, why: "no line".to_owned(), certain });
            return Ok(());
        }
        self.may_repair(node, rung, &BTreeSet::new(), &id)?;
        self.saw(match rung {
            Rung::ResetGpu | Rung::Reboot => "a node was rebooted",
            Rung::HardReboot => "a node was rebooted from outside",
            Rung::Replace => "a node was replaced",
        });
        let dice = self.rng.below(100);
        let wait = SignedDuration::from_secs(self.rng.between(60, if dice < 5 { 2_000 } else { 400 }));
        let now = self.now;
        let machine = self.machines.get_mut(node).expect("a machine");
        if is_soft && dice >= 90 {
            machine.hangs = true;
        } else {
            machine.hangs = false;
            (machine.starting, machine.repair) = (Some(now + wait), Some((rung, now + wait)));
            self.at(wait, Event::Machine(node.to_owned()));
        }
        match self.rng.below(3) {
            0 => self.send(Input::Done { effect: id }),
            1 => self.send(Input::EffectFailed { effect: id, why: "the line broke".to_owned(), certain: false }),
            _ => {}
        }
        Ok(())
    }
}
