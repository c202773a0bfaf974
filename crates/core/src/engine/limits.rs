#[derive(Debug, Clone, Default)]
pub(super) struct Waiting;
