//! Records of `/dev/kmsg`: `4,1293,24813236414,-;message`, then lines ` KEY=value`.
//!
//! The kernel keeps the facility honest: what a program writes to `/dev/kmsg` has facility 1 or more, whoever runs it. So
//! a record of facility 0 is the kernel's own, and only those count (but for drills).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{KernelEvent, read_message};
use crate::text::LONGEST_LINE;

/// Where a record was read. Their sequence numbers have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Kmsg,
    Journal,
}

/// One record of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub source: Source,
    /// In the kernel's numbering, which begins anew at each boot; of the journal in the journal's, if it tells.
    pub sequence: u64,
    /// Since the boot.
    pub micros: u64,
    /// 0 is the kernel itself.
    pub facility: u32,
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    pub message: String,
}

impl Record {
    /// What it says about a GPU. In a drill records of programs count as well; otherwise only the kernel's own.
    pub fn event(&self, is_drill: bool) -> Option<KernelEvent> {
        (self.facility == 0 || is_drill).then(|| read_message(self.message.as_bytes())).flatten()
    }
}

/// When something happened that the kernel dates `micros` after its boot, where it is `now`, and `up` since that boot. The
/// kernel's clock for its log runs a little faster or slower than others: what is less than a minute old by it is new.
pub fn happened(micros: u64, up: SignedDuration, now: Timestamp) -> Timestamp {
    let at = SignedDuration::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
    let age = up.saturating_sub(at);
    if age < SignedDuration::from_mins(1) { now } else { now.checked_sub(age).unwrap_or(Timestamp::MIN) }
}

/// Reads one record, as one `read` of `/dev/kmsg` gives it. `None`: it is none.
pub fn read_kmsg(bytes: &[u8]) -> Option<Record> {
    let bytes = &bytes[..bytes.len().min(4 * LONGEST_LINE)];
    let split = bytes.iter().position(|b| *b == b';')?;
    let head = std::str::from_utf8(&bytes[..split]).ok()?;
    // More fields may come to stand there in newer kernels.
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.trim().parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let micros = fields.next()?.parse().ok()?;
    // The lines after the first tell of devices in other words; the message says all that is needed.
    let message = bytes[split + 1..].split(|b| *b == b'\n').next()?;
    Some(Record {
        source: Source::Kmsg,
        sequence,
        micros,
        facility: priority >> 3,
        level: (priority & 7) as u8,
        message: String::from_utf8_lossy(&unescape(message)).into_owned(),
    })
}

/// `\x1b` is a byte that the kernel does not print, the backslash among them.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = match bytes.get(at..at + 4) {
            Some([b'\\', b'x', high, low]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 4 } else { 1 };
    }
    out
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Pci;

    #[test]
    fn records_have_a_head_a_message_and_more_lines() {
        let bytes = b"4,339,5140900,-;NVRM: Xid (PCI:0000:66:00): 79, pid=1, GPU has fallen off the bus.\n SUBSYSTEM=pci\n DEVICE=+pci:0000:66:00.0\n";
        let record = read_kmsg(bytes).unwrap();
        assert_eq!((record.facility, record.level, record.sequence, record.micros), (0, 4, 339, 5_140_900));
        let Some(KernelEvent::Xid(xid)) = record.event(false) else { panic!() };
        assert_eq!((xid.code, xid.pci, xid.pid), (79, Pci::read("0000:66:00").unwrap(), Some(1)));
        // Fields of a newer kernel, a caller, and a message with semicolons.
        let record = read_kmsg(b"6,1,2,c,caller=T1,new=2;a;b\n").unwrap();
        assert_eq!(record.message, "a;b");
        for garbage in [&b""[..], b";", b"x,1,2,-;a", b"6,1;a", b"6,1,-2,-;a", b"no record", b"\xff,1,2,-;a"] {
            assert_eq!(read_kmsg(garbage), None);
        }
    }

    #[test]
    fn what_is_old_is_dated_and_what_is_new_is_now() {
        let now = Timestamp::from_second(100_000).unwrap();
        let up = SignedDuration::from_secs(5_000);
        let at = |micros| happened(micros, up, now).as_second();
        assert_eq!((at(4_000_000_000), at(4_940_000_001), at(6_000_000_000)), (99_000, 100_000, 100_000));
        assert_eq!(at(u64::MAX), 100_000);
        assert_eq!(happened(0, SignedDuration::MAX, now), Timestamp::MIN);
    }

    #[test]
    fn escapes_are_undone_and_halves_of_them_stay() {
        let message = |bytes: &[u8]| read_kmsg(&[b"6,1,2,-;", bytes].concat()).unwrap().message;
        assert_eq!(message(b"a\\x0ab\\x5cc"), "a\nb\\c");
        assert_eq!(message(b"\\xc3\\xa9 \\xff"), "é \u{fffd}");
        assert_eq!(message(b"\\x4 \\xzz \\"), "\\x4 \\xzz \\");
    }

    #[test]
    fn what_programs_write_counts_in_drills_alone() {
        let record = read_kmsg(b"12,1293,24813236414,-;NVRM: Xid (PCI:0000:66:00): 79, drill\n").unwrap();
        assert_eq!((record.facility, record.level), (1, 4));
        assert_eq!(record.event(false), None);
        assert!(matches!(record.event(true), Some(KernelEvent::Xid(_))));
        // A second line within a message is no message of its own.
        let record = read_kmsg(b"4,1,2,-;usb: x\\x0aNVRM: Xid (PCI:0000:66:00): 79\n").unwrap();
        assert_eq!(record.event(false), None);
    }
}
