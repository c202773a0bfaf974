//! The outbox of notifications, here or on a server.

use pitcrew_control::notify::view::Line;
use pitcrew_store::{NoticeFilter, Paging};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Target;

const NOTICES: [&str; 4] = ["api", "pitcrew", "v1", "notices"];
/// A server gives no more at a time.
const ROWS: u32 = 1000;

impl Target {
    /// The newest first, `limit` at most.
    pub async fn notices(&self, filter: NoticeFilter, limit: u32) -> anyhow::Result<Vec<Line>> {
        let remote = match self {
            Target::Here(context) => {
                let page = context.store.notices(&filter, Paging::first(limit)).await?;
                return Ok(page.rows.iter().map(Line::from).collect());
            }
            Target::There(remote) => remote,
        };
        #[derive(Deserialize)]
        struct Answer {
            notices: Vec<Line>,
        }
        let mut found: Vec<Line> = Vec::new();
        loop {
            let rows = ROWS.min(limit.saturating_sub(found.len() as u32));
            let mut query = vec![("limit", rows.to_string()), ("offset", found.len().to_string())];
            query.extend(filter.state.map(|state| ("state", state.name().to_owned())));
            query.extend(filter.channel.clone().map(|channel| ("channel", channel)));
            let answer: Answer = remote.get(&NOTICES, &query).await?;
            let is_last = answer.notices.len() < rows as usize;
            found.extend(answer.notices);
            if is_last || found.len() >= limit as usize {
                return Ok(found);
            }
        }
    }

    /// Lets a notice be tried at once. Says whether it is there and was not sent.
    pub async fn retry_notice(&self, id: i64) -> anyhow::Result<bool> {
        match self {
            Target::Here(context) => {
                let mut audit = context.audit("notice.retry");
                audit.detail = json!({ "id": id });
                Ok(context.store.retry_notice(id, context.now(), audit).await?)
            }
            Target::There(remote) => {
                let [api, own, version, notices] = NOTICES;
                let path = [api, own, version, notices, &id.to_string(), "retry"];
                Ok(remote.send::<Value>(&path).await?.is_some())
            }
        }
    }
}
