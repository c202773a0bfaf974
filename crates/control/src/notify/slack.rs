//! Slack, and chats that take the same: an incoming webhook, with blocks for Slack and a text for the others.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::config::{Channel, Slack};
use super::message::Message;
use super::send::{Failed, Sender};
use super::{http, text};

/// Slack refuses longer headers and sections.
const HEADER: usize = 150;
const SECTION: usize = 2_900;

pub async fn send(
    sender: &Sender,
    channel: &Channel,
    slack: &Slack,
    message: &Message,
    now: Timestamp,
) -> Result<(), Failed> {
    let what = format!("`webhook` of the channel `{}`", channel.name);
    let url = sender.secrets.get(&slack.webhook, &what).await?;
    let url = http::secret_address(&url, &what)?;
    let host = http::host(url.as_str());
    let request = sender.clients.client_for(&url, slack.allow_link_local)?.post(url).json(&body(message));
    let response = request.send().await.map_err(|error| http::unanswered(error, &host))?;
    http::answered(response, &host, now).await
}

fn body(message: &Message) -> Value {
    let headline = format!("{} {}", message.tone.sign(), message.subject);
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "text": text::cut(&headline, HEADER), "emoji": true },
    })];
    for section in sections(&message.mrkdwn) {
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": section } }));
    }
    if !message.url.is_empty() {
        let button = json!({ "type": "button", "text": { "type": "plain_text", "text": "Open in Pitcrew" }, "url": message.url });
        blocks.push(json!({ "type": "actions", "elements": [button] }));
    }
    // What phones show, and chats without blocks.
    let link = if message.url.is_empty() { String::new() } else { format!(" {}", message.url) };
    let text = format!("{headline}{link}").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({ "text": text, "blocks": blocks })
}

/// Pieces that are short enough, cut between lines where possible. A log that is cut stays a log in every piece.
fn sections(mrkdwn: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let (mut section, mut in_log) = (String::new(), false);
    for line in mrkdwn.lines() {
        let line = text::cut(line, SECTION - 20);
        if section.chars().count() + line.chars().count() > SECTION - 20 {
            section.push_str(if in_log { "```" } else { "" });
            sections.push(std::mem::take(&mut section));
            section.push_str(if in_log { "```" } else { "" });
        }
        in_log ^= line.matches("```").count() % 2 == 1;
        section.push_str(&line);
        section.push('\n');
    }
    sections.push(section);
    sections.retain(|section| !section.trim().is_empty());
    // A message has at most 50 blocks.
    sections.truncate(20);
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_logs_are_cut_between_lines_and_stay_logs() {
        let log = format!("before\n```{}```\nafter", "a line of a log\n".repeat(400));
        let sections = sections(&log);
        assert!(sections.len() > 1);
        for section in &sections {
            assert!(section.chars().count() <= 3_000, "{}", section.len());
            assert_eq!(section.matches("```").count() % 2, 0, "{section}");
        }
        assert!(sections.last().unwrap().contains("after"));
    }
}
