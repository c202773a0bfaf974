//! Connections over SSH, against real servers.

mod connect;
mod host_keys;
mod keys;
mod links;
mod pool;
mod proxy;
mod sshd;
mod world;
