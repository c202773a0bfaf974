//! The sandbox: containers without images, made of namespaces of the kernel over the files of this machine.
//!
//! ```text
//! runner ──► box (`internal box`) ──► init ──► the program of the container
//!             reads its plan            makes the root, then collects whatever ends
//! ```
//!
//! A container sees the machine's own root directory with a fresh, empty layer above it, so whatever it writes outside its volumes is
//! gone with it. Homes, the data directory and other places are empty there. An image is a name for a few differences to the machine:
//! which shell is `/bin/sh`, what the entry point is (`image`).
//!
//! Invariant: nothing of a container is in the mounts, the processes or the files of the machine outside of its own directory:
//! it has namespaces of its own, which go with its last process, and the kernel ends them all with its init.
//!
//! It protects the machine from accidents and leftovers of whoever may use it. It is no wall against an enemy: the kernel and the
//! network are shared.

mod copy;
mod enter;
mod image;
mod layers;
pub mod open;
mod person;
mod plan;
mod root;
mod sys;
mod user;

pub use enter::main;
pub use image::{Image, ImageRule, Shell, find as find_image};
pub use person::{Person, capabilities};
pub use plan::{Bind, BoxPlan, Fault, From, Join, Order, Work};

use serde::{Deserialize, Serialize};

/// What people say about sandboxes of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which images there are, before those that Pitcrew knows; the first that matches counts.
    pub images: Vec<ImageRule>,
    /// Directories that are empty in every container, besides those that always are.
    pub hide: Vec<String>,
}
