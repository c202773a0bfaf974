//! Waiting for the end of a run: a line of JSON now, one at each interval, and the last as soon as the run is over.
//!
//! An answer that ends without a final state says nothing about the run: the server ended, or another one leads. Whoever
//! asks again is passed on to that.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{RunKey, TaskId};
use pitcrew_store::{InstanceFilter, Paging};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::shapes;
use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, run_id, task_id, workflow_id};
use crate::live::Watch;
use crate::view::find_run;

/// The shortest time between two looks.
const CALM: Duration = Duration::from_millis(100);

pub async fn wait(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    query: Query,
) -> ApiResult<Response> {
    let interval = query.number::<f64>("interval")?.unwrap_or(2.0);
    if !(interval > 0.0 && interval <= 86_400.0) {
        return Err(ApiError::invalid(&["query", "interval"], "greater_than", "must be seconds, more than 0"));
    }
    let tasks = query.all("result").into_iter().map(task_id).collect::<ApiResult<Vec<TaskId>>>()?;
    let run = find_run(&site.app, &workflow_id(&dag)?, &run_id(&run)?).await?;
    let watch = Watch::run(&site.app, run.key);
    let ends = Box::pin(site.stream_ends());
    let waiting =
        Waiting { site, key: run.key, tasks, watch, interval: Duration::from_secs_f64(interval), first: true };
    let lines = stream::unfold(Some(waiting), |waiting| async move {
        let mut waiting = waiting?;
        let (line, over) = waiting.next().await?;
        Some((Ok::<_, std::io::Error>(format!("{line}\n")), (!over).then_some(waiting)))
    });
    let lines = lines.take_until(ends).fuse();
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Waiting {
    site: Site,
    key: RunKey,
    tasks: Vec<TaskId>,
    watch: Watch,
    interval: Duration,
    first: bool,
}

impl Waiting {
    /// The next line, and whether it is the last. `None`: the run is gone, or cannot be read.
    async fn next(&mut self) -> Option<(Value, bool)> {
        let due = Instant::now() + self.interval;
        loop {
            let run = self.site.app.store.run(self.key).await.ok()??;
            if run.state.is_final() {
                return Some((self.last(&run).await?, true));
            }
            if std::mem::take(&mut self.first) || Instant::now() >= due {
                return Some((json!({ "state": shapes::run_state(run.state) }), false));
            }
            tokio::select! {
                () = self.watch.changed(true) => tokio::time::sleep(CALM).await,
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// With the results that were asked for: what Airflow keeps as a task's return value.
    async fn last(&self, run: &RunRecord) -> Option<Value> {
        let mut line = json!({ "state": shapes::run_state(run.state) });
        if self.tasks.is_empty() {
            return Some(line);
        }
        let mut results = Map::new();
        for task in &self.tasks {
            let filter = InstanceFilter { task: Some(task.clone()), ..InstanceFilter::default() };
            let rows = self.site.app.store.instances(run.key, &filter, Paging::ALL).await.ok()?.rows;
            let mapped = rows.first().is_some_and(|row| row.map_index != UNMAPPED);
            let mut values = rows.into_iter().map(|mut row| match row.outputs.remove("return_value") {
                Some(value) => value,
                None => json!(row.outputs),
            });
            let value = if mapped { values.collect() } else { values.next().unwrap_or_default() };
            results.insert(task.to_string(), value);
        }
        line["results"] = Value::Object(results);
        Some(line)
    }
}
