//! A world with what all sentences need: pods are run, waited for and looked at.

use std::ops::Deref;
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::pod::Pod;
use pitcrew_exec::{AttemptSpec, BackendEvent, Ended, Handle, LogRecord, Observation};
use serde_json::Value;

use crate::done::{Done, lines};
use crate::{Ability, World};

/// How often a fact is looked for that nothing announces, and how long an event may be late before the truth is asked for.
const LOOK: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(500);

pub struct Bench<W> {
    pub world: W,
    sentence: &'static str,
}

impl<W> Deref for Bench<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.world
    }
}

/// How an attempt came to its end.
#[derive(Debug)]
pub enum Over {
    Ended(Ended),
    Lost(String),
    NeverBegan,
}

/// Runs one sentence in a new world.
pub fn run<W: World, F>(sentence: &'static str, test: F)
where
    F: AsyncFnOnce(&mut Bench<W>),
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| panic!("no runtime: {e}"));
    runtime.block_on(async {
        if let Some(mut bench) = Bench::new(sentence).await {
            test(&mut bench).await;
        }
    });
}

impl<W: World> Bench<W> {
    pub async fn new(sentence: &'static str) -> Option<Bench<W>> {
        Some(Bench { world: W::new().await?, sentence })
    }

    /// Says why the world cannot show this sentence, if it cannot.
    pub fn lacks(&self, ability: Ability) -> bool {
        let why = self.world.lacks(ability);
        if let Some(why) = &why {
            eprintln!("NOT TESTED: {}: {why}", self.sentence);
        }
        why.is_some()
    }

    pub fn spec(&self, name: &str, pod: Value) -> AttemptSpec {
        let pod: Pod = serde_json::from_value(pod).unwrap_or_else(|e| panic!("a sentence has no pod: {e}"));
        self.world.spec(name, pod)
    }

    pub async fn start(&self, spec: AttemptSpec) -> Handle {
        let handle = self.world.backend().prepare(&spec);
        self.start_again(&handle, spec).await;
        handle
    }

    pub async fn start_again(&self, handle: &Handle, spec: AttemptSpec) {
        let started = self.world.backend().start(handle, spec).await;
        started.unwrap_or_else(|e| panic!("nobody took it: {e}"));
    }

    pub async fn cancel(&self, handle: &Handle, grace: SignedDuration) {
        let cancelled = self.world.backend().cancel(handle, grace).await;
        cancelled.unwrap_or_else(|e| panic!("it cannot be cancelled: {e}"));
    }

    pub async fn cleanup(&self, handle: &Handle) {
        let cleaned = self.world.backend().cleanup(handle).await;
        cleaned.unwrap_or_else(|e| panic!("it cannot be cleaned up: {e}"));
    }

    pub async fn observe(&self, handle: &Handle) -> Observation {
        self.world.backend().attach(handle).await
    }

    /// Waits until it is over, by an event or by asking, as the server does.
    pub async fn over(&mut self, handle: &Handle) -> Over {
        let patience = self.world.patience();
        let wait = async {
            loop {
                match tokio::time::timeout(LATE, self.world.event()).await {
                    Ok(BackendEvent::Ended { id, ended }) if id == handle.id => return Over::Ended(ended),
                    Ok(BackendEvent::Lost { id, reason }) if id == handle.id => return Over::Lost(reason),
                    Ok(BackendEvent::NeverBegan { id }) if id == handle.id => return Over::NeverBegan,
                    Ok(_) => continue,
                    Err(_) => {}
                }
                match self.world.backend().poll(std::slice::from_ref(handle)).await.pop() {
                    Some(Observation::Ended(ended)) => return Over::Ended(ended),
                    Some(Observation::Lost { reason }) => return Over::Lost(reason),
                    _ => {}
                }
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(over) => over,
            Err(_) => panic!("it hangs: {:?}\n{:?}", self.observe(handle).await, self.log(handle).await),
        }
    }

    pub async fn ended(&mut self, handle: &Handle) -> Ended {
        match self.over(handle).await {
            Over::Ended(ended) => ended,
            other => panic!("expected an end, got {other:?}"),
        }
    }

    /// How it ended, and its log.
    pub async fn done(&mut self, handle: &Handle) -> Done {
        let ended = self.ended(handle).await;
        Done { ended, log: self.log(handle).await }
    }

    /// Runs it to its end.
    pub async fn run(&mut self, name: &str, pod: Value) -> Done {
        let spec = self.spec(name, pod);
        self.run_spec(spec).await
    }

    pub async fn run_spec(&mut self, spec: AttemptSpec) -> Done {
        let handle = self.start(spec).await;
        self.done(&handle).await
    }

    /// What there is of its log.
    pub async fn log(&self, handle: &Handle) -> Vec<LogRecord> {
        let chunk = self.world.backend().logs(handle, 0, 16 << 20).await;
        chunk.unwrap_or_else(|e| panic!("its log cannot be read: {e}")).records
    }

    /// Waits until a container that runs has written this line.
    pub async fn says(&self, handle: &Handle, container: u32, line: &str) {
        let said = async || lines(&self.log(handle).await, container).contains(&line);
        self.until(&format!("container {container} says `{line}`"), said).await;
    }

    /// Waits for a fact that nothing announces.
    pub async fn until(&self, what: &str, mut fact: impl AsyncFnMut() -> bool) {
        let wait = async {
            let mut looks = tokio::time::interval(LOOK);
            while !fact().await {
                looks.tick().await;
            }
        };
        tokio::time::timeout(self.world.patience(), wait).await.unwrap_or_else(|_| panic!("it never happened: {what}"));
    }

    /// Waits until nothing is left of an attempt that was cleaned up.
    pub async fn gone(&self, handle: &Handle) {
        let gone = async || self.world.left(handle).await.is_empty();
        self.until("nothing is left of it", gone).await;
    }
}
