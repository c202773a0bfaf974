//! The fleet: what machines have, who holds what of it, and where the next one goes.
//!
//! Pure: no clock, no IO, no random numbers; the same calls in the same order give the same answers. Invariant: a lease
//! holds exact devices, none is held beyond what it has, and a lease is given back exactly once.
//!
//! Placement filters ([`room`]) and then scores ([`policy`]). What a node is worth to a request changes only when the
//! node does, so it is remembered for each of the two: a placement looks at every node and measures few.

mod amount;
mod evict;
mod fragments;
mod gang;
mod mps;
mod node;
mod place;
mod policy;
mod promise;
pub mod replay;
mod request;
mod room;

pub use amount::{Amount, NoAmount};
pub use fragments::Workload;
pub use gang::{Gang, Topology};
pub use mps::mps_environment;
pub use node::{Effect, Gpu, MigInstance, Node, Sharing, Standing, Taint};
pub use place::{Fleet, Lease, LeaseId, Refused, Twice};
pub use policy::Policy;
pub use promise::Promise;
pub use request::{BadRequest, Expression, Gpus, Operator, Preferred, Request, Term, Toleration};
pub use room::{Device, Miss, Part, Room};

/// The label of every node that says by which backend work gets there: `local` for the machine of the server, `ssh` for
/// another one.
pub const BACKEND_LABEL: &str = "pitcrew/backend";

#[cfg(test)]
mod tests;
