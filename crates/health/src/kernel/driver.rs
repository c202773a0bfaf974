//! The version of the driver, as far as meanings depend on it.

use serde::{Deserialize, Serialize};

/// `575.57.08`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DriverVersion {
    pub branch: u32,
    pub minor: u32,
}

impl DriverVersion {
    pub fn read(text: &str) -> Option<DriverVersion> {
        let mut parts = text.trim().split('.');
        let branch = parts.next()?.parse().ok()?;
        let minor = parts.next().map_or(Some(0), |part| part.parse().ok())?;
        Some(DriverVersion { branch, minor })
    }

    /// In which of two forms lines about NVLinks of the fifth generation give their details.
    pub fn link_details(self) -> &'static str {
        if self.branch < 575 { "V1" } else { "V2" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_links_changed_with_575() {
        let form = |text: &str| DriverVersion::read(text).map(DriverVersion::link_details);
        assert_eq!((form("570.133.20"), form("575.57.08"), form("580")), (Some("V1"), Some("V2"), Some("V2")));
        assert_eq!((form(""), form("x.1"), form("99999999999.1")), (None, None, None));
        assert!(DriverVersion::read("550.90").unwrap() < DriverVersion::read("550.100").unwrap());
    }
}
