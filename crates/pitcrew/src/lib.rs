//! Pitcrew: runs workflows and CI on GPU machines.
//!
//! A library for one program only, so that it compiles while the crates that it uses are still being optimised.

mod cli;
mod demo;
mod drill;

use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    match cli::internal(std::env::args_os()) {
        Some(code) => code,
        None => cli::main(),
    }
}
