//! Webhooks of native workflows, by the machinery of triggers: the same interceptors, in front of fewer words.

use pitcrew_core::ir::{HookSender, HookSource};
use serde_json::{Map, Value, json};

use super::event::{Body, Headers};
use super::interceptors::Interceptor;
use super::model::{InterceptorParam, InterceptorRef, InterceptorUse, SecretRef};
use super::report::{Forge, Report, Token};
use super::stop::Stop;
use crate::event;

/// The key under which a secret is handed to interceptors; its name is the reference.
pub const KEY: &str = "value";
/// What the interceptor `github` adds.
const CHANGED: &str = "changed_files";

/// What an event passes before it starts a run. The error is a sentence.
pub fn interceptors(hook: &HookSource) -> Result<Vec<Interceptor>, String> {
    let secret = |reference: &str| json!({ "secretName": reference, "secretKey": KEY });
    let mut params = vec![("secretRef", secret(&hook.secret))];
    if !hook.events.is_empty() {
        params.push(("eventTypes", hook.events.iter().map(|event| named(hook.sender, event)).collect()));
    }
    if hook.sender == HookSender::Github && !hook.paths.is_empty() {
        let mut files = json!({ "enabled": true });
        if let Some(report) = &hook.report {
            files["personalAccessToken"] = secret(&report.token);
        }
        params.push(("addChangedFiles", files));
    }
    let first = match hook.sender {
        HookSender::Generic => {
            let reference = SecretRef { secret_name: hook.secret.clone(), secret_key: KEY.to_owned() };
            Ok(Interceptor::generic(reference))
        }
        HookSender::Github | HookSender::Gitlab | HookSender::Bitbucket => made(hook.sender.name(), params),
    };
    let mut chain = vec![first?];
    if let Some(filter) = &hook.filter {
        chain.push(made("cel", vec![("filter", json!(filter))])?);
    }
    Ok(chain)
}

/// Whether an expression can be one. The error is a sentence.
pub fn check_filter(text: &str) -> Result<(), String> {
    made("cel", vec![("filter", json!(text))]).map(|_| ())
}

fn made(name: &str, params: Vec<(&str, Value)>) -> Result<Interceptor, String> {
    let params = params.into_iter().map(|(name, value)| InterceptorParam { name: name.to_owned(), value });
    let reference = InterceptorRef { name: name.to_owned(), ..InterceptorRef::default() };
    let written = InterceptorUse { reference, params: params.collect(), ..InterceptorUse::default() };
    Interceptor::read(&written).map_err(|(_, why)| why)
}

/// GitLab writes `Merge Request Hook`; `merge_request` is understood as well.
fn named(sender: HookSender, event: &str) -> Value {
    if sender != HookSender::Gitlab || event.ends_with(" Hook") {
        return json!(event);
    }
    let words = event.split(['_', ' ']).map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    });
    json!(format!("{} Hook", words.collect::<Vec<String>>().join(" ")))
}

/// Fields that mean nothing for who sends it: their names, and why.
pub fn refused(hook: &HookSource) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let mut refuse = |is_there: bool, field, why| found.extend(is_there.then_some((field, why)));
    match hook.sender {
        HookSender::Generic => {
            refuse(!hook.events.is_empty(), "events", "whoever else posts gives events no names; use `filter`");
            refuse(!hook.branches.is_empty(), "branches", "only events of a forge are about a branch; use `filter`");
            refuse(!hook.paths.is_empty(), "paths", "only pushes to a forge name files; use `filter`");
            refuse(hook.report.is_some(), "report", "only an event of a forge is about a commit");
        }
        HookSender::Bitbucket => {
            refuse(!hook.paths.is_empty(), "paths", "the events of Bitbucket name no files");
        }
        HookSender::Gitlab => {
            let is_push = |event: &String| named(HookSender::Gitlab, event) == "Push Hook";
            let only_push = !hook.events.is_empty() && hook.events.iter().all(is_push);
            let why = "of GitLab's events only a push names files: write `events: [push]`";
            refuse(!hook.paths.is_empty() && !only_push, "paths", why);
        }
        HookSender::Github => {}
    }
    let is_check = hook.report.as_ref().is_some_and(|report| report.checks) && hook.sender != HookSender::Github;
    refuse(is_check, "report", "`checks` are GitHub's");
    found
}

/// Whether an event is for a workflow, after its interceptors have let it pass.
pub fn passes(hook: &HookSource, body: &Body, extensions: &Map<String, Value>) -> Result<(), Stop> {
    let body = body.json().map_err(Stop::failed)?;
    if body["deleted"] == true || body["after"].as_str().is_some_and(|commit| commit.bytes().all(|b| b == b'0')) {
        return Err(Stop::filtered("a branch or a tag was removed").by("push"));
    }
    if !hook.branches.is_empty() {
        match branch(body) {
            Some(branch) if hook.branches.iter().any(|pattern| fits(pattern, branch)) => {}
            Some(branch) => return Err(Stop::filtered(format!("`{branch}` is not among them")).by("branches")),
            None => return Err(Stop::filtered("it is about no branch").by("branches")),
        }
    }
    if !hook.paths.is_empty() {
        let files = changed(body, extensions);
        let fit = |file: &&str| hook.paths.iter().any(|pattern| fits(pattern, file));
        if !files.iter().any(fit) {
            return Err(Stop::filtered(format!("none of {} changed files is among them", files.len())).by("paths"));
        }
    }
    Ok(())
}

/// The branch that was pushed to, or that is to be merged into.
fn branch(body: &Value) -> Option<&str> {
    let text = |path: &str| body.pointer(path).and_then(Value::as_str);
    let merged = ["/pull_request/base/ref", "/object_attributes/target_branch", "/pullrequest/destination/branch/name"];
    let merged = merged.into_iter().find_map(text);
    let pushed = || text("/ref").and_then(|name| name.strip_prefix("refs/heads/"));
    merged.or_else(pushed).or_else(|| text("/push/changes/0/new/name"))
}

/// The files that changed, as far as they are told.
fn changed<'e>(body: &'e Value, extensions: &'e Map<String, Value>) -> Vec<&'e str> {
    if let Some(list) = extensions.get(CHANGED).and_then(Value::as_str) {
        return list.split(',').filter(|file| !file.is_empty()).collect();
    }
    let commits = body["commits"].as_array().into_iter().flatten();
    let lists = commits.flat_map(|commit| ["added", "modified", "removed"].map(|list| &commit[list]));
    lists.filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect()
}

/// Does a pattern fit the whole text? `*` stands for any characters but `/`, and `**` for any.
pub fn fits(pattern: &str, text: &str) -> bool {
    // Where the pattern goes on, for each place in the text: linear in both, whatever the pattern.
    let tokens = tokens(pattern);
    let mut at = vec![false; tokens.len() + 1];
    at[0] = true;
    skip_stars(&tokens, &mut at);
    for c in text.chars() {
        let mut next = vec![false; tokens.len() + 1];
        for (n, token) in tokens.iter().enumerate().filter(|(n, _)| at[*n]) {
            match token {
                Part::Any => next[n] = true,
                Part::Name if c != '/' => next[n] = true,
                Part::Char(wanted) if *wanted == c => next[n + 1] = true,
                Part::Name | Part::Char(_) => {}
            }
        }
        skip_stars(&tokens, &mut next);
        at = next;
    }
    at[tokens.len()]
}

#[derive(Clone, Copy)]
enum Part {
    Char(char),
    /// `*`
    Name,
    /// `**`
    Any,
}

fn tokens(pattern: &str) -> Vec<Part> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => Part::Any,
            '*' => Part::Name,
            other => Part::Char(other),
        });
    }
    tokens
}

/// Stars may stand for nothing.
fn skip_stars(tokens: &[Part], at: &mut [bool]) {
    for (n, token) in tokens.iter().enumerate() {
        if at[n] && !matches!(token, Part::Char(_)) {
            at[n + 1] = true;
        }
    }
}

/// What a run is given. The error is a sentence.
pub fn params(hook: &HookSource, body: &Value) -> Result<Map<String, Value>, String> {
    event::conf(Some(&hook.params), body).map_err(|why| why.replacen("`conf.", "`params.", 1))
}

/// Where the result of a run is written to.
pub fn report(hook: &HookSource) -> Option<Report> {
    let written = hook.report.as_ref()?;
    let forge = match hook.sender {
        HookSender::Github if written.checks => Forge::GithubChecks,
        HookSender::Github => Forge::Github,
        HookSender::Gitlab => Forge::Gitlab,
        HookSender::Bitbucket => Forge::Bitbucket,
        HookSender::Generic => return None,
    };
    Some(Report {
        forge,
        api: written.url.clone().unwrap_or_else(|| forge.public_api().to_owned()),
        context: written.context.clone(),
        token: Token::Reference(written.token.clone()),
    })
}

/// What the sender calls an event, for people.
pub fn about(sender: HookSender, headers: &Headers) -> String {
    let name = match sender {
        HookSender::Github => "X-GitHub-Event",
        HookSender::Gitlab => "X-Gitlab-Event",
        HookSender::Bitbucket => "X-Event-Key",
        HookSender::Generic => return "an event".to_owned(),
    };
    headers.get(name).chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_a_name_and_two_do_not() {
        for (pattern, text, fit) in [
            ("main", "main", true),
            ("main", "mains", false),
            ("release/*", "release/1", true),
            ("release/*", "release/1/x", false),
            ("release/**", "release/1/x", true),
            ("src/**/*.py", "src/a/b.py", true),
            ("src/**/*.py", "src/b.py", false),
            ("src/**.py", "src/b.py", true),
            ("*", "", true),
            ("**", "a/b", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "acb", false),
            ("*.md", "docs/a.md", false),
        ] {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
        // What would take for ever where every star is tried by itself.
        let begun = "*a".repeat(200) + "b";
        assert!(!fits(&begun, &"a".repeat(3_000)));
    }

    #[test]
    fn gitlab_calls_its_events_hooks() {
        assert_eq!(named(HookSender::Gitlab, "merge_request"), "Merge Request Hook");
        assert_eq!(named(HookSender::Gitlab, "Push Hook"), "Push Hook");
        assert_eq!(named(HookSender::Github, "pull_request"), "pull_request");
    }
}
