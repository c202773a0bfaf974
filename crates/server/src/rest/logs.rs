//! The log of one attempt, as structured messages: one JSON document by the page, or a stream of lines.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_exec::{LogChunk, LogRecord, LogStream};
use serde_json::{Value, json};

use super::instances::Found;
use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, number};
use crate::view::attempts;

/// Bytes of a log in one answer.
const CHUNK: usize = 1 << 20;
/// Bytes of a log in one JSON document that asks for everything.
const FULL: usize = 64 << 20;

pub async fn get(
    State(site): State<Site>,
    Path((dag, run, task, wanted)): Path<(String, String, String, String)>,
    query: Query,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let log = find(&site, (&dag, &run, &task), number("try_number", &wanted)?, &query).await?;
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("application/x-ndjson") {
        return Ok(lines(site, log.attempt, log.offset));
    }
    let (messages, token) = log.read(&site, query.boolean("full_content")?.unwrap_or(false)).await?;
    Ok(Json(json!({ "content": messages, "continuation_token": token })).into_response())
}

/// A place in the log of an attempt.
pub struct Log {
    attempt: AttemptRecord,
    offset: u64,
}

/// The log of an attempt, from the place that the query's `token` names.
pub async fn find(site: &Site, (dag, run, task): (&str, &str, &str), wanted: u32, query: &Query) -> ApiResult<Log> {
    let map_index = query.number("map_index")?.unwrap_or(UNMAPPED);
    let offset = match query.text("token") {
        None => 0,
        Some(token) => token.parse().map_err(|_| ApiError::bad_request("the continuation token is not one of ours"))?,
    };
    let found = Found::load(site, dag, run).await?;
    let row = found.instance(site, task, map_index).await?;
    let all = attempts(&site.app, &found.view.run, &row.task, map_index).await?;
    let attempt = all.into_iter().find(|attempt| attempt.number == wanted);
    let attempt = attempt.ok_or_else(|| ApiError::not_found(format!("the task `{task}` has no attempt {wanted}")))?;
    Ok(Log { attempt, offset })
}

impl Log {
    /// Messages from here, a chunk of them or all there are; and a token for those after them.
    pub async fn read(&self, site: &Site, full: bool) -> ApiResult<(Vec<Value>, Option<String>)> {
        let mut messages = Vec::new();
        let mut at = self.offset;
        let mut chunk: LogChunk;
        loop {
            chunk = site.app.logs(&self.attempt, at, CHUNK).await?;
            messages.extend(chunk.records.iter().map(message));
            let is_end = chunk.ended || chunk.next_offset == at;
            at = chunk.next_offset;
            if !full || is_end || (at - self.offset) as usize >= FULL {
                break;
            }
        }
        Ok((messages, (!chunk.ended).then(|| at.to_string())))
    }
}

/// Everything there is now, one message a line, without holding more than a chunk of it.
fn lines(site: Site, attempt: AttemptRecord, offset: u64) -> Response {
    let chunks = stream::unfold(Some((site, attempt, offset)), |state| async move {
        let (site, attempt, offset) = state?;
        match site.app.logs(&attempt, offset, CHUNK).await {
            Ok(chunk) => {
                let text: String = chunk.records.iter().map(|record| format!("{}\n", message(record))).collect();
                let more = !chunk.ended && chunk.next_offset > offset;
                Some((Ok::<_, std::io::Error>(text), more.then_some((site, attempt, chunk.next_offset))))
            }
            Err(error) => Some((Err(std::io::Error::other(format!("{error:#}"))), None)),
        }
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(chunks.fuse())).into_response()
}

fn message(record: &LogRecord) -> Value {
    let (level, logger) = match record.stream {
        LogStream::Stdout => ("info", "stdout"),
        LogStream::Stderr => ("error", "stderr"),
        LogStream::System => ("info", "pitcrew"),
    };
    json!({ "timestamp": record.at, "event": record.text, "level": level, "logger": logger, "step": record.step })
}
