//! Pods on a real Docker engine, by a real runner: the sentences that are true of every backend, and what is only about engines.
//!
//! `PITCREW_TEST_DOCKER` names the engine (`scripts/docker start` starts one); where it does not, nothing is tested, which is said.

mod engine;
mod logins;
mod pods;
mod remote;
mod restarts;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../ssh/sshd.rs"]
mod sshd;
mod world;

pitcrew_conformance::pods!(every_backend = crate::world::Docker);
