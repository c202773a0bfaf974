//! What the kernel logs of nodes say about their GPUs.
//!
//! On the machine of the server the log tells by itself ([`follow_here`]). Of other nodes it is read every so often, by one
//! script that prints what is new about GPUs; also here, where the device may not be read. What was read is remembered in the
//! store, so that no line acts twice and none is missed while no server runs; where that cannot be read, nothing is taken.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Advice, Signal, SignalKind};
use pitcrew_exec::gpu::kernel_log::{KernelLog, Told, kernel_log_script, parse_kernel_log};
use pitcrew_exec::gpu::kmsg::{DEVICE, Kmsg, boot_id};
use pitcrew_health::check::Fault;
use pitcrew_health::kernel::{Judging, read_kmsg};

use super::each::{each_node, share};
use super::perform::Hands;
use super::reach::script;
use super::tail::{Tail, answer};
use crate::clock;
use crate::fleet::{FleetNode, Reach};

/// In the script that reads a log.
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id 2>/dev/null";
/// For one node.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before the device is tried again that could not be followed.
const FOLLOW_AGAIN: Duration = Duration::from_secs(60);

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    let is_followed = Arc::new(AtomicBool::new(false));
    // A worker brings its own; every look at a machine of ECS would be a command in the books of its owner.
    let is_asked =
        |node: &FleetNode| !node.node.gpus.is_empty() && matches!(node.reach, Reach::Local | Reach::Connection(_));
    let polling = each_node(&hands.reached.fleet, is_asked, |node| {
        let is_followed = matches!(node.reach, Reach::Local).then(|| is_followed.clone());
        poll(hands.clone(), node.node.name.clone(), is_followed)
    });
    tokio::join!(polling, follow_here(&hands, &is_followed));
}

/// Reads the log of a node every so often, for as long as it is polled; of this machine, where it is not followed.
async fn poll(hands: Hands, node: String, is_followed: Option<Arc<AtomicBool>>) {
    let every = hands.config.watch.unsigned_abs();
    let mut pause = share(&node, every);
    let mut tail: Option<Tail> = None;
    loop {
        if is_followed.as_ref().is_some_and(|is| is.load(Ordering::Relaxed)) {
            tail = None;
        } else if tail.is_none() {
            tail = Tail::begin(&hands, &node).await;
        }
        let round = async {
            if let Some(tail) = &mut tail {
                // Whether a node answers is for others to find out.
                let after = tail.watch.follower().sequence();
                if let Some(log) = tail.beside(read(&hands, &node, after)).await? {
                    hands.saw(&node, &log.boot);
                    tail.hear(&log).await?;
                }
                tail.beside(tokio::time::sleep(pause)).await?;
            } else {
                tokio::time::sleep(pause).await;
            }
            Ok::<(), super::tail::Untold>(())
        };
        if round.await.is_err() {
            tail = None;
            tokio::time::sleep(every).await;
        }
        pause = every;
    }
}

async fn read(hands: &Hands, node: &str, after: Option<u64>) -> Option<KernelLog> {
    let env = [("PITCREW_NODE", node.to_owned())];
    let Some(own) = &hands.config.commands.kernel_log else {
        let mut body = kernel_log_script(after);
        if let Some(boot) = &hands.config.commands.boot_id {
            body = body.replace(BOOT_ID, &format!("({boot}) 2>/dev/null"));
        }
        let said = hands.reached.again(node, "kernel log", &script(&env, &body), PATIENCE).await?;
        return parse_kernel_log(&said);
    };
    let ran = hands.reached.run(node, &script(&env, own), PATIENCE).await;
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

/// What the driver says that is broken. A check tells what helps, and lets work end before.
pub(super) fn faults(node: &str, faults: &[Fault], boot: Option<&str>, at: Timestamp) -> Vec<Signal> {
    let signal = |fault: &Fault| Signal {
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
            test => match watch_of(test) {
                Some(kind) => kind,
                None => SignalKind::LostGpu,
            },
        },
        advice: fault.action.advice().min(Advice::Check),
        evidence: fault.text.clone(),
    };
    faults.iter().map(signal).collect()
}

/// What DCGM watches: `NVLink system`, `Thermal system`, and so on.
fn watch_of(test: &str) -> Option<SignalKind> {
    let test = test.strip_suffix(" system")?;
    let is = |word: &str| test.to_ascii_lowercase().starts_with(word);
    Some(match () {
        () if is("nvlink") || is("nvswitch") => SignalKind::NvLink,
        () if is("thermal") => SignalKind::Thermal,
        () => SignalKind::Dcgm { what: test.to_owned() },
    })
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

/// Until the device tells no more, or what it says cannot be told.
async fn follow(hands: &Hands, node: &str, is_followed: &AtomicBool) -> std::io::Result<()> {
    let mut log = Kmsg::open(Path::new(DEVICE))?;
    let boot = boot_id()?;
    let Some(mut tail) = Tail::begin(hands, node).await else { return Ok(()) };
    is_followed.store(true, Ordering::Relaxed);
    let how = Judging { tables: hands.config.signs.tables(), driver: None, is_drill: hands.config.is_drill };
    let mut signs = log.begin(&mut tail.watch, &boot, how)?;
    loop {
        let now = clock::now();
        let dated = signs.into_iter().map(|sign| (now, sign)).collect();
        if tail.tell(&boot, dated).await.is_err() {
            return Ok(());
        }
        signs = loop {
            let seen = tokio::select! {
                signs = log.signs(&mut tail.watch, &boot, how) => break signs?,
                seen = answer(&mut tail.asking) => seen,
            };
            if tail.answered(seen).await.is_err() {
                return Ok(());
            }
        };
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
