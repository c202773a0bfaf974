//! From what people write to a [`SshPlace`]: fields of a workflow, a stored connection in Airflow's shape, and
//! `~/.ssh/config`, in this order; then the defaults. There is no other way to a place.
//!
//! The name of the host stays as it was given: what `~/.ssh/config` says about its address and its keys is read at each
//! connect. So is what a connection says of its keys.

use russh::keys::PublicKey;
use serde_json::{Map, Value};

use super::config_file::{ConfigFile, HostSettings};
use super::error::{Fault, clean};
use super::hostkey;
use crate::place::{Hop, HostKeys, SSH_PORT, SSH_TIMEOUT, SshPlace};

/// Jumps of jumps.
const MOST_HOPS: usize = 8;

/// How hosts are reached unless something else is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    pub user: String,
    pub port: u16,
    /// For one connect, sign-in included.
    pub timeout_s: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults { user: "ubuntu".to_owned(), port: SSH_PORT, timeout_s: SSH_TIMEOUT }
    }
}

/// A place of which some fields were given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft {
    /// Empty: not given.
    pub host: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// See the fields of [`SshPlace`].
    pub connection: Option<String>,
    pub key: Option<String>,
    pub passphrase: Option<String>,
    /// The first one to connect to first; none of them: directly, whatever `~/.ssh/config` says.
    pub jump: Option<Vec<DraftHop>>,
    pub workdir: Option<String>,
    pub host_keys: Option<HostKeys>,
    pub timeout_s: Option<u32>,
    pub keep_alive_s: Option<u32>,
}

/// A host on the way of which some fields were given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DraftHop {
    pub host: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub key: Option<String>,
}

impl Draft {
    pub fn new(host: impl Into<String>) -> Draft {
        Draft { host: host.into(), ..Draft::default() }
    }

    /// What is given in `over` wins.
    pub fn overlaid(self, over: Draft) -> Draft {
        Draft {
            host: if over.host.is_empty() { self.host } else { over.host },
            user: over.user.or(self.user),
            port: over.port.or(self.port),
            connection: over.connection.or(self.connection),
            key: over.key.or(self.key),
            passphrase: over.passphrase.or(self.passphrase),
            jump: over.jump.or(self.jump),
            workdir: over.workdir.or(self.workdir),
            host_keys: over.host_keys.or(self.host_keys),
            timeout_s: over.timeout_s.or(self.timeout_s),
            keep_alive_s: over.keep_alive_s.or(self.keep_alive_s),
        }
    }

    /// Fills in what was not given.
    pub fn place(self, file: &ConfigFile, defaults: &Defaults) -> Result<SshPlace, Fault> {
        if let (true, Some(id)) = (self.host.is_empty(), &self.connection) {
            return Err(Fault::Config(format!("the connection `{id}` has no host, and no other one is given")));
        }
        check_name("host", &self.host)?;
        let said = file.settings(&self.host, self.user.as_deref(), self.port)?;
        let user = self.user.or(said.user).unwrap_or_else(|| defaults.user.clone());
        check_name("user", &user)?;
        let jump = match (self.jump, said.proxy_jump) {
            (Some(jump), _) => hops(jump, &user, file, defaults, 0)?,
            (None, Some(jump)) => hops(jumps(&jump)?, &user, file, defaults, 0)?,
            (None, None) => Vec::new(),
        };
        let from_file = said.strict.filter(|strict| *strict).map(|_| HostKeys::Strict);
        let timeout_s = self.timeout_s.or(said.connect_timeout_s.filter(|s| *s > 0)).unwrap_or(defaults.timeout_s);
        if !(1..=3600).contains(&timeout_s) {
            return Err(Fault::Config(format!("a timeout of {timeout_s} s is none: write 1 to 3600")));
        }
        Ok(SshPlace {
            host: self.host,
            port: self.port.or(said.port).unwrap_or(defaults.port),
            user,
            connection: self.connection,
            key: self.key,
            passphrase: self.passphrase,
            jump,
            workdir: self.workdir,
            host_keys: self.host_keys.or(from_file).unwrap_or_default(),
            timeout_s,
            keep_alive_s: self.keep_alive_s,
        })
    }
}

/// `[user@]host[:port],…`, or `none`.
fn jumps(text: &str) -> Result<Vec<DraftHop>, Fault> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let hop = |part: &str| address(part.trim()).map(|(user, host, port)| DraftHop { host, user, port, key: None });
    text.split(',').map(hop).collect()
}

/// What a hop leaves out, the file says, else the user is that of the place.
fn hops(
    given: Vec<DraftHop>,
    user: &str,
    file: &ConfigFile,
    defaults: &Defaults,
    depth: usize,
) -> Result<Vec<Hop>, Fault> {
    let mut hops_before = Vec::new();
    let mut listed = Vec::new();
    for (at, hop) in given.into_iter().enumerate() {
        check_name("host", &hop.host)?;
        let said: HostSettings = file.settings(&hop.host, hop.user.as_deref(), hop.port)?;
        // The way to the first hop may have hops itself.
        if let Some(jump) = said.proxy_jump.filter(|_| at == 0) {
            if depth == MOST_HOPS {
                return Err(Fault::Config(format!("`ProxyJump` of `{}` leads in a circle", hop.host)));
            }
            hops_before = hops(jumps(&jump)?, user, file, defaults, depth + 1)?;
        }
        let user = hop.user.or(said.user).unwrap_or_else(|| user.to_owned());
        check_name("user", &user)?;
        listed.push(Hop { port: hop.port.or(said.port).unwrap_or(defaults.port), host: hop.host, user, key: hop.key });
    }
    hops_before.extend(listed);
    if hops_before.len() > MOST_HOPS {
        return Err(Fault::Config(format!("at most {MOST_HOPS} jump hosts; these are {}", hops_before.len())));
    }
    Ok(hops_before)
}

/// `[user@]host[:port]`, with an IPv6 address in brackets if a port follows.
pub fn address(text: &str) -> Result<(Option<String>, String, Option<u16>), Fault> {
    let text = text.strip_prefix("ssh://").unwrap_or(text);
    let wrong = || Fault::Config(format!("`{}` is no host: write `user@host:port`", clean(text)));
    let (user, rest) = match text.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, text),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
            (host, after.strip_prefix(':'))
        }
        None => match rest.split_once(':') {
            // More than one colon: an address, which has no port.
            Some((_, port)) if port.contains(':') => (rest, None),
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)).transpose()?;
    check_name("host", host)?;
    if let Some(user) = &user {
        check_name("user", user)?;
    }
    Ok((user, host.to_owned(), port))
}

fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    // Users of a directory service may be `DOMAIN\user` or `user@domain`.
    let forbidden = if what == "user" { "`'\"/," } else { "`'\"\\/,@" };
    let odd = |c: char| c.is_whitespace() || c.is_control() || forbidden.contains(c);
    if name.is_empty() {
        return Err(Fault::Config(format!("the {what} is missing")));
    }
    if name.len() > 255 || name.starts_with('-') || name.contains(odd) {
        return Err(Fault::Config(format!("`{}` cannot be the name of a {what}", clean(name))));
    }
    Ok(())
}

/// A stored connection of the type `ssh`, in Airflow's words. `extra` is the text of its extras.
///
/// Its keys stay where they are: [`super::KeySource`] looks them up by the connection's name.
pub fn from_connection(
    id: &str,
    host: &str,
    login: &str,
    port: Option<u16>,
    extra: Option<&str>,
) -> Result<Draft, Fault> {
    let wrong = |words: String| Fault::Config(format!("the connection `{id}`: {words}"));
    let extra: Map<String, Value> = match extra.map(str::trim).filter(|extra| !extra.is_empty()) {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|_| wrong("its extras are no JSON object".into()))?,
    };
    let text = |key: &str| extra.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let is_true = |key: &str| match extra.get(key) {
        Some(Value::Bool(is)) => Some(*is),
        Some(Value::String(text)) => Some(text.eq_ignore_ascii_case("true")),
        _ => None,
    };
    let number = |key: &str| match extra.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) => Ok(n.as_f64()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => text.trim().parse().map(Some).map_err(|_| ()),
        Some(_) => Err(()),
    };
    let seconds = |key: &str| match number(key) {
        Ok(None) => Ok(None),
        Ok(Some(s)) if (1.0..=3600.0).contains(&s) => Ok(Some(s.ceil() as u32)),
        _ => Err(wrong(format!("`{key}` must be a number of seconds from 1 to 3600"))),
    };
    if is_true("allow_host_key_change") == Some(true) {
        return Err(wrong("`allow_host_key_change` is not supported: a changed host key is always refused".into()));
    }
    let host_keys = match text("host_key") {
        Some(key) => Some(HostKeys::Pinned(host_key(key).map_err(wrong)?)),
        // Airflow takes any key then; here a new one is recorded and a changed one is refused.
        None => is_true("no_host_key_check").map(|is| if is { HostKeys::AcceptNew } else { HostKeys::Strict }),
    };
    let host = match (host.trim(), text("remote_host")) {
        ("", Some(host)) => host,
        (host, _) => host,
    };
    let keep_alive_s = match number("keepalive_interval") {
        Ok(Some(0.0)) => Some(0),
        _ => seconds("keepalive_interval")?,
    };
    let timeout_s = match seconds("conn_timeout")? {
        Some(s) => Some(s),
        None => seconds("timeout")?,
    };
    Ok(Draft {
        host: host.to_owned(),
        user: Some(login.trim().to_owned()).filter(|login| !login.is_empty()),
        port: port.filter(|port| *port > 0),
        connection: Some(id.to_owned()),
        key: None,
        passphrase: None,
        jump: text("jump").or(text("proxy_jump")).map(jumps).transpose().map_err(|fault| wrong(fault.to_string()))?,
        workdir: text("workdir").map(str::to_owned),
        host_keys,
        timeout_s,
        keep_alive_s,
    })
}

/// A fingerprint `SHA256:…`, a key `TYPE BASE64`, or, as Airflow has it for RSA, only the base64.
fn host_key(text: &str) -> Result<String, String> {
    if text.starts_with("SHA256:") {
        return Ok(text.to_owned());
    }
    let line = if text.contains(' ') { text.to_owned() } else { format!("{} {text}", kind_of(text)) };
    let key: PublicKey = line.parse().map_err(|_| {
        format!("`host_key` is no host key (`{}`): write `ssh-ed25519 AAAA…`, or `SHA256:…`", clean(text))
    })?;
    Ok(hostkey::fingerprint(&key))
}

/// The type that the base64 of a key begins with.
fn kind_of(base64: &str) -> &'static str {
    let kinds = [
        ("AAAAC3NzaC1lZDI1NTE5", "ssh-ed25519"),
        ("AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY", "ecdsa-sha2-nistp256"),
        ("AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ", "ecdsa-sha2-nistp384"),
        ("AAAAE2VjZHNhLXNoYTItbmlzdHA1MjE", "ecdsa-sha2-nistp521"),
    ];
    kinds.iter().find(|(begin, _)| base64.starts_with(begin)).map_or("ssh-rsa", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zC";

    fn read(extra: &str) -> Result<SshPlace, String> {
        let draft = from_connection("gpu", "10.0.0.1", "", None, Some(extra)).map_err(|fault| fault.to_string())?;
        draft.place(&ConfigFile::default(), &Defaults::default()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_connection_of_airflow_becomes_a_place() {
        let place = read("").unwrap();
        assert_eq!((place.to_string().as_str(), place.timeout_s), ("ubuntu@10.0.0.1:22", 30));
        assert_eq!((place.connection.as_deref(), place.host_keys), (Some("gpu"), HostKeys::AcceptNew));
        assert_eq!(read(r#"{"no_host_key_check": "true"}"#).unwrap().host_keys, HostKeys::AcceptNew);
        assert_eq!(read(r#"{"no_host_key_check": false}"#).unwrap().host_keys, HostKeys::Strict);
        let keys = [KEY.to_owned(), format!("ssh-ed25519 {KEY}")];
        for key in keys {
            let HostKeys::Pinned(pinned) = read(&format!(r#"{{"host_key": "{key}"}}"#)).unwrap().host_keys else {
                panic!("not pinned");
            };
            assert!(pinned.starts_with("SHA256:") && pinned.len() == 50, "{pinned}");
        }
        let place = read(
            r#"{"conn_timeout": "7", "keepalive_interval": 5, "jump": "me@bastion:2222,[::1]:23,b", "key": "env:K"}"#,
        )
        .unwrap();
        // Its key is looked up at each connect, by its name.
        assert_eq!((place.timeout_s, place.keep_alive_s, place.key), (7, Some(5), None));
        let hops: Vec<String> = place.jump.iter().map(Hop::to_string).collect();
        assert_eq!(hops, ["me@bastion:2222", "ubuntu@[::1]:23", "ubuntu@b:22"]);
    }

    #[test]
    fn what_is_no_connection_is_refused_in_words() {
        for (extra, part) in [
            ("[1]", "its extras are no JSON object"),
            (r#"{"host_key": "x"}"#, "is no host key"),
            (r#"{"conn_timeout": "soon"}"#, "`conn_timeout` must be a number"),
            (r#"{"keepalive_interval": -1}"#, "`keepalive_interval` must be a number"),
            (r#"{"allow_host_key_change": true}"#, "is always refused"),
            (r#"{"jump": "a b"}"#, "cannot be the name of a host"),
            (r#"{"jump": "h:0"}"#, "is no host"),
            (r#"{"jump": "-oProxyCommand=x"}"#, "cannot be the name of a host"),
            (r#"{"jump": "a,b,c,d,e,f,g,h,i"}"#, "at most 8 jump hosts"),
        ] {
            let said = read(extra).unwrap_err();
            assert!(said.contains(part), "{extra}: {said}");
        }
        let odd =
            |host: &str| Draft::new(host).place(&ConfigFile::default(), &Defaults::default()).unwrap_err().to_string();
        assert_eq!(odd(""), "the host is missing");
        assert!(odd("<script>`x").contains("cannot be the name of a host"));
    }
}
