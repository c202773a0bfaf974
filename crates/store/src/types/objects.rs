//! Objects as Kubernetes has them.

use jiff::Timestamp;
use pitcrew_core::id::RunKey;
use serde_json::Value;

/// An object to be written.
#[derive(Clone, PartialEq)]
pub struct NewObject {
    /// As in YAML: `Task`, `ConfigMap`, …
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Of one that is new; an object keeps its own.
    pub uid: String,
    /// Without what is secret.
    pub doc: Value,
    /// What is secret of it, sealed by the caller; kept as given.
    pub sealed: Option<String>,
    pub at: Timestamp,
}

impl std::fmt::Debug for NewObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewObject({} {}/{})", self.kind, self.namespace, self.name)
    }
}

/// An object as it lies in the store.
#[derive(Clone, PartialEq)]
pub struct ObjectRow {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Counts its changes, from 1.
    pub generation: i64,
    pub doc: Value,
    pub sealed: Option<String>,
    /// The run that it stands for; it goes with it.
    pub run: Option<RunKey>,
    pub created: Timestamp,
    pub changed: Timestamp,
}

impl std::fmt::Debug for ObjectRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectRow({} {}/{}, {})", self.kind, self.namespace, self.name, self.generation)
    }
}

/// Which objects; what is empty leaves nothing out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    pub kinds: Vec<String>,
    pub namespace: Option<String>,
    pub run: Option<RunKey>,
}
