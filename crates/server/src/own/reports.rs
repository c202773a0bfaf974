//! The reports of a run: kept files that the `report` action has written, one entry for each folder that has some.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use pitcrew_control::links;
use serde_json::{Value, json};

use super::{artifacts, find};
use crate::Site;
use crate::error::ApiResult;

/// The files of a report.
const FILES: [&str; 3] = ["html", "pdf", "json"];

pub async fn list(State(site): State<Site>, Path(key): Path<String>) -> ApiResult<Json<Value>> {
    let run = find(&site, &key).await?;
    let mut reports: BTreeMap<String, Value> = BTreeMap::new();
    for file in artifacts::of_run(&site, run.key).await? {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let Some(kind) = FILES.into_iter().find(|kind| name == format!("report.{kind}")) else { continue };
        let report = reports
            .entry(folder.to_owned())
            .or_insert_with(|| json!({ "folder": folder, "modified": null, "html": null, "pdf": null, "json": null }));
        report[kind] = json!(links::artifact(run.key, &file.path));
        report["modified"] = json!(file.modified);
    }
    Ok(Json(json!({ "total_entries": reports.len(), "reports": reports.into_values().collect::<Vec<_>>() })))
}
