//! What an expression may use: time and room in one figure, so that every expression ends.

use super::fault::{FaultKind, Problem};

/// About a second of work on a slow machine, and at most some forty megabytes.
const STEPS: u64 = 5_000_000;
/// Bytes that are read or made for a step.
const BYTES: u64 = 8;

#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { left: STEPS }
    }
}

impl Budget {
    pub fn step(&mut self) -> Result<(), Problem> {
        self.spend(1)
    }

    /// Before this many bytes are read or made.
    pub fn size(&mut self, bytes: usize) -> Result<(), Problem> {
        self.spend(bytes as u64 / BYTES)
    }

    /// Before this many items are walked over or made.
    pub fn items(&mut self, items: usize) -> Result<(), Problem> {
        self.spend(items as u64)
    }

    fn spend(&mut self, steps: u64) -> Result<(), Problem> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(Problem {
                    kind: FaultKind::Budget,
                    message: "the expression takes too long or makes too much".into(),
                })
            }
        }
    }
}
