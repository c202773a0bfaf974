//! What room there would be, were some leases given back.

use std::collections::{BTreeMap, BTreeSet};

use super::gang::Gang;
use super::place::{Fleet, LeaseId};
use super::promise::Promises;
use super::request::Request;
use super::room::Room;

/// The nodes as they would be without some of their leases, and which of them the request then fits, beside what is
/// promised to others.
#[derive(Clone)]
pub struct Freed<'a> {
    fleet: &'a Fleet,
    request: &'a Request,
    gang: Option<&'a Gang>,
    promises: &'a Promises,
    /// Of the nodes that differ from what they are now.
    rooms: BTreeMap<usize, Room>,
    fitting: BTreeSet<usize>,
}

impl Fleet {
    /// The nodes as they are now.
    pub fn freed<'a>(&'a self, request: &'a Request, gang: Option<&'a Gang>, promises: &'a Promises) -> Freed<'a> {
        let fits = |at: &usize| {
            let held = &self.nodes[*at];
            promises.beside(*at, &held.node, &held.room, request).is_some()
        };
        let fitting = (0..self.nodes.len()).filter(fits).collect();
        Freed { fleet: self, request, gang, promises, rooms: BTreeMap::new(), fitting }
    }

    /// The node of a lease, if it is there.
    pub fn node_of(&self, id: &LeaseId) -> Option<usize> {
        self.at(&self.leases().get(id)?.node)
    }
}

impl Freed<'_> {
    /// Gives a lease back, or takes it again.
    pub fn change(&mut self, id: &LeaseId, take: bool) {
        let Some((lease, at)) = self.fleet.leases().get(id).zip(self.fleet.node_of(id)) else { return };
        let held = &self.fleet.nodes[at];
        let room = self.rooms.entry(at).or_insert_with(|| held.room.clone());
        room.change(&lease.request, &lease.devices, take);
        match self.promises.beside(at, &held.node, room, self.request) {
            Some(_) => self.fitting.insert(at),
            None => self.fitting.remove(&at),
        };
    }

    /// Whether there is room for the request, or for all members of the gang that asks for it.
    pub fn has_room(&self) -> bool {
        self.fleet.suffices(self.gang, &self.fitting)
    }

    /// Nodes with the room, as many as are needed: if there is a choice, those where something was given back.
    pub fn nodes(&self) -> BTreeSet<usize> {
        let mut ranked: Vec<usize> = self.fitting.iter().copied().collect();
        ranked.sort_by_key(|at| !self.rooms.contains_key(at));
        self.fleet.first_near(self.gang, ranked).unwrap_or_default()
    }
}
