//! Whose log is shown, where several servers have a data directory each.

use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::attempts::below;
use super::*;
use crate::attempt_dir;
use crate::backend::{Backend, Observation};
use crate::place::{Place, WorkerPlace};
use crate::worker::protocol::{ErrandDone, Has, How, LogTail};

/// The data directory of a server that led before; it can go away.
struct Before {
    root: PathBuf,
    is_gone: AtomicBool,
}

impl Before {
    fn dir(&self, handle: &Handle) -> Result<PathBuf, String> {
        match self.is_gone.load(Ordering::Relaxed) {
            true => Err("nobody answers there".to_owned()),
            false => Ok(self.root.join(below(handle))),
        }
    }
}

#[async_trait]
impl OtherLogs for Before {
    async fn log(&self, home: &str, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, String> {
        assert_eq!(home, "before");
        local::read_log(&self.dir(handle)?, offset, max_bytes).await.map_err(|error| error.to_string())
    }

    async fn log_size(&self, _: &str, handle: &Handle) -> Result<u64, String> {
        Ok(std::fs::metadata(attempt_dir::log(&self.dir(handle)?)).map_or(0, |meta| meta.len()))
    }
}

struct Two {
    _folder: tempfile::TempDir,
    before: Arc<Before>,
    hub: Hub,
    events: mpsc::UnboundedReceiver<BackendEvent>,
}

fn line(n: u64) -> String {
    format!("{} o0 line {n}\n", 1_767_225_600_000_000 + n)
}

fn lines(from: u64, to: u64) -> String {
    (from..=to).map(line).collect()
}

fn sync(seq: u64, how: How) -> Sync {
    let text = r#"{"protocol":1,"incarnation":1,"seq":0,"has":[],"wait_ms":0,"brings_logs":true}"#;
    let has = vec![Has { attempt: id(), how }];
    Sync { seq, has, ..serde_json::from_str(text).unwrap() }
}

fn id() -> AttemptId {
    "7/train.1".parse().unwrap()
}

fn running() -> How {
    How::Running { started_at: Timestamp::UNIX_EPOCH }
}

/// With a tail that begins after the first line, and ends the log.
fn ended() -> How {
    let ended = Ended::bare(Exit::Code { code: 0 }, Timestamp::UNIX_EPOCH);
    let log = Some(LogTail { offset: lines(1, 1).len() as u64, text: lines(2, 3) });
    How::Ended { end: Some(Box::new(End::Ended { ended, log })) }
}

impl Two {
    /// The first server had the first two lines.
    fn new() -> Two {
        let folder = tempfile::tempdir().unwrap();
        let before = Before { root: folder.path().join("before"), is_gone: AtomicBool::new(false) };
        let before = Arc::new(before);
        let home = Home { id: "now".to_owned(), others: before.clone() };
        let (sender, events) = mpsc::unbounded_channel();
        let hub = Hub::of_home(folder.path().join("now"), home, LEASE, sender);
        let two = Two { _folder: folder, before, hub, events };
        mirror::append(&two.before.dir(&two.handle()).unwrap(), 0, lines(1, 2).as_bytes()).unwrap();
        two
    }

    fn handle(&self) -> Handle {
        let place = WorkerPlace { worker: "w".to_owned(), ..serde_json::from_str(PLACE).unwrap() };
        let dir = self.before.root.join("runs/7/attempts/train.1");
        Handle { id: id(), dir, place: Some(Place::Worker(place)), home: Some("before".to_owned()) }
    }

    fn goes(&self) {
        self.before.is_gone.store(true, Ordering::Relaxed);
    }

    async fn shown(&self, offset: u64) -> Result<String, String> {
        let chunk = self.hub.logs(&self.handle(), offset, 1 << 20).await.map_err(|error| error.to_string())?;
        Ok(chunk.records.iter().map(|record| format!("{} ", record.text)).collect())
    }

    async fn size(&self) -> Result<u64, String> {
        self.hub.log_size(&self.handle()).await.map_err(|error| error.to_string())
    }
}

const PLACE: &str = r#"{"worker":"w","name":"w","data_dir":"/w","program":"/bin/true"}"#;

#[tokio::test]
async fn a_log_of_a_server_that_led_before_is_read_there() {
    let two = Two::new();
    assert_eq!(two.shown(0).await.unwrap(), "line 1 line 2 ");
    assert_eq!(two.shown(line(1).len() as u64).await.unwrap(), "line 2 ");
    assert_eq!(two.size().await.unwrap(), lines(1, 2).len() as u64);
    two.goes();
    assert!(two.shown(0).await.unwrap_err().contains("nobody answers there"));
    assert!(two.size().await.is_err());
    // What ends here is this one's.
    assert_eq!(two.hub.kept_here(two.handle()).home.unwrap(), "now");
}

#[tokio::test]
async fn an_end_is_taken_when_its_log_came_from_the_worker_whole() {
    let mut two = Two::new();
    two.hub.sync("w", sync(1, running())).await.unwrap();
    assert!(matches!(two.hub.attach(&two.handle()).await, Observation::Running { .. }));
    two.goes();
    assert_eq!(two.shown(0).await.unwrap(), "", "it comes later");
    let answer = two.hub.sync("w", sync(2, ended())).await.unwrap();
    assert_eq!(answer.logs, [id()]);
    assert!(matches!(two.hub.attach(&two.handle()).await, Observation::Unreachable { .. }));
    assert!(two.events.try_recv().is_err(), "nobody hears of the end");
    // It comes in parts, one of them twice.
    let first = line(1).into_bytes();
    assert_eq!(two.hub.log("w", &id(), 0, first.clone()).await.unwrap().offset, first.len() as u64);
    assert_eq!(two.hub.log("w", &id(), 0, first.clone()).await.unwrap().offset, first.len() as u64);
    assert_eq!(two.shown(0).await.unwrap(), "line 1 ");
    let answer = two.hub.sync("w", sync(3, ended())).await.unwrap();
    assert_eq!(answer.logs, []);
    assert!(matches!(two.events.try_recv().unwrap(), BackendEvent::Ended { .. }));
    assert!(matches!(two.hub.attach(&two.handle()).await, Observation::Ended(_)));
    assert_eq!(two.shown(0).await.unwrap(), "line 1 line 2 line 3 ");
    assert_eq!(two.size().await.unwrap(), lines(1, 3).len() as u64);
}

#[tokio::test]
async fn an_end_of_a_worker_of_before_is_taken_with_what_there_is() {
    let two = Two::new();
    two.hub.sync("w", Sync { brings_logs: false, ..sync(1, running()) }).await.unwrap();
    two.hub.attach(&two.handle()).await;
    let answer = two.hub.sync("w", Sync { brings_logs: false, ..sync(2, ended()) }).await.unwrap();
    assert_eq!(answer.logs, []);
    assert!(matches!(two.hub.attach(&two.handle()).await, Observation::Ended(_)));
}

#[tokio::test]
async fn an_errand_is_said_at_once_and_until_it_is_done_or_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (events, _told) = tokio::sync::mpsc::unbounded_channel();
    let hub = Hub::new(dir.path().to_owned(), LEASE, events);
    let ask = |seq, server: &Answer, wait_ms| {
        let text = r#"{"protocol":1,"incarnation":1,"seq":0,"has":[],"wait_ms":0}"#;
        Sync { seq, wait_ms, server: Some(server.server.clone()), ..serde_json::from_str(text).unwrap() }
    };
    let errand =
        |id: &str| Errand { id: id.to_owned(), kind: "ask".to_owned(), script: "true".to_owned(), within_ms: 1 };
    let ids = |answer: &Answer| answer.errands.iter().map(|errand| errand.id.clone()).collect::<Vec<_>>();
    let text = r#"{"protocol":1,"server":"","lease_ms":5}"#;
    let greeted = hub.sync("w", ask(1, &serde_json::from_str(text).unwrap(), 0)).await.unwrap();
    // Asked while its question waits.
    let (waiting, question) = (hub.clone(), ask(2, &greeted, 20_000));
    let waiting = tokio::spawn(async move { waiting.sync("w", question).await.unwrap() });
    let (first, second) = (hub.errand("w", errand("a")), hub.errand("w", errand("b")));
    assert!(ids(&waiting.await.unwrap()).contains(&"a".to_owned()));
    let again = hub.sync("w", ask(3, &greeted, 0)).await.unwrap();
    assert_eq!(ids(&again), ["a", "b"], "an answer may be lost");
    let end = ErrandEnd::Ran { code: Some(0), stdout: String::new(), stderr: String::new() };
    let done = vec![ErrandDone { id: "a".to_owned(), end: end.clone() }];
    let heard = hub.sync("w", Sync { done: done.clone(), ..ask(4, &greeted, 20_000) }).await.unwrap();
    assert_eq!((ids(&heard), &heard.heard[..]), (vec!["b".to_owned()], &["a".to_owned()][..]));
    assert_eq!(first.await.unwrap(), end);
    // Whoever says it twice hears it twice.
    let heard = hub.sync("w", Sync { done, ..ask(5, &greeted, 20_000) }).await.unwrap();
    assert_eq!(heard.heard, ["a"]);
    drop(second);
    assert_eq!(ids(&hub.sync("w", ask(6, &greeted, 0)).await.unwrap()), Vec::<String>::new());
    let _third = hub.errand("w", errand("c"));
    assert!(hub.withdraw("w", "c"), "it was never said");
    hub.kernel_taken("w", 7);
    assert_eq!(hub.sync("w", ask(7, &greeted, 20_000)).await.unwrap().kernel, Some(7));
}
