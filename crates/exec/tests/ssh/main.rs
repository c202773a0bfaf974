//! Connections over SSH, against real servers.

mod connect;
mod follow;
mod forward;
mod host_keys;
mod keys;
mod lent;
mod links;
mod pool;
#[path = "../backends/program.rs"]
mod program;
mod proxy;
mod sshd;
mod talk;
mod transfers;
mod world;
