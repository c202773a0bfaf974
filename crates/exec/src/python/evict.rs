//! Removing environments that nobody has used for long.
//!
//! Invariant: one that is in use, or being built, is left alone, for its lock is held.

use std::fs;
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{FlockOperation, flock};

use super::Place;

/// Removes environments last used more than `older_than` ago, except for the `keep` most recently used ones, and
/// all unfinished ones. Returns the directories that it removed.
pub fn evict(
    cache: &Path,
    older_than: SignedDuration,
    keep: usize,
    now: Timestamp,
) -> io::Result<Vec<std::path::PathBuf>> {
    let mut places = Vec::new();
    let entries = match fs::read_dir(cache.join("envs")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(key) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_hexdigit())) else { continue };
        let place = Place::new(cache, key).map_err(io::Error::other)?;
        places.push((last_use(&place), place));
    }
    places.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    let mut removed = Vec::new();
    for (rank, (_, place)) in places.iter().enumerate() {
        let lock = place.open_lock().map_err(io::Error::other)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        // Asked again under the lock: somebody may have used it since.
        let idle = last_use(place).is_none_or(|used| now.duration_since(used) > older_than);
        if place.is_complete() && (rank < keep || !idle) {
            continue;
        }
        // Without its marker first, so that a removal which is broken off leaves an unfinished one.
        match fs::remove_file(place.marker()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::remove_dir_all(&place.dir)?,
        }
        removed.push(place.dir.clone());
    }
    Ok(removed)
}

fn last_use(place: &Place) -> Option<Timestamp> {
    let modified = fs::metadata(&place.lock).and_then(|m| m.modified()).ok()?;
    Timestamp::try_from(modified).ok()
}
