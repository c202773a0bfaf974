//! Pods in the sandbox of this machine, by a real runner and with real namespaces: the sentences that are true of every backend, and
//! what is only about the sandbox.
//!
//! They need root, or what lets a process make namespaces and mounts (those of `without_root` a namespace of users); where that is missing they say so and test nothing, unless
//! `PITCREW_TEST_MOUNT` says that this machine can.

mod containers;
mod machine;
mod sidecars;
mod without_root;
mod world;

pitcrew_conformance::pods!(every_backend = crate::world::Sandbox);
