//! Connections over SSH: to sign in to a host as the place says ([`connect`]), to keep the connection and share it
//! ([`Pool`]), and to run a command on it ([`Lease`]).
//!
//! Invariants: nothing is sent to a host whose key was not accepted; a key is in memory only, and in no message; a
//! command whose exit status did not arrive has an unknown end, never a good one.

pub mod agent;
mod auth;
mod client;
mod config_file;
mod connect;
mod dial;
mod error;
mod exec;
mod follow;
mod forward;
mod host;
mod hostkey;
mod key;
mod known_hosts;
mod pins;
mod pool;
pub mod remote;
mod slot;
mod socket;
mod stage;
mod talk;
mod target;
mod transfer;
mod wire;

pub use auth::{KeyError, KeySource, NoKeys};
pub use config_file::{ConfigFile, HostSettings};
pub use connect::{Connection, Facts, Setup, WINDOW, connect, home, scan};
pub use error::{DialError, Fault, LinkError};
pub use exec::{Done, End, Frame, Lease, ProcessIn, ProcessOut, RemoteProcess};
pub use follow::{ASKED, BY_ITSELF, Follow, Followed};
pub use forward::Forward;
pub use host::Standing;
pub use hostkey::{Known, fingerprint, host_name, told};
pub use key::{KEY_FIELDS, PASSPHRASE_FIELDS, PrivateKeyText};
pub use pins::{HostKeyStore, Pin, PinFile};
pub use pool::{Figures, Limits, Observer, Pool};
pub use socket::Socket;
pub use talk::{Said, Talk};
pub use target::{Defaults, Draft, DraftHop, address, from_connection};
