//! The log of an attempt on a page: lines in the steps that wrote them, those that come later sent as they are written.
//!
//! A line may come in several records, and a progress bar overwrites itself; so a record begins a line, goes on with
//! one, or begins one anew. [`Lines`] remembers what is open between two parts of a log, and its text form travels with
//! the page, so that the stream can go on where the page ends.

use std::collections::BTreeSet;
use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use pitcrew_control::app::App;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_exec::{LogRecord, LogStream};
use serde::Serialize;
use std::time::Duration;

use super::ansi;
use super::page::PageResult;
use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, number, task_id};
use crate::own;
use crate::view::attempts;

/// What a page shows of the end of a log, in bytes.
pub const SHOWN: u64 = 256 << 10;
/// Bytes of a log that are read at once.
const CHUNK: usize = 256 << 10;
/// A reader this many bytes behind a log that grows skips to its end.
const BEHIND: u64 = 1 << 20;
/// How often a log that grows is looked at: at first, and at last when nothing comes.
const FASTEST: Duration = Duration::from_millis(120);
const SLOWEST: Duration = Duration::from_secs(1);

/// What becomes of the last line of the same writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    New,
    /// This goes on with it.
    Append,
    /// This takes its place.
    Replace,
}

/// A line, or a part of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Where it begins in the log, in bytes: what a link to it names.
    pub at: u64,
    pub step: u32,
    /// `o`, `e` or `s`: who wrote it.
    pub stream: char,
    pub join: Join,
    /// Since the start of the attempt.
    pub after: String,
    pub html: String,
}

/// Turns records into lines.
#[derive(Default)]
pub struct Lines {
    /// Writers whose last line goes on: stream and step.
    open: BTreeSet<(char, u32)>,
    start: Option<Timestamp>,
}

impl Lines {
    pub fn since(start: Option<Timestamp>) -> Lines {
        Lines { open: BTreeSet::new(), start }
    }

    /// With the open lines that [`Lines::open`] told.
    fn resume(start: Option<Timestamp>, open: &str) -> Lines {
        let writers = open.split(',').filter_map(|writer| {
            let mut chars = writer.chars();
            Some((chars.next()?, chars.as_str().parse().ok()?))
        });
        Lines { open: writers.collect(), start }
    }

    pub fn open(&self) -> String {
        self.open.iter().map(|(stream, step)| format!("{stream}{step}")).collect::<Vec<_>>().join(",")
    }

    pub fn add(&mut self, records: &[LogRecord]) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::with_capacity(records.len());
        for record in records {
            let stream = match record.stream {
                LogStream::Stdout => 'o',
                LogStream::Stderr => 'e',
                LogStream::System => 's',
            };
            let writer = (stream, record.step);
            let was_open = self.open.contains(&writer);
            if record.continues {
                self.open.insert(writer);
            } else {
                self.open.remove(&writer);
            }
            // What stands before a carriage return was written over.
            let text = record.text.trim_end_matches('\r');
            let (over, text) = text.rsplit_once('\r').map_or((false, text), |(_, last)| (true, last));
            let html = ansi::to_html(text);
            let join = match (was_open, over) {
                (false, _) => Join::New,
                (true, false) => Join::Append,
                (true, true) => Join::Replace,
            };
            let last = lines.iter_mut().rev().find(|line| (line.stream, line.step) == writer).filter(|_| was_open);
            match (last, join) {
                (Some(line), Join::Append) => line.html.push_str(&html),
                (Some(line), Join::Replace) => line.html = html,
                _ => lines.push(Line {
                    at: record.offset,
                    step: record.step,
                    stream,
                    join,
                    after: self.after(record.at),
                    html,
                }),
            }
        }
        lines
    }

    /// `1:02.3` since the start.
    fn after(&self, at: Timestamp) -> String {
        let Some(start) = self.start else { return String::new() };
        let tenths = at.duration_since(start).as_millis().max(0) / 100;
        let (minutes, seconds, tenth) = (tenths / 600, tenths / 10 % 60, tenths % 10);
        format!("{minutes}:{seconds:02}.{tenth}")
    }
}

/// Lines of one step.
pub struct StepLog {
    pub step: u32,
    pub name: String,
    pub lines: Vec<Line>,
}

/// Which part of a log a page shows.
#[derive(Clone, Copy)]
pub enum Place {
    /// What was written last.
    End,
    /// What follows that many bytes.
    From(u64),
    /// The line that begins there, with what is around it.
    Around(u64),
}

impl Place {
    pub fn of(query: &Query) -> ApiResult<Place> {
        Ok(match (query.number("at")?, query.number("offset")?) {
            (Some(at), _) => Place::Around(at),
            (None, Some(offset)) => Place::From(offset),
            (None, None) => Place::End,
        })
    }
}

/// A part of a log, as a page shows it.
#[derive(Default)]
pub struct LogView {
    pub steps: Vec<StepLog>,
    /// Of all steps of the task, also those that wrote nothing yet.
    names: Vec<String>,
    /// Bytes before it.
    pub from: u64,
    pub next_offset: u64,
    pub open: String,
    /// Nothing more comes.
    pub ended: bool,
    /// There is more that is written already.
    pub cut: bool,
}

impl LogView {
    pub async fn load(app: &App, attempt: &AttemptRecord, place: Place, names: &[String]) -> ApiResult<LogView> {
        let written = length(app, attempt).await;
        let from = match place {
            Place::End => written.saturating_sub(SHOWN),
            Place::From(from) => from.min(written),
            Place::Around(at) => at.min(written).saturating_sub(SHOWN / 4),
        };
        let mut lines = Lines::since(attempt.start.or(Some(attempt.queued_at)));
        let chunk = app.logs(attempt, from, SHOWN as usize).await?;
        // A page begins at a whole line.
        let from = chunk.records.first().map_or(from, |record| record.offset);
        let mut steps: Vec<StepLog> = Vec::new();
        for line in lines.add(&chunk.records) {
            match steps.iter_mut().find(|step| step.step == line.step) {
                Some(step) => step.lines.push(line),
                None => {
                    let name = names.get(line.step as usize).cloned();
                    let name = name.unwrap_or_else(|| format!("step {}", line.step + 1));
                    steps.push(StepLog { step: line.step, name, lines: vec![line] });
                }
            }
        }
        Ok(LogView {
            steps,
            names: names.to_vec(),
            from,
            next_offset: chunk.next_offset,
            open: lines.open(),
            ended: chunk.ended,
            cut: chunk.next_offset.saturating_add(SHOWN / 4) < length(app, attempt).await,
        })
    }

    /// As JSON, for steps that begin while the page is open.
    pub fn step_names(&self) -> String {
        serde_json::to_string(&self.names).unwrap_or_default()
    }

    /// Where the part before this one begins.
    pub fn earlier(&self) -> u64 {
        self.from.saturating_sub(SHOWN)
    }
}

/// Bytes of a log; 0 when that cannot be known here.
pub async fn length(app: &App, attempt: &AttemptRecord) -> u64 {
    let Ok((backend, handle)) = app.backend_of(attempt) else { return 0 };
    backend.log_size(&handle).await.unwrap_or(0)
}

type LogPath = Path<(String, String, String, String)>;

async fn find(site: &Site, (key, task, index, attempt): (String, String, String, String)) -> ApiResult<AttemptRecord> {
    let run = own::find(site, &key).await?;
    let index: i32 = number("map_index", &index)?;
    let wanted: u32 = number("attempt", &attempt)?;
    let all = attempts(&site.app, &run, &task_id(&task)?, index.max(UNMAPPED)).await?;
    let found = all.into_iter().find(|attempt| attempt.number == wanted);
    found.ok_or_else(|| ApiError::not_found(format!("the task `{task}` has no attempt {wanted}")))
}

/// Lines as they are written, from an offset; the event's id is the offset to go on at, so a browser that reconnects
/// misses none and gets none twice.
pub async fn live(
    State(site): State<Site>,
    Path(path): LogPath,
    query: Query,
    headers: HeaderMap,
) -> PageResult<Response> {
    let attempt = find(&site, path).await?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let start = attempt.start.or(Some(attempt.queued_at));
    let (offset, lines) = match resumed.and_then(|id| id.split_once(' ')) {
        Some((offset, open)) => (offset.parse().unwrap_or(0), Lines::resume(start, open)),
        None => {
            let open = query.text("open").unwrap_or_default();
            (query.number("offset")?.unwrap_or(0), Lines::resume(start, open))
        }
    };
    let ends = Box::pin(site.stream_ends());
    let state = (site, attempt, offset, lines, FASTEST);
    let events = stream::unfold(Some(state), |state| async move {
        let (site, attempt, mut offset, mut lines, mut pause) = state?;
        loop {
            // Who is far behind what is written gets the end of it: nobody reads a gigabyte as it passes.
            let written = length(&site.app, &attempt).await;
            if written.saturating_sub(offset) > BEHIND {
                let left_out = written - SHOWN - offset;
                offset = written - SHOWN;
                lines = Lines::since(attempt.start.or(Some(attempt.queued_at)));
                let event = Event::default().event("gap").id(format!("{offset} ")).data(left_out.to_string());
                return Some((Ok::<_, Infallible>(event), Some((site, attempt, offset, lines, FASTEST))));
            }
            let chunk = site.app.logs(&attempt, offset, CHUNK).await.ok()?;
            offset = chunk.next_offset;
            if !chunk.records.is_empty() {
                let data = serde_json::to_string(&lines.add(&chunk.records)).unwrap_or_default();
                let id = format!("{offset} {}", lines.open());
                let event = Event::default().event("lines").id(id).data(data);
                return Some((Ok(event), Some((site, attempt, offset, lines, FASTEST))));
            }
            if chunk.ended {
                // Browsers ignore an event without data, and would come back for ever.
                return Some((Ok(Event::default().event("end").data("over")), None));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(SLOWEST);
        }
    });
    let events = events.take_until(ends).fuse();
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// A part of a log, as `[from, lines]`: what lies between two offsets, from the first whole line on.
pub async fn part(State(site): State<Site>, Path(path): LogPath, query: Query) -> PageResult<Response> {
    let attempt = find(&site, path).await?;
    let from: u64 = query.number("from")?.unwrap_or(0);
    let to: u64 = query.number("to")?.unwrap_or(u64::MAX);
    let chunk = site.app.logs(&attempt, from, to.saturating_sub(from).clamp(1, SHOWN) as usize).await?;
    let records: Vec<LogRecord> = chunk.records.into_iter().take_while(|record| record.offset < to).collect();
    let from = records.first().map_or(to, |record| record.offset);
    let lines = Lines::since(attempt.start.or(Some(attempt.queued_at))).add(&records);
    Ok(Json((from, lines)).into_response())
}

/// The whole log as text, as far as it is written.
pub async fn download(State(site): State<Site>, Path(path): LogPath) -> PageResult<Response> {
    let attempt = find(&site, path).await?;
    let name = format!("{}.{}.log", attempt.task, attempt.number);
    let text = stream::unfold(Some((site, attempt, 0)), |state| async move {
        let (site, attempt, offset) = state?;
        match site.app.logs(&attempt, offset, 4 * CHUNK).await {
            Ok(chunk) => {
                let mut text = String::new();
                for record in &chunk.records {
                    text.push_str(&record.text);
                    text.push_str(if record.continues { "" } else { "\n" });
                }
                let more = chunk.next_offset > offset && !chunk.ended;
                Some((Ok::<_, std::io::Error>(text), more.then_some((site, attempt, chunk.next_offset))))
            }
            Err(error) => Some((Err(std::io::Error::other(format!("{error:#}"))), None)),
        }
    });
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, disposition)];
    Ok((headers, Body::from_stream(text.fuse())).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str, continues: bool) -> LogRecord {
        LogRecord {
            offset: 0,
            at: Timestamp::UNIX_EPOCH,
            stream: LogStream::Stdout,
            step: 0,
            continues,
            text: text.into(),
        }
    }

    #[test]
    fn a_line_in_pieces_is_one_line_also_over_two_parts_of_a_log() {
        let mut lines = Lines::default();
        let first = lines.add(&[record("a", false), record("b", true), record("c", true)]);
        assert_eq!(first.iter().map(|line| line.html.as_str()).collect::<Vec<_>>(), ["a", "bc"]);
        let mut later = Lines::resume(None, &lines.open());
        let second = later.add(&[record("d", false), record("e", false)]);
        assert_eq!(
            second.iter().map(|line| (line.join, line.html.as_str())).collect::<Vec<_>>(),
            [(Join::Append, "d"), (Join::New, "e")]
        );
    }

    #[test]
    fn a_progress_bar_shows_where_it_is_now() {
        let mut lines = Lines::default();
        let shown = lines.add(&[record("10%\r20%", true), record("\r30%", true), record("\r40%\r", false)]);
        assert_eq!(shown.iter().map(|line| line.html.as_str()).collect::<Vec<_>>(), ["40%"]);
    }
}
