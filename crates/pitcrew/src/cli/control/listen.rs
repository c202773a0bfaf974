//! The listening side: answers with what the scheduler of this process says.

use std::io;
use std::path::PathBuf;

use pitcrew_control::app::App;
use pitcrew_control::scheduler::Pick;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{Answer, Ask, Hello, MAX_MESSAGE, directory, with_short_path};

/// Listens as long as it lives.
pub struct Listener {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Begins to listen. `owner` is the unique name of this process in the store.
pub fn listen(app: &App, owner: &str, hello: Hello) -> io::Result<Listener> {
    let dir = directory(&app.data)?;
    let app = app.clone();
    let name = format!("{owner}.sock");
    let listener = with_short_path(&dir, &name, |path| UnixListener::bind(path))?;
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, hello.clone(), app.clone()))),
                // No file descriptors left, or the like; it may pass.
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    });
    Ok(Listener { path: dir.join(name), task })
}

async fn serve(stream: UnixStream, hello: Hello, app: App) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(MAX_MESSAGE)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match serde_json::from_str(&line) {
            Ok(ask) => answer(ask, &hello, &app).await,
            Err(error) => Answer::Refused(format!("this request is from another version of pitcrew: {error}")),
        };
        // Maps with string keys, strings and numbers: nothing that JSON cannot hold.
        let mut bytes = serde_json::to_vec(&answer).expect("an answer is always valid JSON");
        bytes.push(b'\n');
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn answer(ask: Ask, hello: &Hello, app: &App) -> Answer {
    let scheduler = &app.scheduler;
    let result = match ask {
        Ask::Hello => return Answer::Hello(Hello { leads: scheduler.leads(), ..hello.clone() }),
        Ask::Has { run } => return Answer::Has(scheduler.snapshot(run).await.is_some()),
        Ask::Look => {
            app.schedules.notify_one();
            // A node that somebody has cordoned gets nothing any more when they are told that it is.
            if let Err(error) = app.fleet.look_at_marks().await {
                tracing::warn!(%error, "what people did to nodes cannot be read");
            }
            scheduler.look();
            return Answer::Done;
        }
        Ask::Cancel { run, by, how } => scheduler.stop(run, how, &by).await.map(|()| Answer::Done),
        Ask::Clear { run, what, by } => scheduler.clear(run, what.into(), &by).await.map(Answer::Cleared),
        Ask::Explain { run, task, map_index } => {
            scheduler.explain(run, Pick { task, map_index }).await.map(Answer::Reasons)
        }
    };
    result.unwrap_or_else(|error| Answer::Refused(error.to_string()))
}
