//! `git.checkout`: brings a directory to exactly one commit, and says which; a directory of the run, or one on a host.

use std::process::ExitCode;

use anyhow::Context as _;
use pitcrew_exec::LentKey;
use pitcrew_exec::git::{self, Access, Credentials, GitRequest};
use pitcrew_exec::ssh::PrivateKeyText;
use pitcrew_exec::ssh::agent::{Agent, Listening};
use pitcrew_lang::OnHosts;
use pitcrew_lang::place::remote_path;
use serde_json::{Value, json};

use super::{Action, Call, Job, Plan, WrongInput, object, read, write_outputs};

pub struct GitCheckout;

impl Action for GitCheckout {
    fn name(&self) -> &'static str {
        "git.checkout"
    }

    fn schema(&self) -> Value {
        object(
            &["url", "into"],
            json!({
                "url": { "type": "string", "description": "https, http, ssh or git address, or a local path." },
                "revision": { "type": "string", "description": "Branch, tag, commit or `refs/…`. Default: the repository's own." },
                "into": { "type": "string", "description": "The directory, relative to the workspace root, or on a host to where its tasks start; there it may be absolute. An older clone there is updated." },
                "depth": { "type": "integer", "minimum": 1, "description": "Fetch only that many commits." },
                "submodules": { "type": "boolean" },
                "lfs": { "type": "boolean" },
                "clean": { "type": "boolean", "description": "Remove ignored files too. Default: here yes; on a host no, as the directory may hold data." },
                "username": { "type": "string" },
                "password": { "type": "string", "description": "A password or token. It never reaches a disk, a log or a process list." },
                "key": { "type": "string", "description": "A private key for a repository over SSH, by `secret(…)`. Git signs in with it through an agent, and never has it." },
                "passphrase": { "type": "string", "description": "What the key is encrypted with." },
                "known_hosts": { "type": "string", "description": "The host keys of the git host, as in `~/.ssh/known_hosts`; no other is accepted. Default: the user's file, in which the first key of a new host is recorded." }
            }),
        )
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let mut with = call.with.clone();
        let mut secret = Value::Null;
        if let Some(map) = with.as_object_mut() {
            let (username, password) = (map.remove("username"), map.remove("password"));
            // An empty one in a form means none.
            if let Some(password) = password.filter(|password| password != "") {
                let username = username.unwrap_or_else(|| "x-access-token".into());
                secret = json!({ "username": username, "password": password });
            }
            let (key, passphrase) = (map.remove("key"), map.remove("passphrase"));
            if let Some(key) = key.filter(|key| key != "") {
                secret = Value::Object(secret.as_object().cloned().unwrap_or_default());
                secret["private_key"] = key;
                secret["passphrase"] = passphrase.unwrap_or_default();
            }
            // An empty revision in a form means the default one.
            if map.get("revision").is_some_and(|revision| revision == "") {
                map.remove("revision");
            }
        }
        if call.place.is_some() {
            return remote(&with, &secret);
        }
        Ok(Plan::Process { with, facts: Value::Null, secret, inherit: "" })
    }

    fn on_hosts(&self) -> OnHosts {
        OnHosts::Possibly
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let request: GitRequest = read(&job.with)?;
        let mut access = Access { credentials: credentials(&job.secret), agent: None };
        let _agent = match lent(&job.secret) {
            Some(LentKey { key, passphrase }) => {
                let text = PrivateKeyText::of_secret(&key, passphrase.as_deref(), "the `key` for the repository");
                let agent = Agent::new(&text).map_err(|fault| WrongInput(fault.to_string()))?;
                let dir = job.scratch.join("ssh");
                let listening = Listening::new(&dir, agent)
                    .with_context(|| format!("cannot make a socket in `{}` for the agent of git", dir.display()))?;
                access.agent = Some(dir);
                Some(listening)
            }
            None => None,
        };
        let done = git::checkout(&request, &access, &mut |line| println!("{line}"))?;
        println!("{} {} ({})", done.short, done.message, done.author);
        write_outputs(&serde_json::to_value(&done)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn credentials(secret: &Value) -> Option<Credentials> {
    let text = |name: &str| secret[name].as_str().map(str::to_owned);
    Some(Credentials { username: text("username")?, password: text("password")? })
}

fn lent(secret: &Value) -> Option<LentKey> {
    let key = secret["private_key"].as_str()?.to_owned();
    Some(LentKey { key, passphrase: secret["passphrase"].as_str().map(str::to_owned) })
}

fn remote(with: &Value, secret: &Value) -> Result<Plan, String> {
    let mut request: GitRequest = serde_json::from_value(with.clone()).map_err(|error| format!("`with`: {error}"))?;
    let into = request.into.to_string_lossy().into_owned();
    if into.starts_with('/') {
        request.into = remote_path(&into).map_err(|why| format!("`into`: {why}"))?.into();
    } else if into.starts_with('~') || into.split('/').any(|part| part == "..") {
        return Err(format!("`into`: `{into}` must be absolute, or below the directory where the task starts"));
    }
    let step = git::remote_step("git.checkout", &request, credentials(secret).as_ref(), lent(secret))
        .map_err(|e| e.to_string())?;
    Ok(Plan::Remote(vec![step]))
}
