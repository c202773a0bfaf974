//! What the kernel log says about GPUs: lines of the NVIDIA driver (`NVRM: …`) and of its switches.
//!
//! Only a message that *begins* as the driver's begin is one: names of programs and devices stand in lines of others, and
//! anybody can choose those. A line about an XID that cannot be read is told as garbled, and nothing is done about it.

mod driver;
mod follow;
mod journal;
mod kmsg;
mod pci;
mod watch;

use serde::{Deserialize, Serialize};

use crate::recovery_action::RecoveryAction;

pub use driver::DriverVersion;
pub use follow::{Follower, Taken};
pub use journal::{JournalLine, read_journal};
pub use kmsg::{Record, Source, happened, read_kmsg};
pub use pci::Pci;
pub use watch::{Judging, Sign, SignKind, Watch};

use crate::text::{evidence, line};

/// What a line of the driver tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelEvent {
    Xid(XidLine),
    /// Which GPU is at an address; the driver says so beside the first XID of each.
    Device {
        pci: Pci,
        uuid: String,
    },
    FallenOffBus {
        pci: Pci,
    },
    /// A switch of NVLink.
    Switch {
        pci: Pci,
        code: u32,
        is_fatal: bool,
        message: String,
    },
    /// It is about an XID, and nobody knows which.
    Garbled {
        line: String,
    },
}

/// `NVRM: Xid (PCI:0000:66:00): 32, pid=2280636, name=train.3, Channel ID …`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XidLine {
    pub pci: Pci,
    /// Of a GPU that is cut (MIG), the instance.
    pub instance: Option<u32>,
    pub code: u32,
    pub pid: Option<u32>,
    /// The name of the program, as far as the kernel keeps it.
    pub process: Option<String>,
    pub message: String,
    /// What the driver wants, where this is an XID 154 that says so.
    pub recovery: Option<RecoveryAction>,
    /// Whether a line about an NVLink of the fifth generation calls it fatal.
    pub is_fatal_link: Option<bool>,
}

/// Reads a message of the kernel, with nothing before it. `None`: it is not about a GPU.
pub fn read_message(bytes: &[u8]) -> Option<KernelEvent> {
    message_event(line(bytes).trim_end())
}

/// Reads a line of `dmesg`, or of a file of syslog, with the time and the rest that stands before the message.
pub fn read_log_line(bytes: &[u8]) -> Option<KernelEvent> {
    message_event(message_of(line(bytes).trim_end()))
}

fn message_event(message: &str) -> Option<KernelEvent> {
    if let Some(rest) = message.strip_prefix("NVRM: ") {
        return match rest.strip_prefix("Xid") {
            Some(xid) => Some(xid_line(xid).unwrap_or_else(|| KernelEvent::Garbled { line: evidence(message) })),
            None => device_line(rest),
        };
    }
    let rest = message.strip_prefix("nvidia-nvswitch")?.trim_start_matches(|c: char| c.is_ascii_digit());
    switch_line(rest.strip_prefix(": SXid (")?)
}

/// Without `[  12.3]`, `[Sun Feb 23 …]`, `<6>` and `Feb 23 16:24:18 host kernel: `.
fn message_of(text: &str) -> &str {
    let after_stamp = |text: &'_ str| -> Option<usize> {
        let (inner, _) = text.strip_prefix('[')?.split_once(']')?;
        let is_stamp = inner.len() <= 40 && inner.bytes().all(|b| b.is_ascii_alphanumeric() || b" .:+-".contains(&b));
        is_stamp.then_some(inner.len() + 2)
    };
    let mut text = text.trim_start();
    if let Some(rest) = text.strip_prefix('<')
        && let Some((level, rest)) = rest.split_once('>')
        && level.len() <= 3
        && level.bytes().all(|b| b.is_ascii_digit())
    {
        text = rest;
    }
    // The first of them: what follows it is the kernel's, and what somebody else wrote may hold a second one.
    if let Some((before, rest)) = text.split_once(" kernel: ")
        && is_syslog_head(before)
    {
        text = rest.trim_start();
    }
    match after_stamp(text) {
        Some(end) => text[end..].trim_start(),
        None => text,
    }
}

/// `Feb 23 16:24:18 host`, `2025-02-23T16:24:18+00:00 host`.
fn is_syslog_head(text: &str) -> bool {
    const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    let words: Vec<&str> = text.split_whitespace().take(5).collect();
    match words[..] {
        [month, _day, time, _host] => month.len() == 3 && MONTHS.contains(month) && time.len() == 8,
        [time, _host] => time.len() >= 19 && time.as_bytes()[..4].iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// After `NVRM: Xid`: ` (PCI:0000:66:00): 32, pid=…`.
fn xid_line(rest: &str) -> Option<KernelEvent> {
    let (place, rest) = rest.strip_prefix(" (")?.split_once("): ")?;
    let (address, instance) = match place.split_once(' ') {
        Some((address, instance)) => (address, Some(instance.strip_prefix("GPU-I:")?.parse().ok()?)),
        None => (place, None),
    };
    let pci = Pci::read(address)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let code = rest[..digits].parse().ok().filter(|code| (1..=99_999).contains(code))?;
    let mut rest = match rest[digits..].strip_prefix(',') {
        Some(rest) => rest.trim_start(),
        None if rest[digits..].trim().is_empty() => "",
        None => return None,
    };
    let mut pid = None;
    let mut process = None;
    if let Some(after) = rest.strip_prefix("pid=") {
        let (value, after) = after.split_once(',').unwrap_or((after, ""));
        pid = value.trim_matches('\'').parse().ok();
        rest = after.trim_start();
    }
    if let Some(after) = rest.strip_prefix("name=") {
        let (value, after) = after.split_once(", ").unwrap_or((after, ""));
        process = Some(evidence(value)).filter(|name| !name.is_empty() && name != "<unknown>");
        rest = after.trim_start();
    }
    let recovery = if code == 154 { RecoveryAction::from_change(rest) } else { None };
    let is_fatal_link = if (144..=150).contains(&code) { fatal(rest) } else { None };
    let message = evidence(rest);
    Some(KernelEvent::Xid(XidLine { pci, instance, code, pid, process, message, recovery, is_fatal_link }))
}

/// `NETIR_LINK_EVT Fatal XC0 i0 Link 08 (…)`.
fn fatal(message: &str) -> Option<bool> {
    message.split(['(', ',']).next()?.split_whitespace().find_map(|word| match word {
        "Fatal" => Some(true),
        "Nonfatal" | "Non-fatal" => Some(false),
        _ => None,
    })
}

/// `GPU at PCI:0000:9b:00: GPU-509665ad-…`, `GPU 0000:a1:00.0: GPU has fallen off the bus.`, and older `GPU at 0000:41:00.0 has fallen off the bus.`
fn device_line(rest: &str) -> Option<KernelEvent> {
    let rest = rest.strip_prefix("GPU ")?;
    let rest = rest.strip_prefix("at ").unwrap_or(rest);
    let (address, said) = match rest.split_once(": ") {
        Some((address, said)) => (address, said),
        None => rest.split_once(' ')?,
    };
    let (address, said) = match address.split_once(' ') {
        Some((address, said)) => (address, said),
        None => (address, said),
    };
    let pci = Pci::read(address)?;
    if said.strip_prefix("GPU ").unwrap_or(said).starts_with("has fallen off the bus") {
        return Some(KernelEvent::FallenOffBus { pci });
    }
    let uuid = said.trim();
    let is_uuid = |c: u8| c.is_ascii_hexdigit() || c == b'-';
    let is_one = uuid.strip_prefix("GPU-").is_some_and(|id| (8..=64).contains(&id.len()) && id.bytes().all(is_uuid));
    is_one.then(|| KernelEvent::Device { pci, uuid: uuid.to_owned() })
}

/// After `SXid (`: `PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up`.
fn switch_line(rest: &str) -> Option<KernelEvent> {
    let (address, rest) = rest.split_once("): ")?;
    let (code, rest) = rest.split_once(", ")?;
    let is_fatal = match rest.split(',').next()? {
        "Fatal" => true,
        "Non-fatal" => false,
        // The lines after it describe the same error once more.
        _ => return None,
    };
    Some(KernelEvent::Switch { pci: Pci::read(address)?, code: code.parse().ok()?, is_fatal, message: evidence(rest) })
}

#[cfg(test)]
mod tests;
