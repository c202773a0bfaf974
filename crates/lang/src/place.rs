//! What stands under `backend: {ssh: …}`: which host, as whom, with which key.
//!
//! The same reader checks what the source says and what templates came to, so both are told of in the same words. It
//! knows no connections and no defaults: what is not said stays open.

use jiff::SignedDuration;
use pitcrew_core::fleet::{CONNECTION_LABEL, HOST_LABEL, PORT_LABEL};
use serde_json::{Map, Value};

use crate::quantity;
use crate::schema_check::show;

/// No host may keep a connect waiting for longer.
const LONGEST_TIMEOUT: SignedDuration = SignedDuration::from_secs(3_600);

/// A host to run on, as far as it is said. [`SshTarget::connection`] or [`SshTarget::host`] is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SshTarget {
    /// The name of a connection; what else is said wins over it.
    pub connection: Option<String>,
    /// Without brackets.
    pub host: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// A reference to a secret.
    pub key: Option<String>,
    /// A reference to a secret.
    pub passphrase: Option<String>,
    /// The first one to connect to first; an empty list: directly.
    pub jump: Option<Vec<JumpTarget>>,
    /// Absolute, without `..`; or `~` and below it.
    pub workdir: Option<String>,
    /// `accept-new`, `strict` or a fingerprint (`SHA256:…`).
    pub host_keys: Option<String>,
    pub timeout: Option<SignedDuration>,
}

/// A host on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JumpTarget {
    pub host: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// A reference to a secret.
    pub key: Option<String>,
}

/// A value that cannot be: under which key, and a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Wrong {
    pub key: String,
    pub message: String,
}

/// Reads a mapping without templates.
pub fn read(fields: &Map<String, Value>) -> Result<SshTarget, Wrong> {
    let mut target = SshTarget::default();
    for (key, value) in fields {
        target.set(key, value).map_err(|message| Wrong { key: key.clone(), message })?;
    }
    if target.connection.is_none() && target.host.is_none() {
        let message = "neither `connection` nor `host` says where".to_owned();
        return Err(Wrong { key: "host".to_owned(), message });
    }
    Ok(target)
}

impl SshTarget {
    /// Reads one value; null says nothing.
    pub(crate) fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match key {
            "connection" => self.connection = Some(word(key, value)?),
            "host" => self.host = Some(host(key, value)?),
            "user" => self.user = Some(word(key, value)?),
            "port" => self.port = Some(port(value)?),
            "key" => self.key = Some(reference(key, value)?),
            "passphrase" => self.passphrase = Some(reference(key, value)?),
            "jump" => {
                let hops = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                self.jump = Some(hops.iter().map(jump).collect::<Result<_, _>>()?);
            }
            "workdir" => {
                self.workdir = Some(workdir(&text(key, value)?).map_err(|why| format!("`workdir`: {why}"))?);
            }
            "host_keys" => self.host_keys = Some(host_keys(value)?),
            "timeout" => self.timeout = Some(timeout(value)?),
            _ => return Err(format!("`{key}` is not known")),
        }
        Ok(())
    }
}

/// Whether what stands under `ssh` says which host, be it by a template.
pub(crate) fn names_host(place: &Value) -> bool {
    ["connection", "host"].into_iter().any(|key| place.get(key).is_some_and(|value| !value.is_null()))
}

/// The labels of the nodes that are meant by what stands under `ssh`: those of its connection, or of its host.
pub(crate) fn node_labels(
    place: &Value,
    render: impl Fn(&str, &Value) -> Result<Value, String>,
) -> Result<Vec<(&'static str, String)>, String> {
    let mut fields = Map::new();
    for key in ["connection", "host", "port"] {
        if let Some(value) = place.get(key) {
            fields.insert(key.to_owned(), render(key, value)?);
        }
    }
    let target = match names_host(place) {
        true => read(&fields).map_err(|wrong| format!("`backend.ssh.{}`: {wrong}", wrong.key))?,
        false => {
            let mut target = SshTarget::default();
            let port = fields.get("port").unwrap_or(&Value::Null);
            target.set("port", port).map_err(|wrong| format!("`backend.ssh.port`: {wrong}"))?;
            target
        }
    };
    let labels = [
        (CONNECTION_LABEL, target.connection),
        (HOST_LABEL, target.host),
        (PORT_LABEL, target.port.map(|port| port.to_string())),
    ];
    Ok(labels.into_iter().filter_map(|(label, value)| Some((label, value?))).collect())
}

/// A directory on a host where steps start: as [`remote_path`], or in the home directory of the user.
pub fn workdir(path: &str) -> Result<String, String> {
    match path.strip_prefix('~') {
        Some("" | "/") => Ok("~".to_owned()),
        Some(below) if below.starts_with('/') => remote_path(below).map(|below| format!("~{below}")),
        _ => remote_path(path),
    }
}

/// A directory or file on a host: absolute, more than `/`, without `..` and without control characters.
pub fn remote_path(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if path.chars().any(char::is_control) {
        return Err(format!("the path {path:?} holds control characters"));
    }
    if !path.starts_with('/') {
        let hint = if path.starts_with('~') { "write the home directory in full" } else { "it must begin with `/`" };
        return Err(format!("`{path}` is not an absolute path; {hint}, for example `/home/ubuntu/app`"));
    }
    let mut plain: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    let plain = format!("/{}", plain.join("/"));
    if path.split('/').any(|part| part == "..") {
        return Err(format!("`{path}` goes up by `..`; write where that leads: `{plain}`"));
    }
    if plain == "/" {
        return Err("`/` is the root of the whole machine; name a directory below it".to_owned());
    }
    Ok(plain)
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("`{key}` must be a text, found {}", show(other))),
    }
}

/// A name of something: not empty, no blanks, nothing that a program could take for an option.
fn word(key: &str, value: &Value) -> Result<String, String> {
    let text = text(key, value)?;
    match text.as_str() {
        "" => Err(format!("`{key}` is empty")),
        word if word.starts_with('-') => Err(format!("`{key}` cannot begin with `-`: `{word}`")),
        word if word.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err(format!("`{key}` cannot hold blanks: {word:?}"))
        }
        _ => Ok(text),
    }
}

fn host(key: &str, value: &Value) -> Result<String, String> {
    let text = word(key, value)?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(bare.to_owned());
    }
    if let Some((user, _)) = text.split_once('@') {
        return Err(format!("`{key}` is a name or an address alone, found `{text}`; write `user: {user}`"));
    }
    if let Some((_, port)) = text.rsplit_once(':') {
        return Err(format!("`{key}` is a name or an address alone, found `{text}`; write `port: {port}`"));
    }
    // `%` is for the zone of an address.
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '%');
    if text.len() > 253 || !text.chars().all(fits) {
        return Err(format!("`{key}` must be the name or the address of a host, found `{text}`"));
    }
    Ok(text)
}

fn port(value: &Value) -> Result<u16, String> {
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    port.ok_or_else(|| format!("`port` must be a whole number from 1 to 65535, found {}", show(value)))
}

fn reference(key: &str, value: &Value) -> Result<String, String> {
    let text = text(key, value)?;
    // What it is instead may be the secret, so it is not shown.
    if text.contains("PRIVATE KEY") || text.chars().any(char::is_control) {
        return Err(format!(
            "`{key}` holds a secret itself; keep that outside of workflows and name it: `aws-sm:NAME`, `env:NAME`, `file:PATH`"
        ));
    }
    word(key, value)
}

fn host_keys(value: &Value) -> Result<String, String> {
    let text = text("host_keys", value)?;
    let pin = text.strip_prefix("SHA256:").map(|digest| digest.trim_end_matches('='));
    let is_pin = pin.is_some_and(|d| d.len() == 43 && d.chars().all(|c| c.is_ascii_alphanumeric() || "+/".contains(c)));
    match (text.as_str(), pin) {
        ("accept-new" | "strict", _) => Ok(text),
        (_, Some(digest)) if is_pin => Ok(format!("SHA256:{digest}")),
        _ => Err(format!(
            "`host_keys` must be `accept-new`, `strict` or a fingerprint as `ssh-keygen -lf` shows it (`SHA256:` and 43 letters), found `{text}`"
        )),
    }
}

fn timeout(value: &Value) -> Result<SignedDuration, String> {
    let timeout = quantity::parse_duration(&text("timeout", value)?).map_err(|why| format!("`timeout`: {why}"))?;
    if timeout < SignedDuration::from_secs(1) || timeout > LONGEST_TIMEOUT {
        return Err(format!("`timeout` must be from 1 second to 1 hour, found {}", show(value)));
    }
    Ok(timeout)
}

/// `user@host:port`, of which only the host must be there, or a mapping of the same.
fn jump(value: &Value) -> Result<JumpTarget, String> {
    let mut hop = JumpTarget::default();
    match value {
        Value::String(text) => {
            let (user, rest) = text.split_once('@').map_or((None, text.as_str()), |(user, rest)| (Some(user), rest));
            // In `::1` there is no port; in `[::1]:22` and `host:22` there is.
            let (name, number) = match rest.rsplit_once(':') {
                Some((name, number)) if !name.contains(':') || name.ends_with(']') => (name, Some(number)),
                _ => (rest, None),
            };
            hop.host = host("jump", &Value::from(name))?;
            hop.user = user.map(|user| word("user", &Value::from(user))).transpose()?;
            hop.port = number.map(|number| port(&Value::from(number))).transpose()?;
        }
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                match key.as_str() {
                    "host" => hop.host = host(key, value)?,
                    "user" => hop.user = Some(word(key, value)?),
                    "port" => hop.port = Some(port(value)?),
                    "key" => hop.key = Some(reference(key, value)?),
                    other => {
                        return Err(format!(
                            "`jump`: `{other}` is not known; a hop has `host`, `user`, `port` and `key`"
                        ));
                    }
                }
            }
            if hop.host.is_empty() {
                return Err("`jump`: a hop without `host`".to_owned());
            }
        }
        other => return Err(format!("`jump` must be hosts such as `user@bastion:22`, found {}", show(other))),
    }
    Ok(hop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Result<SshTarget, String> {
        read(value.as_object().unwrap()).map_err(|wrong| wrong.message)
    }

    #[test]
    fn every_key_is_read_and_null_says_nothing() {
        let pin = format!("SHA256:{}", "a".repeat(43));
        let read = of(json!({
            "host": "[::1]", "user": "ubuntu", "port": "2222", "key": "aws-sm:deploy", "passphrase": null,
            "jump": ["me@bastion", "[::1]:23", {"host": "b2", "port": 24, "key": "env:K"}],
            "workdir": "/srv//a b/./x", "host_keys": format!("{pin}="), "timeout": "1m",
        }))
        .unwrap();
        assert_eq!((read.host.as_deref(), read.port, read.passphrase), (Some("::1"), Some(2222), None));
        assert_eq!((read.workdir.as_deref(), read.host_keys), (Some("/srv/a b/x"), Some(pin)));
        assert_eq!(read.timeout, Some(SignedDuration::from_secs(60)));
        let hop = |host: &str, user: Option<&str>, port, key: Option<&str>| JumpTarget {
            host: host.into(),
            user: user.map(Into::into),
            port,
            key: key.map(Into::into),
        };
        let hops = [
            hop("bastion", Some("me"), None, None),
            hop("::1", None, Some(23), None),
            hop("b2", None, Some(24), Some("env:K")),
        ];
        assert_eq!(read.jump.as_deref(), Some(&hops[..]));
    }

    #[test]
    fn what_cannot_be_is_said_and_secrets_are_not_repeated() {
        let wrong = |value| of(value).unwrap_err();
        assert_eq!(wrong(json!({"user": "u"})), "neither `connection` nor `host` says where");
        assert_eq!(
            wrong(json!({"host": "h:22"})),
            "`host` is a name or an address alone, found `h:22`; write `port: 22`"
        );
        assert_eq!(wrong(json!({"host": "-oProxyCommand=x"})), "`host` cannot begin with `-`: `-oProxyCommand=x`");
        assert_eq!(wrong(json!({"host": "a/b"})), "`host` must be the name or the address of a host, found `a/b`");
        assert_eq!(wrong(json!({"host": ""})), "`host` is empty");
        assert_eq!(wrong(json!({"host": "h", "user": "a b"})), "`user` cannot hold blanks: \"a b\"");
        assert_eq!(wrong(json!({"host": "h", "port": 0})), "`port` must be a whole number from 1 to 65535, found `0`");
        assert_eq!(
            wrong(json!({"host": "h", "timeout": "2h"})),
            "`timeout` must be from 1 second to 1 hour, found the text `2h`"
        );
        assert!(
            wrong(json!({"host": "h", "host_keys": "no"})).starts_with("`host_keys` must be `accept-new`, `strict`")
        );
        assert!(wrong(json!({"host": "h", "jump": [{"user": "u"}]})).ends_with("a hop without `host`"));
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2";
        let told = wrong(json!({"host": "h", "key": key}));
        assert!(told.starts_with("`key` holds a secret itself") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_path_on_a_host_is_absolute_and_means_what_it_says() {
        assert_eq!(remote_path("/home/me/it's \"here\"/").unwrap(), "/home/me/it's \"here\"");
        for (path, says) in [
            ("", "empty"),
            ("app", "not an absolute path"),
            ("~root/app", "home directory in full"),
            ("/home/ubuntu/../x", "`/home/x`"),
            ("/.", "root of the whole machine"),
            ("/a\nb", "control characters"),
        ] {
            let told = remote_path(path).unwrap_err();
            assert!(told.contains(says), "{path}: {told}");
        }
    }
}
