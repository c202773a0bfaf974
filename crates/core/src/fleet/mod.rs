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
mod parts;
mod place;
mod policy;
mod promise;
pub mod replay;
mod request;
mod room;
mod stay;

pub use amount::{Amount, NoAmount};
pub use evict::Freed;
pub use fragments::{Tally, Workload};
pub use gang::{Gang, Topology};
pub use mps::mps_environment;
pub use node::{Effect, Gpu, MigInstance, Node, Sharing, Standing, Taint};
pub use parts::{Held, held, of_profile};
pub use place::{Fleet, Lease, LeaseId, Refused, Twice};
pub use policy::Policy;
pub use promise::Promises;
pub use request::{BadRequest, Expression, Gpus, Operator, Preferred, Request, Term, Toleration};
pub use room::{Device, Miss, Part, Room, is_model};
pub use stay::{Ends, ends};

/// The label of every node that says by which backend work gets there: `local` for the machine of the server, `ssh` for
/// another one, `worker` for one that comes for its work.
pub const BACKEND_LABEL: &str = "pitcrew/backend";
/// The labels of a node that is reached over SSH: its stored connection, and where that leads.
pub const CONNECTION_LABEL: &str = "pitcrew/connection";
pub const HOST_LABEL: &str = "pitcrew/host";
pub const PORT_LABEL: &str = "pitcrew/port";
/// The label of every node with its name.
pub const NODE_LABEL: &str = "pitcrew/node";
/// Labels below it are the server's own, and are known of a node that has never answered.
pub const OWN_LABELS: &str = "pitcrew/";
/// With the name of a queue after it, the label of a node that takes the tasks of that queue.
pub const QUEUE_LABEL: &str = "pitcrew/queue.";
/// The queue of tasks that name none: of workers, only those that serve it take them.
pub const DEFAULT_QUEUE: &str = "default";

/// Whether something can be the name of a queue, which is a part of a label.
pub fn check_queue(name: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match name {
        "" => Err("it is empty"),
        _ if name.len() > 63 => Err("it has more than 63 characters"),
        _ if !name.chars().all(is_plain) => Err("it has letters, digits, `-`, `_` and `.` alone"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
