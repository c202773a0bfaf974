//! Tekton's documents through the real binary: files in, logs and documents with their status out.

mod cancel;
mod checks;
mod examples;
mod features;
mod harness;
mod hooks;
mod hooks_forge;
mod hooks_native;
mod kubernetes;
mod notebook;
mod python;
mod refusals;
mod resolvers;
mod seed;
mod upstream;
