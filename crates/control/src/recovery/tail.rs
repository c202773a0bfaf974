//! What the kernel log of one node says, on its way to recovery.
//!
//! A sign that says all by itself is told at once. One that depends on what the driver says waits for the driver, which may
//! hang; nothing else waits for that, neither what the same log says next nor any other node.
//!
//! Invariant: how far a log was read is kept once all that was read is told: what is told twice acts once.

use std::collections::VecDeque;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Input, Signal};
use pitcrew_exec::gpu::kernel_log::{KernelLog, Told};
use pitcrew_health::Facts;
use pitcrew_health::kernel::{Judging, Sign, SignKind, Watch};

use super::look::{Look, look};
use super::perform::Hands;
use super::signals::faults;
use crate::clock;

/// How often the place in a log is written in which nothing about GPUs came.
const KEEP_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// The log of a node, as far as it was read.
pub(super) struct Tail {
    hands: Hands,
    node: String,
    pub watch: Watch,
    /// As it stands in the store.
    kept: Watch,
    kept_at: Timestamp,
    /// People were told that it cannot be read.
    is_denied: bool,
    is_news: bool,
    /// Signs that wait for the driver, the oldest first.
    open: VecDeque<Open>,
    /// The driver is being asked.
    pub asking: Option<Asking>,
}

struct Open {
    at: Timestamp,
    boot: String,
    sign: Sign,
}

/// A question to the driver, and how many signs were there when it was put.
pub(super) struct Asking {
    answer: BoxFuture<'static, Option<Look>>,
    about: usize,
}

/// Nothing was told, since this server leads no more: whoever begins anew reads from what is kept.
pub(super) struct Untold;

impl Tail {
    /// As far as this server or another read it; `None`: that is not known.
    pub async fn begin(hands: &Hands, node: &str) -> Option<Tail> {
        let watch: Watch = match hands.store.setting(&key(node)).await {
            Ok(Some(text)) => serde_json::from_str(&text).unwrap_or_default(),
            Ok(None) => Watch::default(),
            Err(error) => {
                // Not as if it were followed for the first time: all that it says would be history.
                tracing::warn!(%error, node, "it cannot be read how far the kernel log was read");
                return None;
            }
        };
        Some(Tail {
            hands: hands.clone(),
            node: node.to_owned(),
            kept: watch.clone(),
            watch,
            kept_at: clock::now(),
            is_denied: false,
            is_news: false,
            open: VecDeque::new(),
            asking: None,
        })
    }

    /// All that was read is told.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// What the log has by now.
    pub async fn hear(&mut self, log: &KernelLog) -> Result<(), Untold> {
        if let Told::Denied(why) = &log.told {
            if !std::mem::replace(&mut self.is_denied, true) {
                let node = &self.node;
                tracing::warn!(node, "the kernel log of `{node}` cannot be read, so XIDs are not seen there: {why}");
            }
            return Ok(());
        }
        self.is_denied = false;
        let config = self.hands.config.clone();
        let how = Judging { tables: config.signs.tables(), driver: None, is_drill: config.is_drill };
        let signs = log.signs(&mut self.watch, how);
        let now = clock::now();
        let dated = signs.into_iter().map(|sign| (log.at(&sign, now), sign)).collect();
        self.tell(&log.boot, dated).await
    }

    /// Tells what needs no driver, asks that for the rest, and keeps how far the log was read.
    pub async fn tell(&mut self, boot: &str, signs: Vec<(Timestamp, Sign)>) -> Result<(), Untold> {
        self.is_news |= !signs.is_empty() || self.watch.follower().boot() != self.kept.follower().boot();
        for (at, sign) in signs {
            if sign.judgement.open.is_some() || is_lost(&sign) {
                self.open.push_back(Open { at, boot: boot.to_owned(), sign });
            } else {
                self.tell_one(at, boot, &sign, None).await?;
            }
        }
        self.ask();
        self.keep().await;
        Ok(())
    }

    /// Does something else, and meanwhile takes what the driver says.
    pub async fn beside<T>(&mut self, other: impl Future<Output = T>) -> Result<T, Untold> {
        let mut other = std::pin::pin!(other);
        loop {
            let seen = tokio::select! {
                done = &mut other => return Ok(done),
                seen = answer(&mut self.asking) => seen,
            };
            self.answered(seen).await?;
        }
    }

    /// Of what came after the question was put, the driver may not have known yet: that is asked next.
    pub async fn answered(&mut self, seen: Option<Look>) -> Result<(), Untold> {
        let about = self.asking.take().map_or(0, |asking| asking.about);
        for gpu in seen.iter().flat_map(|seen| &seen.gpus) {
            if let (Some(pci), Some(uuid)) = (gpu.pci, &gpu.uuid) {
                self.watch.know(pci, uuid);
            }
        }
        for Open { at, boot, mut sign } in self.open.drain(..about.min(self.open.len())).collect::<Vec<_>>() {
            if let (Some(_), Some(seen), Some(pci)) = (sign.judgement.open, &seen, sign.pci)
                && let Some(gpu) = seen.gpus.iter().find(|gpu| gpu.pci == Some(pci))
            {
                sign.judge_again(self.hands.config.signs.tables(), &Facts::default().with_device(gpu));
            }
            if let (None, Some(pci)) = (&sign.gpu, sign.pci) {
                sign.gpu = seen.as_ref().and_then(|seen| seen.uuid(pci));
            }
            self.tell_one(at, &boot, &sign, seen.as_ref()).await?;
        }
        self.ask();
        self.keep().await;
        Ok(())
    }

    /// Whoever has signs that wait asks the driver; a hang is an answer as well, after a while.
    fn ask(&mut self) {
        if self.asking.is_none() && !self.open.is_empty() {
            let (hands, node) = (self.hands.clone(), self.node.clone());
            let answer = async move { look(&hands, &node).await }.boxed();
            self.asking = Some(Asking { answer, about: self.open.len() });
        }
    }

    async fn tell_one(&mut self, at: Timestamp, boot: &str, sign: &Sign, seen: Option<&Look>) -> Result<(), Untold> {
        let (node, desk) = (&*self.node, &self.hands.desk);
        let signals = match sign.signal(node, at) {
            // As the node itself calls its boot: that is what looks at it compare.
            Some(signal) => vec![Signal { boot_id: Some(boot.to_owned()), ..signal }],
            None => {
                tracing::warn!(node, "{}", sign.evidence);
                let seen = seen.filter(|_| is_lost(sign));
                seen.map(|seen| faults(node, &seen.faults, Some(boot), at)).unwrap_or_default()
            }
        };
        for signal in signals {
            desk.tell(Input::Signal(signal)).await.map_err(|_| Untold)?;
        }
        Ok(())
    }

    async fn keep(&mut self) {
        let is_due = clock::now().duration_since(self.kept_at) > KEEP_EVERY;
        if !self.is_settled() || self.watch == self.kept || !(self.is_news || is_due) {
            return;
        }
        let text = serde_json::to_string(&self.watch).unwrap_or_default();
        match self.hands.store.put_setting(&key(&self.node), &text).await {
            Ok(()) => {
                (self.kept, self.kept_at, self.is_news) = (self.watch.clone(), clock::now(), false);
            }
            Err(error) => {
                tracing::warn!(%error, node = self.node, "it cannot be written how far the kernel log was read");
            }
        }
    }
}

/// What the driver says, once it is asked and has answered.
pub(super) async fn answer(asking: &mut Option<Asking>) -> Option<Look> {
    match asking {
        Some(asking) => (&mut asking.answer).await,
        None => std::future::pending().await,
    }
}

fn is_lost(sign: &Sign) -> bool {
    matches!(sign.kind, SignKind::Lost { .. })
}

fn key(node: &str) -> String {
    format!("recovery.kernel.{node}")
}
