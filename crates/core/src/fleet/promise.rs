//! Room that is kept for somebody who waits, while others who came later are let past him.
//!
//! A promise is what the fleet looks like once all those are gone who were there before the wait began. Invariant: as long
//! as somebody is let past only by [`Fleet::place_beside`], the one who waits has room then; so he does not wait for ever.

use std::collections::BTreeSet;

use super::place::{Fleet, Lease, LeaseId, Refused};
use super::request::Request;
use super::room::Room;

/// What is kept for a request.
#[derive(Debug, Clone)]
pub struct Promise {
    request: Request,
    /// What is left of each node, then.
    rooms: Vec<Room>,
    /// Nodes that have room for the request, then.
    fitting: BTreeSet<usize>,
}

impl Fleet {
    /// Keeps room for the request: all leases but those that `stays` names will be gone by then.
    pub fn promise(&self, request: &Request, stays: impl Fn(&LeaseId) -> bool) -> Promise {
        let mut rooms: Vec<Room> = self.nodes.iter().map(|held| held.room.clone()).collect();
        for (_, lease) in self.leases().iter().filter(|(id, _)| !stays(id)) {
            if let Some(at) = self.at(&lease.node) {
                rooms[at].change(&lease.request, &lease.devices, false);
            }
        }
        let fits = |(at, room): (usize, &Room)| room.fits(&self.nodes[at].node, request).is_ok().then_some(at);
        let fitting = rooms.iter().enumerate().filter_map(fits).collect();
        Promise { request: request.clone(), rooms, fitting }
    }

    /// Places a request where that keeps the promise.
    pub fn place_beside(
        &mut self,
        id: LeaseId,
        request: &Request,
        promise: Option<&mut Promise>,
    ) -> Result<&Lease, Refused> {
        let Some(promise) = promise else { return self.place(id, request) };
        if self.leases().contains_key(&id) {
            return Err(Refused::Twice(id));
        }
        request.check()?;
        let mut at = self.best(request, |_| true);
        if let Some(best) = at
            && promise.fitting.len() == 1
            && promise.fitting.contains(&best)
            && !self.after(promise, best, request).1
        {
            at = self.best(request, |at| at != best);
        }
        let Some(at) = at else { return Err(Refused::Full) };
        let (room, still_fits) = self.after(promise, at, request);
        promise.rooms[at] = room;
        if !still_fits {
            promise.fitting.remove(&at);
        }
        Ok(self.take(id, at, request))
    }

    /// What would be left of a node then, and whether the promise could still be kept there.
    fn after(&mut self, promise: &Promise, at: usize, request: &Request) -> (Room, bool) {
        let devices = self.devices_for(at, request);
        let mut room = promise.rooms[at].clone();
        room.change(request, &devices, true);
        let fits = room.fits(&self.nodes[at].node, &promise.request).is_ok();
        (room, fits)
    }
}
