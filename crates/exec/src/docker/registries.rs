//! Who one is at registries: what `docker login` and Secrets of Kubernetes keep, and which of it is for an image.
//!
//! Invariant: a password goes to the registry that it was given for, and is in no error and no `Debug` form.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Names that Docker's own registry has.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Who one is at a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// `registry.example.com`, with a port if it has one; with a path for images below that alone.
    pub server: String,
    pub username: String,
    pub password: String,
    /// Instead of a password, for registries that gave one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("server", &self.server).finish_non_exhaustive()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

impl Registry {
    /// Those of a map from registries to what signs in there: `auths` of `config.json`, or a whole `.dockercfg`. What holds nothing is
    /// left out: it is kept elsewhere, by a helper of `docker login`.
    pub fn all_of(auths: &Value) -> Vec<Registry> {
        let mut all = Vec::new();
        for (server, entry) in auths.as_object().into_iter().flatten() {
            let Ok(entry) = Entry::deserialize(entry) else { continue };
            let plain = Zeroizing::new(STANDARD.decode(entry.auth.trim()).unwrap_or_default());
            let pair = std::str::from_utf8(&plain).ok().and_then(|text| text.split_once(':'));
            let (username, password) = match pair {
                Some((user, password)) if entry.username.is_empty() => {
                    (user.to_owned(), password.trim_end_matches('\0').to_owned())
                }
                _ => (entry.username, entry.password),
            };
            let identity_token = entry.identitytoken;
            if !username.is_empty() || !identity_token.is_empty() {
                all.push(Registry { server: server.clone(), username, password, identity_token });
            }
        }
        all
    }

    /// Those of a file as `docker login` writes it.
    ///
    /// # Errors
    /// A sentence that shows nothing of it.
    pub fn of_config(bytes: &[u8]) -> Result<Vec<Registry>, String> {
        let file: Value = serde_json::from_slice(bytes).map_err(|_| "is not what `docker login` writes".to_owned())?;
        Ok(Registry::all_of(&file["auths"]))
    }

    /// What signs in where an image of this name comes from: the most exact first, each as long as nobody refuses it.
    pub fn of_image<'a>(all: &'a [Registry], image: &str) -> Vec<&'a Registry> {
        let mut found: Vec<(usize, &Registry)> =
            all.iter().filter_map(|one| Some((one.exactness(image)?, one))).collect();
        found.sort_by_key(|(exactness, _)| std::cmp::Reverse(*exactness));
        found.into_iter().map(|(_, one)| one).collect()
    }

    /// How much of the name of an image it is about; `None`: it is for another registry.
    fn exactness(&self, image: &str) -> Option<usize> {
        let own = self.server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let own = own.strip_suffix("/v1").or_else(|| own.strip_suffix("/v2")).unwrap_or(own);
        let (host, below) = own.split_once('/').unwrap_or((own, ""));
        let (from, rest) = match image.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => (HUB[0], image),
        };
        let is_same = host == from || (HUB.contains(&host) && HUB.contains(&from));
        let is_below = below.is_empty() || rest.strip_prefix(below).is_some_and(|rest| rest.starts_with('/'));
        (is_same && is_below).then_some(below.len())
    }

    /// As an engine takes it.
    pub(super) fn header(&self) -> String {
        let body: Value = match self.identity_token.as_str() {
            "" => {
                json!({ "username": self.username, "password": self.password, "serveraddress": self.server })
            }
            token => json!({ "identitytoken": token, "serveraddress": self.server }),
        };
        let body = Zeroizing::new(body.to_string());
        URL_SAFE.encode(body.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(server: &str) -> Registry {
        Registry { server: server.into(), username: "u".into(), password: "p".into(), identity_token: String::new() }
    }

    #[test]
    fn a_password_goes_to_its_own_registry_alone() {
        let is_for = |server: &str, image: &str| at(server).exactness(image).is_some();
        assert!(is_for("https://index.docker.io/v1/", "library/busybox"));
        assert!(is_for("https://index.docker.io/v1/", "busybox"));
        assert!(is_for("docker.io", "docker.io/library/busybox"));
        assert!(is_for("r.example.com:5000", "r.example.com:5000/a"));
        assert!(is_for("https://r.example.com/v2/", "r.example.com/a"));
        assert!(!is_for("r.example.com", "r.example.com.evil.org/a"));
        assert!(!is_for("r.example.com", "busybox"));
        assert!(!is_for("r.example.com/team", "r.example.com/teams/a"));
        assert!(!format!("{:?}", at("r")).contains('u'));
    }

    #[test]
    fn the_most_exact_comes_first() {
        let all = [at("r.example.com"), at("other.example.com"), at("r.example.com/team")];
        let found: Vec<&str> =
            Registry::of_image(&all, "r.example.com/team/a").iter().map(|one| one.server.as_str()).collect();
        assert_eq!(found, ["r.example.com/team", "r.example.com"]);
    }

    #[test]
    fn files_of_docker_are_read_and_what_lies_elsewhere_is_left_out() {
        let file = json!({
            "auths": {
                "a.test": { "auth": STANDARD.encode("ada:pa:ss") },
                "b.test": { "username": "bob", "password": "secret" },
                "c.test": { "auth": STANDARD.encode("00:"), "identitytoken": "tok" },
                "kept.elsewhere": {},
            },
            "credsStore": "desktop",
        });
        let all = Registry::of_config(file.to_string().as_bytes()).unwrap();
        let told: Vec<_> =
            all.iter().map(|one| (one.server.as_str(), one.username.as_str(), one.password.as_str())).collect();
        assert_eq!(told, [("a.test", "ada", "pa:ss"), ("b.test", "bob", "secret"), ("c.test", "00", "")]);
        assert_eq!(all[2].identity_token, "tok");
        assert!(!Registry::of_config(b"secret").unwrap_err().contains("secret"));
    }
}
