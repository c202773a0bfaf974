//! What is written back to a forge of a run that an event started: where to, and the notices that have it done.
//!
//! Invariant: a notice says that there is something to tell, and not what. What is told is how the run stands when it is
//! sent (`notify::forge`), and the notices of one forge are sent one after the other; so however late one is, or however
//! often it is tried, nothing old ever follows something new.

use jiff::Timestamp;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_lang::triggers::report::Report;
use pitcrew_store::NewNotice;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fire::subject;
use crate::links;
use crate::notify::facts::Body;
use crate::notify::http;

/// In the `conf` of a run: its [`Target`]. No param can have this name.
pub const CONF: &str = "pitcrew.dev/report";
/// What the names of channels that are forges begin with; a configured one has no spaces.
pub const CHANNEL: &str = "forge ";
/// The event of such a notice.
const EVENT: &str = "report";
/// The longest name of a repository.
const LONGEST: usize = 500;

/// The commit that the results of a run are written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    #[serde(flatten)]
    pub report: Report,
    /// With its owner or its groups: `acme/app`.
    pub repository: String,
    pub commit: String,
    /// The name of the status.
    pub name: String,
}

impl Target {
    /// The commit that an event is about. The error is a sentence.
    pub fn of(report: Report, trigger: &str, body: &Value) -> Result<Target, String> {
        let (repository, commit) = subject(body).ok_or("the event names no repository and no commit")?;
        let part = |part: &str| {
            let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | ' ' | '+');
            !part.is_empty() && part != "." && part != ".." && part.chars().all(is_plain)
        };
        if repository.len() > LONGEST || !repository.contains('/') || !repository.split('/').all(part) {
            return Err("what the event calls its repository is no name of one".to_owned());
        }
        let is_commit = (4..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_commit || commit.bytes().all(|byte| byte == b'0') {
            return Err("the event is about no commit that there is".to_owned());
        }
        let name = report.context.clone().unwrap_or_else(|| format!("pitcrew/{trigger}"));
        Ok(Target { repository: repository.to_owned(), commit: commit.to_owned(), name, report })
    }

    /// That of a run, if it has one.
    pub fn of_run(run: &RunRecord) -> Option<Target> {
        serde_json::from_value(run.conf.get(CONF)?.clone()).ok()
    }

    /// For people: `acme/app@c0ffee12, pitcrew/push`.
    pub fn words(&self) -> String {
        let short: String = self.commit.chars().take(8).collect();
        format!("{}@{short}, {}", self.repository, self.name)
    }
}

/// Has it told how the run stands, once for each of its states; `None`: nobody is to be told.
pub fn notice(run: &RunRecord, now: Timestamp) -> Option<NewNotice> {
    let target = Target::of_run(run)?;
    // A run that was cleared begins, and ends, once more.
    let since = run.end.or(run.start).unwrap_or(run.queued_at);
    let page = links::run(&run.workflow, &run.run_id);
    let body = Body::Report { text: target.words(), page };
    Some(NewNotice {
        dedupe: format!("report/{}/{}/{since}", run.key, run.state.name()),
        channel: format!("{CHANNEL}{}", http::host(&target.report.api)),
        event: EVENT.to_owned(),
        workflow: Some(run.workflow.clone()),
        run: Some(run.key),
        body: serde_json::to_value(&body).expect("texts are always JSON"),
        created: now,
    })
}

#[cfg(test)]
mod tests {
    use pitcrew_lang::triggers::report::{Forge, Token};
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        let token = Token::Reference("env:X".to_owned());
        Report { forge: Forge::Github, api: "https://api.github.com".to_owned(), context: None, token }
    }

    #[test]
    fn a_target_is_what_the_event_is_about_and_nothing_that_could_lead_elsewhere() {
        let target = |repository: &str, commit: &str| {
            let body = json!({"repository": {"full_name": repository}, "after": commit});
            Target::of(report(), "push", &body)
        };
        let found = target("acme/app", "c0ffee1234").unwrap();
        assert_eq!(found.words(), "acme/app@c0ffee12, pitcrew/push");
        for (repository, commit) in [
            ("acme/app", "main"),
            ("acme/app", "../../../user"),
            ("acme/app", &*"0".repeat(40)),
            ("acme", "c0ffee"),
            ("acme/..", "c0ffee"),
            ("acme/app?x=1", "c0ffee"),
            ("/app", "c0ffee"),
        ] {
            assert!(target(repository, commit).is_err(), "{repository} {commit}");
        }
        assert!(Target::of(report(), "push", &json!({"zen": "x"})).is_err());
    }
}
