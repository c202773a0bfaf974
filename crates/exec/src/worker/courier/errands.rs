//! What takes time: files and logs that come and go, and what the backend is asked to do. Each is a task of its own that
//! tries until it is done or cannot be done, and says so in the inbox.

use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use pitcrew_core::AttemptId;
use tokio::sync::oneshot;

use super::super::disk::Kept;
use super::super::duty::Do;
use super::super::files::{Depot, DepotError};
use super::super::protocol::{End, LogTail, Order};
use super::super::wire::{Wire, WireError};
use super::{Courier, News, TICK};
use crate::backend::{Backend, BackendError, Handle};
use crate::gpu::{Probe, Smi};
use crate::spec::AttemptSpec;

/// How many tries, a second apart, may fail before people hear of it.
const LOUD: u32 = 30;

impl Courier<'_> {
    pub(super) fn perform(&mut self, what: Do) {
        match what {
            Do::Bring(id) => self.bring(id),
            Do::Begin(order) => self.begin(order),
            Do::Cancel(id, grace) => self.end(id, grace, None),
            Do::Lose(id, grace, reason) => self.end(id, grace, Some(reason)),
            Do::Send(id, end) => self.send(id, *end),
            Do::Log(id) => self.bring_log(id),
            Do::Clean(id) => {
                self.depot.lost(&self.disk.run(id.run), &id);
                self.files.remove(&id);
                self.logs.forget(&id);
                if let Err(error) = self.disk.forget(&id) {
                    tracing::warn!("cannot forget {id}: {error}");
                }
                self.forgotten.push(self.disk.handle(&id));
            }
            Do::Leave(run) => drop(tokio::spawn(self.depot.leave(run, self.disk.run(run)))),
        }
    }

    /// Cleans up after those that were forgotten, many at a time.
    pub(super) fn clean(&mut self) {
        if self.forgotten.is_empty() {
            return;
        }
        let (backend, handles) = (Arc::clone(&self.backend), std::mem::take(&mut self.forgotten));
        tokio::spawn(async move { backend.clean_all(handles).await });
    }

    /// Whoever gets it learns by it that nobody waits any more.
    fn transfer(&mut self, id: &AttemptId) -> oneshot::Receiver<()> {
        let (sender, wanted) = oneshot::channel();
        self.transfers.insert(id.clone(), sender);
        wanted
    }

    fn bring(&mut self, id: AttemptId) {
        let mut wanted = self.transfer(&id);
        let (depot, wire, news) = (Arc::clone(&self.depot), self.wire.clone(), self.news.clone());
        let dir = self.disk.run(id.run);
        tokio::spawn(async move {
            let what = format!("the files of {id} do not come");
            let brought = until_done(&what, &mut wanted, || depot.bring(&wire, &dir, &id)).await;
            let brought =
                brought.map_err(|error| format!("the files of its run did not come from the server: {error}"));
            let _ = news.send(News::Brought(id, brought));
        });
    }

    fn begin(&mut self, order: Box<Order>) {
        let Order { handle: Handle { id, .. }, mut spec, files } = *order;
        let handle = self.disk.handle(&id);
        self.files.insert(id.clone(), files);
        let kept = Kept { attempt: id.clone(), grace: spec.grace, files };
        if let Err(error) = self.disk.keep(&kept).and_then(|()| self.make_dirs(&spec)) {
            let reason =
                format!("cannot write to the directory of the worker, `{}`: {error}", self.disk.root().display());
            let _ = self.news.send(News::NotBegun(id, reason));
            return;
        }
        if files {
            self.depot.begun(&id);
        }
        self.logs.begin(&id);
        (spec.dir, spec.place) = (handle.dir.clone(), None);
        let (backend, news) = (Arc::clone(&self.backend), self.news.clone());
        // What the machine told when the device was given away may be a minute old, or never have been true.
        let devices = spec.gpus.clone().filter(|gpus| !gpus.is_empty());
        let asked = devices.map(|devices| (devices, (self.prober)()));
        tokio::spawn(async move {
            if let Some((devices, asked)) = asked
                && let Some(probe) = asked.await
                && let Some(reason) = not_there(&probe, &devices)
            {
                // The server hears first what is there now, so that nothing else is given the device.
                let _ = news.send(News::Probed(Some(probe)));
                let _ = news.send(News::NoDevice(handle.id, reason));
                return;
            }
            loop {
                match backend.start(&handle, spec.clone()).await {
                    Ok(()) => return,
                    Err(BackendError::Unreachable { reason, .. }) => {
                        tracing::warn!("cannot start {}: {reason}; trying again", handle.id);
                        tokio::time::sleep(TICK).await;
                    }
                    Err(error @ BackendError::Io { .. }) => {
                        let _ = news.send(News::NotBegun(handle.id.clone(), error.to_string()));
                        return;
                    }
                }
            }
        });
    }

    /// Where steps start, and what the environment of an attempt names.
    fn make_dirs(&self, spec: &AttemptSpec) -> std::io::Result<()> {
        let run = self.disk.run(spec.id.run);
        let own = ["workspace", "artifacts"].map(|name| run.join(name));
        let others = spec.dirs.iter().filter(|dir| !own.contains(dir));
        own.iter().chain(others).filter(|dir| !dir.is_dir()).try_for_each(std::fs::create_dir_all)
    }

    pub(super) fn end(&self, id: AttemptId, grace: SignedDuration, lost: Option<String>) {
        let (backend, handle) = (Arc::clone(&self.backend), self.disk.handle(&id));
        tokio::spawn(async move {
            loop {
                let done = match &lost {
                    Some(reason) => backend.lose(&handle, grace, reason).await,
                    None => backend.cancel(&handle, grace).await,
                };
                match done {
                    Ok(()) => return,
                    Err(error) => tracing::warn!("cannot end {}: {error}; trying again", handle.id),
                }
                tokio::time::sleep(TICK).await;
            }
        });
    }

    fn send(&mut self, id: AttemptId, mut end: End) {
        let mut wanted = self.transfer(&id);
        let files =
            self.files.get(&id).copied().unwrap_or(false).then(|| (Arc::clone(&self.depot), self.disk.run(id.run)));
        let (logs, wire, news, handle) =
            (self.logs.clone(), self.wire.clone(), self.news.clone(), self.disk.handle(&id));
        tokio::spawn(async move {
            if let Some((depot, dir)) = files {
                // Of what was lost nobody knows how far it came: its files would be as good as none.
                if let End::Ended { ended, .. } = &mut end
                    && let Err(problem) = send_files(&depot, &wire, &dir, &id, &mut wanted).await
                {
                    ended.output_problems.push(format!("its files did not come to the server: {problem}"));
                }
                // Nothing, if they were sent.
                depot.lost(&dir, &id);
                depot.note_loss(&dir, id.run).await;
            }
            let inline = matches!(end, End::Ended { .. });
            let tail = until_taken(&id, || logs.finish(&wire, &handle, inline)).await;
            let end = match end {
                End::Ended { ended, .. } => End::Ended { ended, log: tail },
                End::Lost { reason } => End::Lost { reason },
            };
            let _ = news.send(News::Gone(id, end));
        });
    }

    fn bring_log(&self, id: AttemptId) {
        let (logs, wire, news, handle) =
            (self.logs.clone(), self.wire.clone(), self.news.clone(), self.disk.handle(&id));
        tokio::spawn(async move {
            let tail = until_taken(&id, || logs.bring(&wire, &handle)).await;
            let _ = news.send(News::Logged(id, tail));
        });
    }
}

/// Until the server has a log, but for its tail, or does not want it.
async fn until_taken<F: Future<Output = Result<Option<LogTail>, WireError>>>(
    id: &AttemptId,
    mut copy: impl FnMut() -> F,
) -> Option<LogTail> {
    loop {
        match copy().await {
            Ok(tail) => return tail,
            Err(WireError::Unreachable(reason)) => {
                tracing::debug!("the log of {id} cannot be copied now: {reason}");
                tokio::time::sleep(TICK).await;
            }
            Err(refused @ (WireError::Refused(..) | WireError::ShutOut(..))) => {
                tracing::debug!("the server does not want the log of {id}: {refused}");
                return None;
            }
        }
    }
}

/// Why an attempt cannot have these devices; where the machine does not tell, it tries.
fn not_there(probe: &Probe, devices: &[String]) -> Option<String> {
    if probe.smi != Smi::Answered {
        return None;
    }
    let mut there = Vec::new();
    for gpu in &probe.gpus {
        there.push(gpu.uuid.as_str());
        there.extend(gpu.mig.iter().map(|instance| instance.uuid.as_str()));
    }
    let missing = devices.iter().find(|device| !there.contains(&device.as_str()))?;
    let there = if there.is_empty() { "it has none".to_owned() } else { format!("it has {}", there.join(", ")) };
    Some(format!("the GPU `{missing}` that it was given is not there on its worker: {there}"))
}

/// Until the server has them, or does not want them.
async fn send_files(
    depot: &Depot,
    wire: &Wire,
    dir: &Path,
    id: &AttemptId,
    wanted: &mut oneshot::Receiver<()>,
) -> Result<(), DepotError> {
    let left_out = until_done(&format!("the files of {id} do not go"), wanted, || depot.send(wire, dir, id)).await?;
    left_out.iter().take(10).for_each(|what| tracing::warn!("of {id} stays on this worker: {what}"));
    Ok(())
}

/// Tries again while it may be done later and somebody waits for it.
async fn until_done<T, F: Future<Output = Result<T, DepotError>>>(
    what: &str,
    wanted: &mut oneshot::Receiver<()>,
    mut attempt: impl FnMut() -> F,
) -> Result<T, DepotError> {
    for tries in 1u32.. {
        if matches!(wanted.try_recv(), Err(oneshot::error::TryRecvError::Closed)) {
            break;
        }
        let reason = match attempt().await {
            Err(DepotError::Later(reason)) => reason,
            other => return other,
        };
        // A line that is down is said elsewhere; what goes on for long is something else.
        match tries % LOUD {
            0 => tracing::warn!("{what}, after {tries} tries: {reason}"),
            _ => tracing::debug!("{what} now: {reason}"),
        }
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = &mut *wanted => break,
        }
    }
    Err(DepotError::Never("nobody waits for them any more: it was cancelled".to_owned()))
}
