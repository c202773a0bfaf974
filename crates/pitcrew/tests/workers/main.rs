//! A real server and real workers, each a process of its own, on loopback: killed, cut off, drained and shut out.

mod busy;
mod files;
mod gangs;
mod large;
mod losses;
mod proxy;
mod stories;
mod world;
