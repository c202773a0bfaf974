//! What usually comes, for the policy `fgd`: it leaves idle GPUs so that the usual work can use them.
//!
//! Counted from the offers themselves, so nothing has to be configured or stored: after a restart, what runs and what is
//! offered again is counted anew. What came long ago counts less. The fleet forgets what nodes are worth when it is told
//! of other work, so that is done seldom: each time that half as much came again, and then each thousand offers.

use crate::fleet::{Gpus, Request, Tally, Workload};

/// The fewest offers from which anything is concluded.
const LEAST: u64 = 8;
/// After so many, those before count half.
const MANY: u64 = 1000;

#[derive(Debug, Clone, Default)]
pub(super) struct Usual {
    tally: Tally,
    /// Since the counts were last halved, or ever.
    seen: u64,
    /// What was seen when the fleet was last told.
    told: u64,
}

impl Usual {
    /// Somebody asks for this. Who asks for no GPU can use no idle one: that says nothing here.
    pub fn saw(&mut self, request: &Request) {
        if request.gpus == Gpus::None {
            return;
        }
        self.tally.count(request);
        self.seen += 1;
        if self.tally.is_large() {
            self.tally.halve();
        }
    }

    /// The usual work, if the fleet should be told of it now.
    pub fn workload(&mut self) -> Option<Workload> {
        let is_due = self.seen >= LEAST && self.seen >= self.told + (self.told / 2).min(MANY);
        if !is_due || self.seen == self.told {
            return None;
        }
        self.told = self.seen;
        let workload = self.tally.workload();
        if self.seen >= 2 * MANY {
            self.tally.halve();
            (self.seen, self.told) = (MANY, MANY);
        }
        Some(workload)
    }
}
