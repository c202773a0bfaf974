//! Logs of a worker's attempts, copied to the server byte by byte.
//!
//! Invariant: the server says how far it has a log, and what it is sent begins there; so a copy that broke off, or two
//! that met, leave no gap and no line twice. What is known of one server says nothing about the next ([`Logs::anew`]): the
//! log stays here whole until the end was acknowledged, so any server can have all of it.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pitcrew_core::AttemptId;

use super::protocol::{LOG_INLINE, LOG_PART, LogTail};
use super::wire::{Wire, WireError};
use crate::attempt_dir;
use crate::backend::Handle;
use crate::local::blocking;

/// How far the server has a log, as of which one of them; `None`: it was not asked yet. Held while one copies.
type Copied = Arc<tokio::sync::Mutex<Option<(u64, u64)>>>;

/// How far each log was copied.
#[derive(Clone, Default)]
pub struct Logs(Arc<All>);

#[derive(Default)]
struct All {
    logs: Mutex<HashMap<AttemptId, Copied>>,
    /// Counts the servers.
    server: AtomicU64,
}

impl Logs {
    /// An attempt begins: nobody has anything of its log.
    pub fn begin(&self, id: &AttemptId) {
        *self.of(id).try_lock_owned().expect("nobody copies a log before it is there") = Some((self.server(), 0));
    }

    /// Another server answers: it may have less.
    pub fn anew(&self) {
        self.0.server.fetch_add(1, Ordering::Relaxed);
    }

    fn server(&self) -> u64 {
        self.0.server.load(Ordering::Relaxed)
    }

    fn of(&self, id: &AttemptId) -> Copied {
        let mut all = self.0.logs.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(id.clone()).or_default())
    }

    pub fn forget(&self, id: &AttemptId) {
        self.0.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Copies what is new of a log that grows; nothing while somebody does.
    pub async fn copy(&self, wire: &Wire, handle: &Handle) -> Result<(), WireError> {
        let copied = self.of(&handle.id);
        let Ok(mut at) = copied.try_lock() else { return Ok(()) };
        if at.is_some_and(|(of, at)| of == self.server() && length(&handle.dir) <= at) {
            return Ok(());
        }
        self.advance(wire, handle, &mut at, 0).await.map(drop)
    }

    /// Copies all of a log that is complete, but for a last part that goes with the end, and says in any case where it ends.
    /// `None`: that part is no text, and went, or is not to go with the end.
    pub async fn finish(&self, wire: &Wire, handle: &Handle, inline: bool) -> Result<Option<LogTail>, WireError> {
        let copied = self.of(&handle.id);
        let mut at = copied.lock().await;
        if inline {
            let offset = self.advance(wire, handle, &mut at, LOG_INLINE as u64).await?;
            // So few bytes, which were written just now, are read faster than a thread begins that may wait for them.
            let bytes = read(&attempt_dir::log(&handle.dir), offset).unwrap_or_default();
            if let Ok(text) = String::from_utf8(bytes) {
                return Ok(Some(LogTail { offset, text }));
            }
        }
        // What is no text does not go into JSON.
        let offset = self.advance(wire, handle, &mut at, 0).await?;
        Ok(inline.then(|| LogTail { offset, text: String::new() }))
    }

    /// The same for a server that asks for it, whatever was known of it before.
    pub async fn bring(&self, wire: &Wire, handle: &Handle) -> Result<Option<LogTail>, WireError> {
        *self.of(&handle.id).lock().await = None;
        self.finish(wire, handle, true).await
    }

    /// Sends parts until at most `leave` bytes are left; up to where the server then has it.
    async fn advance(
        &self,
        wire: &Wire,
        handle: &Handle,
        at: &mut Option<(u64, u64)>,
        leave: u64,
    ) -> Result<u64, WireError> {
        let server = self.server();
        let mut offset = match *at {
            Some((of, offset)) if of == server => offset,
            Some(_) | None => wire.log(&handle.id, 0, Vec::new()).await?.offset,
        };
        *at = Some((server, offset));
        while length(&handle.dir).saturating_sub(offset) > leave {
            let bytes = part(&handle.dir, offset).await.unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let taken = wire.log(&handle.id, offset, bytes).await?.offset;
            let stands_still = taken == offset;
            offset = taken;
            *at = Some((server, offset));
            if stands_still {
                return Err(WireError::Unreachable("it takes nothing of a log".to_owned()));
            }
        }
        Ok(offset)
    }
}

fn length(dir: &Path) -> u64 {
    attempt_dir::log(dir).metadata().map_or(0, |meta| meta.len())
}

/// At most [`LOG_PART`] bytes from there.
async fn part(dir: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let path = attempt_dir::log(dir);
    blocking(move || read(&path, offset)).await
}

fn read(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(LOG_PART);
    let mut bytes = vec![0; left.min(LOG_PART)];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}
