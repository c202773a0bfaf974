//! Pitcrew: runs workflows and CI on GPU machines.
//!
//! A library for one program only, so that it compiles while the crates that it uses are still being optimised.

mod actions;
mod app;
mod backends;
mod backfill;
mod catalog;
mod cli;
mod clock;
mod cluster;
mod config;
mod connection;
mod demo;
mod digest;
mod events;
mod fleet;
mod folder;
mod given;
mod known;
mod lookup;
mod metrics;
mod notify;
mod paths;
mod quotas;
mod reports;
mod scheduler;
mod secrets;
mod sensitive;
mod server;
mod ssh;
mod traces;
mod vault;

use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    match cli::internal(std::env::args_os()) {
        Some(code) => code,
        None => cli::main(),
    }
}
