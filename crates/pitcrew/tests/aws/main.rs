//! Everything that talks to AWS, with the real binary and a real other side: moto's server, from the package index.

mod actions;
mod agent;
mod canary;
mod drill;
mod ecs;
mod events;
mod gang;
#[allow(dead_code, reason = "shared with the tests of delivery")]
mod harness;
#[allow(dead_code, reason = "shared with the tests of delivery")]
mod moto;
mod notices;
mod roles;
mod secrets;
mod service;
mod tables;
