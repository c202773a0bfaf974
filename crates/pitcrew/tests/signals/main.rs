//! Signals beyond the kernel logs of hosts: what tasks say by themselves, and machines that are asked here or by their
//! workers. Their GPUs are an `nvidia-smi` that is a script.

#[path = "../aws/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of AWS")]
mod harness;

mod here;
mod machine;
mod tasks;
mod workers;
