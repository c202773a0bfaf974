//! What happens in a drill, told as it happens, and its times in the end.
//!
//! Nothing is measured here: all times are those that recovery and the machines wrote down when it happened.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Incident, JobRecord, JobState, Transition};

use super::machine::Happened;

/// Somebody did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub at: Timestamp,
    pub who: String,
    pub what: String,
}

/// How much of it was told.
#[derive(Debug, Default)]
pub struct Story {
    told: BTreeMap<String, usize>,
}

impl Story {
    /// What was not told yet, in the order in which it happened.
    pub fn news(&mut self, incidents: &[Incident], jobs: &[JobRecord], happened: Vec<Happened>) -> Vec<Line> {
        let line = |Happened { at, node, what }| Line { at, who: node, what };
        let mut lines: Vec<Line> = happened.into_iter().map(line).collect();
        for incident in incidents {
            let node = &incident.node;
            lines.extend(self.of(incident.id.to_string(), node, &incident.trail, |_| String::new()));
        }
        for job in jobs {
            let places = |step: &Transition| match step.to == JobState::Running.name() && job.state == JobState::Running
            {
                true => format!(", on {}", job.nodes().into_iter().collect::<Vec<_>>().join(" and ")),
                false => String::new(),
            };
            lines.extend(self.of(job.job.clone(), "job", &job.trail, places));
        }
        // Of what happened at the same time, the order is that in which it was found.
        lines.sort_by_key(|line| line.at);
        lines
    }

    fn of(&mut self, key: String, who: &str, trail: &[Transition], more: impl Fn(&Transition) -> String) -> Vec<Line> {
        let told = self.told.entry(key).or_default();
        // A trail that begins anew is another one.
        *told = if *told > trail.len() { 0 } else { *told };
        let news = &trail[*told..];
        *told = trail.len();
        let words = |step: &Transition| match step.from == step.to {
            true => step.why.clone(),
            false => format!("{}: {}", step.to.replace('_', " "), step.why),
        };
        let line = |step: &Transition| Line {
            at: step.at,
            who: who.to_owned(),
            what: format!("{}{}", words(step), more(step)),
        };
        news.iter().map(line).collect()
    }
}

/// How long each part took, by its name; those that there were.
pub fn times(
    fault: Timestamp,
    incident: Option<&Incident>,
    job: Option<&JobRecord>,
) -> Vec<(&'static str, SignedDuration)> {
    const STATES: [(&str, &str); 6] = [
        ("check", "checking"),
        ("wait in line", "queued"),
        ("drain", "draining"),
        ("repair", "remediating"),
        ("verify", "verifying"),
        ("wait for it", "suspected"),
    ];
    let mut times = Vec::new();
    if let Some(incident) = incident {
        times.push(("detect", incident.opened.duration_since(fault)));
        if let Some(fenced) = incident.trail.iter().find(|step| step.to == "fenced") {
            times.push(("fence", fenced.at.duration_since(incident.opened)));
        }
        let spent = STATES.map(|(name, state)| (name, within(&incident.trail, state)));
        times.extend(spent.into_iter().filter_map(|(name, spent)| Some((name, spent?))));
    }
    if let Some(job) = job {
        let spent =
            [("stop", "stopping"), ("verdict", "awaiting_verdict"), ("restart", "restarting"), ("start", "starting")];
        times.extend(spent.into_iter().filter_map(|(name, state)| Some((name, within(&job.trail, state)?))));
        if let Some(again) = job.trail.iter().find(|step| step.at > fault && step.to == JobState::Running.name()) {
            times.push(("fault to restart", again.at.duration_since(fault)));
        }
    }
    if let Some(closed) = incident.and_then(|incident| incident.closed) {
        times.push(("fault to end", closed.duration_since(fault)));
    }
    // What took no time is only in the way.
    times.retain(|(name, took)| took.as_millis() >= 50 || matches!(*name, "detect" | "fence"));
    times
}

/// How long it was in that state, all in all; `None`: it never was.
fn within(trail: &[Transition], state: &str) -> Option<SignedDuration> {
    let is = |text: &str| text == state || text.strip_prefix(state).is_some_and(|rest| rest.starts_with(' '));
    let mut spent = None;
    for (at, step) in trail.iter().enumerate().filter(|(_, step)| step.from != step.to && is(&step.to)) {
        let left = trail[at + 1..].iter().find(|later| later.from != later.to && is(&later.from));
        if let Some(left) = left {
            spent = Some(spent.unwrap_or(SignedDuration::ZERO) + left.at.duration_since(step.at));
        }
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn step(second: i64, from: &str, to: &str) -> Transition {
        Transition::new(at(second), from, to, "why")
    }

    #[test]
    fn time_in_a_state_is_counted_over_all_stays_and_remarks_end_none() {
        let trail = [
            step(0, "healthy", "suspected"),
            step(1, "suspected", "checking"),
            step(2, "checking", "checking"),
            step(4, "checking", "draining"),
            step(4, "draining", "remediating (reset_gpu)"),
            step(6, "remediating (reset_gpu)", "remediating (reboot)"),
            step(9, "remediating (reboot)", "verifying"),
        ];
        let spent = |state| within(&trail, state).map(|spent| spent.as_secs());
        assert_eq!((spent("checking"), spent("draining"), spent("remediating")), (Some(3), Some(0), Some(5)));
        assert_eq!((spent("verifying"), spent("queued")), (None, None));
    }

    #[test]
    fn everything_is_told_once_and_in_its_order() {
        let mut story = Story::default();
        let trail = [step(1, "a", "b"), step(3, "b", "b")];
        let first = story.of("inc-1".to_owned(), "n1", &trail[..1], |_| String::new());
        assert_eq!((first.len(), first[0].what.as_str()), (1, "b: why"));
        let rest = story.of("inc-1".to_owned(), "n1", &trail, |_| String::new());
        assert_eq!(rest, [Line { at: at(3), who: "n1".to_owned(), what: "why".to_owned() }]);
        let happened = vec![Happened { at: at(2), node: "n1".to_owned(), what: "down".to_owned() }];
        assert_eq!(story.news(&[], &[], happened)[0].what, "down");
    }
}
