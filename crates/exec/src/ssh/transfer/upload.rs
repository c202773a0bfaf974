//! One file that goes to the host.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};
use ring::digest::Context;

use super::job::Job;
use super::parts::{self, Part};
use super::sftp::{Kind, Opened, Refused, Session};
use super::{Failure, Moved, digest, hex, size};
use crate::local::blocking;

/// Bytes that are on their way at once.
const AHEAD: u64 = 2 << 20;
/// Bytes that are hashed at once.
const BLOCK: usize = 1 << 20;

/// A file of this machine that is read from its beginning to its end, and hashed on the way.
struct Source {
    file: File,
    digest: Context,
    offset: u64,
}

impl Source {
    fn open(path: &Path) -> io::Result<Source> {
        Ok(Source { file: File::open(path)?, digest: digest(), offset: 0 })
    }

    /// Reads on to this offset, or the end; gives the digest up to there.
    fn skip_to(&mut self, offset: u64) -> io::Result<String> {
        let mut block = vec![0; BLOCK];
        while self.offset < offset {
            let most = usize::try_from(offset - self.offset).unwrap_or(BLOCK).min(BLOCK);
            match self.file.read(&mut block[..most])? {
                0 => break,
                read => {
                    self.digest.update(&block[..read]);
                    self.offset += read as u64;
                }
            }
        }
        Ok(hex(self.digest.clone()))
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        (self.digest, self.offset) = (digest(), 0);
        Ok(())
    }

    /// The next bytes; none at the end.
    fn next(&mut self, most: u64) -> io::Result<(u64, Vec<u8>)> {
        let at = self.offset;
        let mut bytes = Vec::with_capacity(usize::try_from(most).unwrap_or(BLOCK));
        (&mut self.file).take(most).read_to_end(&mut bytes)?;
        self.digest.update(&bytes);
        self.offset += bytes.len() as u64;
        Ok((at, bytes))
    }
}

/// Brings a file to where the host has it under this path, whole.
pub async fn send(job: &Job, session: &Session, from: &Path, to: &str) -> Result<Moved, Failure> {
    let host = job.host();
    let unread = |e: &io::Error| Failure::Passing(format!("cannot read `{}` on this machine: {e}", from.display()));
    let path = from.to_owned();
    let opened = blocking(move || {
        let source = Source::open(&path)?;
        let about = source.file.metadata()?;
        Ok((source, about))
    });
    let (mut source, about) = opened.await.map_err(|e| unread(&e))?;
    let length = about.len();
    let there = session.stat(to).await.map_err(|e| e.to(&format!("look at `{to}`"), &host))?;
    match there.map(|there| there.kind) {
        None | Some(Kind::File) => {}
        Some(Kind::Directory) => {
            return Err(Failure::Lasting(format!(
                "`{to}` on `{host}` is a directory, and `{}` a file",
                from.display()
            )));
        }
        Some(_) => return Err(Failure::Lasting(format!("`{to}` on `{host}` is no file"))),
    }
    let mode = job.mode().or(there.map(|there| there.mode & 0o777)).unwrap_or(about.mode() & 0o755);
    if there.is_some_and(|there| there.size == length)
        && let Some(theirs) = job.digest_there(to, None).await?
    {
        let (back, ours) =
            blocking(move || source.skip_to(length).map(|ours| (source, ours))).await.map_err(|e| unread(&e))?;
        source = back;
        if ours == theirs {
            if there.is_some_and(|there| there.mode != mode) && job.mode().is_some() {
                session.set_mode(to, mode).await.map_err(|e| e.to(&format!("set the mode of `{to}`"), &host))?;
            }
            return Ok(Moved { bytes: length, sha256: ours, resumed: 0, is_same: true });
        }
        source.restart().map_err(|e| unread(&e))?;
    }

    let part = parts::there(to, &job.name);
    let writing = format!("write `{to}`");
    let (source, offset) = resume(job, session, source, &part, length).await?;
    if let Some(space) = session.space(above(to)).await.map_err(|e| e.to(&writing, &host))?
        && space.free < length - offset
    {
        return Err(job.full(above(to), space, length - offset));
    }
    Part::There(part.clone()).write(&job.dir).map_err(|e| job.unwritten(&e))?;
    let file = session.write(&part, offset == 0).await.map_err(|e| e.to(&writing, &host))?;
    job.progress.go_on_at(offset);
    let sent = stream(job, session, source, &file, offset).await;
    let (source, reached) = match sent {
        Ok(sent) => sent,
        Err(Stopped::Here(e)) => return Err(unread(&e)),
        Err(Stopped::There(Refused::Other(words))) => {
            return Err(why_not(job, session, to, length - offset, words).await);
        }
        Err(Stopped::There(e)) => return Err(e.to(&writing, &host)),
    };
    let closed = async {
        session.chmod(&file, mode).await?;
        session.close(file).await
    };
    match closed.await {
        Ok(()) => {}
        Err(Refused::Other(words)) => return Err(why_not(job, session, to, length - offset, words).await),
        Err(e) => return Err(e.to(&writing, &host)),
    }
    let ours = hex(source.digest.clone());
    let theirs = job.whole_digest_there(session, &part, reached).await?;
    let now = source.file.metadata().map_err(|e| unread(&e))?;
    if reached != length
        || now.len() != length
        || (now.mtime(), now.mtime_nsec()) != (about.mtime(), about.mtime_nsec())
    {
        let words = format!("`{}` changed while it was sent: wait until whoever writes it is done", from.display());
        return Err(Failure::Passing(words));
    }
    if ours != theirs {
        session.remove(&part).await.map_err(|e| e.to(&writing, &host))?;
        return Err(Failure::Link(format!(
            "what `{host}` has of `{to}` is not what was sent (SHA-256 {theirs}, not {ours})"
        )));
    }
    job.replace_there(session, &part, to).await?;
    Part::forget(&job.dir);
    Ok(Moved { bytes: length, sha256: ours, resumed: offset, is_same: false })
}

/// Where to go on: at the end of a part whose content is that of the source.
async fn resume(
    job: &Job,
    session: &Session,
    source: Source,
    part: &str,
    length: u64,
) -> Result<(Source, u64), Failure> {
    let host = job.host();
    let unread = |e: io::Error| Failure::Passing(format!("cannot read a file on this machine: {e}"));
    let found = session.lstat(part).await.map_err(|e| e.to(&format!("look at `{part}`"), &host))?;
    let Some(found) = found else { return Ok((source, 0)) };
    let mut offset = if found.kind == Kind::File && found.size <= length { found.size } else { 0 };
    let mut source = source;
    if offset > 0 {
        let theirs = job.digest_there(part, Some(offset)).await?;
        let (back, ours) = blocking(move || source.skip_to(offset).map(|ours| (source, ours))).await.map_err(unread)?;
        source = back;
        // Where the host has no program for it, the digest of the whole will tell.
        if theirs.is_some_and(|theirs| theirs != ours) {
            source.restart().map_err(unread)?;
            offset = 0;
        }
    }
    if offset == 0 {
        session.remove(part).await.map_err(|e| e.to(&format!("remove `{part}`"), &host))?;
    }
    Ok((source, offset))
}

/// On which side a copy stopped.
enum Stopped {
    Here(io::Error),
    There(Refused),
}

/// Writes from the offset on; gives the offset that was reached.
async fn stream(
    job: &Job,
    session: &Session,
    source: Source,
    file: &Opened,
    offset: u64,
) -> Result<(Source, u64), Stopped> {
    let most = session.chunks.1;
    let ahead = usize::try_from(AHEAD / most).unwrap_or(1).max(1);
    // The source goes into each step and comes back with its last one.
    let (give_back, mut given_back) = tokio::sync::mpsc::unbounded_channel();
    let chunks = futures::stream::try_unfold(source, |source| {
        let give_back = give_back.clone();
        async move {
            let mut source = source;
            let read = blocking(move || source.next(most).map(|read| (source, read))).await;
            let (source, (at, bytes)) = read.map_err(Stopped::Here)?;
            if bytes.is_empty() {
                let _ = give_back.send(source);
                return Ok(None);
            }
            Ok(Some(((at, bytes), source)))
        }
    });
    let mut acknowledged = chunks
        .map_ok(|(at, bytes)| async move {
            let length = bytes.len() as u64;
            session.write_at(file, at, bytes).await.map(|()| length).map_err(Stopped::There)
        })
        .try_buffered(ahead)
        .boxed();
    let mut reached = offset;
    while let Some(length) = acknowledged.try_next().await? {
        reached += length;
        job.progress.moved(length);
    }
    drop(acknowledged);
    match given_back.try_recv() {
        Ok(source) => Ok((source, reached)),
        Err(_) => Err(Stopped::Here(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// SFTP tells nobody why a write failed: a full disk is found out.
async fn why_not(job: &Job, session: &Session, to: &str, needed: u64, words: String) -> Failure {
    let host = job.host();
    match session.space(above(to)).await {
        // Others may have freed some of it since; a quota ends earlier than the disk.
        Ok(Some(space)) if space.available < needed => job.full(above(to), space, needed),
        Ok(Some(space)) => Failure::Passing(format!(
            "`{host}` cannot write `{to}`; it says `{words}`, no more. Its disk has {} free: is it a quota, or a limit on the size of files?",
            size(space.available)
        )),
        Ok(None) => Refused::Other(words).to(&format!("write `{to}`"), &host),
        Err(e) => e.to(&format!("write `{to}`"), &host),
    }
}

/// The directory of a file on the host.
pub fn above(path: &str) -> &str {
    path.rsplit_once('/').map(|(above, _)| above).filter(|above| !above.is_empty()).unwrap_or("/")
}
