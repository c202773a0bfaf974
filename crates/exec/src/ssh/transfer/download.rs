//! One file that comes from the host.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use ring::digest::Context;

use super::job::Job;
use super::parts::{self, Part};
use super::sftp::{Kind, Opened, Refused, Session};
use super::{Failure, Moved, digest, hex};
use crate::local::blocking;

/// Bytes that are asked for at once.
const AHEAD: u64 = 2 << 20;
const BLOCK: usize = 1 << 20;

/// A part here that grows, and the digest of what it holds.
struct Target {
    file: File,
    digest: Context,
    length: u64,
}

impl Target {
    /// Opens what is there, or makes it, for its owner only.
    fn open(path: &Path) -> io::Result<Target> {
        if std::fs::symlink_metadata(path).is_ok_and(|about| !about.is_file()) {
            std::fs::remove_file(path)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut target = Target { file, digest: digest(), length: 0 };
        let mut block = vec![0; BLOCK];
        loop {
            match target.file.read(&mut block)? {
                0 => return Ok(target),
                read => {
                    target.digest.update(&block[..read]);
                    target.length += read as u64;
                }
            }
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.digest, self.length) = (digest(), 0);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// Fetches a file of the host, whole.
pub async fn fetch(job: &Job, session: &Session, from: &str, to: &Path) -> Result<Moved, Failure> {
    let host = job.host();
    let reading = format!("read `{from}`");
    let cannot = |e: io::Error| unwritten(to, &e);
    let found = session.stat(from).await.map_err(|e| e.to(&reading, &host))?;
    let Some(found) = found.filter(|found| found.kind == Kind::File) else {
        return Err(Failure::Passing(format!("`{from}` on `{host}` was a file, and is none any more")));
    };
    let length = found.size;
    let path = to.to_owned();
    let same = blocking(move || match std::fs::metadata(&path) {
        Ok(about) if about.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(about) => {
            let ours = match about.len() == length {
                true => Some(hex(Target::read(&path)?)),
                false => None,
            };
            Ok((Some(about.permissions().mode() & 0o777), ours))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((None, None)),
        Err(e) => Err(e),
    });
    let (mode, ours) = same.await.map_err(cannot)?;
    if let Some(ours) = ours
        && job.digest_there(from, None).await?.is_some_and(|theirs| theirs == ours)
    {
        if let Some(mode) = job.mode().filter(|_| mode != job.mode()) {
            std::fs::set_permissions(to, Permissions::from_mode(mode)).map_err(cannot)?;
        }
        return Ok(Moved { bytes: length, sha256: ours, resumed: 0, is_same: true });
    }
    let mode = job.mode().or(mode).unwrap_or(found.mode & 0o755);

    let part = parts::here(to, &job.name);
    Part::Here(part.clone()).write(&job.dir).map_err(|e| job.unwritten(&e))?;
    let path = part.clone();
    let mut target = blocking(move || Target::open(&path)).await.map_err(cannot)?;
    if target.length > 0 {
        let ours = hex(target.digest.clone());
        let is_longer = target.length > length;
        // Where the host has no program for it, the digest of the whole will tell.
        let differs = match is_longer {
            true => true,
            false => job.digest_there(from, Some(target.length)).await?.is_some_and(|theirs| theirs != ours),
        };
        if differs {
            target.restart().map_err(cannot)?;
        }
    }
    let resumed = target.length;
    job.progress.go_on_at(resumed);
    let file = session.read(from).await.map_err(|e| e.to(&reading, &host))?;
    let target = match stream(job, session, &file, target, length).await {
        Ok(target) => target,
        Err(Stopped::Here(e)) => return Err(cannot(e)),
        Err(Stopped::There(e)) => return Err(e.to(&reading, &host)),
    };
    session.close(file).await.map_err(|e| e.to(&reading, &host))?;
    let ours = hex(target.digest.clone());
    let theirs = job.whole_digest_there(session, from, length).await?;
    let now = session.stat(from).await.map_err(|e| e.to(&reading, &host))?;
    if target.length != length || now.is_none_or(|now| (now.size, now.modified) != (length, found.modified)) {
        let words = format!("`{from}` on `{host}` changed while it was fetched: wait until whoever writes it is done");
        return Err(Failure::Passing(words));
    }
    if ours != theirs {
        std::fs::remove_file(&part).map_err(cannot)?;
        return Err(Failure::Link(format!(
            "what came of `{from}` is not what `{host}` has (SHA-256 {ours}, not {theirs})"
        )));
    }
    let (from_part, path) = (part.clone(), to.to_owned());
    let replaced = blocking(move || {
        target.file.set_permissions(Permissions::from_mode(mode))?;
        target.file.sync_all()?;
        std::fs::rename(&from_part, &path)?;
        // The name lasts once its directory is on the disk.
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    });
    replaced.await.map_err(cannot)?;
    Part::forget(&job.dir);
    Ok(Moved { bytes: length, sha256: ours, resumed, is_same: false })
}

impl Target {
    /// The digest of a file.
    fn read(path: &Path) -> io::Result<Context> {
        let mut file = File::open(path)?;
        let (mut digest, mut block) = (digest(), vec![0; BLOCK]);
        loop {
            match file.read(&mut block)? {
                0 => return Ok(digest),
                read => digest.update(&block[..read]),
            }
        }
    }
}

/// On which side a copy stopped.
enum Stopped {
    Here(io::Error),
    There(Refused),
}

/// Adds to the target what the file has from its end up to `length`.
async fn stream(
    job: &Job,
    session: &Session,
    file: &Opened,
    mut target: Target,
    length: u64,
) -> Result<Target, Stopped> {
    let mut parts = read_from(session, file, target.length, length);
    while let Some(bytes) = parts.try_next().await.map_err(Stopped::There)? {
        if bytes.is_empty() {
            break;
        }
        let read = bytes.len() as u64;
        target = blocking(move || target.add(&bytes).map(|()| target)).await.map_err(Stopped::Here)?;
        job.progress.moved(read);
    }
    Ok(target)
}

/// The bytes of a file of the host, in order, with many reads under way; an empty one where it ends early.
fn read_from<'a>(
    session: &'a Session,
    file: &'a Opened,
    offset: u64,
    length: u64,
) -> futures::stream::BoxStream<'a, Result<Bytes, Refused>> {
    let most = session.chunks.0;
    let ahead = usize::try_from(AHEAD / most).unwrap_or(1).max(1);
    let count = length.saturating_sub(offset).div_ceil(most);
    let reads = futures::stream::iter(0..count).map(move |number| {
        let at = offset + number * most;
        session.read_at(file, at, most.min(length - at))
    });
    reads.buffered(ahead).boxed()
}

/// The digest of a file of the host, by reading it.
pub async fn digest_by_reading(session: &Session, path: &str, length: u64) -> Result<String, Refused> {
    let file = session.read(path).await?;
    let mut digest = digest();
    let mut parts = read_from(session, &file, 0, length);
    while let Some(bytes) = parts.try_next().await? {
        digest.update(&bytes);
    }
    drop(parts);
    session.close(file).await?;
    Ok(hex(digest))
}

/// Why a file of this machine cannot be written.
pub fn unwritten(path: &Path, e: &io::Error) -> Failure {
    let path = path.display();
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::Lasting(format!("the disk of this machine is full (`{path}`): free space, then `pitcrew retry`"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::Lasting(format!("cannot write `{path}` on this machine: {e}"))
        }
        io::ErrorKind::IsADirectory => {
            Failure::Lasting(format!("`{path}` is a directory on this machine, and the source a file"))
        }
        _ => Failure::Passing(format!("cannot write `{path}` on this machine: {e}")),
    }
}
