//! Why a host cannot be reached, in one sentence: what is wrong, and what to do.
//!
//! Invariant: no message holds a secret; what a host said is shortened, and cleaned of control characters.

use std::fmt;

/// A connect that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    /// The jump host at which it failed, as `user@host:port`; `None`: the host itself.
    pub via: Option<String>,
    pub fault: Fault,
}

/// What is wrong with a connect. `host` is a name or address as it was given, `at` has the port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("cannot find `{host}`: {why}; check the name of the host")]
    UnknownHost { host: String, why: String },
    #[error("`{at}` refuses connections: is sshd running, is the port right?")]
    ClosedPort { at: String },
    #[error("no answer from `{at}` within {seconds} s: check the address, the private link and the firewall")]
    SilentPort { at: String, seconds: u32 },
    #[error("cannot reach `{at}`: {why}")]
    NoRoute { at: String, why: String },
    #[error(
        "`{at}` took the connection and then said nothing for {seconds} s{doing}: is that sshd, and is it overloaded?"
    )]
    Mute { at: String, seconds: u32, doing: &'static str },
    #[error("`{at}` answers, but not as an SSH server (`{said}`): check the port")]
    NotSsh { at: String, said: String },
    #[error(
        "`{host}` closed the connection before it said hello; it may have too many logins at once (`MaxStartups`), or refuse this address"
    )]
    NoHello { host: String },
    #[error("`{host}` and pitcrew share no {what}: it offers {theirs}")]
    NoCommonAlgorithm { host: String, what: &'static str, theirs: String },
    #[error("the connection to `{host}` broke during {stage}: {why}")]
    Broke { host: String, stage: &'static str, why: String },
    #[error(
        "the signature of `{host}` is not that of the host key it shows: somebody may be in between; ask its administrator"
    )]
    WrongSignature { host: String },
    #[error(
        "the host key of `{host}` changed: expected {expected}, got {got}. Somebody may be in between, or the server was reinstalled: compare with `ssh-keygen -lf /etc/ssh/ssh_host_{file}_key.pub` there, then {remedy}"
    )]
    HostKeyChanged { host: String, expected: String, got: String, file: &'static str, remedy: String },
    #[error("the host key of `{host}` ({got}) is marked as revoked ({place}): its administrator has to replace it")]
    HostKeyRevoked { host: String, got: String, place: String },
    #[error(
        "`{host}` is not in known_hosts (it shows {got}): compare, then `pitcrew ssh hosts trust {name}`, or set `host_keys: accept-new`"
    )]
    HostKeyUnknown { host: String, got: String, name: String },
    #[error("the host key of `{host}` is not the pinned one: expected {expected}, got {got}")]
    HostKeyNotPinned { host: String, expected: String, got: String },
    #[error("the host key of `{host}` cannot be checked: {why}")]
    HostKeyStore { host: String, why: String },
    #[error(
        "`{host}` accepts none of the keys offered for `{user}` ({offered}): add its public half to `~{user}/.ssh/authorized_keys` there"
    )]
    KeyRefused { host: String, user: String, offered: String },
    #[error("`{host}` accepts a key for `{user}` and wants also {wants}: pitcrew signs in with a key only")]
    WantsMore { host: String, user: String, wants: String },
    #[error("`{host}` lets `{user}` sign in by {wants} only: pitcrew signs in with a key")]
    NoKeysTaken { host: String, user: String, wants: String },
    #[error("there is no key to sign in to `{host}` as `{user}`: {looked}")]
    NoKey { host: String, user: String, looked: String },
    #[error("`{host}` opens no session, not even one: see `MaxSessions` and the settings of this user in its sshd")]
    NoSession { host: String },
    #[error("{words}")]
    Key { words: String, lasting: bool },
    #[error("{0}")]
    Config(String),
    #[error(
        "`{jump}` opens no way to `{at}` ({why}): can it reach that host, and does it allow forwarding (`AllowTcpForwarding`)?"
    )]
    Forward { jump: String, at: String, why: String },
}

impl Fault {
    /// Waiting and trying again cannot help.
    pub fn lasting(&self) -> bool {
        match self {
            Fault::ClosedPort { .. }
            | Fault::SilentPort { .. }
            | Fault::NoRoute { .. }
            | Fault::Mute { .. }
            | Fault::NoHello { .. }
            | Fault::Broke { .. }
            // A resolver that is down says the same as one that knows no such name.
            | Fault::UnknownHost { .. }
            | Fault::Forward { .. } => false,
            Fault::Key { lasting, .. } => *lasting,
            Fault::NotSsh { .. }
            | Fault::NoCommonAlgorithm { .. }
            | Fault::WrongSignature { .. }
            | Fault::HostKeyChanged { .. }
            | Fault::HostKeyRevoked { .. }
            | Fault::HostKeyUnknown { .. }
            | Fault::HostKeyNotPinned { .. }
            | Fault::HostKeyStore { .. }
            | Fault::KeyRefused { .. }
            | Fault::WantsMore { .. }
            | Fault::NoKeysTaken { .. }
            | Fault::NoKey { .. }
            | Fault::NoSession { .. }
            | Fault::Config(_) => true,
        }
    }

    /// The kind of fault, for figures: one of a few words.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::UnknownHost { .. } => "unknown_host",
            Fault::ClosedPort { .. } | Fault::SilentPort { .. } | Fault::NoRoute { .. } | Fault::Mute { .. } => {
                "unreachable"
            }
            Fault::NoHello { .. } | Fault::Broke { .. } => "broken",
            Fault::NotSsh { .. } | Fault::NoCommonAlgorithm { .. } => "protocol",
            Fault::WrongSignature { .. }
            | Fault::HostKeyChanged { .. }
            | Fault::HostKeyRevoked { .. }
            | Fault::HostKeyUnknown { .. }
            | Fault::HostKeyNotPinned { .. }
            | Fault::HostKeyStore { .. } => "host_key",
            Fault::KeyRefused { .. } | Fault::WantsMore { .. } | Fault::NoKeysTaken { .. } => "refused",
            Fault::NoKey { .. } | Fault::Key { .. } => "key",
            Fault::NoSession { .. } => "session",
            Fault::Config(_) => "configuration",
            Fault::Forward { .. } => "jump",
        }
    }

    /// The host turned the sign-in down; it may count such refusals, and shut out who makes many of them.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Fault::KeyRefused { .. } | Fault::WantsMore { .. } | Fault::NoKeysTaken { .. })
    }
}

impl DialError {
    pub fn lasting(&self) -> bool {
        self.fault.lasting()
    }
}

impl From<Fault> for DialError {
    fn from(fault: Fault) -> Self {
        DialError { via: None, fault }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = &self.via {
            write!(f, "via `{via}`: ")?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for DialError {}

/// Why a command has no end that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It was not started: there is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection went while it ran; what became of it is not known.
    #[error("the connection to `{host}` was lost: {why}")]
    Lost { host: String, why: String },
    /// It was not started: the host does not run commands for this user.
    #[error("`{host}` runs no commands for `{user}`: see `ForceCommand` and `restrict` in its settings of sshd")]
    Refused { host: String, user: String },
    /// The host makes no socket that leads here.
    #[error("`{host}` forbids that a key is lent to it: {why}; allow it, or use a token")]
    NoForward { host: String, why: String },
    #[error("`{host}` serves no files over SFTP: its sshd_config needs the line `Subsystem sftp internal-sftp`")]
    NoSftp { host: String },
    /// Nobody took what it wrote.
    #[error("a command on `{host}` was ended: it wrote more than {most} bytes that nobody read")]
    Overrun { host: String, most: usize },
}

impl LinkError {
    pub fn lasting(&self) -> bool {
        match self {
            LinkError::Dial(error) => error.lasting(),
            LinkError::Lost { .. } => false,
            LinkError::Refused { .. }
            | LinkError::NoForward { .. }
            | LinkError::NoSftp { .. }
            | LinkError::Overrun { .. } => true,
        }
    }
}

/// What a host said, fit for a message.
pub(super) fn clean(said: &str) -> String {
    const MOST: usize = 200;
    let plain: String = said.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect();
    let plain = plain.trim();
    match plain.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &plain[..at]),
        None => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_hop_and_what_a_host_said_cannot_break_it() {
        let fault = Fault::ClosedPort { at: "gpu:22".into() };
        let error = DialError { via: Some("me@bastion:22".into()), fault };
        assert_eq!(
            error.to_string(),
            "via `me@bastion:22`: `gpu:22` refuses connections: is sshd running, is the port right?"
        );
        assert!(!error.lasting());
        assert_eq!(clean("a\r\n\x1b[31m`b`"), "a   [31m b");
        assert_eq!(clean(&"ü".repeat(500)).chars().count(), 201);
    }
}
