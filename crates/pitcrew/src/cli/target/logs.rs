//! Logs of attempts, here from their files or from a server.

use std::sync::Arc;

use pitcrew_control::backends::Backends;
use pitcrew_control::ecs::Clusters;
use pitcrew_control::ssh;
use pitcrew_core::{RunKey, TaskId};
use pitcrew_exec::{Backend, Handle, LogChunk};

use super::{Remote, Target};
use crate::cli::context::Context;
use crate::cli::session;

/// Read of a log at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// Finds and reads logs.
pub enum Logs<'t> {
    Here { context: &'t Context, backends: Backends },
    There(&'t Remote),
}

/// Where the log of one attempt is.
pub enum LogSource {
    Here(Arc<dyn Backend>, Handle),
    There { run: RunKey, task: TaskId, map_index: i32, number: u32 },
}

impl Target {
    pub fn logs(&self) -> anyhow::Result<Logs<'_>> {
        match self {
            Target::Here(context) => {
                let (backends, ..) =
                    session::backends(context, &ssh::pool(&context.data, &context.secrets), &Clusters::none())?;
                Ok(Logs::Here { context, backends })
            }
            Target::There(remote) => Ok(Logs::There(remote)),
        }
    }
}

impl Logs<'_> {
    /// The log of an attempt, if there was one with that number.
    pub async fn source(
        &self,
        run: RunKey,
        task: &TaskId,
        map_index: i32,
        number: u32,
    ) -> anyhow::Result<Option<LogSource>> {
        match self {
            Logs::Here { context, backends } => {
                let attempts = context.store.attempts(run, task, map_index).await?;
                let Some(attempt) = attempts.into_iter().find(|attempt| attempt.number == number) else {
                    return Ok(None);
                };
                let backend = backends.named(&attempt.backend);
                Ok(Some(LogSource::Here(backend, serde_json::from_value(attempt.handle)?)))
            }
            Logs::There(_) => Ok(Some(LogSource::There { run, task: task.clone(), map_index, number })),
        }
    }

    /// A part of a log from a byte offset. Of an attempt that a server does not know, nothing.
    pub async fn read(&self, source: &LogSource, offset: u64) -> anyhow::Result<LogChunk> {
        match (source, self) {
            (LogSource::Here(backend, handle), _) => Ok(backend.logs(handle, offset, CHUNK).await?),
            (LogSource::There { run, task, map_index, number }, Logs::There(remote)) => {
                let [run, map_index, number] = [run.to_string(), map_index.to_string(), number.to_string()];
                let path = ["api", "pitcrew", "v1", "runs", &run, "logs", task.as_str(), &map_index, &number];
                let found = remote.find(&path, &[("offset", offset.to_string())]).await?;
                Ok(found.unwrap_or(LogChunk { next_offset: offset, ended: true, ..LogChunk::default() }))
            }
            (LogSource::There { .. }, Logs::Here { .. }) => Ok(LogChunk { ended: true, ..LogChunk::default() }),
        }
    }
}
