//! The real binary, as a user meets it: exit status, stdout and stderr of whole commands.
//!
//! Nothing here waits for a while; what has to have happened is waited for by a pipe that the task itself opens.

mod bad_input;
mod clients;
mod harness;
mod help;
mod images;
mod nodes;
mod nvml;
mod quotas;
mod remote;
mod reports;
mod runs;
mod serving;
mod settings;
mod simulate;
mod traces;
mod users;
