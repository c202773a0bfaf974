//! What the kernel logs of nodes say about their GPUs.
//!
//! On the machine of the server the log tells by itself ([`follow_here`]), and so does a host over SSH ([`listen`]): a loop there
//! waits for a line about GPUs, and says now and then how far the log has come. Where that is not possible it is read every so
//! often, by the script that prints what is new about GPUs. What was read is remembered in the store, so that no line acts twice
//! and none is missed while no server runs; where that cannot be read, nothing is taken.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::recovery::{Advice, Signal, SignalKind};
use pitcrew_exec::gpu::kernel_log::{
    KERNEL_LOG_FOUND, KERNEL_LOG_WAKE, KernelLog, Told, kernel_log_look, kernel_log_script, kernel_log_since,
    parse_kernel_log,
};
use pitcrew_exec::gpu::kmsg::{DEVICE, Kmsg, boot_id};
use pitcrew_exec::ssh::{ASKED, BY_ITSELF, Followed};
use pitcrew_health::check::Fault;
use pitcrew_health::kernel::{Judging, read_kmsg};

use super::each::{each_node, share};
use super::hear::Ear;
use super::perform::Hands;
use super::reach::script;
use super::tail::{Tail, Untold, answer};
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
    let ear = hands.desk.0.ears.of(&node);
    let mut may_listen = hands.config.commands.kernel_log.is_none();
    loop {
        let asked = ear.asked();
        if is_followed.as_ref().is_some_and(|is| is.load(Ordering::Relaxed)) {
            tail = None;
        } else if tail.is_none() {
            tail = Tail::begin(&hands, &node).await;
        }
        let round = async {
            if let Some(tail) = &mut tail {
                // Whether a node answers is for others to find out.
                let host = host_of(&hands, &node).filter(|_| may_listen);
                if let Some(id) = host {
                    match listen(&hands, &node, &id, tail, &ear).await? {
                        Listened::Renewed => return Ok(()),
                        Listened::Broke => {}
                        // It is asked at once.
                        Listened::Cannot => {
                            may_listen = false;
                            return Ok(());
                        }
                    }
                } else {
                    let since = since(tail);
                    if let Some(log) = tail.beside(read(&hands, &node, since)).await? {
                        hands.saw(&node, &log.boot);
                        tail.hear(&log).await?;
                    }
                    ear.heard(asked);
                }
                tail.beside(ear.pause(pause, asked)).await?;
            } else {
                // It is followed, and all is told that came.
                ear.heard(asked);
                ear.pause(pause, asked).await;
            }
            Ok::<(), Untold>(())
        };
        if round.await.is_err() {
            tail = None;
            tokio::time::sleep(every).await;
        }
        pause = every;
    }
}

/// The stored connection by which it is reached, if it is.
fn host_of(hands: &Hands, node: &str) -> Option<String> {
    let nodes = hands.reached.fleet.nodes();
    let list = nodes.borrow();
    match &list.iter().find(|one| one.node.name == node)?.reach {
        Reach::Connection(id) => Some(id.clone()),
        Reach::Local | Reach::Worker(_) | Reach::Ecs(_) | Reach::Kubernetes(_) => None,
    }
}

/// How far its log was read: the boot, and the number there.
fn since(tail: &Tail) -> Option<(String, u64)> {
    let follower = tail.watch.follower();
    Some((follower.boot()?.to_owned(), follower.sequence()?))
}

/// Why a host is not listened to any more.
enum Listened {
    /// It is time to connect anew, or it is another host.
    Renewed,
    Broke,
    /// It has not what that takes.
    Cannot,
}

/// Takes what the log of a host tells by itself, for as long as it does.
async fn listen(hands: &Hands, node: &str, id: &str, tail: &mut Tail, ear: &Ear) -> Result<Listened, Untold> {
    let look = with_boot_id(hands, kernel_log_look());
    let every = hands.config.watch.unsigned_abs();
    let what = Followed { look: &look, wake: KERNEL_LOG_WAKE, found: KERNEL_LOG_FOUND, every: every.as_secs() };
    let known = since(tail);
    let known = kernel_log_since(known.as_ref().map(|(boot, number)| (&**boot, *number)));
    let first = script(&[("PITCREW_NODE", node.to_owned())], &known);
    let asker = &hands.reached.asker;
    let mut newest = ear.asked();
    // Who waits for an answer: the first one comes unasked.
    let mut asked = VecDeque::from([newest]);
    let opened = tail.beside(tokio::time::timeout(PATIENCE, asker.follow(id, &first, what))).await?;
    let Ok(Ok(mut following)) = opened else { return Ok(Listened::Broke) };
    while asker.is_current(id, &following).await {
        let told = async {
            tokio::select! {
                // A host that says nothing for so long is gone, or hangs.
                said = tokio::time::timeout(every + PATIENCE, following.follow.next()) => Some(said),
                () = ear.wanted(newest) => None,
            }
        };
        let said = match tail.beside(told).await? {
            Some(Ok(Ok(said))) => said,
            Some(Ok(Err(_)) | Err(_)) => return Ok(Listened::Broke),
            None => {
                newest = ear.asked();
                asked.push_back(newest);
                if following.follow.ask().await.is_err() {
                    return Ok(Listened::Broke);
                }
                continue;
            }
        };
        if said.code != ASKED && said.code != BY_ITSELF {
            return Ok(Listened::Cannot);
        }
        if let Some(log) = parse_kernel_log(&said.stdout) {
            hands.saw(node, &log.boot);
            tail.hear(&log).await?;
        }
        if said.code == ASKED
            && let Some(number) = asked.pop_front()
        {
            ear.heard(number);
        }
    }
    Ok(Listened::Renewed)
}

/// The script, with the user's own way to find out who the machine is.
fn with_boot_id(hands: &Hands, body: String) -> String {
    match &hands.config.commands.boot_id {
        Some(boot) => body.replace(BOOT_ID, &format!(" ({boot}) 2>/dev/null")),
        None => body,
    }
}

async fn read(hands: &Hands, node: &str, since: Option<(String, u64)>) -> Option<KernelLog> {
    let env = [("PITCREW_NODE", node.to_owned())];
    let Some(own) = &hands.config.commands.kernel_log else {
        let since = since.as_ref().map(|(boot, number)| (&**boot, *number));
        let body = with_boot_id(hands, kernel_log_script(since));
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
