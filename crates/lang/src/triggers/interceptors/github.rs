//! `github`: the type of the event, the signature of the body, changed files, and who may have a pull request built.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::model::SecretRef;
use super::super::replay::Proof;
use super::super::signature;
use super::{Question, Request, Stop, Verdict, is_of, named, want};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Github {
    pub secret_ref: Option<SecretRef>,
    event_types: Option<Vec<String>>,
    add_changed_files: ChangedFiles,
    github_owners: Owners,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct ChangedFiles {
    enabled: bool,
    personal_access_token: Option<SecretRef>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Owners {
    enabled: bool,
    personal_access_token: Option<SecretRef>,
    check_type: CheckType,
}

/// Beside those whom the OWNERS file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckType {
    /// Nobody.
    #[default]
    None,
    /// Public members of the organisation.
    OrgMembers,
    /// Collaborators of the repository.
    RepoMembers,
    All,
}

impl Github {
    pub fn read(github: Github) -> Result<Github, (String, String)> {
        named(github.secret_ref.as_ref(), "secretRef")?;
        named(github.add_changed_files.personal_access_token.as_ref(), "addChangedFiles.personalAccessToken")?;
        let owners = &github.github_owners;
        named(owners.personal_access_token.as_ref(), "githubOwners.personalAccessToken")?;
        if owners.enabled && owners.check_type != CheckType::None && owners.personal_access_token.is_none() {
            let message = "`githubOwners.checkType` asks for members, and so needs `personalAccessToken`";
            return Err(("params".into(), message.into()));
        }
        Ok(github)
    }

    pub fn secrets(&self, wanted: &mut BTreeSet<(String, String)>) {
        want(self.secret_ref.as_ref(), wanted);
        want(self.add_changed_files.personal_access_token.as_ref(), wanted);
        want(self.github_owners.personal_access_token.as_ref(), wanted);
    }

    pub fn process(&self, request: &Request<'_>) -> Result<Verdict, Stop> {
        if request.headers.is_form() {
            let message = "the event is a form; let the webhook send application/json";
            return Err(Stop::refused(message));
        }
        let event = request.headers.get("X-Github-Event");
        is_of(self.event_types.as_ref(), event)?;
        self.proof(request)?;
        // As in Tekton, whoever asks for changed files is not asked for owners.
        if self.add_changed_files.enabled {
            return self.changed_files(request, event);
        }
        if self.github_owners.enabled && matches!(event, "pull_request" | "issue_comment") {
            return self.owners(request, event);
        }
        Ok(Verdict::go())
    }

    pub fn proof(&self, request: &Request<'_>) -> Result<Proof, Stop> {
        let Some(reference) = &self.secret_ref else { return Ok(Proof::None) };
        let header = request.headers.get("X-Hub-Signature-256");
        if header.is_empty() {
            return Err(Stop::refused("the header X-Hub-Signature-256 is missing"));
        }
        signature::check(header, request.body.raw(), request.secret(reference)?)
            .map_err(|error| Stop::refused(format!("X-Hub-Signature-256: {error}")))?;
        Ok(Proof::Signature)
    }

    fn changed_files(&self, request: &Request<'_>, event: &str) -> Result<Verdict, Stop> {
        let body = request.body.json().map_err(Stop::failed)?;
        match event {
            "push" => Ok(Verdict::Go(changed(&pushed(body)?))),
            "pull_request" => {
                let (owner, repository) = repository(body)?;
                let number = body.get("number").and_then(Value::as_i64).ok_or_else(|| missing("number"))?;
                let token = self.add_changed_files.personal_access_token.clone();
                Ok(Verdict::Ask(Question::ChangedFiles { host: host(request), owner, repository, number, token }))
            }
            _ => Ok(Verdict::go()),
        }
    }

    fn owners(&self, request: &Request<'_>, event: &str) -> Result<Verdict, Stop> {
        let body = request.body.json().map_err(Stop::failed)?;
        let (owner, repository) = repository(body)?;
        let sender = body.pointer("/sender/login").and_then(Value::as_str).ok_or_else(|| missing("sender.login"))?;
        if event == "issue_comment" {
            body.pointer("/issue/number").and_then(Value::as_i64).ok_or_else(|| missing("issue.number"))?;
            let comment =
                body.pointer("/comment/body").and_then(Value::as_str).ok_or_else(|| missing("comment.body"))?;
            if !comment.lines().any(|line| line == "/ok-to-test") {
                return Err(Stop::filtered("the comment has no line `/ok-to-test`"));
            }
        }
        Ok(Verdict::Ask(Question::Owner {
            host: host(request),
            owner,
            repository,
            sender: sender.to_owned(),
            check: self.github_owners.check_type,
            token: self.github_owners.personal_access_token.clone(),
        }))
    }
}

/// A server of one's own names itself.
fn host(request: &Request<'_>) -> Option<String> {
    Some(request.headers.get("X-Github-Enterprise-Host").to_owned()).filter(|host| !host.is_empty())
}

fn missing(field: &str) -> Stop {
    Stop::failed(format!("the body has no `{field}`"))
}

fn repository(body: &Value) -> Result<(String, String), Stop> {
    let full = body.pointer("/repository/full_name").and_then(Value::as_str);
    let (owner, name) = full.and_then(|full| full.split_once('/')).ok_or_else(|| missing("repository.full_name"))?;
    Ok((owner.to_owned(), name.to_owned()))
}

/// What the commits of a push added, modified and removed; a file is named as often as commits touch it.
fn pushed(body: &Value) -> Result<Vec<String>, Stop> {
    let mut files = Vec::new();
    for commit in body.get("commits").and_then(Value::as_array).into_iter().flatten() {
        for list in ["added", "modified", "removed"] {
            let names = commit.get(list).and_then(Value::as_array);
            let names = names.ok_or_else(|| missing(&format!("commits[].{list}")))?;
            files.extend(names.iter().filter_map(|name| name.as_str().map(str::to_owned)));
        }
    }
    Ok(files)
}

/// The extension that tells of files.
pub(super) fn changed(files: &[String]) -> Map<String, Value> {
    Map::from_iter([("changed_files".to_owned(), files.join(",").into())])
}
