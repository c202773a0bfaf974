//! Reads `channels`, `notify` and `digest` of `pitcrew.yaml`.
//!
//! Invariant: what comes out names only channels that there are, and no secret that stood in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Weekday;
use pitcrew_core::ir::{NotifyEvent, NotifyRule};
use pitcrew_core::recovery::NoticeKind;
use pitcrew_lang::diagnostic::{Place, closest};
use pitcrew_lang::template::notice;
use pitcrew_lang::yaml::Node;

use super::super::incident;
use super::{Channel, Config, Digest, GlobalRule, Kind, Mail, Security, Slack, Sns, Source, Webhook};
use crate::config::section::{Reader, Section};

/// Messages to one channel in a minute, unless it says otherwise.
const RATE: u32 = 10;
/// Notices that become one message, unless the channel says otherwise.
const DIGEST_FROM: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(15);

const COMMON: [&str; 6] = ["type", "rate", "digest_from", "timeout", "subject", "message"];
const SLACK: [&str; 2] = ["webhook", "allow_link_local"];
const MAIL: [&str; 8] = ["server", "port", "security", "user", "password", "from", "to", "ca_file"];
const SNS: [&str; 2] = ["topic", "region"];
const WEBHOOK: [&str; 4] = ["url", "headers", "secret", "allow_link_local"];
const RULE: [&str; 8] = ["on", "to", "after", "subject", "message", "workflows", "tags", "nodes"];
const DIGEST: [&str; 4] = ["to", "day", "hour", "timezone"];

const TYPES: [(&str, &[&str]); 4] = [("slack", &SLACK), ("mail", &MAIL), ("sns", &SNS), ("webhook", &WEBHOOK)];

/// What one place of the file says: the top, or an environment.
#[derive(Debug, Clone, Default)]
pub struct Sections {
    channels: BTreeMap<String, Channel>,
    /// Names under `channels`, also of those that cannot be read.
    named: BTreeSet<String>,
    rules: Option<Vec<GlobalRule>>,
    digest: Option<Digest>,
    /// Names of channels that are used, with their places.
    used: Vec<(String, Place)>,
}

/// Reads one of the sections into `into`; `false`: it is none of them. Relative paths start at `base`.
pub fn sections(r: &mut Reader<'_>, base: &Path, name: &str, node: &Node, into: &mut Sections) -> bool {
    match name {
        "channels" => {
            for entry in r.mapping(node, "`channels`").unwrap_or_default() {
                let name = &*entry.key.text;
                into.named.insert(name.to_owned());
                if name.is_empty() || name.len() > 100 || name.contains(char::is_whitespace) {
                    r.problem(entry.key.at, "the name of a channel has 1 to 100 characters and no spaces", None);
                }
                if let Some(channel) = channel(r, base, name, entry.key.at.line, &entry.value) {
                    into.channels.insert(name.to_owned(), channel);
                }
            }
        }
        "notify" => {
            let nodes = if node.is_null() { &[] } else { node.as_list().unwrap_or(std::slice::from_ref(node)) };
            into.rules = Some(nodes.iter().filter_map(|node| rule(r, node, &mut into.used)).collect());
        }
        "digest" => into.digest = digest(r, node, &mut into.used),
        _ => return false,
    }
    true
}

impl Sections {
    /// What counts when an environment is chosen: its channels are added, its rules and its digest replace.
    pub fn under(&self, environment: Sections) -> Sections {
        let mut all = environment;
        all.channels = self.channels.clone().into_iter().chain(all.channels).collect();
        all.named.extend(self.named.iter().cloned());
        all.rules = all.rules.or_else(|| self.rules.clone());
        all.digest = all.digest.or_else(|| self.digest.clone());
        all
    }

    /// Refuses names of channels that there are none of.
    pub fn check(&self, r: &mut Reader<'_>) {
        for (name, at) in self.used.iter().filter(|(name, _)| !self.named.contains(name)) {
            let hint = match closest(name, self.named.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "add it under `channels`".to_owned(),
            };
            r.problem(*at, format!("there is no channel `{name}`"), Some(hint));
        }
    }

    pub fn config(self) -> Config {
        Config { channels: self.channels, rules: self.rules.unwrap_or_default(), digest: self.digest }
    }
}

fn channel(r: &mut Reader<'_>, base: &Path, name: &str, line: u32, node: &Node) -> Option<Channel> {
    let what = format!("the channel `{name}`");
    let types: Vec<(&str, &[&str])> = TYPES.to_vec();
    let found = node.get("type").and_then(|node| node.as_scalar());
    let own = found.and_then(|scalar| types.iter().find(|(name, _)| **name == *scalar.text)).map(|(_, keys)| *keys);
    let known: Vec<&str> = match own {
        Some(own) => COMMON.iter().chain(own).copied().collect(),
        None => COMMON.iter().chain(types.iter().flat_map(|(_, keys)| *keys)).copied().collect(),
    };
    let section = r.section(node, &what, &known)?;
    r.require(section, &what, "type", "the types are `slack`, `mail`, `sns` and `webhook`");
    let kind = r.choice(section, "type", &types.iter().map(|(name, _)| (*name, *name)).collect::<Vec<_>>())?;
    let kind = match kind {
        "slack" => Kind::Slack(slack(r, base, section, &what)?),
        "mail" => Kind::Mail(mail(r, base, section, &what)?),
        "sns" => Kind::Sns(sns(r, section, &what)?),
        _ => Kind::Webhook(webhook(r, base, section, &what)?),
    };
    Some(Channel {
        name: name.to_owned(),
        kind,
        rate: r.whole(section, "rate", 1, 1_000).map_or(RATE, |n| n as u32),
        digest_from: r.whole(section, "digest_from", 2, 1_000).map_or(DIGEST_FROM, |n| n as u32),
        timeout: r.duration(section, "timeout").map_or(TIMEOUT, |time| time.unsigned_abs()),
        subject: template(r, section, "subject"),
        message: template(r, section, "message"),
        line,
    })
}

fn slack(r: &mut Reader<'_>, base: &Path, section: Section<'_>, what: &str) -> Option<Slack> {
    r.require(section, what, "webhook", "add `webhook: {env: SLACK_WEBHOOK}`");
    let webhook = source(r, base, section, "webhook", Plain::Refused);
    let allow_link_local = r.flag(section, "allow_link_local").unwrap_or_default();
    Some(Slack { webhook: webhook?, allow_link_local })
}

fn mail(r: &mut Reader<'_>, base: &Path, section: Section<'_>, what: &str) -> Option<Mail> {
    r.require(section, what, "server", "add the name of the SMTP server");
    r.require(section, what, "from", "add for example `from: Pitcrew <ci@example.com>`");
    r.require(section, what, "to", "add for example `to: [team@example.com]`");
    let choices = [("starttls", Security::StartTls), ("tls", Security::Tls), ("none", Security::None)];
    let security = r.choice(section, "security", &choices).unwrap_or(Security::StartTls);
    let port = r.whole(section, "port", 1, 65_535);
    let password = source(r, base, section, "password", Plain::Refused);
    let user = r.text(section, "user");
    if let (Security::None, Some(node)) = (security, section.get("password")) {
        let hint = "use `security: starttls` or `security: tls`";
        r.secret_problem(node.at, "a password never goes over an open connection", Some(hint.to_owned()));
    }
    if user.is_some() != password.is_some() && section.get("user").is_some() != section.get("password").is_some() {
        r.problem(Place { length: 1, ..section.node.at }, format!("{what} needs both `user` and `password`"), None);
    }
    let mut address = |text: &str, at: Place| {
        if let Err(why) = super::super::mail::address(text) {
            r.problem(at, format!("`{text}` is not a mail address: {why}"), None);
        }
    };
    let from = section.get("from").and_then(|node| Some((node.as_scalar()?.text.to_string(), node.at)));
    if let Some((from, at)) = &from {
        address(from, *at);
    }
    let to = {
        let texts = r.texts(section, "to");
        for (text, at) in &texts {
            if let Err(why) = super::super::mail::address(text) {
                r.problem(*at, format!("`{text}` is not a mail address: {why}"), None);
            }
        }
        texts.into_iter().map(|(text, _)| text).collect()
    };
    let default = match security {
        Security::StartTls => 587,
        Security::Tls => 465,
        Security::None => 25,
    };
    Some(Mail {
        server: r.text(section, "server")?,
        port: port.map_or(default, |port| port as u16),
        security,
        user,
        password,
        from: from?.0,
        to,
        ca_file: r.text(section, "ca_file").map(|text| base.join(text)),
    })
}

fn sns(r: &mut Reader<'_>, section: Section<'_>, what: &str) -> Option<Sns> {
    r.require(section, what, "topic", "add the ARN of the topic");
    let topic = r.text(section, "topic")?;
    let parts: Vec<&str> = topic.split(':').collect();
    let (["arn", _, "sns", region, _, name], true) = (&parts[..], !topic.contains(char::is_whitespace)) else {
        let at = section.get("topic").map_or(section.node.at, |node| node.at);
        let hint = "it looks like `arn:aws:sns:eu-central-1:123456789012:alerts`".to_owned();
        r.problem(at, format!("`topic` must be the ARN of a topic, found `{topic}`"), Some(hint));
        return None;
    };
    debug_assert!(!name.is_empty() || topic.ends_with(':'));
    let region = r.text(section, "region").unwrap_or_else(|| (*region).to_owned());
    Some(Sns { topic, region })
}

fn webhook(r: &mut Reader<'_>, base: &Path, section: Section<'_>, what: &str) -> Option<Webhook> {
    r.require(section, what, "url", "add for example `url: https://example.com/hooks/pitcrew`");
    let url = source(r, base, section, "url", Plain::Allowed);
    if let (Some(Source::Text(url)), Some(node)) = (&url, section.get("url"))
        && let Err(why) = super::super::http::address(url)
    {
        r.secret_problem(node.at, format!("`url` {why}"), None);
    }
    let mut headers = BTreeMap::new();
    if let Some(node) = section.get("headers") {
        for entry in r.mapping(node, "`headers`").unwrap_or_default() {
            let name = entry.key.text.to_ascii_lowercase();
            if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
                r.problem(entry.key.at, format!("`{}` is not the name of a header", entry.key.text), None);
            } else if ["content-type", "content-length", "host"].contains(&&*name) || name.starts_with("x-pitcrew-") {
                r.problem(entry.key.at, format!("the header `{}` is set by pitcrew", entry.key.text), None);
            } else if let Some(value) = value(r, base, &entry.key.text, &entry.value, Plain::Allowed) {
                headers.insert(name, value);
            }
        }
    }
    let secret = source(r, base, section, "secret", Plain::Refused);
    let allow_link_local = r.flag(section, "allow_link_local").unwrap_or_default();
    Some(Webhook { url: url?, headers, secret, allow_link_local })
}

/// May the value stand in the file itself?
#[derive(Clone, Copy, PartialEq)]
enum Plain {
    Allowed,
    Refused,
}

fn source(r: &mut Reader<'_>, base: &Path, section: Section<'_>, key: &str, plain: Plain) -> Option<Source> {
    value(r, base, key, section.get(key)?, plain)
}

/// A text, or `{env: …}`, `{file: …}`, `{connection: …}`.
fn value(r: &mut Reader<'_>, base: &Path, key: &str, node: &Node, plain: Plain) -> Option<Source> {
    let hint = || Some(format!("write `{key}: {{env: NAME}}`, `{{file: PATH}}` or `{{connection: ID}}`"));
    if let Some(scalar) = node.as_scalar() {
        if plain == Plain::Allowed {
            return Some(Source::Text(scalar.text.to_string()));
        }
        r.secret_problem(node.at, format!("`{key}` is a secret and does not belong into this file"), hint());
        return None;
    }
    let section = r.section(node, &format!("`{key}`"), &["env", "file", "connection"])?;
    let found: Vec<Source> = [
        r.text(section, "env").map(Source::Env),
        r.text(section, "file").map(|text| Source::File(path(base, &text))),
        r.text(section, "connection").map(Source::Connection),
    ]
    .into_iter()
    .flatten()
    .collect();
    let [one] = &found[..] else {
        r.problem(Place { length: 1, ..node.at }, format!("`{key}` must come from one place"), hint());
        return None;
    };
    Some(one.clone())
}

fn path(base: &Path, text: &str) -> PathBuf {
    crate::config::absolute(base, text)
}

fn template(r: &mut Reader<'_>, section: Section<'_>, key: &str) -> Option<String> {
    let text = r.text(section, key)?;
    if let (Err((message, hint)), Some(node)) = (notice::check(&text), section.get(key)) {
        r.problem(node.at, format!("`{key}`: {message}"), hint);
    }
    Some(text)
}

fn targets(r: &mut Reader<'_>, section: Section<'_>, used: &mut Vec<(String, Place)>) -> Vec<String> {
    let names = r.texts(section, "to");
    used.extend(names.iter().cloned());
    names.into_iter().map(|(name, _)| name).collect()
}

fn rule(r: &mut Reader<'_>, node: &Node, used: &mut Vec<(String, Place)>) -> Option<GlobalRule> {
    let what = "the rule of `notify`";
    let section = r.section(node, what, &RULE)?;
    r.require(section, what, "on", "add `on: [failure]`");
    r.require(section, what, "to", "add `to:` with the name of a channel");
    let (mut on, mut incidents) = (Vec::new(), Vec::new());
    for (text, at) in r.texts(section, "on") {
        let kinds = incident::kinds(&text);
        if !kinds.is_empty() {
            if kinds.iter().any(|kind| incidents.contains(kind)) {
                r.problem(at, format!("the event `{text}` is there twice"), None);
            }
            incidents.extend(kinds.into_iter().filter(|kind| !incidents.contains(kind)).collect::<Vec<_>>());
            continue;
        }
        match NotifyEvent::from_name(&text) {
            Some(event) if on.contains(&event) => r.problem(at, format!("the event `{text}` is there twice"), None),
            Some(event) => on.push(event),
            None => {
                let names = NotifyEvent::ALL.map(|event| event.name().to_owned()).into_iter();
                let names: Vec<String> = names.chain([incident::ALL.to_owned()]).collect();
                let fine = NoticeKind::ALL.map(incident::event);
                let hint = match closest(&text, names.iter().chain(&fine).map(String::as_str)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("the events are {}", names.join(", ")),
                };
                r.problem(at, format!("unknown event `{text}`"), Some(hint));
            }
        }
    }
    let after = r.duration(section, "after");
    if on.contains(&NotifyEvent::Late) != section.get("after").is_some() && !on.is_empty() {
        let message = "`late` and `after` belong together: `{on: late, after: 2h, to: …}`";
        r.problem(Place { length: 1, ..node.at }, message, None);
    }
    let to = targets(r, section, used);
    let subject = template(r, section, "subject");
    let message = template(r, section, "message");
    // What would never count is not what somebody meant.
    let (of_runs, of_nodes) = (["workflows", "tags", "subject", "message"], ["nodes"]);
    let (idle, kind, other): (&[&str], _, _) = match (on.is_empty(), incidents.is_empty()) {
        (true, false) => (&of_runs, "runs", "an incident is of a node: `nodes` chooses some"),
        (false, true) => (&of_nodes, "incidents", "`on` names no event of incidents"),
        (true, true) | (false, false) => (&[], "", ""),
    };
    for key in idle {
        if let Some(node) = section.get(key) {
            r.problem(node.at, format!("`{key}` is for events of {kind}"), Some(other.to_owned()));
        }
    }
    let texts = |texts: Vec<(String, Place)>| texts.into_iter().map(|(text, _)| text).collect();
    Some(GlobalRule {
        rule: NotifyRule { on, to, after, subject, message },
        workflows: texts(r.texts(section, "workflows")),
        tags: texts(r.texts(section, "tags")),
        nodes: texts(r.texts(section, "nodes")),
        incidents,
        line: node.at.line,
    })
}

fn digest(r: &mut Reader<'_>, node: &Node, used: &mut Vec<(String, Place)>) -> Option<Digest> {
    let section = r.section(node, "`digest`", &DIGEST)?;
    r.require(section, "`digest`", "to", "add `to:` with the name of a channel");
    let days = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let day = r.choice(section, "day", &days).unwrap_or(Weekday::Monday);
    let hour = r.whole(section, "hour", 0, 23).unwrap_or(9) as i8;
    let timezone = r.text(section, "timezone").unwrap_or_else(|| "UTC".to_owned());
    if let (Err(_), Some(node)) = (jiff::tz::TimeZone::get(&timezone), section.get("timezone")) {
        let hint = "use a name such as `Europe/Berlin`".to_owned();
        r.problem(node.at, format!("`{timezone}` is not a time zone"), Some(hint));
    }
    Some(Digest { to: targets(r, section, used), day, hour, timezone, line: node.at.line })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::section::Reader;

    use super::*;

    fn read(source: &str) -> Result<Config, String> {
        let root = pitcrew_lang::yaml::read(source, "pitcrew.yaml").unwrap().unwrap();
        let mut reader = Reader::new("pitcrew.yaml", source);
        let mut found = Sections::default();
        for entry in root.as_map().unwrap() {
            assert!(sections(&mut reader, Path::new("/etc"), &entry.key.text, &entry.value, &mut found));
        }
        found.check(&mut reader);
        let problems = reader.finish();
        if problems.is_empty() { Ok(found.config()) } else { Err(pitcrew_lang::render_all(&problems, false)) }
    }

    #[test]
    fn the_examples_of_the_page_are_read_and_shown_without_secrets() {
        let page = include_str!("../../../../../docs/notifications.md");
        let examples = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let examples: Vec<&str> = examples.filter(|example| !example.starts_with("workflow:")).collect();
        assert!(examples.len() >= 3, "{}", examples.len());
        for example in examples {
            read(example).unwrap_or_else(|problems| panic!("{problems}\n{example}"));
        }
        let source = "channels: {hook: {type: webhook, url: 'https://example.com/T0KEN', headers: {X-Key: s3cret}}}\n";
        let config = read(source).unwrap();
        let shown = format!("{} {config:?}", config.channels["hook"]);
        assert!(!shown.contains("T0KEN") && !shown.contains("s3cret"), "{shown}");
        assert!(shown.starts_with("webhook to https://example.com "), "{shown}");
    }

    #[test]
    fn mistakes_are_told_with_their_places_and_without_secrets() {
        let source = r#"channels:
  chat: {type: slack, webhook: "https://hooks.example.com/T0KEN"}
  post: {type: mail, server: smtp.example.com, from: nobody, to: [a@b.example], user: u, password: {env: A, file: b}}
  open: {type: mail, server: localhost, security: none, from: a@b.example, to: a@b.example, user: u, password: {env: P}}
  topic: {type: sns, topic: alerts}
  hook: {type: webhook, url: "ftp://example.com/", headers: {Host: x}, rate: 0, chanel: 1}
  what: {type: pager}
  "two words": {type: slack, webhook: {env: X}}
notify:
  - {on: [failure], to: chats}
  - {on: [late], to: chat}
  - {on: [sucess], to: chat, message: "{{ nope }}"}
  - {on: [incident.would, incident, incidents.repaired], to: chat, nodes: [s2*]}
  - {on: incident, to: chat, tags: [a]}
  - {on: failure, to: chat, nodes: s21}
digest: {to: chat, day: moonday, hour: 24, timezone: Mars}
"#;
        let problems = read(source).unwrap_err();
        assert!(!problems.contains("T0KEN"), "{problems}");
        insta::assert_snapshot!(problems, @r#"
    pitcrew.yaml:2:32: error: `webhook` is a secret and does not belong into this file
    hint: write `webhook: {env: NAME}`, `{file: PATH}` or `{connection: ID}`

    pitcrew.yaml:3:54: error: `nobody` is not a mail address: invalid input
      |
    3 |   post: {type: mail, server: smtp.example.com, from: nobody, to: [a@b.example], user: u, password: {env: A, file: b}}
      |                                                      ^^^^^^

    pitcrew.yaml:3:100: error: `password` must come from one place
      |
    3 |   post: {type: mail, server: smtp.example.com, from: nobody, to: [a@b.example], user: u, password: {env: A, file: b}}
      |                                                                                                    ^
    hint: write `password: {env: NAME}`, `{file: PATH}` or `{connection: ID}`

    pitcrew.yaml:4:112: error: a password never goes over an open connection
    hint: use `security: starttls` or `security: tls`

    pitcrew.yaml:5:29: error: `topic` must be the ARN of a topic, found `alerts`
      |
    5 |   topic: {type: sns, topic: alerts}
      |                             ^^^^^^
    hint: it looks like `arn:aws:sns:eu-central-1:123456789012:alerts`

    pitcrew.yaml:6:30: error: `url` must begin with `https://` or `http://`, found `ftp:`

    pitcrew.yaml:6:62: error: the header `Host` is set by pitcrew
      |
    6 |   hook: {type: webhook, url: "ftp://example.com/", headers: {Host: x}, rate: 0, chanel: 1}
      |                                                              ^^^^

    pitcrew.yaml:6:78: error: `rate` must be a whole number from 1 to 1000, found the number `0`
      |
    6 |   hook: {type: webhook, url: "ftp://example.com/", headers: {Host: x}, rate: 0, chanel: 1}
      |                                                                              ^

    pitcrew.yaml:6:81: error: unknown key `chanel` in the channel `hook`
      |
    6 |   hook: {type: webhook, url: "ftp://example.com/", headers: {Host: x}, rate: 0, chanel: 1}
      |                                                                                 ^^^^^^
    hint: known here: type, rate, digest_from, timeout, subject, message, url, headers, secret, allow_link_local

    pitcrew.yaml:7:16: error: `type` must be one of `slack`, `mail`, `sns`, `webhook`, found `pager`
      |
    7 |   what: {type: pager}
      |                ^^^^^

    pitcrew.yaml:8:3: error: the name of a channel has 1 to 100 characters and no spaces
      |
    8 |   "two words": {type: slack, webhook: {env: X}}
      |   ^^^^^^^^^^^

    pitcrew.yaml:10:25: error: there is no channel `chats`
       |
    10 |   - {on: [failure], to: chats}
       |                         ^^^^^
    hint: did you mean `chat`?

    pitcrew.yaml:11:5: error: `late` and `after` belong together: `{on: late, after: 2h, to: …}`
       |
    11 |   - {on: [late], to: chat}
       |     ^

    pitcrew.yaml:12:11: error: unknown event `sucess`
       |
    12 |   - {on: [sucess], to: chat, message: "{{ nope }}"}
       |           ^^^^^^
    hint: did you mean `success`?

    pitcrew.yaml:12:39: error: `message`: there is no `nope` in a notification
       |
    12 |   - {on: [sucess], to: chat, message: "{{ nope }}"}
       |                                       ^^^^^^^^^^^^
    hint: a notification has `event`, `title`, `workflow`, `run` and `tasks`

    pitcrew.yaml:13:27: error: the event `incident` is there twice
       |
    13 |   - {on: [incident.would, incident, incidents.repaired], to: chat, nodes: [s2*]}
       |                           ^^^^^^^^

    pitcrew.yaml:13:37: error: unknown event `incidents.repaired`
       |
    13 |   - {on: [incident.would, incident, incidents.repaired], to: chat, nodes: [s2*]}
       |                                     ^^^^^^^^^^^^^^^^^^
    hint: did you mean `incident.repaired`?

    pitcrew.yaml:14:36: error: `tags` is for events of runs
       |
    14 |   - {on: incident, to: chat, tags: [a]}
       |                                    ^
    hint: an incident is of a node: `nodes` chooses some

    pitcrew.yaml:15:36: error: `nodes` is for events of incidents
       |
    15 |   - {on: failure, to: chat, nodes: s21}
       |                                    ^^^
    hint: `on` names no event of incidents

    pitcrew.yaml:16:25: error: `day` must be one of `monday`, `tuesday`, `wednesday`, `thursday`, `friday`, `saturday`, `sunday`, found `moonday`
       |
    16 | digest: {to: chat, day: moonday, hour: 24, timezone: Mars}
       |                         ^^^^^^^
    hint: did you mean `monday`?

    pitcrew.yaml:16:40: error: `hour` must be a whole number from 0 to 23, found the number `24`
       |
    16 | digest: {to: chat, day: moonday, hour: 24, timezone: Mars}
       |                                        ^^

    pitcrew.yaml:16:54: error: `Mars` is not a time zone
       |
    16 | digest: {to: chat, day: moonday, hour: 24, timezone: Mars}
       |                                                      ^^^^
    hint: use a name such as `Europe/Berlin`
    "#);
    }
}
