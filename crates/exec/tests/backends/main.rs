//! All backends against one suite, and what only real processes can show.

mod fake;
mod harness;
mod local;
mod local_ends;
mod local_output;
mod program;
mod remote;
mod remote_faults;
mod shell_host;
#[allow(dead_code, reason = "shared with the tests of connections")]
#[path = "../ssh/world.rs"]
mod ssh_world;
#[allow(dead_code, reason = "shared with the tests of connections")]
#[path = "../ssh/sshd.rs"]
mod sshd;
mod suite;
