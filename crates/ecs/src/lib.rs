//! Amazon ECS: what runs there, on which machines, and how those are watched, checked and repaired.
//!
//! [`client`] asks AWS. It knows the services and their words, and decides nothing. What is built on it takes the
//! answers as they are: a task that ECS does not mention is not a task that failed. [`backend`] runs attempts there;
//! [`fleet`] and [`check`] look after the machines; [`events`] hears of changes.
//!
//! Invariant: nothing here is believed because of an event, a tag or a name alone. Events wake, tags help people, and
//! what is compared are whole ids: families, clusters and tasks by their parts, never by how their ARN begins.

pub mod arn;
pub mod backend;
pub mod check;
pub mod client;
mod clock;
pub mod doctor;
pub mod events;
pub mod fleet;
mod moment;
pub mod tables;
pub mod template;

pub use backend::{EcsBackend, EcsConfig, Timing};
pub use client::{Client, Fault, Kind};
