//! All backends against one suite, and what only real processes can show.

mod fake;
mod harness;
mod local;
mod local_ends;
mod local_output;
mod suite;
