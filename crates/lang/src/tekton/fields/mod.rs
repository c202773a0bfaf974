//! What may be written: a table of names and shapes for every part of every kind. Data, no logic.

pub mod core;
mod core_pod;
mod core_volume;
pub mod kinds;
pub mod pipeline;
pub mod run;
pub mod task;
mod trigger;
