//! Everything that talks to AWS, with the real binary and a real other side: moto's server, from the package index.

mod actions;
mod canary;
mod events;
mod harness;
mod moto;
mod roles;
mod secrets;
mod service;
