//! Signs out of a machine's kernel log: each line once, with the name of its GPU, and storms held down.
//!
//! A GPU that is broken, or a program that is, can write the same XID many times a second. The first is a sign; the same of
//! the same GPU within a minute is counted and told with the next.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::follow::digest;
use super::{DriverVersion, Follower, KernelEvent, Pci, Record, Source, Taken, XidLine};
use crate::action::{Action, Blame};
use crate::judge::{Facts, Judgement, judge};
use crate::tables::Tables;
use crate::text::evidence;

/// The same sign of the same GPU is told once in this time.
const QUIET: u64 = 60_000_000;
/// An XID that cleans up comes so soon after the one that it follows.
const SECONDARY: u64 = 10_000_000;
/// GPUs of a machine, and kinds of signs, that are told apart.
const MOST_KEPT: usize = 512;
const MOST_RECENT: usize = 64;
/// DCGM's number for a fatal error of a switch.
const SWITCH_ERROR: u32 = 109;
/// The XID of a GPU that has fallen off the bus, which has a line of its own as well.
const FALLEN: u32 = 79;

/// A machine's kernel log; to be kept with the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    follower: Follower,
    /// Names of GPUs; a list, since JSON has no other keys than text.
    names: Vec<(Pci, String)>,
    /// When each sign was last told, and how often it came since.
    told: Vec<((Option<Pci>, u32), u64, u64)>,
    recent: VecDeque<(Pci, u32, u64)>,
}

/// Something that the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// The same for the same line, however often it is delivered.
    pub id: String,
    pub boot: String,
    /// Since that boot.
    pub micros: u64,
    pub pci: Option<Pci>,
    /// Its UUID, if the log told it.
    pub gpu: Option<String>,
    pub kind: SignKind,
    pub judgement: Judgement,
    /// How often the same came before, unsaid.
    pub repeats: u64,
    /// The line.
    pub evidence: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignKind {
    Xid(XidLine),
    FallenOffBus,
    Switch {
        code: u32,
        is_fatal: bool,
    },
    /// A line about an XID that nobody can read.
    Garbled,
    /// So many records were thrown away before they were read: whoever hears of it looks at the machine itself.
    Lost {
        records: u64,
    },
}

/// How a log is judged.
#[derive(Debug, Clone, Copy)]
pub struct Judging<'a> {
    pub tables: &'a Tables,
    pub driver: Option<DriverVersion>,
    /// What programs write to the log counts, too.
    pub is_drill: bool,
}

impl Watch {
    /// See [`Follower::begin`].
    pub fn begin(&mut self, boot: &str, micros: u64) -> bool {
        let was = self.follower.boot().map(str::to_owned);
        let is_current = self.follower.begin(boot, micros);
        if was.as_deref() != self.follower.boot() {
            // Addresses and times are of one boot.
            *self = Watch { follower: std::mem::take(&mut self.follower), ..Watch::default() };
        }
        is_current
    }

    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// The GPU at an address, as far as the log told.
    pub fn name(&self, pci: Pci) -> Option<&str> {
        self.names.iter().find(|(at, _)| *at == pci).map(|(_, name)| name.as_str())
    }

    /// Names from another source, such as `nvidia-smi`: the log tells them only beside errors.
    pub fn know(&mut self, pci: Pci, uuid: &str) {
        self.names.retain(|(at, _)| *at != pci);
        if self.names.len() < MOST_KEPT {
            self.names.push((pci, uuid.to_owned()));
        }
    }

    /// Takes a record, and tells what it means.
    pub fn take(&mut self, boot: &str, record: &Record, how: Judging<'_>) -> Vec<Sign> {
        let taken = self.follower.take(boot, record);
        self.signs(record, taken, how)
    }

    /// Takes those records of `/dev/kmsg` that are about GPUs, out of all from number `first` to number `last`.
    pub fn take_some(&mut self, boot: &str, records: &[Record], first: u64, last: u64, how: Judging<'_>) -> Vec<Sign> {
        let lost = self.follower.skip_to(boot, first);
        let mut signs = Vec::new();
        if lost > 0 {
            signs.push(self.lost(self.follower.sequence().unwrap_or(first), lost));
        }
        for record in records {
            let taken = self.follower.take_one_of(boot, record);
            signs.extend(self.signs(record, taken, how));
        }
        self.follower.read_up_to(boot, last);
        signs
    }

    fn signs(&mut self, record: &Record, taken: Taken, how: Judging<'_>) -> Vec<Sign> {
        let event = record.event(how.is_drill);
        if let Some(KernelEvent::Device { pci, uuid }) = &event {
            self.know(*pci, uuid);
        }
        let mut signs = Vec::new();
        if taken.lost > 0 {
            signs.push(self.lost(record.sequence, taken.lost));
        }
        let Some(event) = event.filter(|_| taken.is_new) else { return signs };
        let (pci, key, kind, judgement) = match event {
            KernelEvent::Device { .. } => return signs,
            KernelEvent::Xid(line) => {
                let facts =
                    Facts { driver: how.driver, is_secondary: self.is_secondary(&line, record), ..Facts::default() };
                let judgement = judge(&line, how.tables, &facts);
                self.recent.push_back((line.pci, line.code, record.micros));
                self.recent.drain(..self.recent.len().saturating_sub(MOST_RECENT));
                // What the driver wants may change at once, and the last word counts.
                let key = line.recovery.map_or(line.code, |_| 0);
                (Some(line.pci), key, SignKind::Xid(line), judgement)
            }
            KernelEvent::FallenOffBus { pci } => {
                let (action, blame) = how.tables.xid_action(FALLEN);
                let why = "the GPU has fallen off the bus".to_owned();
                (Some(pci), FALLEN, SignKind::FallenOffBus, Judgement { action, blame, why, open: None })
            }
            KernelEvent::Switch { pci, code, is_fatal, .. } => {
                let action = if is_fatal { how.tables.dcgm_action(SWITCH_ERROR) } else { Action::Ignore };
                let word = if is_fatal { "a fatal" } else { "an" };
                let why = format!("a switch of NVLink had {word} error ({code})");
                let judgement = Judgement { action, blame: Blame::Hardware, why, open: None };
                (Some(pci), 100_000 + code % 100_000, SignKind::Switch { code, is_fatal }, judgement)
            }
            KernelEvent::Garbled { .. } => {
                let why = "a line about an XID cannot be read".to_owned();
                let judgement = Judgement { action: Action::Ignore, blame: Blame::System, why, open: None };
                (None, 1, SignKind::Garbled, judgement)
            }
        };
        if let Some(repeats) = self.tell((pci, key), record.micros) {
            let gpu = pci.and_then(|pci| self.name(pci)).map(str::to_owned);
            let boot = self.follower.boot().unwrap_or_default().to_owned();
            let number = match record.source {
                Source::Kmsg => record.sequence,
                // The journal has no numbers of its own kind for the kernel's lines.
                Source::Journal => digest(record),
            };
            let id = format!("{boot}-{}-{number}", record.micros);
            let evidence = evidence(&record.message);
            signs.push(Sign { id, boot, micros: record.micros, pci, gpu, kind, judgement, repeats, evidence });
        }
        signs
    }

    fn is_secondary(&self, line: &XidLine, record: &Record) -> bool {
        self.recent.iter().any(|(pci, code, micros)| {
            *pci == line.pci && *code != line.code && record.micros.abs_diff(*micros) <= SECONDARY
        })
    }

    /// How often it came unsaid, if it is to be told now.
    fn tell(&mut self, key: (Option<Pci>, u32), micros: u64) -> Option<u64> {
        let is_changing = key.1 == 0;
        if let Some((_, last, repeats)) = self.told.iter_mut().find(|(other, ..)| *other == key) {
            if !is_changing && micros.saturating_sub(*last) < QUIET {
                *repeats += 1;
                return None;
            }
            *last = micros;
            return Some(std::mem::take(repeats));
        }
        if self.told.len() >= MOST_KEPT {
            self.told.remove(0);
        }
        self.told.push((key, micros, 0));
        Some(0)
    }

    fn lost(&self, before: u64, records: u64) -> Sign {
        let why = format!("{records} records of the kernel log were lost before they were read");
        let boot = self.follower.boot().unwrap_or_default().to_owned();
        Sign {
            id: format!("{boot}-lost-{before}"),
            boot,
            micros: self.follower.latest().unwrap_or(0),
            pci: None,
            gpu: None,
            kind: SignKind::Lost { records },
            judgement: Judgement { action: Action::Ignore, blame: Blame::System, why: why.clone(), open: None },
            repeats: 0,
            evidence: why,
        }
    }
}

impl Sign {
    /// Judges again, when more is known than the log.
    pub fn judge_again(&mut self, tables: &Tables, facts: &Facts) {
        if let SignKind::Xid(line) = &self.kind {
            self.judgement = judge(line, tables, facts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const BOOT: &str = "810fca1e-916b-414a-8cbd-baae91c90d6a";

    struct Log {
        watch: Watch,
        sequence: u64,
    }

    impl Log {
        fn new() -> Log {
            let mut watch = Watch::default();
            assert!(watch.begin(BOOT, 0));
            Log { watch, sequence: 0 }
        }

        fn at(&mut self, seconds: u64, message: &str) -> Vec<Sign> {
            self.sequence += 1;
            let record = Record {
                source: Source::Kmsg,
                sequence: self.sequence,
                micros: seconds * 1_000_000,
                facility: 0,
                level: 4,
                message: message.to_owned(),
            };
            let how = Judging { tables: Tables::usual(), driver: None, is_drill: false };
            self.watch.take(BOOT, &record, how)
        }
    }

    #[test]
    fn a_line_is_one_sign_with_the_name_of_its_gpu() {
        let mut log = Log::new();
        assert!(log.at(1, "NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d").is_empty());
        let signs = log.at(2, "NVRM: Xid (PCI:0000:9b:00): 79, pid=1, GPU has fallen off the bus.");
        let [sign] = &signs[..] else { panic!("{signs:?}") };
        assert_eq!(sign.gpu.as_deref(), Some("GPU-509665ad-b600-ac93-3616-d754b23d636d"));
        assert_eq!((sign.judgement.action, sign.judgement.blame), (Action::RebootNode, Blame::Hardware));
        assert_eq!(sign.id, format!("{BOOT}-2000000-2"));
        // The driver says the same in other words; that is one sign.
        assert!(log.at(2, "NVRM: GPU 0000:9b:00.0: GPU has fallen off the bus.").is_empty());
        assert!(log.at(3, "eth0: link up").is_empty());
    }

    #[test]
    fn two_lines_of_one_moment_are_two_signs_in_the_journal_as_well() {
        let mut watch = Watch::default();
        watch.begin(BOOT, 0);
        let how = Judging { tables: Tables::usual(), driver: None, is_drill: false };
        let record = |message: &str| Record {
            source: Source::Journal,
            sequence: 0,
            micros: 5,
            facility: 0,
            level: 4,
            message: message.to_owned(),
        };
        let ids: Vec<String> = ["79, x", "48, x"]
            .iter()
            .flat_map(|xid| watch.take(BOOT, &record(&format!("NVRM: Xid (PCI:0000:9b:00): {xid}")), how))
            .map(|sign| sign.id)
            .collect();
        assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    }

    #[test]
    fn a_storm_is_one_sign_a_minute() {
        let mut log = Log::new();
        let line = "NVRM: Xid (PCI:0000:9b:00): 13, pid=7, name=train, Graphics Exception";
        let told: Vec<usize> = (1..=120).map(|second| log.at(second, line).len()).collect();
        assert_eq!(told.iter().sum::<usize>(), 2);
        let signs = log.at(200, line);
        assert_eq!(signs[0].repeats, 59);
        // Another GPU, and another XID, are other signs.
        assert_eq!(log.at(200, &line.replace("9b", "9c")).len(), 1);
        assert_eq!(log.at(200, &line.replace(": 13,", ": 31,")).len(), 1);
    }

    #[test]
    fn what_cleans_up_after_another_is_not_acted_upon() {
        let mut log = Log::new();
        let cleanup = "NVRM: Xid (PCI:0000:9b:00): 45, pid=7, name=train, Ch 00000008";
        assert_eq!(log.at(1, cleanup)[0].judgement.action, Action::RestartApp);
        log.at(100, "NVRM: Xid (PCI:0000:9b:00): 94, pid=7, name=train, Contained");
        assert_eq!(log.at(101, cleanup)[0].judgement.action, Action::Ignore);
        log.at(300, "NVRM: Xid (PCI:0000:aa:00): 94, pid=7, name=train, Contained");
        assert_eq!(log.at(301, cleanup)[0].judgement.action, Action::RestartApp, "of another GPU");
    }

    #[test]
    fn every_change_of_what_the_driver_wants_is_told() {
        let mut log = Log::new();
        let change = |from: &str, to: &str| {
            format!("NVRM: Xid (PCI:0000:9b:00): 154, GPU recovery action changed from {from} to {to}")
        };
        let reset = change("0x0 (None)", "0x1 (GPU Reset Required)");
        let reboot = change("0x1 (GPU Reset Required)", "0x2 (Node Reboot Required)");
        assert_eq!(log.at(1, &reset)[0].judgement.action, Action::ResetGpu);
        assert_eq!(log.at(2, &reboot)[0].judgement.action, Action::RebootNode);
        assert_eq!(log.at(3, &change("0x2 (Node Reboot Required)", "0x0 (None)"))[0].judgement.action, Action::Ignore);
    }

    #[test]
    fn switches_garbage_and_lost_records_are_signs() {
        let mut log = Log::new();
        let fatal = "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up";
        assert_eq!(log.at(1, fatal)[0].judgement.action, Action::RebootNode);
        assert_eq!(log.at(1, &fatal.replace("20034, Fatal", "12028, Non-fatal"))[0].judgement.action, Action::Ignore);
        let garbled = log.at(2, "NVRM: Xid (PCI:0000:01:00): 154 (            NVRM: Xid : 32, pid=1");
        assert_eq!((&garbled[0].kind, garbled[0].judgement.action), (&SignKind::Garbled, Action::Ignore));
        log.sequence += 40;
        let signs = log.at(3, "NVRM: Xid (PCI:0000:01:00): 79, x");
        assert_eq!(signs[0].kind, SignKind::Lost { records: 40 });
        assert_eq!(signs[1].judgement.action, Action::RebootNode);
        assert_ne!(signs[0].id, signs[1].id);
    }

    #[test]
    fn a_watch_is_kept_and_judged_again() {
        let mut log = Log::new();
        log.at(1, "NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d");
        let mut sign = log.at(2, "NVRM: Xid (PCI:0000:9b:00): 63, pid=1, Row Remapper: New row marked").remove(0);
        assert_eq!(
            (sign.judgement.action, sign.judgement.open),
            (Action::Ignore, Some(crate::tables::Rule::RemapPending))
        );
        sign.judge_again(Tables::usual(), &Facts { remap_pending: Some(true), ..Facts::default() });
        assert_eq!(sign.judgement.action, Action::ResetWhenIdle);
        let json = serde_json::to_string(&log.watch).unwrap();
        let kept: Watch = serde_json::from_str(&json).unwrap();
        assert_eq!(kept, log.watch);
        // After a reboot addresses may be others.
        assert!(log.watch.begin("f00d", 5));
        assert_eq!(log.watch.name(Pci::read("0000:9b:00").unwrap()), None);
    }
}
