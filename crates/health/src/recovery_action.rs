//! What the driver itself says a GPU needs: a number in NVML and DCGM, and words in XID 154 and in `nvidia-smi -q`.

use serde::{Deserialize, Serialize};

use crate::action::Action;

/// As the driver numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    None,
    GpuReset,
    NodeReboot,
    DrainP2p,
    DrainAndReset,
    RecoverImexDomain,
    BusReset,
    SystemReboot,
    /// A number of a newer driver.
    Unknown(u32),
}

impl RecoveryAction {
    pub fn from_code(code: u32) -> RecoveryAction {
        match code {
            0 => RecoveryAction::None,
            1 => RecoveryAction::GpuReset,
            2 => RecoveryAction::NodeReboot,
            3 => RecoveryAction::DrainP2p,
            4 => RecoveryAction::DrainAndReset,
            5 => RecoveryAction::RecoverImexDomain,
            6 => RecoveryAction::BusReset,
            7 => RecoveryAction::SystemReboot,
            other => RecoveryAction::Unknown(other),
        }
    }

    /// The words of `nvidia-smi -q` (`Reset`, `Drain and Reset`) and of XID 154 (`GPU Reset Required`).
    pub fn from_words(words: &str) -> Option<RecoveryAction> {
        let words = words.trim().to_ascii_lowercase();
        let words = words.strip_suffix(" required").unwrap_or(&words).trim_start_matches("gpu ");
        Some(match words {
            "none" => RecoveryAction::None,
            "reset" => RecoveryAction::GpuReset,
            "reboot" | "node reboot" => RecoveryAction::NodeReboot,
            "drain p2p" => RecoveryAction::DrainP2p,
            "drain and reset" => RecoveryAction::DrainAndReset,
            "recover imex domain" => RecoveryAction::RecoverImexDomain,
            "bus reset" => RecoveryAction::BusReset,
            "system reboot" => RecoveryAction::SystemReboot,
            _ => return None,
        })
    }

    /// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`: what it is now.
    pub fn from_change(message: &str) -> Option<RecoveryAction> {
        let (_, rest) = message.split_once("GPU recovery action changed from ")?;
        let (_, now) = rest.split_once(" to 0x")?;
        let digits: String = now.chars().take_while(char::is_ascii_hexdigit).collect();
        u32::from_str_radix(&digits, 16).ok().map(RecoveryAction::from_code)
    }

    /// For people.
    pub fn words(self) -> String {
        match self {
            RecoveryAction::None => "nothing is needed any more".to_owned(),
            RecoveryAction::GpuReset => "reset the GPU".to_owned(),
            RecoveryAction::NodeReboot => "reboot the node".to_owned(),
            RecoveryAction::DrainP2p => "end traffic between GPUs".to_owned(),
            RecoveryAction::DrainAndReset => "let work end, then reset the GPU".to_owned(),
            RecoveryAction::RecoverImexDomain => "recover the domain of linked machines (IMEX)".to_owned(),
            RecoveryAction::BusReset => "reset the bus".to_owned(),
            RecoveryAction::SystemReboot => "reboot the system".to_owned(),
            RecoveryAction::Unknown(code) => format!("action {code}, which is in no table"),
        }
    }

    pub fn action(self) -> Action {
        match self {
            RecoveryAction::None => Action::Ignore,
            RecoveryAction::GpuReset => Action::ResetGpu,
            // A reset over the bus is not `nvidia-smi`'s to make; a reboot makes it.
            RecoveryAction::NodeReboot | RecoveryAction::BusReset | RecoveryAction::SystemReboot => Action::RebootNode,
            RecoveryAction::DrainP2p => Action::Diagnose,
            RecoveryAction::DrainAndReset => Action::ResetWhenIdle,
            RecoveryAction::RecoverImexDomain | RecoveryAction::Unknown(_) => Action::ContactSupport,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_mean_the_same() {
        let read = |text: &str| RecoveryAction::from_change(text).map(RecoveryAction::action);
        let change = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)";
        assert_eq!(read(change), Some(Action::ResetGpu));
        assert_eq!(
            read("GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"),
            Some(Action::Ignore)
        );
        let reboot = "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)";
        assert_eq!(read(reboot), Some(Action::RebootNode));
        assert_eq!(read("GPU recovery action changed from 0x0 (None) to 0x63 (?)"), Some(Action::ContactSupport));
        for garbage in
            ["", "GPU recovery action changed from", "… to 0x", "GPU recovery action changed from x to 0xfffffffff"]
        {
            assert_eq!(read(garbage), None, "{garbage}");
        }
        for (words, code) in [
            ("None", 0),
            ("Reset", 1),
            ("GPU Reset Required", 1),
            ("Reboot", 2),
            ("Node Reboot Required", 2),
            ("Drain P2P", 3),
        ] {
            assert_eq!(RecoveryAction::from_words(words), Some(RecoveryAction::from_code(code)), "{words}");
        }
        assert_eq!(RecoveryAction::from_words("N/A"), None);
    }
}
