//! Files of known hosts, as OpenSSH writes and reads them.
//!
//! Invariant: a line that cannot be read says nothing about any host, and hides no other line.

use ring::hmac;
use russh::keys::PublicKey;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};

/// A key that a file has for a host.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownKey {
    pub key: PublicKey,
    /// It must never be accepted again.
    pub is_revoked: bool,
    /// `~/.ssh/known_hosts line 12`.
    pub place: String,
}

/// The name of a host in such files: lower case, and with its port unless that is 22.
pub fn name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == crate::place::SSH_PORT { host } else { format!("[{host}]:{port}") }
}

/// The keys that `text` has for `name`; `file` is for messages.
pub fn find(text: &str, file: &str, name: &str) -> Vec<KnownKey> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Ok(entry) = line.parse::<Entry>() else { continue };
        let is_revoked = match entry.marker() {
            None => false,
            Some(Marker::Revoked) => true,
            // Certificates are not asked for, so an authority says nothing about the key that a host shows.
            Some(Marker::CertAuthority) => continue,
        };
        if matches(entry.host_patterns(), name) {
            let place = format!("{file} line {}", at + 1);
            found.push(KnownKey { key: entry.public_key().clone(), is_revoked, place });
        }
    }
    found
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => list_matches(patterns.iter().map(String::as_str), name),
    }
}

/// One pattern of a list fits, and none that begins with `!` does.
pub fn list_matches<'a>(patterns: impl Iterator<Item = &'a str>, name: &str) -> bool {
    let mut fits = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(not) if glob(not, name) => return false,
            Some(_) => {}
            None => fits |= glob(pattern, name),
        }
    }
    fits
}

/// `*` stands for any text, `?` for one character; case says nothing, as in names of hosts.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how much of the text it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                t += 1;
            }
            Some(c) if c.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zC";

    fn lines(text: &str, name: &str) -> Vec<usize> {
        let line = |known: &KnownKey| known.place.rsplit(' ').next().unwrap().parse().unwrap();
        find(text, "k", name).iter().map(line).collect()
    }

    #[test]
    fn a_host_is_found_by_name_pattern_port_and_hash() {
        // The hash is of `gpu-1`, as `ssh-keygen -H` writes it.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"01234567890123456789");
        let hash = {
            use base64::Engine as _;
            let base64 = base64::engine::general_purpose::STANDARD;
            let tag = hmac::sign(&key, b"gpu-1");
            format!("|1|{}|{}", base64.encode(b"01234567890123456789"), base64.encode(tag.as_ref()))
        };
        let text = format!(
            "# a comment\n\ngpu-1,10.0.0.1 {KEY} me\nno key at all\n[gpu-1]:2222 {KEY}\n*.example,!bad.example {KEY}\n{hash} {KEY}\n@revoked gpu-9 {KEY}\n@cert-authority * {KEY}\n"
        );
        assert_eq!(lines(&text, "gpu-1"), [3, 7]);
        assert_eq!(lines(&text, &name("GPU-1", 2222)), [5]);
        assert_eq!(lines(&text, "10.0.0.1"), [3]);
        assert_eq!(lines(&text, "a.example"), [6]);
        assert!(lines(&text, "bad.example").is_empty() && lines(&text, "example").is_empty());
        let revoked = find(&text, "k", "gpu-9");
        assert!(revoked.len() == 1 && revoked[0].is_revoked && revoked[0].place == "k line 8");
    }

    #[test]
    fn patterns_end_in_a_bounded_time() {
        assert!(glob("*a*b?", "xxaxxbc") && !glob("a?", "a") && glob("*", "") && glob("A", "a"));
        assert!(!glob(&"*a".repeat(30), &"a".repeat(29)));
    }
}
