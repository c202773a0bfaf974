//! Room that is kept for somebody who waits, while others who came later are let past him.
//!
//! A promise is what the fleet looks like once all those are gone who were there before the wait began. Invariant: as long
//! as somebody is let past only by [`Fleet::place_beside`], the one who waits has room then; so he does not wait for ever.
//! Where it is known by when they are gone, somebody who is gone before that may have the promised room in the meantime.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::place::{Fleet, Lease, LeaseId, Refused};
use super::request::Request;
use super::room::Room;

/// What passes between a grant and the start that a time limit counts from is no more than this, as a rule.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// What is kept for a request.
#[derive(Debug, Clone)]
pub struct Promise {
    request: Request,
    /// What is left of each node, then.
    rooms: Vec<Room>,
    /// Nodes that have room for the request, then.
    fitting: BTreeSet<usize>,
    /// By when there is room at the latest, if that is known.
    starts: Option<Timestamp>,
}

impl Promise {
    /// Whether any node will have the room: not if those that would have had it went away.
    pub fn can_be_kept(&self) -> bool {
        !self.fitting.is_empty()
    }

    /// By when there is room at the latest, if that is known.
    pub fn starts(&self) -> Option<Timestamp> {
        self.starts
    }

    /// Whether somebody who ends then is gone before the room is needed.
    pub fn is_before(&self, ends: Option<Timestamp>) -> bool {
        let latest = self.starts.and_then(|start| start.checked_sub(MARGIN).ok());
        latest.zip(ends).is_some_and(|(latest, ends)| ends <= latest)
    }
}

impl Fleet {
    /// Keeps room for the request: all leases but those that `stays` names will be gone by then, and `ends` says by when.
    pub fn promise(
        &self,
        request: &Request,
        stays: impl Fn(&LeaseId) -> bool,
        ends: impl Fn(&LeaseId) -> Option<Timestamp>,
    ) -> Promise {
        let mut rooms: Vec<Room> = self.nodes.iter().map(|held| held.room.clone()).collect();
        let going = self.leases().iter().filter(|(id, _)| !stays(id));
        let mut going: Vec<(Timestamp, &Lease)> =
            going.map(|(id, lease)| (ends(id).unwrap_or(Timestamp::MAX), lease)).collect();
        going.sort_by_key(|(end, _)| *end);
        let mut starts = None;
        for (end, lease) in going {
            let Some(at) = self.at(&lease.node) else { continue };
            rooms[at].change(&lease.request, &lease.devices, false);
            if end < Timestamp::MAX && rooms[at].fits(&self.nodes[at].node, request).is_ok() {
                // What is given back after that is too late.
                starts = Some((end, at));
                break;
            }
        }
        let fits = |(at, room): (usize, &Room)| room.fits(&self.nodes[at].node, request).is_ok().then_some(at);
        // Who is told a time is kept room where that holds.
        let fitting = match starts {
            Some((_, at)) => BTreeSet::from([at]),
            None => rooms.iter().enumerate().filter_map(fits).collect(),
        };
        let starts = starts.map(|(end, _)| end);
        Promise { request: request.clone(), rooms, fitting, starts }
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

    /// Places a request that ends before the promised room is there, wherever it fits now.
    pub fn place_before(
        &mut self,
        id: LeaseId,
        request: &Request,
        promise: &Promise,
        ends: Option<Timestamp>,
    ) -> Result<&Lease, Refused> {
        if promise.is_before(ends) { self.place(id, request) } else { Err(Refused::Full) }
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
