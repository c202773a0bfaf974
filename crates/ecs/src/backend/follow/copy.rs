//! The log of an attempt, copied from CloudWatch page by page.

use std::io;
use std::time::Duration;

use super::super::mirror::Mirror;
use super::super::watch::Shared;
use super::{Follow, Work};
use crate::client::{Fault, Kind};
use crate::clock;

/// Pages of log that are read before the next attempt has its turn.
const TURN: usize = 8;
/// After a log that could not be read just now.
const LATER: Duration = Duration::from_secs(2);

/// How far its log is here.
pub enum Copied {
    /// All that there is for now.
    All,
    More,
    /// It cannot be read now, for this reason.
    Later(String),
}

impl Follow {
    /// Copies what the log has, or a good part of it; says whether that was all for now.
    pub(super) async fn copy_log(&self, host: &Shared, work: &mut Work, task: &str) -> io::Result<Copied> {
        let Some(definition) = work.definition.clone() else { return Ok(Copied::All) };
        let name = work.sent.run.overrides.as_ref().map(|o| o.container.as_str()).filter(|name| !name.is_empty());
        let container = match name {
            Some(name) => definition.container(name),
            None => definition.main(),
        };
        let id = crate::arn::Resident::task(task).map(|task| task.id).unwrap_or_default();
        let Some((group, region, stream)) = container.and_then(|container| container.log_stream(&id)) else {
            if work.unread.is_none() {
                let why = "its log is not here: its container has no `awslogs` with a group and a stream prefix";
                work.unread = Some(why.to_owned());
                self.say(work, why)?;
            }
            return Ok(Copied::All);
        };
        let client = match host.client_of(region.as_deref()) {
            Ok(client) => client,
            Err(fault) => return self.cannot_read(work, &fault),
        };
        for _ in 0..TURN {
            let mirror = self.mirror(work)?;
            let (token, since) = mirror.from();
            match client.log_events(&group, &stream, token, since).await {
                Ok(page) => {
                    let wrote = !page.events.is_empty();
                    let more = mirror.take(page, clock::now())?;
                    if wrote {
                        work.last_words = Some(clock::instant());
                    }
                    if !more {
                        return Ok(Copied::All);
                    }
                }
                // It has not written yet.
                Err(fault) if fault.kind == Kind::NotFound => return Ok(Copied::All),
                Err(fault) if fault.kind == Kind::Invalid && token.is_some() => mirror.lose_token(),
                Err(fault) => return self.cannot_read(work, &fault),
            }
        }
        Ok(Copied::More)
    }

    pub(super) fn cannot_read(&self, work: &mut Work, fault: &Fault) -> io::Result<Copied> {
        match fault.kind {
            Kind::Throttled | Kind::Unreached => {
                tracing::debug!(attempt = %self.handle.id, "its log waits: {fault}");
                return Ok(Copied::Later(fault.to_string()));
            }
            _ if work.unread.is_none() => {
                let why = format!("its log cannot be read: {fault}");
                work.unread = Some(why.clone());
                self.say(work, &why)?;
            }
            _ => {}
        }
        Ok(Copied::All)
    }

    /// Whether all of its log is here that will ever be, so long after its end. If not, it is looked at again.
    pub(super) fn is_whole(&self, host: &Shared, work: &mut Work, copied: Copied, since: Duration) -> io::Result<bool> {
        match copied {
            Copied::All => self.put_off(host.timing.soonest),
            Copied::More => {
                self.put_off(Duration::ZERO);
                return Ok(false);
            }
            Copied::Later(_) if since < host.timing.patience => {
                self.put_off(host.timing.soonest.max(LATER.min(host.timing.poll)));
                return Ok(false);
            }
            Copied::Later(why) => {
                let why = format!("the end of its log could not be read: {why}");
                self.say(work, &why)?;
                work.unread = Some(why);
            }
        }
        Ok(true)
    }

    /// Its definition, which says where it writes. The fault is one that may pass.
    pub(super) async fn read_definition(&self, host: &Shared, work: &mut Work, name: &str) -> Option<Fault> {
        if work.definition.is_some() {
            return None;
        }
        match host.definition(name).await {
            Ok(definition) => work.definition = Some(definition),
            Err(fault) if matches!(fault.kind, Kind::Throttled | Kind::Unreached) => return Some(fault),
            Err(fault) => tracing::debug!(attempt = %self.handle.id, "its definition cannot be read: {fault}"),
        }
        None
    }

    pub(super) fn mirror<'w>(&self, work: &'w mut Work) -> io::Result<&'w mut Mirror> {
        if work.mirror.is_none() {
            work.mirror = Some(Mirror::open(&self.handle.dir, &work.sent, clock::now())?);
        }
        Ok(work.mirror.as_mut().expect("it was made just now"))
    }

    pub(super) fn say(&self, work: &mut Work, text: &str) -> io::Result<()> {
        self.mirror(work)?.say(clock::now(), text)
    }
}
