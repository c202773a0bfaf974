//! What asks AWS, against moto's server, and, where that knows too little, against a cluster of our own that speaks
//! the same protocol.

mod clients;
mod events;
mod harness;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../pitcrew/tests/aws/moto.rs"]
mod moto;
mod template;
mod wakes;
