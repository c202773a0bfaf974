//! The backend in a directory of its own, with its events, and ways to break it.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_ecs::backend::{Gates, started_by};
use pitcrew_ecs::events::{Wake, Warning};
use pitcrew_ecs::{Client, EcsBackend, EcsConfig, Timing};
use pitcrew_exec::aws::Aws;
use pitcrew_exec::{
    AttemptSpec, Backend, BackendEvent, Command, EcsPlace, Ended, Handle, LogRecord, LogStream, Observation, Place,
    StepSpec,
};
use tokio::sync::broadcast::{Sender, channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cluster::{Cluster, REGION};

/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Whose attempts these are.
pub const INSTANCE: &str = "test";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ecs,
}

macro_rules! each_kind {
    ($tests:ident) => {
        $tests!(ecs = Ecs);
    };
}
pub(crate) use each_kind;

pub struct World {
    pub root: PathBuf,
    pub backend: Arc<dyn Backend>,
    pub ecs: Arc<EcsBackend>,
    pub events: UnboundedReceiver<BackendEvent>,
    pub cluster: Cluster,
    pub timing: Timing,
    pub gates: Gates,
    pub wakes: Sender<Wake>,
    _dir: tempfile::TempDir,
}

/// Does what the fake backend's variables say, so that one spec means the same to all.
const ACTOR: &str = r#"
[ -z "$FAKE_LOG" ] || printf '%s\n' "$FAKE_LOG"
[ -z "$FAKE_OUTPUT_answer" ] || printf '{"answer": %s}\n' "$FAKE_OUTPUT_answer" >> "$PITCREW_OUTPUT"
[ -z "$FAKE_SLEEP_MS" ] || sleep "$((FAKE_SLEEP_MS / 1000)).$(printf %03d $((FAKE_SLEEP_MS % 1000)))"
[ -z "$FAKE_SIGNAL" ] || kill "-$FAKE_SIGNAL" $$
exit "${FAKE_EXIT_CODE:-0}"
"#;

impl World {
    pub fn new(_: Kind) -> World {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let cluster = Cluster::start();
        let ms = Duration::from_millis;
        let timing = Timing {
            soonest: ms(20),
            poll: ms(200),
            capacity: Duration::from_secs(600),
            seated: Duration::from_secs(600),
            settle: ms(300),
            patience: Duration::from_secs(600),
            unmentioned: ms(300),
        };
        let (gates, wakes) = (Gates::default(), channel(256).0);
        let (ecs, events) = make(&cluster, timing, &gates, &wakes);
        World { root, backend: ecs.clone(), ecs, events, cluster, timing, gates, wakes, _dir: dir }
    }

    /// As after the death of the server: everything in memory is gone.
    pub fn restart(&mut self) {
        (self.ecs, self.events) = make(&self.cluster, self.timing, &self.gates, &self.wakes);
        self.backend = self.ecs.clone();
    }

    /// An attempt that acts as these `FAKE_…` variables say.
    pub fn acting(&self, name: &str, env: &[(&str, &str)]) -> AttemptSpec {
        let mut spec = self.script(name, ACTOR);
        spec.env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        spec
    }

    /// An attempt that is lost once [`World::kill_keeper`] was called.
    pub fn losing(&self, name: &str) -> AttemptSpec {
        self.acting(name, &[("FAKE_SLEEP_MS", "600000")])
    }

    /// An attempt of one step called `main`.
    pub fn script(&self, name: &str, text: &str) -> AttemptSpec {
        self.steps(name, vec![StepSpec::new("main", Command::shell(text))])
    }

    pub fn steps(&self, name: &str, steps: Vec<StepSpec>) -> AttemptSpec {
        let id = AttemptId { run: RunKey(1), task: TaskId::new(name).unwrap(), map_index: UNMAPPED, number: 1 };
        let place = EcsPlace {
            region: REGION.into(),
            cluster: "gpus".into(),
            task_definition: "train".into(),
            container: Some("train".into()),
            ..EcsPlace::default()
        };
        AttemptSpec {
            steps,
            place: Some(Place::Ecs(place)),
            ..AttemptSpec::new(id, self.root.join("attempts").join(name), "")
        }
    }

    pub async fn start(&self, spec: AttemptSpec) -> Handle {
        let handle = self.backend.prepare(&spec);
        self.backend.start(&handle, spec).await.unwrap();
        handle
    }

    /// Starts an attempt and waits for its end.
    pub async fn run(&mut self, spec: AttemptSpec) -> Ended {
        let handle = self.start(spec).await;
        self.ended(&handle).await
    }

    /// Waits until its first step has begun.
    pub async fn begun(&mut self, handle: &Handle) {
        let is_it = |event: &BackendEvent| matches!(event, BackendEvent::Started { id, .. } if id == &handle.id);
        within(async { while !is_it(&self.events.recv().await.expect("the backend lives")) {} }).await;
    }

    /// The next event of the attempt that is no start, place or name; others are passed over.
    pub async fn over(&mut self, handle: &Handle) -> BackendEvent {
        within(async {
            loop {
                let event = self.events.recv().await.expect("the backend lives");
                let is_early = match &event {
                    BackendEvent::Started { .. } | BackendEvent::Placed { .. } | BackendEvent::Named { .. } => true,
                    BackendEvent::Ended { .. } | BackendEvent::Lost { .. } | BackendEvent::NeverBegan { .. } => false,
                };
                if event.id() == &handle.id && !is_early {
                    return event;
                }
            }
        })
        .await
    }

    pub async fn ended(&mut self, handle: &Handle) -> Ended {
        match self.over(handle).await {
            BackendEvent::Ended { ended, .. } => ended,
            other => panic!("expected an end, got {other:?}"),
        }
    }

    /// The whole log, read in small parts.
    pub async fn log(&self, handle: &Handle) -> Vec<LogRecord> {
        let mut records = Vec::new();
        let mut offset = 0;
        loop {
            let chunk = self.backend.logs(handle, offset, 1).await.unwrap();
            assert!(chunk.next_offset > offset || chunk.records.is_empty());
            offset = chunk.next_offset;
            records.extend(chunk.records);
            if chunk.ended {
                return records;
            }
        }
    }

    /// Lines of one stream.
    pub async fn lines(&self, handle: &Handle, stream: LogStream) -> Vec<String> {
        self.log(handle).await.into_iter().filter(|record| record.stream == stream).map(|record| record.text).collect()
    }

    /// Makes the machine of this attempt disappear.
    pub fn kill_keeper(&self, handle: &Handle) {
        self.cluster.lose(&started_by(INSTANCE, &handle.id));
    }
}

/// A door to that cluster.
fn aws(cluster: &Cluster) -> Aws {
    let env = HashMap::from([
        ("AWS_ENDPOINT_URL", cluster.url.clone()),
        ("AWS_ACCESS_KEY_ID", "id".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hush".to_owned()),
    ]);
    Aws::new(Arc::new(move |name| env.get(name).cloned())).unwrap()
}

/// A client of that cluster.
pub fn client(cluster: &Cluster) -> Client {
    Client::new(aws(cluster), REGION).unwrap()
}

/// Another server beside this one.
pub fn make(
    cluster: &Cluster,
    timing: Timing,
    gates: &Gates,
    wakes: &Sender<Wake>,
) -> (Arc<EcsBackend>, UnboundedReceiver<BackendEvent>) {
    make_with(cluster, timing, gates, wakes, None)
}

/// The same, where somebody writes down which machines go.
pub fn make_with(
    cluster: &Cluster,
    timing: Timing,
    gates: &Gates,
    wakes: &Sender<Wake>,
    warnings: Option<UnboundedSender<Warning>>,
) -> (Arc<EcsBackend>, UnboundedReceiver<BackendEvent>) {
    let (sender, events) = unbounded_channel();
    let config = EcsConfig {
        instance: INSTANCE.to_owned(),
        region: REGION.to_owned(),
        aws: aws(cluster),
        events: Some("events".to_owned()),
        wakes: wakes.clone(),
        warnings,
        gates: gates.clone(),
        timing,
    };
    (Arc::new(EcsBackend::new(config, sender)), events)
}

pub fn is_running(observation: &Observation) -> bool {
    matches!(observation, Observation::Running { .. })
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
}

/// Waits for a fact that nothing announces.
pub async fn until(mut fact: impl AsyncFnMut() -> bool) {
    within(async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !fact().await {
            looks.tick().await;
        }
    })
    .await;
}

pub fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}
