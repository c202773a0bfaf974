//! Tekton on this program: objects that were applied, and what runs need of them.
//!
//! Documents are plain JSON here, in the form in which the language gives them. Invariant: what a Secret holds is sealed in
//! the store, and open only in the spec of an attempt that asked for it.

mod credentials;
pub mod keep;
pub mod launch;
pub mod objects;
pub mod registries;
pub mod start;
pub mod status;
