//! Where attempts run: the [`Backend`] contract and its implementations, and what they share.
//!
//! Nothing here decides anything. A backend starts what it is told to start and reports what is true; the engine
//! in `pitcrew-core` draws the conclusions.

pub mod attempt_dir;
pub mod aws;
pub mod backend;
pub mod capabilities;
mod clock;
pub mod docker;
pub mod fake;
pub mod git;
pub mod gpu;
pub mod limited;
pub mod local;
pub mod log;
pub mod outputs;
pub mod place;
mod program;
pub mod publish;
pub mod python;
pub mod report;
pub mod sandbox;
pub mod secrets;
pub mod signed;
pub mod spec;
pub mod ssh;
pub mod thrift;
mod whole;
pub mod worker;

pub use backend::{
    Backend, BackendError, BackendEvent, Ended, EventSender, GpuUsage, Handle, Observation, StepEnded, Usage,
};
pub use capabilities::Capabilities;
pub use clock::since_boot;
pub use log::{LogChunk, LogRecord, LogStream};
pub use place::{EcsMember, EcsPlace, Hop, HostKeys, KubernetesPlace, Place, SshPlace, WorkerPlace};
pub use spec::{AttemptSpec, Command, Direction, LentKey, Limits, PodRun, Runtime, StepSpec, Transfer};
