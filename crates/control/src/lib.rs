//! All that runs inside a server and has no surface: the scheduler, the actions, the fleet, notifications, settings.
//!
//! Pages and addresses are the crate `server`, the command line is the crate `pitcrew`; both ask the [`app::App`] of this one.

pub mod actions;
pub mod app;
pub mod backends;
pub mod backfill;
pub mod base_url;
pub mod catalog;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod digest;
pub mod ecs;
pub mod events;
pub mod fleet;
pub mod folder;
pub mod given;
pub mod hooks;
pub mod known;
pub mod kubernetes;
pub mod links;
pub mod lookup;
pub mod metrics;
pub mod notify;
pub mod paths;
pub mod provider;
pub mod quotas;
pub mod records;
pub mod recovery;
pub mod reports;
pub mod sandbox;
pub mod scheduler;
pub mod secrets;
pub mod sensitive;
pub mod signatures;
pub mod ssh;
pub mod tekton;
pub mod traces;
pub mod vault;
pub mod words;
