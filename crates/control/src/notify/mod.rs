//! Notifications: from what becomes of a run to a message that people get.
//!
//! ```text
//! scheduler ── notices, in the commit of the change ──► outbox (store) ──► sender ──► Slack · mail · SNS · webhook
//! ```
//!
//! Invariant: a notice is written together with the change that it tells of, and stays until a channel has taken it
//! or it is given up; so it is sent *at least* once, over crashes and restarts. Between the answer of a channel and
//! the row that says so a crash sends it again, under the same delivery id.

pub mod config;
pub mod facts;
pub mod forge;
pub mod http;
pub mod incident;
pub mod mail;
pub mod message;
pub mod outbox;
pub mod pace;
pub mod secrets;
pub mod send;
pub mod slack;
pub mod sns;
#[cfg(test)]
mod tests;
pub mod text;
pub mod view;
pub mod webhook;
pub mod weekly;
