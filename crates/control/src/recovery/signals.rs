//! What the kernel logs of nodes say about their GPUs.
//!
//! On the machine of the server the log tells by itself ([`follow_here`]). Of other nodes it is read every so often, by one
//! script that prints what is new about GPUs; also here, where the device may not be read. What was read is remembered in the
//! store, so that no line acts twice and none is missed while no server runs; where that cannot be read, nothing is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Advice, Input, Signal, SignalKind};
use pitcrew_exec::gpu::kernel_log::{KernelLog, Told, kernel_log_script, parse_kernel_log};
use pitcrew_exec::gpu::kmsg::{DEVICE, Kmsg, boot_id};
use pitcrew_health::Facts;
use pitcrew_health::kernel::{Judging, Sign, SignKind, Watch, read_kmsg};

use super::look::{Look, look};
use super::perform::Hands;
use super::reach::script;
use crate::clock;
use crate::fleet::Reach;

/// In the script that reads a log.
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id 2>/dev/null";
/// For one node.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nodes that are asked at the same time.
const AT_ONCE: usize = 64;
/// How often the place in a log is written in which nothing about GPUs came.
const KEEP_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// Before the device is tried again that could not be followed.
const FOLLOW_AGAIN: Duration = Duration::from_secs(60);

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    let is_followed = AtomicBool::new(false);
    tokio::join!(poll(&hands, &is_followed), follow_here(&hands, &is_followed));
}

/// A log that is read, as far as it was.
pub(super) struct Place {
    watch: Watch,
    /// As it stands in the store.
    kept: Watch,
    kept_at: Timestamp,
    /// People were told that it cannot be read.
    is_denied: bool,
}

async fn poll(hands: &Hands, is_followed: &AtomicBool) {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    loop {
        let nodes = hands.reached.fleet.nodes().borrow().clone();
        let is_asked = |reach: &Reach| match reach {
            Reach::Local => !is_followed.load(Ordering::Relaxed),
            Reach::Connection(_) => true,
            // A worker brings its own; every look at a machine of ECS would be a command in the books of its owner.
            Reach::Worker(_) | Reach::Ecs(_) => false,
        };
        let asked = nodes.iter().filter(|node| !node.node.gpus.is_empty() && is_asked(&node.reach));
        let names: BTreeSet<String> = asked.map(|node| node.node.name.clone()).collect();
        places.retain(|name, _| names.contains(name));
        let asking = names.into_iter().map(|name| {
            let place = places.remove(&name);
            async move { (read_one(hands, &name, place).await, name) }
        });
        let mut asking = futures::stream::iter(asking.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let mut read = BTreeMap::new();
        while let Some((place, name)) = asking.next().await {
            read.extend(place.map(|place| (name, place)));
        }
        drop(asking);
        places = read;
        tokio::time::sleep(hands.config.watch.unsigned_abs()).await;
    }
}

/// `None`: it is not known how far its log was read.
async fn read_one(hands: &Hands, node: &str, place: Option<Place>) -> Option<Place> {
    let mut place = match place {
        Some(place) => place,
        None => remembered(hands, node).await?,
    };
    // Whether a node answers is for others to find out.
    if let Some(log) = read(hands, node, place.watch.follower().sequence()).await {
        hands.saw(node, &log.boot);
        take(hands, node, &mut place, &log).await;
    }
    Some(place)
}

async fn read(hands: &Hands, node: &str, after: Option<u64>) -> Option<KernelLog> {
    let Some(own) = &hands.config.commands.kernel_log else {
        let mut body = kernel_log_script(after);
        if let Some(boot) = &hands.config.commands.boot_id {
            body = body.replace(BOOT_ID, &format!("({boot}) 2>/dev/null"));
        }
        let ran = hands.reached.run(node, &script(&[("PITCREW_NODE", node.to_owned())], &body), PATIENCE).await.ok()?;
        return parse_kernel_log(ran.stdout.as_bytes());
    };
    let ran = hands.reached.run(node, &script(&[("PITCREW_NODE", node.to_owned())], own), PATIENCE).await;
    parse(&ran.ok()?.stdout)
}

/// What a command of the user's prints: boot id, seconds since that boot, the numbers of the first and the last record
/// there are, and records.
fn parse(text: &str) -> Option<KernelLog> {
    let mut lines = text.lines();
    let boot = lines.next()?.trim().to_owned();
    let seconds: f64 = lines.next()?.trim().parse().ok()?;
    let up = SignedDuration::try_from_secs_f64(seconds).ok()?;
    let (first, last) = lines.next()?.split_once(' ')?;
    let (first, last) = (first.parse().ok()?, last.trim().parse().ok()?);
    let records = lines.filter_map(|line| read_kmsg(line.as_bytes())).collect();
    let is_named = !boot.is_empty();
    let told = Told::Records { first, last, micros: (seconds * 1e6) as u64, records };
    is_named.then_some(KernelLog { boot, up: Some(up), told })
}

/// What of a node's log was read, by this server or another.
pub(super) async fn remembered(hands: &Hands, node: &str) -> Option<Place> {
    let watch = match hands.store.setting(&key(node)).await {
        Ok(Some(text)) => serde_json::from_str(&text).unwrap_or_default(),
        Ok(None) => Watch::default(),
        Err(error) => {
            // Not as if it were followed for the first time: all that it says would be history.
            tracing::warn!(%error, node, "it cannot be read how far the kernel log was read");
            return None;
        }
    };
    Some(Place { kept: watch.clone(), watch, kept_at: clock::now(), is_denied: false })
}

fn key(node: &str) -> String {
    format!("recovery.kernel.{node}")
}

/// `false`: it could not be told.
pub(super) async fn take(hands: &Hands, node: &str, place: &mut Place, log: &KernelLog) -> bool {
    if let Told::Denied(why) = &log.told {
        if !std::mem::replace(&mut place.is_denied, true) {
            tracing::warn!(node, "the kernel log of `{node}` cannot be read, so XIDs are not seen there: {why}");
        }
        return true;
    }
    place.is_denied = false;
    let before = place.watch.clone();
    let how = Judging { tables: hands.config.signs.tables(), driver: None, is_drill: hands.config.is_drill };
    let signs = log.signs(&mut place.watch, how);
    let now = clock::now();
    let dated = signs.into_iter().map(|sign| (log.at(&sign, now), sign)).collect();
    settle(hands, node, &log.boot, place, before, dated).await
}

/// Tells the signs, and keeps how far the log was read. Told before it is kept: told twice it acts once.
async fn settle(
    hands: &Hands,
    node: &str,
    boot: &str,
    place: &mut Place,
    before: Watch,
    signs: Vec<(Timestamp, Sign)>,
) -> bool {
    let is_news = !signs.is_empty() || place.watch.follower().boot() != place.kept.follower().boot();
    for signal in signals(hands, node, boot, signs).await {
        if hands.desk.tell(Input::Signal(signal)).await.is_err() {
            place.watch = before;
            return false;
        }
    }
    let is_due = clock::now().duration_since(place.kept_at) > KEEP_EVERY;
    if place.watch != place.kept && (is_news || is_due) {
        let text = serde_json::to_string(&place.watch).unwrap_or_default();
        match hands.store.put_setting(&key(node), &text).await {
            Ok(()) => (place.kept, place.kept_at) = (place.watch.clone(), clock::now()),
            Err(error) => tracing::warn!(%error, node, "it cannot be written how far the kernel log was read"),
        }
    }
    true
}

/// As recovery takes them. What a sign alone does not tell, the driver is asked for.
async fn signals(hands: &Hands, node: &str, boot: &str, signs: Vec<(Timestamp, Sign)>) -> Vec<Signal> {
    let is_lost = |sign: &Sign| matches!(sign.kind, SignKind::Lost { .. });
    let wants_look = signs.iter().any(|(_, sign)| sign.judgement.open.is_some() || is_lost(sign));
    let seen = if wants_look { look(hands, node).await } else { None };
    let mut told = Vec::new();
    for (at, mut sign) in signs {
        if let (Some(_), Some(seen), Some(pci)) = (sign.judgement.open, &seen, sign.pci)
            && let Some(gpu) = seen.gpus.iter().find(|gpu| gpu.pci == Some(pci))
        {
            sign.judge_again(hands.config.signs.tables(), &Facts::default().with_device(gpu));
        }
        if let (None, Some(pci)) = (&sign.gpu, sign.pci) {
            sign.gpu = seen.as_ref().and_then(|seen| seen.uuid(pci));
        }
        match sign.signal(node, at) {
            // As the node itself calls its boot: that is what looks at it compare.
            Some(signal) => told.push(Signal { boot_id: Some(boot.to_owned()), ..signal }),
            None => {
                tracing::warn!(node, "{}", sign.evidence);
                if let Some(seen) = seen.as_ref().filter(|_| is_lost(&sign)) {
                    told.extend(faults(node, seen, Some(boot), at));
                }
            }
        }
    }
    told
}

/// What the driver says that is broken. A check tells what helps, and lets work end before.
pub(super) fn faults(node: &str, seen: &Look, boot: Option<&str>, at: Timestamp) -> Vec<Signal> {
    let signal = |fault: &pitcrew_health::check::Fault| Signal {
        id: format!("{node}/{}/{}/{}", fault.gpu.as_deref().unwrap_or_default(), fault.test, at),
        node: node.to_owned(),
        boot_id: boot.map(str::to_owned),
        gpu: fault.gpu.clone(),
        job: None,
        at,
        kind: match fault.test.as_str() {
            "ECC" => SignalKind::Ecc,
            "remapped rows" if fault.action == pitcrew_health::Action::FieldDiag => SignalKind::RemapFailure,
            "remapped rows" => SignalKind::RemapPending,
            _ => SignalKind::LostGpu,
        },
        advice: fault.action.advice().min(Advice::Check),
        evidence: fault.text.clone(),
    };
    seen.faults.iter().map(signal).collect()
}

/// Follows the log of this machine for as long as it can be, and says whether it is.
async fn follow_here(hands: &Hands, is_followed: &AtomicBool) {
    let commands = &hands.config.commands;
    if commands.kernel_log.is_some() || commands.boot_id.is_some() {
        return;
    }
    loop {
        let nodes = hands.reached.fleet.nodes().borrow().clone();
        let here = nodes.iter().find(|node| node.reach == Reach::Local && !node.node.gpus.is_empty());
        if let Some(node) = here.map(|node| node.node.name.clone())
            && let Err(error) = follow(hands, &node, is_followed).await
        {
            tracing::info!(node, "the kernel log is read every {:#}: {DEVICE}: {error}", hands.config.watch);
            is_followed.store(false, Ordering::Relaxed);
            tokio::time::sleep(FOLLOW_AGAIN).await;
        }
        tokio::time::sleep(hands.config.watch.unsigned_abs()).await;
    }
}

/// Until the device tells no more, or the store does not tell how far it was read.
async fn follow(hands: &Hands, node: &str, is_followed: &AtomicBool) -> std::io::Result<()> {
    let mut log = Kmsg::open(Path::new(DEVICE))?;
    let boot = boot_id()?;
    let Some(mut place) = remembered(hands, node).await else { return Ok(()) };
    is_followed.store(true, Ordering::Relaxed);
    let mut before = place.watch.clone();
    let how = Judging { tables: hands.config.signs.tables(), driver: None, is_drill: hands.config.is_drill };
    let mut signs = log.begin(&mut place.watch, &boot, how)?;
    loop {
        let now = clock::now();
        let dated = signs.into_iter().map(|sign| (now, sign)).collect();
        settle(hands, node, &boot, &mut place, before, dated).await;
        before = place.watch.clone();
        signs = log.signs(&mut place.watch, &boot, how).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_command_is_read() {
        let text = "b1\n12.5\n7 9\n4,8,11000000,-;NVRM: Xid (PCI:0000:9b:00): 79, pid=1, GPU has fallen off the bus.\n";
        let log = parse(text).unwrap();
        let Told::Records { first, last, micros, records } = &log.told else { panic!("{log:?}") };
        assert_eq!((log.boot.as_str(), *micros, *first, *last), ("b1", 12_500_000, 7, 9));
        assert_eq!((records[0].sequence, log.up), (8, Some(SignedDuration::from_millis(12_500))));
        for odd in ["", "b1\n", "b1\nx\n0 0\n", "\n1.0\n0 0\n"] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
    }
}
