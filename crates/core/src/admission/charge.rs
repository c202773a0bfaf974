//! What counts against quotas: what somebody was given, and before that the most that any node would give it.
//!
//! A part of a GPU that is asked for by share or by memory is another part on each node, since a shared GPU is given out in
//! steps. Invariant: what is checked before a grant is never less than what is charged by it, so no limit is exceeded; and
//! what is charged is what the lease holds, also after the nodes have changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Admission, Amounts, Held, Holder, Line, lease_id};
use crate::fleet::{Lease, Request};

impl Admission {
    /// The most that each member of this line could be given, where it is known which nodes could.
    pub(super) fn most(&self, request: &Request) -> Amounts {
        let asked = Amounts::of(request);
        self.fleet.most_of_a_gpu(request).map_or(asked, |most| asked.with_gpus(most))
    }

    /// What a lease holds, in all. Devices that its node does not have now count as they did `before`.
    fn given(&self, lease: &Lease, before: Amounts) -> Amounts {
        let devices = self.fleet.gpus_of(lease);
        devices.map_or(before, |gpus| Amounts::of(&lease.request).with_gpus(gpus))
    }

    /// What it was given counts from now on, in place of what it could have been.
    pub(super) fn charge(&self, holder: Holder, held: Held) -> Held {
        let lease = self.fleet.leases().get(&lease_id(holder));
        let amounts = lease.map_or(held.amounts, |lease| self.given(lease, held.amounts));
        Held { amounts, ..held }
    }

    /// The nodes changed: so did parts of their GPUs, those that are held and those that could be.
    pub(super) fn charge_anew(&mut self) {
        let given: Vec<(Holder, Amounts)> = self
            .held
            .iter()
            .filter_map(|(holder, held)| {
                let lease = self.fleet.leases().get(&lease_id(*holder))?;
                Some((*holder, self.given(lease, held.amounts)))
            })
            .collect();
        for (holder, amounts) in given {
            let Some(held) = self.held.get_mut(&holder) else { continue };
            self.quotas.give_back(&held.namespace, held.amounts);
            self.quotas.take(&held.namespace, amounts);
            held.amounts = amounts;
        }
        let of_line = |line: &Arc<Line>| {
            let request = line.request.as_deref()?;
            Some((line.clone(), self.most(request).times(line.members())))
        };
        let asked: BTreeMap<Arc<Line>, Amounts> = self.lines.keys().filter_map(of_line).collect();
        for candidate in self.candidates.values_mut() {
            candidate.asked = asked.get(&candidate.line).copied().unwrap_or_default();
        }
    }
}
