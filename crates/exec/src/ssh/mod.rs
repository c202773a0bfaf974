//! Connections over SSH: to sign in to a host as the place says ([`connect`]), to keep the connection and share it
//! ([`Pool`]), and to run a command on it ([`Lease`]).
//!
//! Invariants: nothing is sent to a host whose key was not accepted; a key is in memory only, and in no message; a
//! command whose exit status did not arrive has an unknown end, never a good one.

pub mod agent;
mod auth;
mod config_file;
mod connect;
mod error;
mod exec;
mod forward;
mod hostkey;
mod key;
mod known_hosts;
mod pins;
mod pool;
pub mod remote;
mod target;
mod wire;

pub use auth::{KeyError, KeySource, NoKeys};
pub use config_file::{ConfigFile, HostSettings};
pub use connect::{Connection, Facts, Setup, connect, scan};
pub use error::{DialError, Fault, LinkError};
pub use exec::{Done, End, Frame, Lease, ProcessIn, ProcessOut, RemoteProcess};
pub use forward::Forward;
pub use hostkey::{Known, fingerprint, host_name, told};
pub use key::{KEY_FIELDS, PASSPHRASE_FIELDS, PrivateKeyText};
pub use pins::{HostKeyStore, Pin, PinFile};
pub use pool::{Limits, Pool, Standing};
pub use target::{Draft, address, from_connection};
