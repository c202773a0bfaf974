//! Attempts as pods of a real cluster; without one nothing is tested, and that is said.

mod harness;
mod runs;
mod trouble;
mod world;

pitcrew_conformance::pods!(every_backend = crate::world::Cluster);
