//! Collects every child that ends: the processes that were started here, and orphans that the kernel hands over because
//! the runner is the subreaper of everything below it.
//!
//! Invariant: a process that was started here is watched before the runner's only thread waits for anything, so its end
//! cannot be missed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// A child that ended, and what it used together with the children that it waited for.
#[derive(Debug, Clone, Copy)]
pub struct Reaped {
    pub status: ExitStatus,
    pub user: Duration,
    pub system: Duration,
    /// Of its largest process. Never less than the runner's own few MiB: until it executes its program, a child counts
    /// as the process that it was cloned from.
    pub max_rss_bytes: u64,
}

pub struct Reaper {
    watched: RefCell<HashMap<i32, oneshot::Sender<Reaped>>>,
    /// Told whenever any child, an orphan too, was collected.
    any: Notify,
}

impl Reaper {
    /// Begins to collect; from now on nothing else in this process may wait for children.
    pub fn start() -> io::Result<Rc<Reaper>> {
        let signals = signal(SignalKind::child())?;
        let reaper = Rc::new(Reaper { watched: RefCell::new(HashMap::new()), any: Notify::new() });
        tokio::task::spawn_local(Rc::clone(&reaper).run(signals));
        Ok(reaper)
    }

    /// The end of a child that was started just now.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Reaped> {
        let (sender, receiver) = oneshot::channel();
        self.watched.borrow_mut().insert(pid, sender);
        receiver
    }

    /// Is it a child that was started here, and not an orphan?
    pub fn is_watched(&self, pid: i32) -> bool {
        self.watched.borrow().contains_key(&pid)
    }

    /// Waits until some child was collected, or a short while, since not every process is ours to collect.
    pub async fn settle(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(20), self.any.notified()).await;
    }

    async fn run(self: Rc<Self>, mut signals: Signal) {
        while signals.recv().await.is_some() {
            // One signal may stand for many ends.
            while let Some((pid, reaped)) = wait_any() {
                if let Some(waiter) = self.watched.borrow_mut().remove(&pid) {
                    let _ = waiter.send(reaped);
                }
                self.any.notify_waiters();
            }
        }
    }
}

/// Collects one child that has ended, if there is one.
fn wait_any() -> Option<(i32, Reaped)> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`, which holds nothing but integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type; `wait4` keeps neither.
    let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage) };
    (pid > 0).then(|| {
        let reaped = Reaped {
            status: ExitStatus::from_raw(status),
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            // Linux counts in KiB.
            max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        };
        (pid, reaped)
    })
}

fn duration(time: libc::timeval) -> Duration {
    let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_usec);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
