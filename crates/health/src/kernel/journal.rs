//! Lines of `journalctl -k -o json`.

use serde::Deserialize;
use serde_json::Value;

use super::{Record, Source};
use crate::text::LONGEST_LINE;

/// The longest line of JSON that is looked at.
const LONGEST: usize = 64 << 10;

/// A record, which boot it is of, and where to go on after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalLine {
    pub boot: String,
    /// For `--after-cursor`.
    pub cursor: String,
    pub record: Record,
}

/// The journal's fields are text, whatever they mean; a message that is no UTF-8 is a list of bytes.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "__CURSOR", default)]
    cursor: String,
    #[serde(rename = "__SEQNUM", default)]
    sequence: Option<String>,
    #[serde(rename = "__MONOTONIC_TIMESTAMP", default)]
    received: Option<String>,
    /// The kernel's own time of it, as in `/dev/kmsg`.
    #[serde(rename = "_SOURCE_MONOTONIC_TIMESTAMP", default)]
    source: Option<String>,
    #[serde(rename = "_BOOT_ID")]
    boot: String,
    #[serde(rename = "_TRANSPORT", default)]
    transport: String,
    #[serde(rename = "SYSLOG_FACILITY", default)]
    facility: Option<String>,
    #[serde(rename = "PRIORITY", default)]
    priority: Option<String>,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
}

/// Reads one line. `None`: it is none, or not from the kernel log.
pub fn read_journal(line: &[u8]) -> Option<JournalLine> {
    if line.len() > LONGEST {
        return None;
    }
    let fields: Fields = serde_json::from_slice(line).ok()?;
    if fields.transport != "kernel" {
        return None;
    }
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<u64>().ok());
    let micros = number(&fields.source).or(number(&fields.received))?;
    let mut message = match fields.message {
        Value::String(text) => text.into_bytes(),
        Value::Array(bytes) => bytes
            .iter()
            .take(LONGEST_LINE)
            .map(|byte| byte.as_u64().and_then(|b| u8::try_from(b).ok()))
            .collect::<Option<_>>()?,
        // Too long for the journal to show, or none.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    message.truncate(LONGEST_LINE);
    Some(JournalLine {
        boot: fields.boot,
        cursor: fields.cursor,
        record: Record {
            source: Source::Journal,
            sequence: number(&fields.sequence).unwrap_or(0),
            micros,
            // Without a facility nobody knows who wrote it.
            facility: number(&fields.facility).and_then(|f| u32::try_from(f).ok()).unwrap_or(u32::MAX),
            level: number(&fields.priority).map_or(6, |level| level.min(7) as u8),
            message: String::from_utf8_lossy(&message).into_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelEvent;

    const LINE: &str = r#"{"__CURSOR":"s=3a;i=5","__REALTIME_TIMESTAMP":"1740327858000000","__MONOTONIC_TIMESTAMP":"5141000","_SOURCE_MONOTONIC_TIMESTAMP":"5140900","_BOOT_ID":"810fca1e916b414a8cbdbaae91c90d6a","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","PRIORITY":"4","MESSAGE":"NVRM: Xid (PCI:0000:66:00): 79, pid=1, GPU has fallen off the bus."}"#;

    #[test]
    fn a_line_of_the_journal_is_the_record_of_the_kernel() {
        let line = read_journal(LINE.as_bytes()).unwrap();
        assert_eq!((line.cursor.as_str(), line.boot.as_str()), ("s=3a;i=5", "810fca1e916b414a8cbdbaae91c90d6a"));
        assert_eq!((line.record.micros, line.record.facility, line.record.level), (5_140_900, 0, 4));
        assert!(matches!(line.record.event(false), Some(KernelEvent::Xid(_))));
    }

    #[test]
    fn bytes_programs_and_garbage_are_told_apart() {
        let bytes =
            LINE.replace("\"NVRM: Xid (PCI:0000:66:00): 79, pid=1, GPU has fallen off the bus.\"", "[78,86,255,10]");
        assert_eq!(read_journal(bytes.as_bytes()).unwrap().record.message, "NV\u{fffd}\n");
        let of_a_program = LINE.replace("\"SYSLOG_FACILITY\":\"0\"", "\"SYSLOG_FACILITY\":\"1\"");
        assert_eq!(read_journal(of_a_program.as_bytes()).unwrap().record.event(false), None);
        let nobodys = LINE.replace("\"SYSLOG_FACILITY\":\"0\",", "");
        assert_eq!(read_journal(nobodys.as_bytes()).unwrap().record.event(false), None);
        let syslog = LINE.replace("\"_TRANSPORT\":\"kernel\"", "\"_TRANSPORT\":\"syslog\"");
        for garbage in [syslog.as_str(), "", "{}", "-- No entries --", &LINE[..200], &LINE.replace("[78", "[780")] {
            if garbage != LINE {
                assert_eq!(read_journal(garbage.as_bytes()), None, "{garbage}");
            }
        }
        let null = LINE.replace("\"NVRM: Xid (PCI:0000:66:00): 79, pid=1, GPU has fallen off the bus.\"", "null");
        assert_eq!(read_journal(null.as_bytes()), None);
    }
}
