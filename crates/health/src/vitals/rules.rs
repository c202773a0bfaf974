//! From when on heat, brakes and links are trouble, and what is done about it. All of it can be set.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::check::SmiGpu;

/// Below the limit by so much it is over, unless that is said.
const HYSTERESIS: u32 = 5;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VitalRules {
    pub thermal: Heat,
    pub power_brake: Brake,
    pub nvlink: LinkRules,
}

/// When a GPU is too hot: when the hardware slows it down for that, or from a temperature on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heat {
    /// In °C; `None`: only the hardware says so.
    pub over: Option<u32>,
    /// Below this it is over.
    pub below: Option<u32>,
    /// How long it has to last to be told, and to be away to be over.
    #[serde(rename = "for")]
    pub lasts: SignedDuration,
    pub action: Action,
}

/// When the power supply slows GPUs down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Brake {
    #[serde(rename = "for")]
    pub lasts: SignedDuration,
    pub action: Action,
}

/// When an NVLink is in trouble. A link that was up and is down is, whatever the limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkRules {
    /// Of replays and recoveries of one GPU.
    pub errors_per_hour: u64,
    /// Of errors that its links repaired by themselves.
    pub crc_errors_per_hour: u64,
    /// Looks within an hour at which a link of one GPU had just fallen, however soon it was up again.
    pub falls_per_hour: u64,
    /// How long a link has to be down.
    #[serde(rename = "for")]
    pub lasts: SignedDuration,
    pub action: Action,
}

impl Default for Heat {
    fn default() -> Heat {
        Heat { over: None, below: None, lasts: SignedDuration::from_mins(10), action: Action::CheckThermals }
    }
}

impl Default for Brake {
    fn default() -> Brake {
        // Cables, supplies: nothing that a reboot mends; and the node is of use meanwhile.
        Brake { lasts: SignedDuration::from_mins(10), action: Action::CheckThermals }
    }
}

impl Default for LinkRules {
    fn default() -> LinkRules {
        let lasts = SignedDuration::from_mins(1);
        let (errors_per_hour, crc_errors_per_hour) = (100, 100_000);
        LinkRules { errors_per_hour, crc_errors_per_hour, falls_per_hour: 3, lasts, action: Action::Diagnose }
    }
}

impl Heat {
    /// `None`: between the two limits, or the device does not tell.
    pub(super) fn is_hot(&self, gpu: &SmiGpu) -> Option<bool> {
        let by_degrees = match (self.over, gpu.celsius) {
            (Some(over), Some(celsius)) if celsius >= over => Some(true),
            (Some(over), Some(celsius)) if celsius < self.below.unwrap_or(over.saturating_sub(HYSTERESIS)) => {
                Some(false)
            }
            (Some(_), _) => None,
            (None, _) => Some(false),
        };
        match (gpu.hot, by_degrees) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), by_degrees) => by_degrees,
            (None, Some(false)) if self.over.is_some() => Some(false),
            (None, _) => None,
        }
    }

    pub(super) fn in_words(&self, gpu: &SmiGpu) -> String {
        let celsius = gpu.celsius.map_or(String::new(), |celsius| format!(" at {celsius} °C"));
        match (gpu.hot, self.over) {
            (Some(true), _) | (_, None) => {
                format!("it is slowed down by the hardware for heat{celsius}, for {:#}", self.lasts)
            }
            (_, Some(over)) => format!("it is hot{celsius}, and {over} °C or more for {:#}", self.lasts),
        }
    }
}

impl VitalRules {
    /// What is wrong with them, each with a remedy.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(below) = self.thermal.below {
            match self.thermal.over {
                None => wrong.push("`thermal.below` says when heat is over: say `over` as well".to_owned()),
                Some(over) if below > over => {
                    wrong.push(format!("`thermal.below` is {below} and `over` is {over}: it must not be greater"));
                }
                Some(_) => {}
            }
        }
        let all =
            [("thermal", self.thermal.lasts), ("power_brake", self.power_brake.lasts), ("nvlink", self.nvlink.lasts)];
        let negative = all.into_iter().filter(|(_, lasts)| lasts.is_negative());
        wrong.extend(negative.map(|(key, _)| format!("`{key}.for` must not be negative")));
        wrong
    }
}
