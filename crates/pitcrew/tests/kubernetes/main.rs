//! Recovery of nodes of Kubernetes, end to end: the real program and a real API server with its scheduler and controllers. Nodes
//! that are rebooted are played by a small kubelet ([`kubelet`]); pods that check run for real where the real kubelet is. And
//! `deploy/kubernetes`, which that API server takes ([`install`]).

#[path = "../aws/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of AWS")]
mod harness;
#[path = "../workers/proxy.rs"]
#[allow(dead_code, reason = "shared with the tests of workers")]
mod proxy;

mod cluster;
mod drills;
mod faults;
mod install;
mod kills;
mod kubelet;
mod rights;
mod site;
