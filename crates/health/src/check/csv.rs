//! Answers of `nvidia-smi --format=csv` that a check asks for.

use serde::{Deserialize, Serialize};

use super::text_of;
use crate::kernel::Pci;

/// Rows of memory that were, or are to be, replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemappedRows {
    pub pci: Option<Pci>,
    pub uuid: String,
    pub correctable: Option<u64>,
    pub uncorrectable: Option<u64>,
    /// They are replaced at the next reset. `None`: the device does not tell.
    pub pending: Option<bool>,
    pub failure: Option<bool>,
}

/// Reads `nvidia-smi --query-remapped-rows=gpu_bus_id,gpu_uuid,remapped_rows.correctable,remapped_rows.uncorrectable,`
/// `remapped_rows.pending,remapped_rows.failure --format=csv,noheader`; with a header, too.
pub fn parse_remapped_rows(output: &[u8]) -> Vec<RemappedRows> {
    text_of(output)
        .lines()
        .take(1024)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(',').map(str::trim).take(7).collect();
            let [pci, uuid, correctable, uncorrectable, pending, failure] = fields[..] else { return None };
            uuid.starts_with("GPU-").then(|| RemappedRows {
                pci: Pci::read(pci),
                uuid: uuid.to_owned(),
                correctable: correctable.parse().ok(),
                uncorrectable: uncorrectable.parse().ok(),
                pending: yes_or_no(pending),
                failure: yes_or_no(failure),
            })
        })
        .collect()
}

pub(super) fn yes_or_no(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "yes" | "1" | "active" => Some(true),
        "no" | "0" | "not active" => Some(false),
        _ => None,
    }
}

/// Why a GPU does not run as fast as it might: `clocks_event_reasons.active`, before R535 `clocks_throttle_reasons.active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReasons(pub u64);

impl ClockReasons {
    /// `0x0000000000000044`.
    pub fn read(text: &str) -> Option<ClockReasons> {
        let digits = text.trim().strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok().map(ClockReasons)
    }

    /// The hardware protects itself against heat.
    pub fn is_hot(self) -> bool {
        self.0 & 0x40 != 0
    }

    /// The power supply asks for less.
    pub fn is_power_braked(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// For people; idleness and limits that somebody set are no trouble.
    pub fn in_words(self) -> Vec<&'static str> {
        let all = [
            (0x8, "slowed down by the hardware"),
            (0x20, "slowed down by the driver for heat"),
            (0x40, "slowed down by the hardware for heat"),
            (0x80, "slowed down by the power supply"),
        ];
        all.into_iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, words)| words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_unknown_is_not_no() {
        let text = b"gpu_bus_id, gpu_uuid, a, b, c, d\n00000000:10:1C.0, GPU-a, 1, 0, Yes, No\n00000000:10:1D.0, GPU-b, [N/A], [N/A], [N/A], [N/A]\n00000000:10:1E.0, GPU-c, 0, 3, 0, 1\nNo devices were found\n";
        let rows = parse_remapped_rows(text);
        let told: Vec<_> = rows.iter().map(|row| (row.uuid.as_str(), row.pending, row.failure)).collect();
        assert_eq!(
            told,
            [("GPU-a", Some(true), Some(false)), ("GPU-b", None, None), ("GPU-c", Some(false), Some(true))]
        );
        assert_eq!((rows[0].correctable, rows[1].correctable, rows[2].uncorrectable), (Some(1), None, Some(3)));
        assert_eq!(rows[0].pci, Pci::read("0000:10:1c"));
    }

    #[test]
    fn reasons_for_slow_clocks_are_bits() {
        let reasons = ClockReasons::read("0x0000000000000044").unwrap();
        assert!(reasons.is_hot() && !reasons.is_power_braked());
        assert_eq!(reasons.in_words(), ["slowed down by the hardware for heat"]);
        assert!(ClockReasons::read("0x0000000000000001").unwrap().in_words().is_empty(), "idle");
        assert_eq!((ClockReasons::read("[N/A]"), ClockReasons::read("0x")), (None, None));
    }
}
