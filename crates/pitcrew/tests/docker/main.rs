//! A real Docker engine: Tekton's tasks on it, and commands in containers that run already.
//!
//! Nothing here waits for a while; what has to have happened is waited for by asking the engine.

#[path = "../cli/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod harness;

mod engine;
mod exec;
mod pods;
