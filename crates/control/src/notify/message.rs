//! From the facts of a notice to words: the first line, the text, the page for mail, and the JSON for webhooks.
//!
//! Invariant: whatever is wrong with somebody's template, the message goes out; it then has the built-in words, and
//! says what was wrong.

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::ir::NotifyEvent;
use pitcrew_lang::template::notice;
use pitcrew_store::Notice;
use serde_json::{Value, json};

use super::config::Channel;
use super::facts::{Body, Facts, TaskFacts};
use super::text::{self, Secrets, escape};
use crate::words::{duration, plural};

/// The longest first line and text that templates may give, in characters.
const SUBJECT: usize = 200;
const TEXT: usize = 30_000;
/// Notices that a digest lists.
const LISTED: usize = 40;

/// Something to be sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// The same for every try; a receiver can tell a repetition by it.
    pub id: String,
    pub event: String,
    pub tone: Tone,
    /// One line.
    pub subject: String,
    pub text: String,
    /// The inside of a page's `<body>`.
    pub html: String,
    /// The text as Slack formats it.
    pub mrkdwn: String,
    /// The page to look at; empty without one.
    pub url: String,
    /// What a webhook gets beside the words.
    pub json: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
    Plain,
}

impl Tone {
    pub fn sign(self) -> &'static str {
        match self {
            Tone::Good => "✅",
            Tone::Bad => "❌",
            Tone::Plain => "ℹ️",
        }
    }

    /// For the line beside the text of a mail.
    fn colour(self) -> &'static str {
        match self {
            Tone::Good => "#1a7f37",
            Tone::Bad => "#cf222e",
            Tone::Plain => "#57606a",
        }
    }
}

/// Where the words of a message come from.
pub struct Words<'a> {
    pub channel: &'a Channel,
    /// Where browsers find the server, without a slash at the end; empty: no links.
    pub base_url: &'a str,
    pub secrets: &'a Secrets,
}

impl Words<'_> {
    /// The message of one notice.
    pub fn message(&self, stored: &Notice) -> Message {
        let mut body = stored.notice.body.clone();
        self.secrets.mask_value(&mut body);
        let id = format!("{}-{}", stored.id, stored.notice.created.as_microsecond());
        match serde_json::from_value(body) {
            Ok(Body::Run(facts)) => self.of_run(id, &facts),
            Ok(Body::Incident(facts)) => self.of_incident(id, &facts),
            Ok(Body::Text { subject, text, html, page }) => {
                let event = stored.notice.event.clone();
                let parts = vec![Part::Text(text::cut(&text::plain(&text), TEXT))];
                let json = json!({ "workflow": stored.notice.workflow, "run": stored.notice.run });
                let mut message = self.build(id, event, Tone::Plain, &subject, &parts, &page, json);
                message.html = html.unwrap_or(message.html);
                message
            }
            // It goes to a forge and not to people.
            Ok(Body::Report { text, page }) => {
                let parts = vec![Part::Text(text)];
                self.build(id, stored.notice.event.clone(), Tone::Plain, "A status", &parts, &page, Value::Null)
            }
            Err(error) => {
                let parts = vec![Part::Text(format!("The outbox holds a notice that cannot be read: {error}"))];
                let event = stored.notice.event.clone();
                self.build(id, event, Tone::Plain, "A notice of Pitcrew", &parts, "", Value::Null)
            }
        }
    }

    /// A message that only shows that the channel works.
    pub fn test(&self, now: Timestamp) -> Message {
        let parts = vec![Part::Text(format!(
            "The channel {} works. Somebody asked Pitcrew to send this message; nothing has happened.",
            self.channel.name
        ))];
        let id = format!("test-{}", now.as_microsecond());
        self.build(id, "test".into(), Tone::Good, "A test of Pitcrew", &parts, "/", Value::Null)
    }

    /// One message for many notices.
    pub fn digest(&self, notices: &[Notice]) -> Message {
        let messages: Vec<Message> = notices.iter().map(|stored| self.message(stored)).collect();
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for message in &messages {
            match counts.iter_mut().find(|(event, _)| *event == message.event) {
                Some((_, count)) => *count += 1,
                None => counts.push((&message.event, 1)),
            }
        }
        let counted: Vec<String> = counts.iter().map(|(event, count)| format!("{count} × {event}")).collect();
        let subject = format!("{} in one: {}", plural(messages.len() as u64, "notice"), counted.join(", "));
        let mut parts =
            vec![Part::Text("Many things happened in a short time; this is all of them in one message.".into())];
        let line = |message: &Message| (message.subject.clone(), message.url.clone());
        parts.push(Part::List(messages.iter().take(LISTED).map(line).collect()));
        if messages.len() > LISTED {
            parts.push(Part::Text(format!("… and {} more", messages.len() - LISTED)));
        }
        let bad = messages.iter().any(|message| message.tone == Tone::Bad);
        let item = |message: &Message| json!({ "id": message.id, "event": message.event, "subject": message.subject, "url": message.url });
        let json =
            json!({ "notices": messages.iter().take(500).map(item).collect::<Vec<_>>(), "count": messages.len() });
        let id = format!("{}-digest-{}", messages.first().map_or("", |message| &message.id), messages.len());
        self.build(id, "digest".into(), if bad { Tone::Bad } else { Tone::Plain }, &subject, &parts, "/", json)
    }

    fn of_run(&self, id: String, facts: &Facts) -> Message {
        let title = title(facts);
        let tone = match facts.event {
            NotifyEvent::Failure | NotifyEvent::TaskFailure => Tone::Bad,
            NotifyEvent::Success | NotifyEvent::Recovery => Tone::Good,
            NotifyEvent::Cancelled | NotifyEvent::Retry | NotifyEvent::Late => Tone::Plain,
        };
        let page = crate::links::run(&facts.run.workflow, &facts.run.id);
        let context = self.context(facts, &title, &page);
        let mut problems = Vec::new();
        let mut custom = |own: &Option<String>, channel: &Option<String>, what: &str, most: usize| {
            let template = own.as_ref().or(channel.as_ref())?;
            match notice::fill(template, &context) {
                Ok(text) => Some(text::cut(&text::plain(&text), most)).filter(|text| !text.trim().is_empty()),
                Err(why) => {
                    problems.push(format!("The template of the {what} does not work: {why}"));
                    None
                }
            }
        };
        let subject =
            custom(&facts.subject, &self.channel.subject, "subject", SUBJECT).unwrap_or_else(|| title.clone());
        let own = custom(&facts.message, &self.channel.message, "message", TEXT);
        let mut parts = match own {
            Some(text) => vec![Part::Text(text)],
            None => self.parts(facts),
        };
        parts.extend(problems.into_iter().map(Part::Text));
        let mut json = context;
        if let Some(map) = json.as_object_mut() {
            map.remove("event");
            map.remove("title");
        }
        self.build(id, facts.event.name().to_owned(), tone, &subject, &parts, &page, json)
    }

    /// What templates can name, and webhooks get.
    fn context(&self, facts: &Facts, title: &str, page: &str) -> Value {
        let run = &facts.run;
        json!({
            "event": facts.event.name(),
            "title": title,
            "workflow": run.workflow,
            "run": {
                "key": run.key,
                "id": run.id,
                "type": run.run_type,
                "state": run.state,
                "description": facts.description,
                "tags": facts.tags,
                "started": run.started,
                "ended": run.ended,
                "duration": took(facts).map(duration),
                "seconds": took(facts).map(|took| took.as_secs_f64()),
                "logical_date": run.logical_date,
                "triggered_by": run.triggered_by,
                "note": run.note,
                "url": self.link(page),
            },
            "tasks": facts.tasks.iter().map(|task| json!({
                "name": task.name,
                "state": task.state,
                "attempt": task.attempt,
                "attempts": task.attempts,
                "exit": task.exit,
                "log": task.log,
                "url": self.link(&task.page),
            })).collect::<Vec<_>>(),
        })
    }

    fn parts(&self, facts: &Facts) -> Vec<Part> {
        let run = &facts.run;
        let mut fields =
            vec![("Workflow", run.workflow.to_string()), ("Run", format!("{} (number {})", run.id, run.key))];
        match (took(facts), run.ended) {
            (Some(took), Some(_)) => fields.push(("State", format!("{} after {}", run.state, duration(took)))),
            (Some(took), None) => fields.push(("State", format!("{} for {}", run.state, duration(took)))),
            (None, _) => fields.push(("State", run.state.clone())),
        }
        fields.extend(run.started.map(|at| ("Started", at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())));
        fields.extend(run.logical_date.map(|at| ("For", at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())));
        fields.push(("Triggered by", run.triggered_by.clone()));
        if !run.note.is_empty() {
            fields.push(("Note", text::one_line(&run.note)));
        }
        let mut parts = vec![Part::Fields(fields)];
        for task in &facts.tasks {
            parts.push(Part::Link(task_line(task), self.link(&task.page)));
            if !task.log.is_empty() {
                parts.push(Part::Log(task.log.clone()));
            }
        }
        if facts.more_tasks > 0 {
            parts.push(Part::Text(format!("… and {}", plural(facts.more_tasks as u64, "more task"))));
        }
        parts
    }

    pub(super) fn link(&self, path: &str) -> String {
        if self.base_url.is_empty() || path.is_empty() { String::new() } else { format!("{}{path}", self.base_url) }
    }

    pub(super) fn build(
        &self,
        id: String,
        event: String,
        tone: Tone,
        subject: &str,
        parts: &[Part],
        page: &str,
        json: Value,
    ) -> Message {
        let url = self.link(page);
        let subject = text::cut(&text::one_line(subject), SUBJECT);
        let join = |form: fn(&Part) -> String, between: &str| parts.iter().map(form).collect::<Vec<_>>().join(between);
        let mut text = join(Part::text, "\n\n");
        let mut html = format!(
            "<div style=\"border-left:4px solid {};padding-left:12px;font-family:sans-serif\"><h2 style=\"font-size:18px\">{}</h2>{}",
            tone.colour(),
            escape(&subject),
            join(Part::html, "\n")
        );
        if !url.is_empty() {
            text.push_str(&format!("\n\n{url}"));
            html.push_str(&format!("<p><a href=\"{}\">Open in Pitcrew</a></p>", escape(&url)));
        }
        html.push_str("</div>");
        Message { id, event, tone, subject, text, html, mrkdwn: join(Part::mrkdwn, "\n"), url, json }
    }
}

/// The built-in first line.
pub fn title(facts: &Facts) -> String {
    let workflow = &facts.run.workflow;
    let task = facts.tasks.first();
    let name = task.map_or("", |task| &task.name);
    match facts.event {
        NotifyEvent::Failure => format!("{workflow}: run failed"),
        NotifyEvent::Success => format!("{workflow}: run succeeded"),
        NotifyEvent::Cancelled => format!("{workflow}: run cancelled"),
        NotifyEvent::Recovery => format!("{workflow}: recovered"),
        NotifyEvent::TaskFailure => format!("{workflow}: task {name} failed"),
        NotifyEvent::Retry => {
            let (attempt, attempts) = task.map_or((0, 0), |task| (task.attempt, task.attempts));
            format!("{workflow}: task {name} failed and is tried again ({attempt} of {attempts})")
        }
        NotifyEvent::Late => {
            let allowed = facts.allowed.and_then(|s| SignedDuration::try_from_secs_f64(s).ok()).unwrap_or_default();
            format!("{workflow}: still running after {}", duration(allowed))
        }
    }
}

/// How long the run took, or takes already.
fn took(facts: &Facts) -> Option<SignedDuration> {
    Some(facts.run.ended.unwrap_or(facts.at).duration_since(facts.run.started?))
}

fn task_line(task: &TaskFacts) -> String {
    let mut line = format!("Task {}: {}", task.name, task.state.replace('_', " "));
    if task.attempts > 1 {
        line.push_str(&format!(", attempt {} of {}", task.attempt, task.attempts));
    }
    if !task.exit.is_empty() {
        line.push_str(&format!(", {}", task.exit));
    }
    line
}

/// A piece of a message, which every channel writes in its own way.
pub(super) enum Part {
    Text(String),
    Fields(Vec<(&'static str, String)>),
    /// A line that may lead to a page.
    Link(String, String),
    Log(String),
    List(Vec<(String, String)>),
}

impl Part {
    fn text(&self) -> String {
        let lines: Vec<String> = match self {
            Part::Text(text) => return text.clone(),
            Part::Fields(fields) => fields.iter().map(|(name, value)| format!("{name:<13}{value}")).collect(),
            Part::Link(text, _) => return text.clone(),
            Part::Log(log) => log.lines().map(|line| format!("    {line}")).collect(),
            Part::List(items) => items
                .iter()
                .map(|(text, url)| if url.is_empty() { format!("- {text}") } else { format!("- {text}\n  {url}") })
                .collect(),
        };
        lines.join("\n")
    }

    fn html(&self) -> String {
        let link = |text: &str, url: &str| match url {
            "" => escape(text),
            url => format!("<a href=\"{}\">{}</a>", escape(url), escape(text)),
        };
        match self {
            Part::Text(text) => format!("<p style=\"white-space:pre-wrap\">{}</p>", escape(text)),
            Part::Fields(fields) => {
                let row = |(name, value): &(&str, String)| {
                    format!(
                        "<tr><td style=\"color:#57606a;padding-right:16px\">{name}</td><td>{}</td></tr>",
                        escape(value)
                    )
                };
                format!("<table>{}</table>", fields.iter().map(row).collect::<String>())
            }
            Part::Link(text, url) => format!("<p><b>{}</b></p>", link(text, url)),
            Part::Log(log) => {
                format!("<pre style=\"background:#f6f8fa;padding:8px;white-space:pre-wrap\">{}</pre>", escape(log))
            }
            Part::List(items) => {
                let item = |(text, url): &(String, String)| format!("<li>{}</li>", link(text, url));
                format!("<ul>{}</ul>", items.iter().map(item).collect::<String>())
            }
        }
    }

    /// Slack's own markup. Everything that is not ours is escaped, so no text can address a channel's members.
    fn mrkdwn(&self) -> String {
        let safe = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let link = |text: &str, url: &str| match url {
            "" => safe(text),
            url => format!("<{}|{}>", safe(url), safe(text).replace('|', "¦")),
        };
        match self {
            Part::Text(text) => safe(text),
            Part::Fields(fields) => {
                fields.iter().map(|(name, value)| format!("*{name}* {}", safe(value))).collect::<Vec<_>>().join("\n")
            }
            Part::Link(text, url) => link(text, url),
            Part::Log(log) => format!("```{}```", safe(log).replace("```", "'''")),
            Part::List(items) => {
                items.iter().map(|(text, url)| format!("• {}", link(text, url))).collect::<Vec<_>>().join("\n")
            }
        }
    }
}
