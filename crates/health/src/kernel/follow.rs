//! How far a machine's kernel log was read, so that no line acts twice.
//!
//! A line is new once: of the boot that the machine is in, and after the last one that was taken. A boot that was left
//! never begins again, whatever is delivered late. Whoever follows a machine for the first time takes what stands in the
//! log already as history, for nobody knows what was done about it; after a boot that happened while it was followed, all
//! lines of the new one count. What the kernel threw away before it was read is told.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Record, Source};

/// Boots that are remembered as left.
const MOST_BOOTS: usize = 16;
/// Lines of the journal that are told apart; its times may go back a little from one to the next.
const MOST_SEEN: usize = 256;

/// To be kept as long as the machine is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    boot: Option<String>,
    left: Vec<String>,
    source: Option<Source>,
    /// Everything up to here is old, since the boot.
    until: Option<u64>,
    /// Of the latest record that counted.
    latest: Option<u64>,
    /// Of the last record of `/dev/kmsg`.
    sequence: Option<u64>,
    /// Times and digests of the last records of the journal.
    seen: BTreeSet<(u64, u64)>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// It was not taken before, and counts.
    pub is_new: bool,
    /// Records that nobody has read, just before this one.
    pub lost: u64,
}

impl Follower {
    /// The boot that the machine is in, and how long ago it was: told before its records, each time that reading begins.
    /// `false`: the machine was in another boot since, so this is stale and nothing of it counts.
    pub fn begin(&mut self, boot: &str, micros: u64) -> bool {
        let boot = normal(boot);
        if self.boot.as_ref() == Some(&boot) {
            return true;
        }
        if boot.is_empty() || self.left.contains(&boot) {
            return false;
        }
        let before = self.boot.take();
        let mut left = std::mem::take(&mut self.left);
        // Whatever is in the log of a new boot came after all that was seen.
        let until = if before.is_some() { None } else { Some(micros) };
        left.extend(before);
        left.drain(..left.len().saturating_sub(MOST_BOOTS));
        *self = Follower { boot: Some(boot), left, until, ..Follower::default() };
        true
    }

    pub fn boot(&self) -> Option<&str> {
        self.boot.as_deref()
    }

    /// The last record of `/dev/kmsg` that was read in this boot.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// When the latest record that counted came, since the boot.
    pub fn latest(&self) -> Option<u64> {
        self.latest
    }

    /// Before records of `/dev/kmsg` of which only some are here: `first` is the oldest that there still was. Records that
    /// nobody has read are counted.
    pub fn skip_to(&mut self, boot: &str, first: u64) -> u64 {
        if self.boot.as_deref() != Some(normal(boot).as_str()) || self.source != Some(Source::Kmsg) {
            return 0;
        }
        let Some(last) = self.sequence else { return 0 };
        let lost = first.saturating_sub(last).saturating_sub(1);
        self.sequence = Some(last.max(first.saturating_sub(1)));
        lost
    }

    /// Takes one of some records, between which others were left out.
    pub fn take_one_of(&mut self, boot: &str, record: &Record) -> Taken {
        Taken { lost: 0, ..self.take(boot, record) }
    }

    /// All records up to this one were read.
    pub fn read_up_to(&mut self, boot: &str, last: u64) {
        if self.boot.as_deref() == Some(normal(boot).as_str())
            && self.source.is_none_or(|source| source == Source::Kmsg)
        {
            self.source = Some(Source::Kmsg);
            self.sequence = self.sequence.max(Some(last));
        }
    }

    /// Takes a record of a boot.
    pub fn take(&mut self, boot: &str, record: &Record) -> Taken {
        if self.boot.as_deref() != Some(normal(boot).as_str()) {
            return Taken::default();
        }
        if self.source != Some(record.source) {
            // The other source tells the same lines under other numbers.
            self.until = self.until.max(self.latest);
            (self.source, self.sequence, self.seen) = (Some(record.source), None, BTreeSet::new());
        }
        let is_later = self.until.is_none_or(|until| record.micros > until);
        let taken = match record.source {
            Source::Kmsg => {
                let is_next = self.sequence.is_none_or(|last| record.sequence > last);
                let gap = self.sequence.map_or(0, |last| record.sequence.saturating_sub(last).saturating_sub(1));
                self.sequence = self.sequence.max(Some(record.sequence));
                let is_new = is_next && is_later;
                Taken { is_new, lost: if is_new { gap } else { 0 } }
            }
            Source::Journal => {
                let is_new = is_later && self.seen.insert((record.micros, digest(record)));
                if self.seen.len() > MOST_SEEN
                    && let Some((micros, _)) = self.seen.pop_first()
                {
                    self.until = self.until.max(Some(micros));
                }
                Taken { is_new, lost: 0 }
            }
        };
        if taken.is_new {
            self.latest = self.latest.max(Some(record.micros));
        }
        taken
    }
}

/// The journal writes a boot id without dashes; everybody else as the kernel does.
fn normal(boot: &str) -> String {
    let bare: String = boot.trim().chars().filter(|c| *c != '-').take(64).collect::<String>().to_ascii_lowercase();
    if bare.len() != 32 || !bare.is_ascii() {
        return bare;
    }
    [&bare[..8], &bare[8..12], &bare[12..16], &bare[16..20], &bare[20..]].join("-")
}

/// What tells lines of one microsecond apart.
pub(super) fn digest(record: &Record) -> u64 {
    // FNV-1a: it only has to tell lines of one microsecond apart, and be the same in every version.
    record
        .message
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "810fca1e-916b-414a-8cbd-baae91c90d6a";

    fn kmsg(sequence: u64, micros: u64) -> Record {
        Record { source: Source::Kmsg, sequence, micros, facility: 0, level: 4, message: format!("line {sequence}") }
    }

    fn journal(micros: u64, message: &str) -> Record {
        Record { source: Source::Journal, sequence: 0, micros, facility: 0, level: 4, message: message.to_owned() }
    }

    fn news(follower: &mut Follower, boot: &str, records: &[Record]) -> Vec<bool> {
        records.iter().map(|record| follower.take(boot, record).is_new).collect()
    }

    #[test]
    fn what_was_there_before_is_history_and_nothing_counts_twice() {
        let mut follower = Follower::default();
        assert!(follower.begin(BOOT, 1000));
        let records = [kmsg(1, 500), kmsg(2, 900), kmsg(3, 1500), kmsg(4, 1500)];
        assert_eq!(news(&mut follower, BOOT, &records), [false, false, true, true]);
        // Whoever reads anew begins at the first record again; the state was kept in between.
        let json = serde_json::to_string(&follower).unwrap();
        let mut follower: Follower = serde_json::from_str(&json).unwrap();
        assert!(follower.begin(BOOT, 9000));
        assert_eq!(news(&mut follower, BOOT, &records), [false; 4]);
        assert_eq!(news(&mut follower, BOOT, &[kmsg(5, 1600), kmsg(5, 1600)]), [true, false]);
    }

    #[test]
    fn a_new_boot_begins_anew_and_an_old_one_never_comes_back() {
        let mut follower = Follower::default();
        follower.begin("aaaa", 1000);
        assert_eq!(news(&mut follower, "aaaa", &[kmsg(700, 2000)]), [true]);
        // Nobody was there when it booted: its first lines count all the same.
        assert!(follower.begin("bb-bb", 60_000_000));
        assert_eq!(news(&mut follower, "BBBB", &[kmsg(1, 10), kmsg(2, 20)]), [true, true]);
        assert_eq!(news(&mut follower, "aaaa", &[kmsg(701, 3000)]), [false]);
        assert!(!follower.begin("aaaa", 5000), "it was left");
        assert_eq!(news(&mut follower, "bbbb", &[kmsg(2, 20), kmsg(3, 20)]), [false, true]);
    }

    #[test]
    fn a_boot_has_one_name() {
        let mut follower = Follower::default();
        assert!(follower.begin("810FCA1E916b414a8cbdbaae91c90d6a\n", 0));
        assert_eq!(follower.boot(), Some(BOOT));
        assert!(follower.take(BOOT, &kmsg(1, 5)).is_new);
        assert!(!Follower::default().begin(" - ", 0), "nobody knows which boot");
    }

    #[test]
    fn lost_records_are_told_once() {
        let mut follower = Follower::default();
        follower.begin(BOOT, 0);
        assert_eq!(follower.take(BOOT, &kmsg(5, 10)), Taken { is_new: true, lost: 0 }, "where the log begins");
        assert_eq!(follower.take(BOOT, &kmsg(6, 11)).lost, 0);
        assert_eq!(follower.take(BOOT, &kmsg(106, 12)), Taken { is_new: true, lost: 99 });
        assert_eq!(follower.take(BOOT, &kmsg(6, 11)), Taken { is_new: false, lost: 0 });
        assert_eq!(follower.take(BOOT, &kmsg(107, 13)).lost, 0);
        // Also between history and the first line that counts.
        let mut follower = Follower::default();
        follower.begin(BOOT, 100);
        assert!(!follower.take(BOOT, &kmsg(1, 50)).is_new);
        assert_eq!(follower.take(BOOT, &kmsg(4, 150)), Taken { is_new: true, lost: 2 });
    }

    #[test]
    fn of_some_records_only_what_was_thrown_away_is_lost() {
        let mut follower = Follower::default();
        follower.begin(BOOT, 100);
        assert_eq!(follower.skip_to(BOOT, 1), 0);
        assert!(!follower.take_one_of(BOOT, &kmsg(3, 90)).is_new);
        follower.read_up_to(BOOT, 50);
        assert_eq!(follower.skip_to(BOOT, 1), 0);
        assert!(!follower.take_one_of(BOOT, &kmsg(3, 90)).is_new);
        assert_eq!(follower.take_one_of(BOOT, &kmsg(70, 200)), Taken { is_new: true, lost: 0 });
        follower.read_up_to(BOOT, 80);
        assert_eq!(follower.skip_to(BOOT, 91), 10);
        assert_eq!(follower.skip_to(BOOT, 91), 0);
        assert_eq!(follower.skip_to("other", 500), 0);
    }

    #[test]
    fn the_journal_and_the_device_are_one_log() {
        let mut follower = Follower::default();
        follower.begin(BOOT, 100);
        assert_eq!(
            news(&mut follower, BOOT, &[journal(99, "a"), journal(200, "b"), journal(200, "c"), journal(200, "b")]),
            [false, true, true, false]
        );
        assert_eq!(news(&mut follower, BOOT, &[kmsg(3, 150), kmsg(4, 200), kmsg(5, 300)]), [false, false, true]);
        assert_eq!(news(&mut follower, BOOT, &[journal(300, "b"), journal(301, "d")]), [false, true]);
    }
}
