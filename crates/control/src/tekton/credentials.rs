//! Credentials of a ServiceAccount as the files that git, ssh and Docker's clients read: `.gitconfig`, `.git-credentials`, `.ssh` and
//! `.docker/config.json`.
//!
//! Which Secrets count is said by their type, and for whom by their annotations `tekton.dev/git-N` and `tekton.dev/docker-N`. A
//! Secret without either gives nothing. The files are written into the home of each step and to `/tekton/creds`, and are on no disk.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pitcrew_core::pod::FileEntry;
use pitcrew_store::Store;
use serde_json::{Map, Value, json};

use super::objects::{self, Keys};
use crate::vault::Vault;

/// The account of a run that names none; every namespace of a cluster has it.
const USUAL: &str = "default";
const GIT: &str = "tekton.dev/git-";
const DOCKER: &str = "tekton.dev/docker-";

/// What a ServiceAccount gives to the steps of a pod.
#[derive(Debug, Default)]
pub enum Account {
    #[default]
    None,
    /// It is named, and not there.
    Missing(String),
    Secrets(Vec<Login>),
}

/// A Secret that a ServiceAccount lists.
#[derive(Default)]
pub struct Login {
    name: String,
    /// `kubernetes.io/basic-auth` and the like.
    kind: String,
    annotations: BTreeMap<String, String>,
    /// `None`: it is not there.
    keys: Option<Keys>,
}

/// Its values are secrets.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Reads an account with the Secrets that it lists.
pub async fn find(store: &Store, vault: &Vault, namespace: &str, name: &str) -> anyhow::Result<Account> {
    if name.is_empty() {
        return Ok(Account::None);
    }
    let Some(row) = store.object("ServiceAccount", namespace, name).await? else {
        return Ok(if name == USUAL { Account::None } else { Account::Missing(name.to_owned()) });
    };
    let mut logins = Vec::new();
    for entry in row.doc["secrets"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or_default().to_owned();
        let keys = objects::keys(store, vault, true, namespace, &name).await?;
        let document = store.object("Secret", namespace, &name).await?.map(|row| row.doc).unwrap_or_default();
        let annotations = document["metadata"]["annotations"].as_object().into_iter().flatten();
        let annotations =
            annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        let kind = document["type"].as_str().unwrap_or_default().to_owned();
        logins.push(Login { name, kind, annotations, keys });
    }
    Ok(Account::Secrets(logins))
}

/// The files, by their paths below a home directory. What must not be shown is added to `masks`.
pub fn files(account: &Account, masks: &mut BTreeSet<String>) -> Result<Vec<FileEntry>, String> {
    let logins = match account {
        Account::None => return Ok(Vec::new()),
        Account::Missing(name) => {
            return Err(format!("serviceaccount \"{name}\" not found: apply it, or add its file with `-f`"));
        }
        Account::Secrets(logins) => logins,
    };
    let mut all = Files::default();
    for login in logins {
        all.add(login, masks)?;
    }
    Ok(all.written())
}

impl Login {
    /// Whom it is for, by the annotations that begin so.
    fn places(&self, prefix: &str) -> Vec<&str> {
        let found = self.annotations.iter().filter(|(key, _)| key.starts_with(prefix));
        let mut places: Vec<&str> = found.map(|(_, value)| value.as_str()).collect();
        places.sort_unstable();
        places
    }

    fn text(&self, key: &str) -> Result<String, String> {
        let keys = self.keys.as_ref().ok_or_else(|| format!("secret \"{}\" not found", self.name))?;
        let bytes = keys.get(key).ok_or_else(|| format!("the Secret `{}` has no key `{key}`", self.name))?;
        String::from_utf8(bytes.clone())
            .map_err(|_| format!("the key `{key}` of the Secret `{}` is no text", self.name))
    }
}

/// What the files are made of, in the order of the account's list.
#[derive(Default)]
struct Files {
    /// An address with what signs in there.
    basic: Vec<Basic>,
    /// By place: the names of keys.
    ssh: Vec<(String, Vec<String>)>,
    keys: Vec<(String, String)>,
    known_hosts: Vec<String>,
    registries: Map<String, Value>,
}

struct Basic {
    url: String,
    user: String,
    password: String,
}

impl Files {
    fn add(&mut self, login: &Login, masks: &mut BTreeSet<String>) -> Result<(), String> {
        match login.kind.as_str() {
            "kubernetes.io/basic-auth" => {
                let (git, docker) = (login.places(GIT), login.places(DOCKER));
                if git.is_empty() && docker.is_empty() {
                    return Ok(());
                }
                let (user, password) = (login.text("username")?, login.text("password")?);
                masks.insert(password.clone());
                for url in git {
                    if self.basic.iter().any(|other| other.url == url) {
                        return Err(format!("several Secrets of the account sign in at `{url}`: leave one"));
                    }
                    self.basic.push(Basic { url: url.to_owned(), user: user.clone(), password: password.clone() });
                }
                for registry in docker {
                    let auth = BASE64.encode(format!("{user}:{password}"));
                    let entry = json!({ "username": user, "password": password, "auth": auth });
                    self.registries.insert(registry.to_owned(), entry);
                }
            }
            "kubernetes.io/ssh-auth" => {
                let places = login.places(GIT);
                if places.is_empty() {
                    return Ok(());
                }
                let key = login.text("ssh-privatekey")?;
                masks.insert(key.trim_end().to_owned());
                self.keys.push((login.name.clone(), key));
                if let Ok(known) = login.text("known_hosts") {
                    self.known_hosts.push(known);
                }
                for place in places {
                    match self.ssh.iter_mut().find(|(other, _)| other == place) {
                        Some((_, names)) => names.push(login.name.clone()),
                        None => self.ssh.push((place.to_owned(), vec![login.name.clone()])),
                    }
                }
            }
            "kubernetes.io/dockerconfigjson" => {
                self.registry_file(login, ".dockerconfigjson", |file| file["auths"].clone(), masks)?
            }
            "kubernetes.io/dockercfg" => self.registry_file(login, ".dockercfg", Value::clone, masks)?,
            _ => {}
        }
        Ok(())
    }

    fn registry_file(
        &mut self,
        login: &Login,
        key: &str,
        entries: impl Fn(&Value) -> Value,
        masks: &mut BTreeSet<String>,
    ) -> Result<(), String> {
        let text = login.text(key)?;
        // What it holds is in no error.
        let file: Value = serde_json::from_str(&text)
            .map_err(|_| format!("the key `{key}` of the Secret `{}` is no JSON", login.name))?;
        let entries = entries(&file);
        for (registry, entry) in entries.as_object().into_iter().flatten() {
            for field in ["password", "auth", "identitytoken", "registrytoken"] {
                masks.extend(entry[field].as_str().map(str::to_owned));
            }
            // What goes by an annotation is more exact.
            self.registries.entry(registry).or_insert_with(|| entry.clone());
        }
        Ok(())
    }

    fn written(mut self) -> Vec<FileEntry> {
        let mut files = Vec::new();
        let mut file = |path: String, text: String| {
            files.push(FileEntry { path, bytes: text.into_bytes(), mode: 0o600, is_secret: true });
        };
        let mut config = String::new();
        if !self.basic.is_empty() {
            config.push_str("[credential]\n\thelper = store\n");
            config.extend(self.basic.iter().map(Basic::section));
            // One for a whole host comes before those of its repositories.
            self.basic.sort_by_key(|basic| has_path(&basic.url));
            file(".git-credentials".into(), self.basic.iter().map(|basic| basic.signed() + "\n").collect());
        }
        if !self.ssh.is_empty() {
            let mut hosts = String::new();
            self.ssh.sort_by_key(|(place, _)| place.contains('/'));
            for (place, names) in &self.ssh {
                let place = Place::of(place);
                hosts.push_str(&format!(
                    "Host {}\n    HostName {}\n    Port {}\n",
                    place.alias(),
                    place.host,
                    place.port
                ));
                hosts.extend(names.iter().map(|name| format!("    IdentityFile /tekton/creds/.ssh/id_{name}\n")));
                config.push_str(&place.rewritten());
            }
            file(".ssh/config".into(), hosts);
            for (name, mut key) in self.keys {
                // Without it OpenSSH does not read a key.
                if !key.ends_with('\n') {
                    key.push('\n');
                }
                file(format!(".ssh/id_{name}"), key);
            }
            if !self.known_hosts.is_empty() {
                file(".ssh/known_hosts".into(), self.known_hosts.join("\n"));
            }
        }
        if !config.is_empty() {
            file(".gitconfig".into(), config);
        }
        if !self.registries.is_empty() {
            file(".docker/config.json".into(), json!({ "auths": self.registries }).to_string());
        }
        files
    }
}

impl Basic {
    /// Of `.gitconfig`.
    fn section(&self) -> String {
        let user = self.user.replace('\\', "\\\\");
        // Else git asks the store for the host alone.
        let path = if has_path(&self.url) { "\tuseHttpPath = true\n" } else { "" };
        format!("[credential \"{}\"]\n\tusername = {user}\n{path}", self.url)
    }

    /// The address with who signs in there.
    fn signed(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("https", &self.url));
        format!("{scheme}://{}:{}@{rest}", quoted(&self.user), quoted(&self.password))
    }
}

fn has_path(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').is_some_and(|(_, path)| !path.is_empty())
}

/// As it may stand before the `@` of an address.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Where an SSH key is good: `host`, `host:port`, and either with the path of one repository.
struct Place<'a> {
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str) -> Place<'a> {
        let (address, path) = text.split_once('/').unwrap_or((text, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => (host, port),
            _ => (address, "22"),
        };
        Place { host, port, path }
    }

    /// What ssh is asked for: of one repository a name of its own, since one host has one key.
    fn alias(&self) -> String {
        match self.path {
            "" => self.host.to_owned(),
            path => format!("{}--{}", self.host, path.replace('/', "--")),
        }
    }

    /// How git comes to that name. With `.git`, else it would hold for all repositories that begin so.
    fn rewritten(&self) -> String {
        let Place { host, port, path } = self;
        if path.is_empty() {
            return String::new();
        }
        let alias = self.alias();
        let port = if *port == "22" { String::new() } else { format!(":{port}") };
        format!(
            "[url \"git@{alias}:{path}.git\"]\n\tinsteadOf = git@{host}:{path}.git\n[url \"ssh://{alias}/{path}.git\"]\n\t\
             insteadOf = ssh://{host}{port}/{path}.git\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str, kind: &str, annotations: &[(&str, &str)], keys: &[(&str, &str)]) -> Login {
        Login {
            name: name.to_owned(),
            kind: format!("kubernetes.io/{kind}"),
            annotations: annotations.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            keys: Some(keys.iter().map(|(key, text)| (key.to_string(), text.as_bytes().to_vec())).collect()),
        }
    }

    fn written(logins: Vec<Login>) -> (BTreeMap<String, String>, BTreeSet<String>) {
        let mut masks = BTreeSet::new();
        let files = files(&Account::Secrets(logins), &mut masks).unwrap();
        assert!(files.iter().all(|file| file.is_secret && file.mode == 0o600));
        (files.into_iter().map(|file| (file.path, String::from_utf8(file.bytes).unwrap())).collect(), masks)
    }

    #[test]
    fn a_secret_gives_only_what_its_annotations_say() {
        let keys = [("username", "ada"), ("password", "p@ss/word")];
        let (files, masks) = written(vec![
            login("unused", "basic-auth", &[], &keys),
            login("opaque", "opaque", &[("tekton.dev/git-0", "https://x")], &keys),
        ]);
        assert!(files.is_empty() && masks.is_empty(), "{files:?} {masks:?}");
        let both = [
            ("tekton.dev/git-0", "https://git.test/team/one"),
            ("tekton.dev/git-1", "https://git.test"),
            ("tekton.dev/docker-0", "https://registry.test/v1/"),
        ];
        let (files, masks) = written(vec![login("both", "basic-auth", &both, &keys)]);
        assert_eq!(files.keys().collect::<Vec<_>>(), [".docker/config.json", ".git-credentials", ".gitconfig"]);
        let signed = "https://ada:p%40ss%2Fword@git.test\nhttps://ada:p%40ss%2Fword@git.test/team/one\n";
        assert_eq!(files[".git-credentials"], signed);
        let config = "[credential]\n\thelper = store\n[credential \"https://git.test\"]\n\tusername = ada\n[credential \
                      \"https://git.test/team/one\"]\n\tusername = ada\n\tuseHttpPath = true\n";
        assert_eq!(files[".gitconfig"], config);
        let docker: Value = serde_json::from_str(&files[".docker/config.json"]).unwrap();
        assert_eq!(docker["auths"]["https://registry.test/v1/"]["auth"], BASE64.encode("ada:p@ss/word"));
        assert_eq!(masks, ["p@ss/word".to_owned()].into());
    }

    #[test]
    fn keys_of_ssh_hold_for_their_hosts_and_repositories() {
        let key = [("ssh-privatekey", "A KEY"), ("known_hosts", "git.test ssh-ed25519 A")];
        let (files, masks) = written(vec![
            login("one", "ssh-auth", &[("tekton.dev/git-0", "git.test:2222/team/one")], &key),
            login("all", "ssh-auth", &[("tekton.dev/git-0", "git.test")], &key),
        ]);
        let config = "Host git.test\n    HostName git.test\n    Port 22\n    IdentityFile /tekton/creds/.ssh/id_all\nHost \
                      git.test--team--one\n    HostName git.test\n    Port 2222\n    IdentityFile /tekton/creds/.ssh/id_one\n";
        assert_eq!(files[".ssh/config"], config);
        assert_eq!(files[".ssh/id_one"], "A KEY\n");
        assert_eq!(files[".ssh/known_hosts"], "git.test ssh-ed25519 A\ngit.test ssh-ed25519 A");
        let rewritten = "[url \"git@git.test--team--one:team/one.git\"]\n\tinsteadOf = git@git.test:team/one.git\n[url \
                         \"ssh://git.test--team--one/team/one.git\"]\n\tinsteadOf = ssh://git.test:2222/team/one.git\n";
        assert_eq!(files[".gitconfig"], rewritten);
        assert!(!files.contains_key(".git-credentials") && !files.contains_key(".docker/config.json"));
        assert_eq!(masks, ["A KEY".to_owned()].into());
    }

    #[test]
    fn files_of_registries_become_one() {
        let new = json!({"auths": {"a.test": {"auth": "bmV3LXNlY3JldA=="}}}).to_string();
        let old = json!({"a.test": {"auth": "b2xk"}, "b.test": {"password": "hunter2"}}).to_string();
        let (files, masks) = written(vec![
            login("new", "dockerconfigjson", &[], &[(".dockerconfigjson", &new)]),
            login("old", "dockercfg", &[], &[(".dockercfg", &old)]),
        ]);
        let config: Value = serde_json::from_str(&files[".docker/config.json"]).unwrap();
        assert_eq!(
            config,
            json!({"auths": {"a.test": {"auth": "bmV3LXNlY3JldA=="}, "b.test": {"password": "hunter2"}}})
        );
        assert!(masks.contains("hunter2") && masks.contains("bmV3LXNlY3JldA=="), "{masks:?}");
    }

    #[test]
    fn what_is_missing_is_told_without_what_is_there() {
        let git = [("tekton.dev/git-0", "https://git.test")];
        let gone = Login { keys: None, ..login("gone", "basic-auth", &git, &[]) };
        let broken = login("broken", "dockerconfigjson", &[], &[(".dockerconfigjson", "hunter2")]);
        let twice = || login("twice", "basic-auth", &git, &[("username", "ada"), ("password", "hunter2")]);
        for (account, expected) in [
            (Account::Missing("bot".into()), "serviceaccount \"bot\" not found: apply it, or add its file with `-f`"),
            (Account::Secrets(vec![gone]), "secret \"gone\" not found"),
            (
                Account::Secrets(vec![login("half", "basic-auth", &git, &[("username", "ada")])]),
                "the Secret `half` has no key `password`",
            ),
            (Account::Secrets(vec![broken]), "the key `.dockerconfigjson` of the Secret `broken` is no JSON"),
            (
                Account::Secrets(vec![twice(), twice()]),
                "several Secrets of the account sign in at `https://git.test`: leave one",
            ),
        ] {
            assert_eq!(files(&account, &mut BTreeSet::new()).unwrap_err(), expected);
        }
    }
}
