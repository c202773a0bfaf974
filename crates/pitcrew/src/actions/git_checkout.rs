//! `git.checkout`: brings a directory of the run to exactly one commit, and says which.

use std::process::ExitCode;

use pitcrew_exec::git::{self, Credentials, GitRequest};
use serde_json::{Value, json};

use super::{Action, Call, Job, Plan, object, read, write_outputs};

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
                "into": { "type": "string", "description": "The directory, relative to the workspace root. An older clone there is updated." },
                "depth": { "type": "integer", "minimum": 1, "description": "Fetch only that many commits." },
                "submodules": { "type": "boolean" },
                "lfs": { "type": "boolean" },
                "username": { "type": "string" },
                "password": { "type": "string", "description": "A password or token. It never reaches a disk, a log or a process list." }
            }),
        )
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let mut with = call.with.clone();
        let mut secret = Value::Null;
        if let Some(map) = with.as_object_mut() {
            let (username, password) = (map.remove("username"), map.remove("password"));
            if let Some(password) = password {
                let username = username.unwrap_or_else(|| "git".into());
                secret = json!({ "username": username, "password": password });
            }
            // An empty revision in a form means the default one.
            if map.get("revision").is_some_and(|revision| revision == "") {
                map.remove("revision");
            }
        }
        Ok(Plan::Process { with, facts: Value::Null, secret, inherit: "" })
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let request: GitRequest = read(&job.with)?;
        let text = |name: &str| job.secret[name].as_str().map(str::to_owned);
        let credentials = match (text("username"), text("password")) {
            (Some(username), Some(password)) => Some(Credentials { username, password }),
            _ => None,
        };
        let done = git::checkout(&request, credentials.as_ref(), &mut |line| println!("{line}"))?;
        println!("{} {} ({})", done.short, done.message, done.author);
        write_outputs(&serde_json::to_value(&done)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
