//! Secrets under names.

use jiff::Timestamp;

/// A secret as it lies in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRow {
    pub name: String,
    /// Sealed by the caller; kept as given.
    pub value: String,
    /// Counts the values that it had, from 1.
    pub revision: i64,
    pub updated: Timestamp,
}

impl std::fmt::Debug for SecretRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretRow({}, {})", self.name, self.revision)
    }
}
