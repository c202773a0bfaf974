//! The `ecs` backend, against a cluster of our own that speaks the protocol of ECS and CloudWatch Logs, and whose
//! containers are processes of this machine.

mod cluster;
mod faults;
mod gang;
mod harness;
mod nodes;
#[path = "../../../exec/tests/backends/suite.rs"]
mod suite;
