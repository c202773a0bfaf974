//! The text of a private key, as people and secrets managers keep it, and what is wrong with one that is none.
//!
//! Invariant: the text is wiped from memory when it goes, and is in no message: those say how it begins, by kind, and
//! where it came from.

use std::fmt;

use russh::keys::{self, Algorithm, PrivateKey};
use zeroize::Zeroizing;

use super::error::Fault;
use crate::secrets::{Secret, version};

/// Fields of a secret that is a JSON object, as others write them.
pub const KEY_FIELDS: [&str; 3] = ["private_key", "privateKey", "ssh_private_key"];
pub const PASSPHRASE_FIELDS: [&str; 2] = ["private_key_passphrase", "passphrase"];

/// A private key before it is read.
#[derive(Clone)]
pub struct PrivateKeyText {
    text: Zeroizing<String>,
    passphrase: Option<Zeroizing<String>>,
    /// Where it is from, for messages: `secret `gpu-key``, `/home/me/.ssh/id_ed25519`.
    pub origin: String,
}

impl fmt::Debug for PrivateKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKeyText({})", self.origin)
    }
}

/// Tells keys that were looked up at one time from those of another. Nothing about them can be read from it, and it
/// means nothing outside of this process.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark(Vec<String>);

impl Mark {
    pub fn of(keys: &[PrivateKeyText]) -> Mark {
        let word = |text: &Zeroizing<String>| version(text.as_bytes());
        let words =
            keys.iter().flat_map(|key| [word(&key.text), key.passphrase.as_ref().map(word).unwrap_or_default()]);
        Mark(words.collect())
    }
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

impl PrivateKeyText {
    /// Takes the text as it was kept: with any line breaks, with `\n` for them (a key pasted into JSON), or with none
    /// at the end.
    pub fn new(text: &str, origin: impl Into<String>) -> Self {
        PrivateKeyText { text: normal(text), passphrase: None, origin: origin.into() }
    }

    /// Takes the value of a secret: the key itself, or a JSON object that has it, and may have its passphrase.
    pub fn of_secret(value: &str, passphrase: Option<&str>, origin: impl Into<String>) -> Self {
        let secret = Secret::new(value);
        let (key, own) = (secret.field(&KEY_FIELDS), secret.field(&PASSPHRASE_FIELDS));
        let passphrase = passphrase.filter(|text| !text.is_empty());
        let key = key.as_ref().and_then(Secret::expose_text).unwrap_or(value);
        Self::new(key, origin).with_passphrase(passphrase.or(own.as_ref().and_then(Secret::expose_text)))
    }

    /// With what it is encrypted with.
    pub fn with_passphrase(mut self, passphrase: Option<&str>) -> Self {
        self.passphrase = passphrase.filter(|text| !text.is_empty()).map(|text| Zeroizing::new(text.to_owned()));
        self
    }

    /// Reads it. Takes up to a second of a CPU for one that is encrypted.
    pub(super) fn decode(&self) -> Result<PrivateKey, Fault> {
        let wrong = |what: &str| Fault::Key { words: format!("{} {what}", self.origin), lasting: true };
        if let Some(what) = no_key(&self.text) {
            return Err(wrong(&what));
        }
        let is_encrypted = self.is_encrypted();
        if is_encrypted && self.passphrase.is_none() {
            return Err(wrong("is an encrypted key: give its `passphrase`"));
        }
        // A passphrase for a key that needs none is not looked at, as `ssh` does.
        let passphrase = self.passphrase.as_ref().filter(|_| is_encrypted).map(|text| text.as_str());
        let key = keys::decode_secret_key(&self.text, passphrase).map_err(|_| match is_encrypted {
            true => wrong("is an encrypted key, and the passphrase does not fit"),
            false => wrong("holds a private key that cannot be read: it is damaged"),
        })?;
        match key.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
            other => Err(wrong(&format!(
                "is a key of the type `{}`, which is not supported: make one with `ssh-keygen -t ed25519`",
                super::error::clean(other.as_str())
            ))),
        }
    }

    fn is_encrypted(&self) -> bool {
        let text = self.text.as_str();
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return true;
        }
        text.contains("BEGIN OPENSSH") && PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted())
    }
}

/// With plain line breaks, no blanks around the lines, and one line break at the end.
fn normal(text: &str) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(String::with_capacity(text.len() + 1));
    // No text of a key has a backslash, so `\n` in it is what JSON left.
    for part in text.trim_start_matches('\u{feff}').split("\\n") {
        for line in part.split(['\n', '\r']) {
            let line = line.trim().trim_end_matches("\\r").trim_matches(['"', '\'']);
            if !line.is_empty() {
                lines.push_str(line);
                lines.push('\n');
            }
        }
    }
    headers_apart(lines)
}

/// Old keys have headers, which an empty line ends.
fn headers_apart(text: Zeroizing<String>) -> Zeroizing<String> {
    let Some(at) = text.find("DEK-Info:") else { return text };
    let Some(end) = text[at..].find('\n') else { return text };
    let mut apart = Zeroizing::new(String::with_capacity(text.len() + 1));
    apart.push_str(&text[..=at + end]);
    apart.push('\n');
    apart.push_str(&text[at + end + 1..]);
    apart
}

/// What the text is, if it is no private key that can be read.
fn no_key(text: &str) -> Option<String> {
    let first = text.lines().next().unwrap_or_default();
    if text.is_empty() {
        return Some("is empty".into());
    }
    if first.starts_with('{') {
        return Some("holds JSON without a field `private_key`: name the field, or store the key itself".into());
    }
    if ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|kind| first.starts_with(kind)) {
        let kind = first.split(' ').next().filter(|kind| kind.len() < 60).unwrap_or("ssh-");
        return Some(format!(
            "holds no private key: it begins with `{}` (that is the public half)",
            super::error::clean(kind)
        ));
    }
    if first.starts_with("---- BEGIN SSH2 PUBLIC KEY") || first.starts_with("-----BEGIN PUBLIC KEY") {
        return Some("holds no private key: that is the public half".into());
    }
    if first.starts_with("PuTTY-User-Key-File") {
        return Some("is a key of PuTTY: convert it with `puttygen KEY -O private-openssh`".into());
    }
    if first.starts_with("-----BEGIN CERTIFICATE") {
        return Some("holds a certificate, and no private key".into());
    }
    let Some(begin) = text.find(BEGIN) else {
        return Some("holds no private key: it has no line `-----BEGIN … PRIVATE KEY-----`".into());
    };
    let body = &text[begin..];
    if !body.contains(END) {
        return Some("is cut off: it has no line `-----END … PRIVATE KEY-----`".into());
    }
    if body.starts_with("-----BEGIN DSA") {
        return Some("is a DSA key, which no server takes any more: make one with `ssh-keygen -t ed25519`".into());
    }
    if body.contains("DEK-Info:") && !body.contains("DEK-Info: AES-128-CBC,") {
        return Some("is encrypted in an old way that is not supported: `ssh-keygen -p -f KEY` converts it".into());
    }
    let known = ["OPENSSH", "RSA", "EC", "ENCRYPTED", ""];
    let heading = body.lines().next().unwrap_or_default();
    let is_known = known.iter().any(|kind| {
        let kind = if kind.is_empty() { String::new() } else { format!("{kind} ") };
        heading == format!("{BEGIN}{kind}PRIVATE KEY-----")
    });
    (!is_known).then(|| "holds no private key of a known kind: make one with `ssh-keygen -t ed25519`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A key made for this test, used nowhere.
    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
@@
-----END OPENSSH PRIVATE KEY-----
";

    fn said(text: &str) -> String {
        PrivateKeyText::new(text, "secret `k`").decode().unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_key_is_said_without_it() {
        for (text, part) in [
            ("", "is empty"),
            ("  \n", "is empty"),
            ("ssh-ed25519 AAAAC3Nza me", "begins with `ssh-ed25519`"),
            (r#"{"user": "me", "pem": "x"}"#, "without a field `private_key`"),
            ("PuTTY-User-Key-File-3: ssh-ed25519", "puttygen"),
            ("hunter2", "has no line `-----BEGIN"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", "is cut off"),
            ("-----BEGIN DSA PRIVATE KEY-----\nMIIE\n-----END DSA PRIVATE KEY-----", "DSA"),
            ("-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----", "a certificate"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "damaged"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIE\n-----END RSA PRIVATE KEY-----",
                "in an old way",
            ),
        ] {
            let said = said(text);
            assert!(said.starts_with("secret `k` ") && said.contains(part), "{text:?}: {said}");
            assert!(!said.contains("hunter2") && !said.contains("MIIE"), "{said}");
        }
    }

    #[test]
    fn any_line_breaks_give_the_same_text() {
        let plain = normal(KEY);
        assert_eq!(plain.as_str(), KEY);
        for same in [
            KEY.replace('\n', "\r\n"),
            KEY.replace('\n', "\\n"),
            KEY.replace('\n', "\\r\\n"),
            KEY.trim_end().to_owned(),
            format!("\u{feff}  {}\n\n", KEY.replace('\n', "  \n")),
            format!("\"{}\"", KEY.replace('\n', "\\n")),
        ] {
            assert_eq!(normal(&same).as_str(), KEY, "{same:?}");
        }
    }
}
