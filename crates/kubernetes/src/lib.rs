//! Kubernetes: the nodes of clusters, and how they are watched, emptied, checked and rebooted.
//!
//! [`client`] asks an API server. It knows who we are there and what came of a call, and decides nothing. [`fleet`] is what
//! is built on it: nodes as they are, cordoned or not. [`drain`], [`check`] and [`reboot`] do the rest, each by what the API
//! server remembers, so that whoever comes after a server that died goes on with the same objects. [`backend`] runs attempts
//! there: one pod each.
//!
//! Invariant: that an API server does not answer says nothing of any node, and a node that does not answer its cluster is
//! only told as that. What must not happen twice is bound to the boot that it is to end.

pub mod backend;
pub mod check;
pub mod client;
mod clock;
pub mod drain;
pub mod fleet;
pub mod node;
pub mod pod;
mod quantity;
pub mod reboot;

pub use client::{Client, Fault, Kind};
