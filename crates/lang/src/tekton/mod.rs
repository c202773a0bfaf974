//! Tekton's language: its YAML, as clusters take it, read to checked types; what runs of it; and what became of that, in Tekton's words.
//!
//! [`model`] holds the types of all kinds. What is in them came through a closed schema: nothing that a file says is
//! dropped on the way, and what this program cannot do is refused with its place. [`read`] gives them.
//!
//! After that, documents are JSON in the form of `tekton.dev/v1` (`{apiVersion, kind, metadata, spec}`), and the rest is pure functions of them:
//!
//! - [`compile::Bundle`] is a run's closure: the Pipeline or Task, and whatever that reaches. Its text is the source of a version.
//! - [`compile::compile`] makes the [`Workflow`](pitcrew_core::ir::Workflow) of one run: params, contexts and workspaces of the run
//!   are put in place then, as Tekton's controller does it at a run's start. What Tekton refuses then is the workflow's refusal.
//! - [`run`] answers what depends on the results of tasks, at last as what [`Pod`](pitcrew_core::pod::Pod) a task runs.
//! - [`status::status`] renders the documents of a run and of its TaskRuns with their status.

pub mod compile;
mod fields;
pub mod model;
mod read;
pub mod run;
pub mod status;
pub mod substitute;
mod validate;

#[cfg(test)]
mod tests;

pub use read::{ReadOptions, Source, is_object, is_tekton, read};
