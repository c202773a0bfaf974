//! Room that is kept for somebody who waits, while others who came later are let past him.
//!
//! A promise is what the fleet looks like once all those are gone who were there before the wait began. Invariant: as long
//! as somebody is let past only by [`Fleet::place_beside`], the one who waits has room then; so he does not wait for ever.
//! Where it is known by when they are gone, somebody who is gone before that may have the promised room in the meantime.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::gang::Gang;
use super::place::{Fleet, Lease, LeaseId, Refused};
use super::request::Request;
use super::room::Room;

/// What passes between a grant and the start that a time limit counts from is no more than this, as a rule.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// What is kept for a request, or for all members of a gang.
#[derive(Debug, Clone)]
pub struct Promise {
    request: Request,
    gang: Option<Gang>,
    /// What is left of each node, then.
    rooms: Vec<Room>,
    /// Nodes that have room for the request, then.
    fitting: BTreeSet<usize>,
    /// These nodes suffice.
    is_kept: bool,
    /// By when there is room at the latest, if that is known.
    starts: Option<Timestamp>,
}

impl Promise {
    /// Whether there will be nodes with the room: not if those that would have had it went away.
    pub fn can_be_kept(&self) -> bool {
        self.is_kept
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
    /// Keeps room for the request, or for each member of a gang that asks for it: all leases but those that `stays` names
    /// will be gone by then, and `ends` says by when.
    pub fn promise(
        &self,
        request: &Request,
        gang: Option<&Gang>,
        stays: impl Fn(&LeaseId) -> bool,
        ends: impl Fn(&LeaseId) -> Option<Timestamp>,
    ) -> Promise {
        let mut rooms: Vec<Room> = self.nodes.iter().map(|held| held.room.clone()).collect();
        let going = self.leases().iter().filter(|(id, _)| !stays(id));
        let mut going: Vec<(Timestamp, &Lease)> =
            going.map(|(id, lease)| (ends(id).unwrap_or(Timestamp::MAX), lease)).collect();
        going.sort_by_key(|(end, _)| *end);
        let mut fitting = self.those(|held| held.room.fits(&held.node, request).is_ok());
        let mut starts = None;
        for (end, lease) in going {
            let Some(at) = self.at(&lease.node) else { continue };
            rooms[at].change(&lease.request, &lease.devices, false);
            if rooms[at].fits(&self.nodes[at].node, request).is_err() || !fitting.insert(at) {
                continue;
            }
            if end < Timestamp::MAX && self.suffices(gang, &fitting) {
                // What is given back after that is too late: who is told a time is kept room where that holds.
                starts = Some(end);
                break;
            }
        }
        let is_kept = self.suffices(gang, &fitting);
        Promise { request: request.clone(), gang: gang.cloned(), rooms, fitting, is_kept, starts }
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
        let mut spared = BTreeSet::new();
        while let Some(at) = self.best(request, |at| !spared.contains(&at)) {
            if self.spares(promise, at, request) {
                return Ok(self.take(id, at, request));
            }
            spared.insert(at);
        }
        Err(Refused::Full)
    }

    /// Whether the promise holds when the request goes to this node; if so, it is one of what is left.
    pub(super) fn spares(&mut self, promise: &mut Promise, at: usize, request: &Request) -> bool {
        let devices = self.devices_for(at, request);
        let mut room = promise.rooms[at].clone();
        room.change(request, &devices, true);
        if promise.fitting.contains(&at) && room.fits(&self.nodes[at].node, &promise.request).is_err() {
            promise.fitting.remove(&at);
            if !self.suffices(promise.gang.as_ref(), &promise.fitting) {
                promise.fitting.insert(at);
                return false;
            }
        }
        promise.rooms[at] = room;
        true
    }
}
