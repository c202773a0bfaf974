//! Incidents as they are looked for.

/// Which incidents; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Not over yet, or over.
    pub open: Option<bool>,
    pub node: Option<String>,
}
