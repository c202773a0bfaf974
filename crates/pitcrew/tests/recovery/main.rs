//! Recovery from end to end: real sshds, on which an `nvidia-smi`, a kernel log, a check and a reboot are scripts, and the
//! program that watches them and runs jobs there.

#[path = "../aws/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of AWS")]
mod harness;
#[path = "../../../exec/tests/ssh/sshd.rs"]
#[allow(dead_code, reason = "shared with the tests of SSH")]
mod sshd;

mod ends;
mod gangs;
mod jobs;
mod kills;
mod machine;
mod nodes;
mod people;
mod signs;
mod site;
mod spot;
