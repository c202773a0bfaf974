/// A data directory with files of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunFiles {
    /// The id of the data directory.
    pub home: String,
    /// Grows whenever they are noted anew.
    pub version: i64,
}
