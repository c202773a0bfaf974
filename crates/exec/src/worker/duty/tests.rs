//! Single stories, and a world in which answers are lost, doubled and late, and the worker dies and comes back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{RunKey, TaskId};

use super::*;
use crate::backend::Handle;
use crate::spec::AttemptSpec;
use crate::worker::protocol::{Cancel, PROTOCOL};

const LEASE: Duration = Duration::from_secs(60);

fn id(number: u32) -> AttemptId {
    AttemptId { run: RunKey(1), task: TaskId::new("t").unwrap(), map_index: UNMAPPED, number }
}

fn order(number: u32, files: bool) -> Order {
    let spec = AttemptSpec::new(id(number), "/w/a", "/w");
    Order { handle: Handle::of(&spec), spec, files }
}

fn answer() -> Answer {
    Answer {
        protocol: PROTOCOL,
        server: "s1".to_owned(),
        lease_ms: LEASE.as_millis() as u64,
        start: Vec::new(),
        cancel: Vec::new(),
        forget: Vec::new(),
        leave: Vec::new(),
        drain: false,
        logs: Vec::new(),
        errands: Vec::new(),
        heard: Vec::new(),
        kernel: None,
    }
}

fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn success() -> End {
    End::Ended { ended: Ended::bare(Exit::Code { code: 0 }, at()), log: None }
}

/// One exchange with nothing lost.
fn exchange(duty: &mut Duty, seq: u64, now: u64, answer: Answer) -> Vec<Do> {
    duty.has(seq);
    duty.answered(seq, secs(now), answer, secs(now), at());
    duty.take()
}

fn hows(duty: &mut Duty, seq: u64) -> Vec<String> {
    let word = |how: How| match how {
        How::Waiting => "waiting".to_owned(),
        How::Running { .. } => "running".to_owned(),
        How::Ended { end: Some(_) } => "end".to_owned(),
        How::Ended { end: None } => "ended".to_owned(),
    };
    duty.has(seq).into_iter().map(|has| format!("{} {}", has.attempt.number, word(has.how))).collect()
}

#[test]
fn what_is_ordered_begins_in_its_turn_and_ends_are_told_until_they_are_forgotten() {
    let mut duty = Duty::new(1);
    let first = exchange(&mut duty, 1, 0, Answer { start: vec![order(1, false), order(2, false)], ..answer() });
    assert_eq!(first, [Do::Begin(Box::new(order(1, false)))]);
    // Said again, it changes nothing.
    let again = exchange(&mut duty, 2, 1, Answer { start: vec![order(1, false), order(2, false)], ..answer() });
    assert_eq!(again, []);
    assert_eq!(hows(&mut duty, 3), ["1 waiting", "2 waiting"]);
    duty.started(&id(1), at());
    assert_eq!(duty.news(), Some(SEEN));
    assert_eq!(hows(&mut duty, 4), ["1 running", "2 waiting"]);
    duty.ended(&id(1), success(), Some(secs(2)));
    duty.ended(&id(1), End::Lost { reason: "told twice".to_owned() }, Some(secs(2)));
    duty.settle(secs(2));
    // Its slot is free while its log is on the way.
    assert_eq!(duty.take(), [Do::Send(id(1), Box::new(success())), Do::Begin(Box::new(order(2, false)))]);
    assert_eq!(hows(&mut duty, 5), ["1 running", "2 waiting"]);
    duty.gone(&id(1), success());
    // Until the answer comes it is said in full.
    assert_eq!(hows(&mut duty, 6)[0], "1 end");
    assert_eq!(hows(&mut duty, 7)[0], "1 end");
    duty.answered(6, secs(3), answer(), secs(3), at());
    assert_eq!(hows(&mut duty, 8)[0], "1 ended");
    // Another server has not heard of it.
    duty.answered(8, secs(4), Answer { server: "s2".to_owned(), ..answer() }, secs(4), at());
    assert_eq!(duty.news(), Some(Duration::ZERO));
    assert_eq!(hows(&mut duty, 9)[0], "1 end");
    let run = RunKey(1);
    let last = exchange(&mut duty, 10, 5, Answer { forget: vec![id(1)], leave: vec![run], ..answer() });
    // The run still has something here.
    assert_eq!(last, [Do::Clean(id(1))]);
    duty.ended(&id(2), success(), None);
    duty.gone(&id(2), success());
    let last = exchange(&mut duty, 11, 6, Answer { forget: vec![id(2)], ..answer() });
    assert_eq!(last, [Do::Send(id(2), Box::new(success())), Do::Clean(id(2)), Do::Leave(run)]);
    assert!(duty.is_empty());
}

#[test]
fn a_cancel_ends_what_waits_at_once_and_asks_what_runs() {
    let mut duty = Duty::new(1);
    exchange(&mut duty, 1, 0, Answer { start: vec![order(1, false), order(2, true)], ..answer() });
    let cancel = |number| Cancel { handle: order(number, false).handle, grace_ms: 500 };
    let done = exchange(&mut duty, 2, 1, Answer { cancel: vec![cancel(1), cancel(2), cancel(3)], ..answer() });
    assert_eq!(done, [Do::Cancel(id(1), SignedDuration::from_millis(500))]);
    assert_eq!(hows(&mut duty, 3), ["1 waiting", "2 end", "3 end"]);
    // Its files come all the same, and its order once more.
    duty.brought(&id(2), Ok(()), at());
    let done = exchange(&mut duty, 4, 2, Answer { start: vec![order(2, true), order(3, false)], ..answer() });
    assert_eq!(done, []);
    // Nobody wants the one that runs: it ends, and is told to nobody.
    let done = exchange(&mut duty, 5, 3, Answer { forget: vec![id(1), id(2), id(3)], ..answer() });
    assert_eq!(done[0], Do::Cancel(id(1), SignedDuration::ZERO));
    assert!(hows(&mut duty, 6).is_empty() && !duty.is_empty());
    duty.ended(&id(1), success(), None);
    assert!(duty.is_empty());
}

#[test]
fn nothing_begins_after_the_lease_and_what_waited_is_not_begun_later() {
    let mut duty = Duty::new(1);
    let start = vec![order(1, false), order(2, false), order(3, true)];
    exchange(&mut duty, 1, 0, Answer { start, ..answer() });
    duty.ended(&id(1), success(), None);
    let late = LEASE + secs(1);
    duty.settle(late);
    assert_eq!(duty.take(), [Do::Send(id(1), Box::new(success()))]);
    duty.has(2);
    duty.answered(2, late, answer(), late, at());
    duty.brought(&id(3), Ok(()), at());
    duty.settle(late);
    assert_eq!(duty.take(), []);
    assert_eq!(hows(&mut duty, 3), ["1 waiting"]);
}

#[test]
fn ends_that_are_too_large_together_go_one_after_another_and_one_that_is_too_large_goes_without_its_outputs() {
    let mut duty = Duty::new(3);
    let large = |number: u32| {
        let text = serde_json::Value::String("x".repeat(MOST / 2));
        let mut ended = Ended::bare(Exit::Code { code: 0 }, at());
        ended.outputs.insert(format!("n{number}"), text);
        End::Ended { ended, log: None }
    };
    exchange(&mut duty, 1, 0, Answer { start: (1..=3).map(|n| order(n, false)).collect(), ..answer() });
    for number in 1..=3 {
        duty.ended(&id(number), large(number), Some(secs(1)));
        duty.gone(&id(number), large(number));
    }
    assert_eq!(hows(&mut duty, 2), ["1 end", "2 ended", "3 ended"]);
    assert!(duty.news().is_none());
    duty.answered(2, secs(2), answer(), secs(2), at());
    assert!(duty.news().is_some(), "the others are told at once");
    assert_eq!(hows(&mut duty, 3), ["1 ended", "2 end", "3 ended"]);
    // A proxy takes less than one of them.
    duty.too_large(3);
    assert!(duty.news().is_some());
    let has = duty.has(4);
    let How::Ended { end: Some(end) } = &has[1].how else { panic!("{has:?}") };
    let End::Ended { ended, .. } = &**end else { panic!("{end:?}") };
    assert!(ended.outputs.is_empty() && ended.output_problems[0].contains("more than the server"), "{ended:?}");
    // Now it goes with the next one; of two that are too large together, each goes alone.
    assert!(matches!(has[2].how, How::Ended { end: Some(_) }));
    duty.too_large(4);
    assert_eq!(hows(&mut duty, 5), ["1 ended", "2 end", "3 ended"]);
    duty.answered(5, secs(3), answer(), secs(3), at());
    assert_eq!(hows(&mut duty, 6), ["1 ended", "2 ended", "3 end"]);
    duty.answered(6, secs(4), answer(), secs(4), at());
    assert!(duty.news().is_none());
}

#[test]
fn a_drain_of_the_server_is_followed_both_ways_and_an_older_answer_that_comes_late_changes_nothing() {
    let mut duty = Duty::new(1);
    exchange(&mut duty, 1, 0, Answer { drain: true, ..answer() });
    assert!(duty.is_drained() && !duty.is_ending() && duty.news().is_some());
    duty.has(2);
    exchange(&mut duty, 3, 1, answer());
    assert!(!duty.is_drained());
    duty.answered(2, secs(1), Answer { drain: true, ..answer() }, secs(1), at());
    assert!(!duty.is_drained());
    duty.drain();
    exchange(&mut duty, 4, 2, answer());
    assert!(duty.is_ending(), "its own end is its own");
}

#[test]
fn work_waits_beside_short_tasks_only() {
    let mut duty = Duty::new(8);
    assert_eq!(duty.prefetch(), 0);
    let run = |duty: &mut Duty, number: u32, seconds: f64| {
        let begun = secs(u64::from(number));
        duty.answered(0, begun, Answer { start: vec![order(number, false)], ..answer() }, begun, at());
        duty.ended(&id(number), success(), Some(begun + Duration::from_secs_f64(seconds)));
        duty.gone(&id(number), success());
    };
    (1..20).for_each(|n| run(&mut duty, n, 0.5));
    assert_eq!(duty.prefetch(), 4);
    (20..60).for_each(|n| run(&mut duty, n, 0.001));
    assert_eq!(duty.prefetch(), 8);
    (60..90).for_each(|n| run(&mut duty, n, 30.0));
    assert_eq!(duty.prefetch(), 0);
}

#[test]
fn an_end_is_told_at_once_unless_its_slot_has_other_work() {
    let mut duty = Duty::new(1);
    assert_eq!(duty.news(), Some(Duration::ZERO), "a worker says at once that it is there");
    exchange(&mut duty, 1, 0, Answer { start: vec![order(1, false)], ..answer() });
    assert_eq!((duty.news(), duty.leisure()), (Some(SEEN), Duration::ZERO));
    exchange(&mut duty, 2, 0, Answer { start: vec![order(2, false), order(3, false)], ..answer() });
    assert_eq!((duty.news(), duty.leisure()), (Some(SEEN), GATHERED));
    let end = |duty: &mut Duty, number| {
        duty.ended(&id(number), success(), None);
        duty.gone(&id(number), success());
        duty.settle(secs(1));
    };
    end(&mut duty, 1);
    assert_eq!(duty.news(), Some(GATHERED), "the third waits for the slot of the second");
    end(&mut duty, 2);
    assert_eq!(duty.news(), Some(Duration::ZERO), "nothing waits any more");
    duty.has(3);
    assert_eq!(duty.news(), None);
    // Whoever waits for it to drain is not kept waiting.
    exchange(&mut duty, 4, 1, Answer { start: vec![order(4, false)], ..answer() });
    duty.has(5);
    duty.drain();
    assert_eq!((duty.news(), duty.leisure()), (Some(Duration::ZERO), Duration::ZERO));
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The machine of the worker: what survives its process.
#[derive(Default)]
struct Machine {
    kept: BTreeSet<u32>,
    running: BTreeSet<u32>,
    ended: BTreeSet<u32>,
    /// How often each was begun; what the directory of an attempt makes impossible twice is counted here all the same.
    begun: BTreeMap<u32, u32>,
    lease: Duration,
}

impl Machine {
    fn observe(&self, number: u32) -> Observation {
        if self.running.contains(&number) {
            Observation::Running { started_at: at() }
        } else if self.ended.contains(&number) {
            Observation::Ended(Ended::bare(Exit::Code { code: 0 }, at()))
        } else {
            Observation::NeverBegan
        }
    }
}

/// What the server believes.
#[derive(Default)]
struct Server {
    wanted: BTreeSet<u32>,
    heard: BTreeSet<u32>,
    cancelled: BTreeSet<u32>,
    word: u32,
}

impl Server {
    fn answer(&mut self, has: &[Has]) -> Answer {
        let seen: BTreeSet<u32> = has.iter().map(|has| has.attempt.number).collect();
        let mut answer = Answer { server: format!("s{}", self.word), ..answer() };
        for has in has {
            if let How::Ended { end: Some(_) } = &has.how {
                self.heard.insert(has.attempt.number);
            }
            if self.heard.contains(&has.attempt.number) {
                answer.forget.push(has.attempt.clone());
            }
        }
        let open = self.wanted.iter().filter(|number| !self.heard.contains(number));
        for number in open {
            if !seen.contains(number) {
                answer.start.push(order(*number, number % 3 == 0));
            }
            if self.cancelled.contains(number) {
                answer.cancel.push(Cancel { handle: order(*number, false).handle, grace_ms: 0 });
            }
        }
        answer
    }
}

fn play(seed: u64) {
    const SLOTS: usize = 3;
    const TASKS: u32 = 25;
    let mut random = Random(seed);
    let (mut duty, mut machine, mut server) = (Duty::new(SLOTS as u32), Machine::default(), Server::default());
    let mut now = Duration::ZERO;
    let mut seq = 0;
    let mut answers: Vec<(u64, Duration, Answer)> = Vec::new();
    let mut coming: Vec<AttemptId> = Vec::new();
    for step in 0..20_000 {
        let calm = step > 4000;
        now += Duration::from_millis(random.next() % 300);
        if !calm && random.one_in(400) {
            // A cut, now and then longer than the lease.
            now += Duration::from_secs(random.next() % 90);
            answers.clear();
        }
        if now >= machine.lease {
            // The runner does it, whoever lives.
            let over = std::mem::take(&mut machine.running);
            for number in over {
                machine.ended.insert(number);
                duty.observed(&id(number), machine.observe(number));
            }
        }
        match random.below(8) {
            0 if (server.wanted.len() as u32) < TASKS => {
                server.wanted.insert(server.wanted.len() as u32 + 1);
            }
            1 if !calm && random.one_in(20) => drop(server.cancelled.insert(random.below(TASKS as usize) as u32 + 1)),
            2 if !calm && random.one_in(40) => server.word += 1,
            3 if !calm && random.one_in(30) => {
                // Killed, and started again.
                (duty, answers, coming) = (Duty::new(SLOTS as u32), Vec::new(), Vec::new());
                for number in machine.kept.clone() {
                    duty.found(id(number), SignedDuration::ZERO, machine.observe(number));
                }
            }
            4 | 5 => {
                seq += 1;
                let has = duty.has(seq);
                if calm || !random.one_in(6) {
                    let answer = server.answer(&has);
                    answers.push((seq, now, answer.clone()));
                    if !calm && random.one_in(6) {
                        answers.push((seq, now, answer));
                    }
                } else if random.one_in(2) {
                    duty.unanswered(seq);
                }
            }
            6 => {
                if let Some(number) = machine.running.iter().nth(random.below(SLOTS)).copied() {
                    machine.running.remove(&number);
                    machine.ended.insert(number);
                    duty.observed(&id(number), machine.observe(number));
                }
            }
            _ => {}
        }
        if !answers.is_empty() && random.one_in(2) {
            let which = if calm { 0 } else { random.below(answers.len()) };
            let (seq, sent, answer) = answers.remove(which);
            duty.answered(seq, sent, answer, now, at());
            machine.lease = duty.lease().unwrap_or_default();
        }
        if !coming.is_empty() && random.one_in(2) {
            let id = coming.remove(0);
            duty.brought(&id, if random.one_in(10) { Err("no".to_owned()) } else { Ok(()) }, at());
        }
        duty.settle(now);
        for what in duty.take() {
            match what {
                Do::Bring(id) => coming.push(id),
                Do::Begin(order) => {
                    let number = order.handle.id.number;
                    assert!(now < machine.lease, "seed {seed}: {number} begins after the lease");
                    machine.kept.insert(number);
                    // What ran before is not run again, whatever the server asks.
                    if !machine.ended.contains(&number) {
                        *machine.begun.entry(number).or_default() += 1;
                        machine.running.insert(number);
                    }
                    duty.observed(&id(number), machine.observe(number));
                }
                Do::Cancel(id, _) | Do::Lose(id, ..) => {
                    if machine.running.remove(&id.number) {
                        machine.ended.insert(id.number);
                    }
                    duty.observed(&id, machine.observe(id.number));
                }
                Do::Send(id, end) => duty.gone(&id, *end),
                Do::Clean(id) => drop(machine.kept.remove(&id.number)),
                Do::Log(id) => duty.logged(&id, None),
                Do::Leave(_) => {}
            }
        }
        assert!(machine.running.len() <= SLOTS, "seed {seed}: {:?} run at once", machine.running);
        assert!(duty.running() <= SLOTS, "seed {seed}: more begun than slots");
        let done = server.heard.len() as u32 == TASKS && duty.is_empty();
        if calm && done {
            break;
        }
    }
    assert!(machine.begun.values().all(|times| *times == 1), "seed {seed}: {:?}", machine.begun);
    assert_eq!(server.heard.len() as u32, TASKS, "seed {seed}: the server did not hear all ends");
    assert!(duty.is_empty() && machine.kept.is_empty(), "seed {seed}: something was not forgotten");
}

#[test]
fn whatever_is_lost_doubled_late_or_killed_every_attempt_runs_at_most_once_and_every_end_is_heard() {
    (0..300).for_each(play);
}

#[test]
fn nobody_waits_for_files_of_what_was_cancelled_or_forgotten() {
    let mut duty = Duty::new(1);
    let cancel = |number| Cancel { handle: order(number, true).handle, grace_ms: 0 };
    exchange(&mut duty, 1, 0, Answer { start: (1..=3).map(|n| order(n, true)).collect(), ..answer() });
    assert!((1..=3).all(|number| duty.wants_files(&id(number))) && !duty.wants_files(&id(4)));
    exchange(&mut duty, 2, 1, Answer { cancel: vec![cancel(1)], forget: vec![id(2)], ..answer() });
    assert!(!duty.wants_files(&id(1)) && !duty.wants_files(&id(2)));
    duty.brought(&id(3), Ok(()), at());
    duty.settle(secs(1));
    assert!(!duty.wants_files(&id(3)));
    duty.ended(&id(3), success(), Some(secs(2)));
    assert!(duty.wants_files(&id(3)));
    exchange(&mut duty, 3, 2, Answer { cancel: vec![cancel(3)], ..answer() });
    assert!(!duty.wants_files(&id(3)));
    // What came of it is told all the same.
    duty.gone(&id(3), success());
    assert!(hows(&mut duty, 4).contains(&"3 end".to_owned()));
    // After the lease what waits is somebody else's.
    exchange(&mut duty, 5, 3, Answer { start: vec![order(5, true)], ..answer() });
    duty.settle(secs(1000));
    assert!(!duty.wants_files(&id(5)));
}

#[test]
fn runs_whose_directories_are_kept_are_named_in_turn_until_somebody_answers() {
    let mut duty = Duty::new(1);
    let runs = |from: i64, to: i64| (from..=to).map(RunKey).collect::<Vec<_>>();
    let most = i64::try_from(MOST_KEPT).unwrap();
    duty.keeps(runs(1, most + 10).into_iter().collect());
    // It has an attempt of run 1.
    exchange(&mut duty, 1, 0, Answer { start: vec![order(1, false)], ..answer() });
    assert_eq!(duty.names(2), runs(2, most + 1), "the oldest first");
    assert_eq!(duty.names(3), runs(most + 2, most + 10));
    assert_eq!(duty.names(4), []);
    // Nobody hears one of them.
    duty.unanswered(3);
    assert_eq!(duty.names(5), runs(most + 2, most + 10));
    duty.answered(2, secs(1), Answer { leave: runs(2, 3), ..answer() }, secs(1), at());
    duty.answered(5, secs(1), answer(), secs(1), at());
    assert_eq!(duty.take(), [Do::Leave(RunKey(2)), Do::Leave(RunKey(3))]);
    duty.unanswered(5);
    assert_eq!(duty.names(6), [], "each once");
    // What is left is named again at the next look; run 1 as soon as it has nothing here.
    duty.ended(&id(1), success(), Some(secs(2)));
    duty.gone(&id(1), success());
    exchange(&mut duty, 7, 2, Answer { forget: vec![id(1)], ..answer() });
    duty.keeps(runs(1, 1).into_iter().chain(runs(4, 5)).collect());
    assert_eq!(duty.names(8), [RunKey(1), RunKey(4), RunKey(5)]);
}

#[test]
fn an_end_is_told_again_after_its_log_came_to_a_server_that_lacked_some_of_it() {
    let mut duty = Duty::new(1);
    exchange(&mut duty, 1, 0, Answer { start: vec![order(1, false)], ..answer() });
    duty.ended(&id(1), success(), Some(secs(1)));
    duty.gone(&id(1), success());
    duty.take();
    assert_eq!(hows(&mut duty, 2), ["1 end"]);
    let asks = || Answer { server: "s2".to_owned(), logs: vec![id(1)], ..answer() };
    duty.answered(2, secs(2), asks(), secs(2), at());
    assert_eq!(duty.take(), [Do::Log(id(1))]);
    // Asked again meanwhile.
    assert_eq!(exchange(&mut duty, 3, 2, asks()), []);
    assert_eq!(hows(&mut duty, 4), ["1 ended"]);
    let tail = LogTail { offset: 7, text: "the last words".to_owned() };
    duty.logged(&id(1), Some(tail.clone()));
    assert!(duty.news().is_some());
    let has = duty.has(5);
    let How::Ended { end: Some(end) } = &has[0].how else { panic!("{has:?}") };
    assert!(matches!(&**end, End::Ended { log: Some(log), .. } if *log == tail), "{end:?}");
    duty.answered(5, secs(3), Answer { logs: Vec::new(), forget: vec![id(1)], ..asks() }, secs(3), at());
    assert_eq!(duty.take(), [Do::Clean(id(1))]);
}
