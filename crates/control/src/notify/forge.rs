//! Forges as channels: how a run stands, written to the commit that it is about.
//!
//! The run is read when it is sent, so what is written is true, whichever notice asked for it. A check run is found again by
//! the name of the run in it, so whoever comes after a crash goes on with the one that is there.

use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::state::{RunState, State};
use pitcrew_exec::secrets::SecretRef;
use pitcrew_lang::triggers::report::{Forge, Token};
use pitcrew_store::{InstanceFilter, Paging};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};

use super::config::{Channel, Kind};
use super::http;
use super::send::{Failed, Sender};
use super::text::{self, Secrets};
use crate::hooks::report::{CHANNEL, Target};
use crate::tekton::objects;
use crate::{links, words};

/// The longest description of a status, at GitHub.
const DESCRIPTION: usize = 140;
/// The most that is read of a list of check runs.
const MOST: usize = 4 << 20;
/// Requests in a minute at most; a forge that wants fewer says so.
const RATE: u32 = 600;
const TIMEOUT: Duration = Duration::from_secs(20);
/// Failed tasks that are named.
const NAMED: u32 = 3;

/// The channel that a notice of a report names; `None`: it is one that has to be configured.
pub fn channel(name: &str) -> Option<Channel> {
    name.starts_with(CHANNEL).then(|| Channel {
        name: name.to_owned(),
        kind: Kind::Forge,
        rate: RATE,
        // Each run is told of by itself.
        digest_from: u32::MAX,
        timeout: TIMEOUT,
        subject: None,
        message: None,
        line: 0,
    })
}

/// Writes how a run stands to its commit.
pub async fn send(sender: &Sender, key: RunKey, base_url: &str, now: Timestamp) -> Result<(), Failed> {
    let store = &sender.secrets.store;
    let unread = |error| Failed::passing(format!("cannot read run {key}: {error}"));
    let run = store.run(key).await.map_err(unread)?;
    let run = run.ok_or_else(|| Failed::lasting(format!("run {key} was removed")))?;
    let target = Target::of_run(&run).ok_or_else(|| Failed::lasting("the run does not say where to"))?;
    let token = token(sender, &target.report.token).await?;
    let page = match base_url {
        "" => String::new(),
        base => format!("{base}{}", links::run(&run.workflow, &run.run_id)),
    };
    let told = Told { description: describe(sender, &run).await?, run: &run, page, target: &target };
    let door = Door { sender, target: &target, token: &token, now };
    let sent = match target.report.forge {
        Forge::Github => door.post(&["repos", "statuses"], Method::POST, told.github()).await,
        Forge::GithubChecks => door.check(&told).await,
        Forge::Gitlab => match door.post(&["projects", "statuses"], Method::POST, told.gitlab()).await {
            // It is in that state already.
            Err(failed) if failed.error.contains("Cannot transition status") => Ok(()),
            sent => sent,
        },
        Forge::Bitbucket => {
            door.post(&["repositories", "commit", "statuses", "build"], Method::POST, told.bitbucket()).await
        }
    };
    sent.map_err(|failed| {
        // Some repeat what they were sent.
        let mut error = Value::String(failed.error);
        Secrets::new([token]).mask_value(&mut error);
        Failed { error: error.as_str().unwrap_or_default().to_owned(), ..failed }
    })
}

async fn token(sender: &Sender, token: &Token) -> Result<String, Failed> {
    let (store, vault) = (&sender.secrets.store, &sender.secrets.vault);
    let bytes = match token {
        Token::Key { namespace, name, key } => {
            let keys = objects::keys(store, vault, true, namespace, name).await;
            let keys = keys.map_err(|error| match error.downcast_ref::<pitcrew_store::StoreError>() {
                Some(_) => Failed::passing(format!("cannot read the Secret `{namespace}/{name}`: {error:#}")),
                None => Failed::lasting(format!("the Secret `{namespace}/{name}`: {error:#}")),
            })?;
            let missing = || Failed::lasting(format!("there is no Secret `{namespace}/{name}` with the key `{key}`"));
            keys.and_then(|mut keys| keys.remove(key)).ok_or_else(missing)?
        }
        Token::Reference(text) => {
            let lasting = |why: String| Failed::lasting(format!("the secret `{text}`: {why}"));
            let reference: SecretRef = text.parse().map_err(|error| lasting(format!("{error}")))?;
            let secrets = crate::secrets::open(store, vault, &sender.aws).map_err(|why| lasting(format!("{why:#}")))?;
            let found = secrets.get(&reference).await.map_err(|error| match error.lasting() {
                true => lasting(error.to_string()),
                false => Failed::passing(error.to_string()),
            })?;
            found.value.expose().to_vec()
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| Failed::lasting("the token is no text"))?;
    match text.trim() {
        "" => Err(Failed::lasting("the token is empty")),
        text => Ok(text.to_owned()),
    }
}

/// A short text: `Failed after 3 m 05 s: test`.
async fn describe(sender: &Sender, run: &RunRecord) -> Result<String, Failed> {
    let took = run.start.zip(run.end).map(|(start, end)| words::duration(end.duration_since(start)));
    let after = took.map(|took| format!(" after {took}")).unwrap_or_default();
    let said = match run.state {
        RunState::Queued => "Waits for its turn".to_owned(),
        RunState::Running => "Is running".to_owned(),
        RunState::Success => format!("Succeeded{after}"),
        RunState::Cancelled => format!("Was cancelled{after}"),
        RunState::Failed => {
            let filter = InstanceFilter { states: vec![State::Failed.name()], task: None };
            let failed = sender.secrets.store.instances(run.key, &filter, Paging::first(NAMED)).await;
            let failed = failed.map_err(|error| Failed::passing(format!("cannot read run {}: {error}", run.key)))?;
            let names = failed.rows.iter().map(|row| words::instance(row.task.as_str(), row.map_index));
            let names = names.collect::<Vec<_>>().join(", ");
            let colon = if names.is_empty() { "" } else { ": " };
            format!("Failed{after}{colon}{names}")
        }
    };
    // One of these characters says that something was left out.
    Ok(text::cut(&text::one_line(&said), DESCRIPTION - 1))
}

/// What is written.
struct Told<'t> {
    run: &'t RunRecord,
    target: &'t Target,
    description: String,
    page: String,
}

impl Told<'_> {
    fn github(&self) -> Value {
        let state = match self.run.state {
            RunState::Queued | RunState::Running => "pending",
            RunState::Success => "success",
            RunState::Failed => "failure",
            // What was stopped says nothing of the commit.
            RunState::Cancelled => "error",
        };
        let mut body = json!({ "state": state, "description": self.description, "context": self.target.name });
        self.link(&mut body, "target_url");
        body
    }

    fn gitlab(&self) -> Value {
        let state = match self.run.state {
            RunState::Queued => "pending",
            RunState::Running => "running",
            RunState::Success => "success",
            RunState::Failed => "failed",
            RunState::Cancelled => "canceled",
        };
        let mut body = json!({ "state": state, "description": self.description, "name": self.target.name });
        self.link(&mut body, "target_url");
        body
    }

    fn bitbucket(&self) -> Value {
        let state = match self.run.state {
            RunState::Queued | RunState::Running => "INPROGRESS",
            RunState::Success => "SUCCESSFUL",
            RunState::Failed => "FAILED",
            RunState::Cancelled => "STOPPED",
        };
        let key: String = self.target.name.chars().take(40).collect();
        let mut body = json!({ "state": state, "key": key, "name": self.target.name, "description": self.description });
        self.link(&mut body, "url");
        body
    }

    fn check(&self) -> Value {
        let (status, conclusion) = match self.run.state {
            RunState::Queued => ("queued", None),
            RunState::Running => ("in_progress", None),
            RunState::Success => ("completed", Some("success")),
            RunState::Failed => ("completed", Some("failure")),
            RunState::Cancelled => ("completed", Some("cancelled")),
        };
        let mut body = json!({
            "name": self.target.name,
            "status": status,
            "external_id": self.id(),
            "output": { "title": self.description, "summary": self.description },
        });
        let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if let Some(at) = self.run.start {
            body["started_at"] = json!(time(at));
        }
        if let Some(conclusion) = conclusion {
            body["conclusion"] = json!(conclusion);
            body["completed_at"] = json!(time(self.run.end.unwrap_or(self.run.queued_at)));
        }
        self.link(&mut body, "details_url");
        body
    }

    /// By what a check run is known again.
    fn id(&self) -> String {
        format!("pitcrew/{}/{}", self.run.workflow, self.run.run_id)
    }

    fn link(&self, body: &mut Value, field: &str) {
        if !self.page.is_empty() {
            body[field] = json!(self.page);
        }
    }
}

/// The API of a forge, for one commit.
struct Door<'d> {
    sender: &'d Sender,
    target: &'d Target,
    token: &'d str,
    now: Timestamp,
}

impl Door<'_> {
    /// An address below that of the API; each part is one segment of the path.
    fn url(&self, parts: &[&str]) -> Result<Url, Failed> {
        let mut url = http::address(&self.target.report.api)
            .map_err(|why| Failed::lasting(format!("the address of the API {why}")))?;
        url.path_segments_mut().map_err(|()| Failed::lasting("the address of the API has no path"))?.extend(parts);
        Ok(url)
    }

    fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Failed> {
        let client = self.sender.clients.client_for(&url, false)?;
        let (name, value) = match self.target.report.forge {
            Forge::Gitlab => ("private-token", self.token.to_owned()),
            _ => ("authorization", format!("Bearer {}", self.token)),
        };
        let (name, value) = http::header(name, &value).map_err(|error| Failed::lasting(format!("{error:#}")))?;
        let request = client.request(method, url).header(name, value);
        Ok(match self.target.report.forge {
            Forge::Github | Forge::GithubChecks => {
                request.header("accept", "application/vnd.github+json").header("x-github-api-version", "2022-11-28")
            }
            Forge::Gitlab | Forge::Bitbucket => request.header("accept", "application/json"),
        })
    }

    /// Writes a status. The first of `words` stands before the repository, the second before the commit, the rest after it.
    async fn post(&self, words: &[&str], method: Method, body: Value) -> Result<(), Failed> {
        let Target { repository, commit, .. } = self.target;
        let mut path = vec![words[0]];
        match self.target.report.forge {
            // A project of GitLab is one segment, with its groups.
            Forge::Gitlab => path.push(repository),
            _ => path.extend(repository.split('/')),
        }
        path.extend([words[1], commit]);
        path.extend(&words[2..]);
        let url = self.url(&path)?;
        let host = http::host(url.as_str());
        let response = self.request(method, url)?.json(&body).send().await;
        self.answered(response.map_err(|error| http::unanswered(error, &host))?, &host).await
    }

    /// Makes a check run, or changes the one of this run.
    async fn check(&self, told: &Told<'_>) -> Result<(), Failed> {
        let Target { repository, commit, name, .. } = self.target;
        let of = |more: &[&str]| self.url(&[&["repos"], &*repository.split('/').collect::<Vec<_>>(), more].concat());
        let mut url = of(&["commits", commit, "check-runs"])?;
        url.query_pairs_mut()
            .append_pair("check_name", name)
            .append_pair("filter", "all")
            .append_pair("per_page", "100");
        let host = http::host(url.as_str());
        let response = self.request(Method::GET, url)?.send().await;
        let response = response.map_err(|error| http::unanswered(error, &host))?;
        let known = match response.status() {
            StatusCode::OK => read(response, &host).await?,
            _ => return self.answered(response, &host).await,
        };
        let (id, mut body) = (told.id(), told.check());
        let mut runs = known["check_runs"].as_array().into_iter().flatten();
        let known = runs.find(|run| run["external_id"] == id.as_str()).and_then(|run| run["id"].as_u64());
        let (method, url) = match known {
            Some(known) => (Method::PATCH, of(&["check-runs", &known.to_string()])?),
            None => {
                body["head_sha"] = json!(commit);
                (Method::POST, of(&["check-runs"])?)
            }
        };
        let response = self.request(method, url)?.json(&body).send().await;
        self.answered(response.map_err(|error| http::unanswered(error, &host))?, &host).await
    }

    /// What an answer means. A forge that was asked too often says how long it wants to be left alone.
    async fn answered(&self, response: Response, host: &str) -> Result<(), Failed> {
        let number = |names: [&str; 2]| {
            let value = names.into_iter().find_map(|name| response.headers().get(name))?;
            value.to_str().ok()?.trim().parse::<i64>().ok()
        };
        let is_refusal = matches!(response.status(), StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
        let is_spent = number(["x-ratelimit-remaining", "ratelimit-remaining"]) == Some(0);
        let reset = number(["x-ratelimit-reset", "ratelimit-reset"]).filter(|_| is_spent);
        let reset =
            reset.map(|at| Duration::from_secs(u64::try_from(at - self.now.as_second()).unwrap_or(0).min(3600)));
        let is_limit = is_refusal && (is_spent || response.headers().contains_key("retry-after"));
        let sent = http::answered(response, host, self.now).await;
        sent.map_err(|failed| match is_limit {
            true => Failed { passing: true, wait: failed.wait.max(reset), ..failed },
            false => failed,
        })
    }
}

async fn read(mut response: Response, host: &str) -> Result<Value, Failed> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| http::unanswered(error, host))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MOST {
            return Err(Failed::lasting(format!("{host} answers more than {} MiB", MOST >> 20)));
        }
    }
    serde_json::from_slice(&bytes).map_err(|_| Failed::passing(format!("the answer of {host} is no JSON")))
}
