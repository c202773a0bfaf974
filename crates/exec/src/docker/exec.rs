//! Commands in containers that run already.
//!
//! An engine can begin such a command and tell how it ended, and cannot end it. So each carries a mark in its environment, by which another
//! command in the same container, of the same user, finds it and all its children ([`Engine::end_marked`]).

use bytes::Bytes;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::{Fault, Kind};
use super::frames::{Frames, Stream};
use super::{Engine, PATIENCE, escaped};

/// The variable that finds a command again.
const MARK: &str = "PITCREW_EXEC";
/// Ends what carries a mark: `$1` is the signal, `$2` the mark. Its own environment has another one, so it does not find itself.
const FIND: &str = "for d in /proc/[0-9]*; do if grep -qs \"PITCREW_EXEC=$2\" \"$d/environ\"; then kill \"-$1\" \"${d#/proc/}\" && echo \"${d#/proc/}\"; fi; done; :";

/// A command for a container.
#[derive(Clone, PartialEq, Eq)]
pub struct Exec {
    /// The name or the id of a container.
    pub container: String,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    /// As `docker exec --user` has it; `None`: that of the container.
    pub user: Option<String>,
    /// `None`: that of the container.
    pub workdir: Option<String>,
    /// Letters, digits, `-`: what [`Engine::end_marked`] finds it by.
    pub mark: String,
}

/// How a command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ended {
    pub running: bool,
    pub exit_code: Option<i64>,
}

/// What a command writes, until it ends.
pub struct Output {
    answer: Response,
    frames: Frames,
    engine: Engine,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

impl Engine {
    /// Makes a command ready; gives its id. Nothing of it runs.
    pub async fn exec_create(&self, exec: &Exec) -> Result<String, Fault> {
        let mut env: Vec<String> = exec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.push(format!("{MARK}={}", exec.mark));
        let mut body = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": exec.command, "Env": env });
        if let Some(user) = &exec.user {
            body["User"] = Value::from(user.as_str());
        }
        if let Some(workdir) = &exec.workdir {
            body["WorkingDir"] = Value::from(workdir.as_str());
        }
        let path = format!("/containers/{}/exec", escaped(&exec.container));
        let created: Created = self.ask(Method::POST, &path, Some(&body)).await?;
        Ok(created.id)
    }

    /// Begins it.
    pub async fn exec_start(&self, id: &str) -> Result<Output, Fault> {
        let path = self.versioned(&format!("/exec/{}/start", escaped(id)));
        let body = json!({ "Detach": false, "Tty": false });
        // The head of the answer comes as soon as it runs; what follows takes as long as the command does.
        let sent = tokio::time::timeout(PATIENCE, self.0.send(Method::POST, &path, Some(&body), None)).await;
        let late = |_| Fault::unknown(format!("{} did not say whether the command began", self.0.name));
        let answer = sent.map_err(late)??;
        if !answer.status().is_success() {
            return match self.taken(answer).await {
                Err(fault) => Err(fault),
                Ok(_) => Err(Fault::unknown(format!("{} did not begin the command", self.0.name))),
            };
        }
        Ok(Output::new(answer, Frames::default(), self.clone()))
    }

    pub async fn exec_inspect(&self, id: &str) -> Result<Ended, Fault> {
        self.ask(Method::GET, &format!("/exec/{}/json", escaped(id)), None).await
    }

    /// Sends a signal (`TERM`, `KILL`) to every process of the container that carries the mark, as this user; gives how many there were.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the container has no `sh` or no `grep`: then nobody there can be told to end.
    pub async fn end_marked(
        &self,
        container: &str,
        user: Option<&str>,
        mark: &str,
        signal: &str,
    ) -> Result<usize, Fault> {
        let command = ["/bin/sh", "-c", FIND, "sh", signal, mark].map(str::to_owned).to_vec();
        let (container, user) = (container.to_owned(), user.map(str::to_owned));
        let mark = format!("end-of-{mark}");
        let exec = Exec { container, command, env: Vec::new(), user, workdir: None, mark };
        let id = self.exec_create(&exec).await?;
        let mut output = self.exec_start(&id).await?;
        let mut found = Vec::new();
        let read = async {
            while output
                .next(|stream, piece| {
                    if stream == Stream::Stdout {
                        found.extend_from_slice(piece)
                    }
                })
                .await?
            {}
            Ok::<_, Fault>(())
        };
        let late = |_| Fault::unknown("looking for the command in its container took too long".to_owned());
        tokio::time::timeout(PATIENCE, read).await.map_err(late)??;
        match self.exec_inspect(&id).await?.exit_code {
            Some(0) => Ok(found.iter().filter(|byte| **byte == b'\n').count()),
            Some(126 | 127) => Err(Fault::invalid("the container has no `/bin/sh` that could look for the command")),
            _ => Err(Fault::unknown("looking for the command in its container failed")),
        }
    }
}

impl Output {
    pub(super) fn new(answer: Response, frames: Frames, engine: Engine) -> Output {
        Output { answer, frames, engine }
    }

    /// Waits for more, and calls `take` with it; `false` when there is no more.
    pub async fn next(&mut self, take: impl FnMut(Stream, &[u8])) -> Result<bool, Fault> {
        let chunk: Option<Bytes> =
            self.answer.chunk().await.map_err(|error| Fault::broken(&self.engine.0.name, &error))?;
        match chunk {
            Some(bytes) => self.frames.push(&bytes, take).map(|()| true).map_err(Fault::unknown),
            None if self.frames.is_whole() => Ok(false),
            None => Err(Fault::unknown(format!("{} went away in the middle of the output", self.engine.0.name))),
        }
    }
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec")
            .field("container", &self.container)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl Fault {
    /// The engine forgot the command: it was restarted.
    pub fn is_gone(&self) -> bool {
        self.kind == Kind::NotFound
    }
}
