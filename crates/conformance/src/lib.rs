//! What every backend that runs pods has to do, as sentences: each is a test of each [`World`].
//!
//! A world is a backend that can be used here: the sandbox of this machine, a Docker engine, a cluster. The sentences know nothing of it
//! but this trait. They cannot see a pod's files; what they want to know a step writes into its log or its results. They wait for facts,
//! with the world's patience, and assert no time. What a world cannot do it says by [`World::lacks`]; its tests print that.
//!
//! Three images exist in each world, under these names: `busybox` and `alpine`, which have busybox and its `sh`, and `bash`, which has
//! `bash` beside them and as its entry point.
//!
//! A crate of a backend has a dev-dependency on this one, and a test with:
//!
//! ```ignore
//! pitcrew_conformance::pods!(sandbox = crate::world::Sandbox);
//! ```

mod bench;
mod build;
mod done;
pub mod sentences;

use std::time::Duration;

use async_trait::async_trait;
use pitcrew_core::pod::Pod;
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Handle};

pub use bench::{Bench, Over, run};
pub use build::{pod, pod_with, probe, sidecar, step, step_with};
pub use done::Done;

/// A backend, and ways to break it.
#[async_trait]
pub trait World: Sized + Send + Sync {
    /// `None` where it cannot be on this machine, which it has said then.
    async fn new() -> Option<Self>;

    fn backend(&self) -> &dyn Backend;

    /// The next event of the backend. It may be given up and asked again without losing one.
    async fn event(&mut self) -> BackendEvent;

    /// An attempt that runs this pod; `name` is a name of a task, and different for each attempt of a world.
    fn spec(&self, name: &str, pod: Pod) -> AttemptSpec;

    /// As after the death of the server: everything in memory is gone, and the backend is made anew from what is stored.
    async fn restart(&mut self);

    /// Makes what keeps this attempt disappear, without a word: the runner of a machine, the pod of a cluster.
    async fn kill_keeper(&mut self, handle: &Handle);

    /// What there still is of an attempt beside its log and how it ended: processes, mounts, containers, volumes, objects of a cluster,
    /// one name each. Asked after its clean-up, until it is empty.
    async fn left(&self, handle: &Handle) -> Vec<String>;

    /// Why it cannot do this; `None` if it can.
    fn lacks(&self, ability: Ability) -> Option<String> {
        let _ = ability;
        None
    }

    /// Nothing takes this long unless it hangs.
    fn patience(&self) -> Duration {
        Duration::from_secs(180)
    }
}

/// What some worlds cannot do. All else everyone can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Containers as another user than the one that the backend itself is.
    OtherUsers,
    /// Directories below `/tekton` that only their own step can write to.
    ProtectedSteps,
    /// Volumes in memory.
    MemoryVolumes,
    /// Mounts of a part of a volume.
    PartsOfVolumes,
    /// Sidecars.
    Sidecars,
    /// Probes of sidecars over the network.
    NetworkProbes,
    /// What a sidecar writes after it was asked to end.
    LastWords,
    /// Copies of what a step writes, as files.
    Copies,
    /// A keeper that dies.
    KeeperDies,
    /// Images as they usually are: `bash`, and in all of them `/tmp` and `/usr/bin`.
    UsualImages,
}
