//! The reports of a run: kept files that the `report` action has written, one entry for each folder that has some.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use pitcrew_control::links;
use serde_json::{Value, json};

use super::{artifacts, find};
use crate::Site;
use crate::error::ApiResult;
use crate::input::Query;

/// The files of a report.
const FILES: [&str; 3] = ["html", "pdf", "json"];

pub async fn list(State(site): State<Site>, Path(key): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let run = find(&site, &key).await?;
    let mut reports: BTreeMap<String, Value> = BTreeMap::new();
    let (files, elsewhere) = artifacts::listed(&site, run.key, &query).await?;
    for file in files {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let Some(kind) = FILES.into_iter().find(|kind| name == format!("report.{kind}")) else { continue };
        let report = reports
            .entry(folder.to_owned())
            .or_insert_with(|| json!({ "folder": folder, "modified": null, "html": null, "pdf": null, "json": null }));
        report[kind] = json!(links::artifact(run.key, &file.path));
        report["modified"] = json!(file.modified);
    }
    let reports: Vec<Value> = reports.into_values().collect();
    Ok(Json(json!({ "total_entries": reports.len(), "reports": reports, "elsewhere": elsewhere })))
}
