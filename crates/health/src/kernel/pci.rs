//! The address of a device on the PCI bus, in all the forms in which drivers and tools write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Domain, bus and device; functions of a GPU are one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pci {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
}

impl Pci {
    /// `0000:66:00`, `PCI:0000:66:00`, `00000000:66:00.0`.
    pub fn read(text: &str) -> Option<Pci> {
        let text = text.strip_prefix("PCI:").unwrap_or(text);
        if text.len() > 16 {
            return None;
        }
        let mut parts = text.split(':');
        let (domain, bus, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let device = rest.split('.').next()?;
        let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
        if parts.next().is_some() || ![domain, bus, device].into_iter().all(is_hex) {
            return None;
        }
        Some(Pci {
            domain: u32::from_str_radix(domain, 16).ok()?,
            bus: u8::from_str_radix(bus, 16).ok()?,
            device: u8::from_str_radix(device, 16).ok()?,
        })
    }
}

impl fmt::Display for Pci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.device)
    }
}

impl FromStr for Pci {
    type Err = String;

    fn from_str(text: &str) -> Result<Pci, String> {
        Pci::read(text).ok_or_else(|| format!("`{}` is no address on a PCI bus", crate::text::evidence(text)))
    }
}

impl TryFrom<String> for Pci {
    type Error = String;

    fn try_from(text: String) -> Result<Pci, String> {
        text.parse()
    }
}

impl From<Pci> for String {
    fn from(pci: Pci) -> String {
        pci.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_one_address() {
        let pci = Pci { domain: 0, bus: 0x9b, device: 0x1c };
        for form in ["0000:9b:1c", "PCI:0000:9b:1c", "00000000:9B:1C.0", "0:9b:1c"] {
            assert_eq!(Pci::read(form), Some(pci), "{form}");
        }
        assert_eq!(pci.to_string(), "0000:9b:1c");
        assert_eq!(Pci::read("0008:01:00").unwrap().to_string(), "0008:01:00");
        for garbage in
            ["", "9b:1c", "0000:9b:1c:0", "0000:9b1:00", "zz:00:00", "+1:00:00", "0000:9b:", "000000000000:9b:00"]
        {
            assert_eq!(Pci::read(garbage), None, "{garbage}");
        }
    }
}
