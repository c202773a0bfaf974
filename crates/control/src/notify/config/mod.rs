//! Channels and rules as `pitcrew.yaml` gives them.
//!
//! Invariant: a secret is never in here, only where it is to be found; so this can be printed and compared.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pitcrew_core::ir::{NotifyEvent, NotifyRule, Workflow};
use pitcrew_core::recovery::NoticeKind;

use super::incident;

pub use read::{Sections, sections};

/// Everything that the configuration says of notifications.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// By name.
    pub channels: BTreeMap<String, Channel>,
    /// For all workflows, or for some.
    pub rules: Vec<GlobalRule>,
    pub digest: Option<Digest>,
}

/// A way to tell people.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    pub name: String,
    pub kind: Kind,
    /// Messages in a minute at most; what is more waits.
    pub rate: u32,
    /// So many notices that wait at the same time become one message.
    pub digest_from: u32,
    /// For one message, from the connection to the answer.
    pub timeout: Duration,
    /// Templates instead of the built-in texts; those of a rule win.
    pub subject: Option<String>,
    pub message: Option<String>,
    /// Where it stands in the file.
    pub line: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Slack(Slack),
    Mail(Mail),
    Sns(Sns),
    Webhook(Webhook),
    /// The forge of a run that an event started; never configured.
    Forge,
}

/// An incoming webhook of Slack, or of a chat that understands the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Slack {
    pub webhook: Source,
    pub allow_link_local: bool,
}

/// An SMTP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Mail {
    pub server: String,
    pub port: u16,
    pub security: Security,
    pub user: Option<String>,
    pub password: Option<Source>,
    pub from: String,
    pub to: Vec<String>,
    /// PEM certificates to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS after a greeting in the clear; never without.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// In the clear: for a server on this machine. No password goes over it.
    None,
}

/// A topic of Amazon SNS. Credentials come from where the AWS tools look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sns {
    pub topic: String,
    /// Of the topic's ARN unless given.
    pub region: String,
}

/// Any server that takes JSON by POST.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    pub url: Source,
    pub headers: BTreeMap<String, Source>,
    /// Signs the body.
    pub secret: Option<Source>,
    pub allow_link_local: bool,
}

/// Where a value comes from; read each time it is needed, so a new secret counts at once.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Written in the file: no secret.
    Text(String),
    Env(String),
    /// The file's text without the line break at its end.
    File(PathBuf),
    /// The password of a stored connection.
    Connection(String),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where it comes from. A text is not shown: addresses and headers often hold a token after all.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Text(_) => f.write_str("***"),
            Source::Env(name) => write!(f, "env {name}"),
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::Connection(id) => write!(f, "connection {id}"),
        }
    }
}

/// A rule for workflows that need not know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalRule {
    pub rule: NotifyRule,
    /// Ids, `*` for any characters; empty: all workflows.
    pub workflows: Vec<String>,
    /// At least one of them; empty: whatever tags.
    pub tags: Vec<String>,
    /// What it tells of incidents, which are of nodes and not of workflows.
    pub incidents: Vec<NoticeKind>,
    /// Names, `*` for any characters; empty: incidents of all nodes.
    pub nodes: Vec<String>,
    pub line: u32,
}

/// When the weekly digest is sent, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Digest {
    pub to: Vec<String>,
    pub day: jiff::civil::Weekday,
    /// From 0 to 23.
    pub hour: i8,
    pub timezone: String,
    pub line: u32,
}

impl Config {
    /// The rules that count for a workflow: its own, then the global ones.
    pub fn rules_for<'c>(&'c self, workflow: &'c Workflow) -> impl Iterator<Item = &'c NotifyRule> {
        let global = self.rules.iter().filter(|rule| rule.is_for(workflow)).map(|rule| &rule.rule);
        workflow.notify.iter().chain(global)
    }

    /// Who is told something of an incident, each once. What is about a job alone is told whatever nodes a rule names.
    pub fn channels_for(&self, kind: NoticeKind, node: Option<&str>) -> BTreeSet<&str> {
        let is_of = |rule: &&GlobalRule| {
            let is_its = |node| rule.nodes.is_empty() || rule.nodes.iter().any(|pattern| matches(pattern, node));
            rule.incidents.contains(&kind) && node.is_none_or(is_its)
        };
        self.rules.iter().filter(is_of).flat_map(|rule| rule.rule.to.iter().map(String::as_str)).collect()
    }

    /// The names of the channels, in order.
    pub fn names(&self) -> Vec<String> {
        self.channels.keys().cloned().collect()
    }
}

impl GlobalRule {
    fn is_for(&self, workflow: &Workflow) -> bool {
        let id = workflow.id.as_str();
        (self.workflows.is_empty() || self.workflows.iter().any(|pattern| matches(pattern, id)))
            && (self.tags.is_empty() || self.tags.iter().any(|tag| workflow.tags.contains(tag)))
    }
}

/// Does the pattern, in which `*` stands for any characters, fit the whole text?
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
}

/// What the configuration shows of a channel: what it is and where its secrets come from.
impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Slack(slack) => write!(f, "slack, webhook from {}", slack.webhook),
            Kind::Mail(mail) => {
                write!(f, "mail to {} by {}:{}", mail.to.join(", "), mail.server, mail.port)?;
                mail.password.as_ref().map_or(Ok(()), |source| write!(f, ", password from {source}"))
            }
            Kind::Sns(sns) => write!(f, "sns, {}", sns.topic),
            Kind::Forge => f.write_str("the statuses of a forge"),
            Kind::Webhook(webhook) => {
                match &webhook.url {
                    Source::Text(url) => write!(f, "webhook to {}", super::http::host(url))?,
                    source => write!(f, "webhook, address from {source}")?,
                }
                webhook.secret.as_ref().map_or(Ok(()), |source| write!(f, ", signed with {source}"))
            }
        }
    }
}

impl fmt::Display for GlobalRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut events: Vec<String> = self.rule.on.iter().map(|event: &NotifyEvent| event.name().to_owned()).collect();
        match NoticeKind::ALL.iter().all(|kind| self.incidents.contains(kind)) {
            true => events.push(incident::ALL.to_owned()),
            false => events.extend(self.incidents.iter().map(|kind| incident::event(*kind))),
        }
        write!(f, "{} to {}", events.join(", "), self.rule.to.join(", "))?;
        if !self.workflows.is_empty() {
            write!(f, ", workflows {}", self.workflows.join(", "))?;
        }
        if !self.tags.is_empty() {
            write!(f, ", tags {}", self.tags.join(", "))?;
        }
        if !self.nodes.is_empty() {
            write!(f, ", nodes {}", self.nodes.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}, {:?} at {}:00 {}", self.to.join(", "), self.day, self.hour, self.timezone)
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, fits) in [
            ("etl", "etl", true),
            ("etl", "etl-2", false),
            ("etl*", "etl-2", true),
            ("*nightly", "etl-nightly", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
