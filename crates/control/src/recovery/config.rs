//! Reads `recovery` of `pitcrew.yaml`: what recovery may do by itself, how often, and by which commands.

use std::path::Path;

use jiff::SignedDuration;
use pitcrew_core::recovery::{Deadlines, DrainPolicy, Mode, OnInconclusive, Policy};
use pitcrew_lang::yaml::Node;

use super::signs::{self, Signs};
use crate::config::section::{Reader, Section};

const RECOVERY: [&str; 21] = [
    "mode",
    "drain",
    "inconclusive",
    "reboots_per_day",
    "remediations_per_week",
    "repair_share",
    "drill",
    "application_errors_per_day",
    "watch",
    "look",
    "spot",
    "deadlines",
    "commands",
    "tables",
    "xid",
    "dcgm",
    "exit_codes",
    "log",
    "thermal",
    "power_brake",
    "nvlink",
];
const COMMANDS: [&str; 7] = ["boot_id", "check", "kernel_log", "reset_gpu", "reboot", "hard_reboot", "replace"];
const DEADLINES: [&str; 18] = [
    "observe",
    "suspected",
    "fence",
    "check",
    "recheck",
    "approval",
    "queue",
    "drain",
    "reset_gpu",
    "reboot",
    "hard_reboot",
    "replace",
    "verify",
    "stop",
    "verdict",
    "room",
    "room_at_most",
    "start",
];
/// How often the kernel log of a node is read, unless it is said.
const WATCH: SignedDuration = SignedDuration::from_secs(10);
/// How often the driver of a node is asked, unless it is said.
const LOOK: SignedDuration = SignedDuration::from_mins(5);

/// How nodes are watched and repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryConfig {
    pub policy: Policy,
    pub commands: Commands,
    pub signs: Signs,
    /// What programs write to the kernel log counts as well: for drills.
    pub is_drill: bool,
    /// How often kernel logs are read.
    pub watch: SignedDuration,
    /// How often drivers are asked what they know.
    pub look: SignedDuration,
    /// Whether machines are asked if EC2 is about to take them away.
    pub is_spot_asked: bool,
    /// In the file.
    pub line: u32,
}

/// Shell commands in place of our own. The first five run on the node, as the user of its connection; the last two on the
/// machine of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    pub boot_id: Option<String>,
    pub check: Option<String>,
    pub kernel_log: Option<String>,
    pub reset_gpu: Option<String>,
    pub reboot: Option<String>,
    pub hard_reboot: Option<String>,
    pub replace: Option<String>,
}

impl std::fmt::Display for RecoveryConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.policy.mode {
            Mode::Observe => "observe",
            Mode::Approve => "approve",
            Mode::Auto => "auto",
        };
        write!(f, "{mode}")
    }
}

/// The section; `None` where it is off, or cannot be read.
pub fn recovery(r: &mut Reader<'_>, base: &Path, node: &Node) -> Option<RecoveryConfig> {
    let section = r.section(node, "`recovery`", &RECOVERY)?;
    r.require(section, "`recovery`", "mode", "the modes are `observe`, `approve`, `auto` and `off`");
    let modes =
        [("observe", Some(Mode::Observe)), ("approve", Some(Mode::Approve)), ("auto", Some(Mode::Auto)), ("off", None)];
    let mode = r.choice(section, "mode", &modes)?;
    let usual = Policy::default();
    let drains = [("wait", DrainPolicy::Wait), ("preempt", DrainPolicy::Preempt)];
    let inconclusive = [("reboot", OnInconclusive::Reboot), ("out_of_service", OnInconclusive::OutOfService)];
    let count = |r: &mut Reader<'_>, key, usual: u32| r.whole(section, key, 0, 1000).map_or(usual, |n| n as u32);
    let mut policy = Policy {
        drain: r.choice(section, "drain", &drains).unwrap_or_default(),
        inconclusive: r.choice(section, "inconclusive", &inconclusive).unwrap_or_default(),
        reboots_per_day: count(r, "reboots_per_day", usual.reboots_per_day),
        remediations_per_week: count(r, "remediations_per_week", usual.remediations_per_week),
        application_errors_per_day: count(r, "application_errors_per_day", usual.application_errors_per_day),
        repair_share_percent: share(r, section).unwrap_or(usual.repair_share_percent),
        ..usual
    };
    if let Some(node) = section.get("deadlines") {
        deadlines(r, node, &mut policy.deadlines);
    }
    let commands = section.get("commands").and_then(|node| commands(r, node)).unwrap_or_default();
    let signs = signs::read(r, base, section);
    let is_drill = r.flag(section, "drill").unwrap_or_default();
    let watch = r.duration(section, "watch").unwrap_or(WATCH);
    let look = r.duration(section, "look").unwrap_or(LOOK);
    let is_spot_asked = r.flag(section, "spot").unwrap_or(true);
    policy.mode = mode?;
    Some(RecoveryConfig { policy, commands, signs, is_drill, watch, look, is_spot_asked, line: node.at.line })
}

/// `20%`, of all nodes.
fn share(r: &mut Reader<'_>, section: Section<'_>) -> Option<u32> {
    let text = r.text(section, "repair_share")?;
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    let percent = percent.filter(|percent| (1..=100).contains(percent));
    if percent.is_none()
        && let Some(node) = section.get("repair_share")
    {
        r.mismatch(node, "repair_share", "a share of all nodes, from `1%` to `100%`");
    }
    percent
}

fn deadlines(r: &mut Reader<'_>, node: &Node, into: &mut Deadlines) {
    let Some(section) = r.section(node, "`deadlines`", &DEADLINES) else { return };
    let all: [&mut SignedDuration; DEADLINES.len()] = [
        &mut into.observe,
        &mut into.suspected,
        &mut into.fence,
        &mut into.check,
        &mut into.recheck,
        &mut into.approval,
        &mut into.queue,
        &mut into.drain,
        &mut into.reset_gpu,
        &mut into.reboot,
        &mut into.hard_reboot,
        &mut into.replace,
        &mut into.verify,
        &mut into.stop,
        &mut into.verdict,
        &mut into.room,
        &mut into.room_at_most,
        &mut into.start,
    ];
    for (key, deadline) in DEADLINES.into_iter().zip(all) {
        *deadline = r.duration(section, key).unwrap_or(*deadline);
    }
}

fn commands(r: &mut Reader<'_>, node: &Node) -> Option<Commands> {
    let section = r.section(node, "`commands`", &COMMANDS)?;
    let mut one = |key| r.text(section, key);
    Some(Commands {
        boot_id: one("boot_id"),
        check: one("check"),
        kernel_log: one("kernel_log"),
        reset_gpu: one("reset_gpu"),
        reboot: one("reboot"),
        hard_reboot: one("hard_reboot"),
        replace: one("replace"),
    })
}

#[cfg(test)]
mod tests {
    use pitcrew_lang::yaml;

    use super::*;

    fn read(source: &str) -> Result<Option<RecoveryConfig>, Vec<String>> {
        let root = yaml::read(source, "pitcrew.yaml").unwrap().unwrap();
        let mut r = Reader::new("pitcrew.yaml", source);
        let found = root.get("recovery").and_then(|node| recovery(&mut r, Path::new(""), node));
        let problems = r.finish();
        if problems.is_empty() { Ok(found) } else { Err(problems.into_iter().map(|p| p.message).collect()) }
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let config = read("recovery: {mode: auto, repair_share: 50%, deadlines: {reboot: 5m}}").unwrap().unwrap();
        let mut usual = Policy { mode: Mode::Auto, repair_share_percent: 50, ..Policy::default() };
        usual.deadlines.reboot = SignedDuration::from_mins(5);
        assert_eq!((config.policy, config.watch, config.is_drill), (usual, WATCH, false));
        assert_eq!(read("recovery: {mode: off}").unwrap(), None);
        assert_eq!(read("recovery: {mode: 'off'}").unwrap(), None);
    }

    #[test]
    fn mistakes_are_told() {
        let told = |source: &str| read(source).unwrap_err().join("; ");
        assert_eq!(told("recovery: {}"), "`recovery` has no `mode`");
        assert!(told("recovery: {mode: automatic}").contains("`auto`"));
        assert!(told("recovery: {mode: auto, repair_share: 200%}").contains("from `1%` to `100%`"));
        assert!(told("recovery: {mode: auto, deadlines: {reboots: 5m}}").contains("unknown key `reboots`"));
        assert!(told("recovery: {mode: auto, commands: {reboot: ''}}").contains("`reboot` must be a text"));
    }
}
