//! What the kernel logs of nodes say about their GPUs.
//!
//! Every so often the lines of the driver are read, wherever the node is, and what was read is remembered in the store, so
//! that no line acts twice and none is missed while no server runs.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Input, Signal, SignalKind};
use pitcrew_health::kernel::{Judging, Record, Sign, SignKind, Watch, read_kmsg};

use super::perform::Hands;
use super::reach::script;
use crate::clock;
use crate::fleet::Reach;

/// Boot id, seconds since that boot, the numbers of the first and the last record there are, and those of the driver. A
/// log that this user may not read gives none.
const SCRIPT: &str = "\
BOOT
cut -d' ' -f1 /proc/uptime
log=$(dd if=/dev/kmsg iflag=nonblock bs=8192 2>/dev/null | tr -d '\\000')
[ -n \"$log\" ] || { echo 0 0; exit 0; }
numbers=$(printf '%s\\n' \"$log\" | sed -n 's/^[0-9]*,\\([0-9]*\\),[0-9]*,.*/\\1/p')
echo $(printf '%s\\n' \"$numbers\" | head -n 1) $(printf '%s\\n' \"$numbers\" | tail -n 1)
printf '%s\\n' \"$log\" | grep -E 'NVRM|nvswitch|nvidia-' | tail -n 2000";
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
/// For one node.
const PATIENCE: Duration = Duration::from_secs(20);

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    let mut logs: BTreeMap<String, Watch> = BTreeMap::new();
    loop {
        let nodes = hands.reached.fleet.nodes().borrow().clone();
        let asked = nodes.iter().filter(|node| !node.node.gpus.is_empty() && !matches!(node.reach, Reach::Worker(_)));
        let names: Vec<String> = asked.map(|node| node.node.name.clone()).collect();
        let answers = join_all(names.iter().map(|name| read(&hands, name))).await;
        for (name, answer) in names.iter().zip(answers) {
            let Some(log) = answer else { continue };
            if !logs.contains_key(name) {
                logs.insert(name.clone(), remembered(&hands, name).await);
            }
            if let Some(watch) = logs.get_mut(name) {
                take(&hands, name, watch, log).await;
            }
        }
        tokio::time::sleep(hands.config.watch.unsigned_abs()).await;
    }
}

/// A part of a kernel log.
#[derive(Debug, PartialEq, Eq)]
struct Log {
    boot: String,
    /// Since the boot, when it was read.
    micros: u64,
    first: u64,
    last: u64,
    records: Vec<Record>,
}

async fn read(hands: &Hands, node: &str) -> Option<Log> {
    let commands = &hands.config.commands;
    let boot = commands.boot_id.as_deref().unwrap_or(BOOT_ID);
    let body = commands.kernel_log.clone().unwrap_or_else(|| SCRIPT.replace("BOOT", boot));
    let ran = hands.reached.run(node, &script(&[("PITCREW_NODE", node.to_owned())], &body), PATIENCE).await;
    // Whether a node answers is for others to find out.
    parse(&ran.ok()?.stdout)
}

fn parse(text: &str) -> Option<Log> {
    let mut lines = text.lines();
    let boot = lines.next()?.trim().to_owned();
    let seconds: f64 = lines.next()?.trim().parse().ok()?;
    let (first, last) = lines.next()?.split_once(' ')?;
    let (first, last) = (first.parse().ok()?, last.trim().parse().ok()?);
    let records = lines.filter_map(|line| read_kmsg(line.as_bytes())).collect();
    let is_named = !boot.is_empty();
    is_named.then_some(Log { boot, micros: (seconds * 1e6) as u64, first, last, records })
}

/// What of a node's log was read, by this server or another.
async fn remembered(hands: &Hands, node: &str) -> Watch {
    match hands.store.setting(&key(node)).await {
        Ok(Some(text)) => serde_json::from_str(&text).unwrap_or_default(),
        Ok(None) => Watch::default(),
        Err(error) => {
            tracing::warn!(%error, node, "it cannot be read how far the kernel log was read");
            Watch::default()
        }
    }
}

fn key(node: &str) -> String {
    format!("recovery.kernel.{node}")
}

async fn take(hands: &Hands, node: &str, watch: &mut Watch, log: Log) {
    let before = watch.clone();
    if !watch.begin(&log.boot, log.micros) {
        return;
    }
    let how = Judging { tables: hands.config.signs.tables(), driver: None, is_drill: hands.config.is_drill };
    let signs = watch.take_some(&log.boot, &log.records, log.first, log.last, how);
    let now = clock::now();
    for sign in signs {
        if let Some(signal) = signal(node, &log, sign, now) {
            // Written before it is forgotten here: told twice it acts once.
            if hands.desk.tell(Input::Signal(signal)).await.is_err() {
                *watch = before;
                return;
            }
        }
    }
    if *watch != before {
        let text = serde_json::to_string(watch).unwrap_or_default();
        if let Err(error) = hands.store.put_setting(&key(node), &text).await {
            tracing::warn!(%error, node, "it cannot be written how far the kernel log was read");
        }
    }
}

/// As recovery takes it.
fn signal(node: &str, log: &Log, sign: Sign, now: Timestamp) -> Option<Signal> {
    let kind = match &sign.kind {
        SignKind::Xid(line) => SignalKind::Xid { code: line.code },
        SignKind::FallenOffBus => SignalKind::LostGpu,
        SignKind::Switch { .. } => SignalKind::NvLink,
        SignKind::Garbled | SignKind::Lost { .. } => {
            tracing::warn!(node, "{}", sign.evidence);
            return None;
        }
    };
    let ago = SignedDuration::from_micros(log.micros.saturating_sub(sign.micros) as i64);
    Some(Signal {
        id: sign.id,
        node: node.to_owned(),
        boot_id: Some(log.boot.clone()),
        gpu: sign.gpu,
        job: None,
        at: now.checked_sub(ago).unwrap_or(now),
        kind,
        advice: sign.judgement.action.advice(),
        evidence: sign.evidence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_node_is_read() {
        let text = "b1\n12.5\n7 9\n4,8,11000000,-;NVRM: Xid (PCI:0000:9b:00): 79, pid=1, GPU has fallen off the bus.\n";
        let log = parse(text).unwrap();
        assert_eq!((log.boot.as_str(), log.micros, log.first, log.last), ("b1", 12_500_000, 7, 9));
        assert_eq!(log.records[0].sequence, 8);
        for odd in ["", "b1\n", "b1\nx\n0 0\n", "\n1.0\n0 0\n"] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
    }
}
