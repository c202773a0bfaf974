//! What stands beside the tasks of a run: kept files, outputs, and what it was given.

use askama::Template;
use pitcrew_control::links;
use pitcrew_core::TaskId;
use pitcrew_core::id::UNMAPPED;
use serde_json::Value;

use super::Reading;
use crate::error::ApiResult;
use crate::own::artifacts;
use crate::rest::short;
use crate::view::Instances;
use crate::web::page::render;
use crate::web::{files, fmt};

/// Outputs and files listed of a run.
const OUTPUTS: usize = 24;
const FILES: usize = 12;

/// As many instances of a task are shown.
const INSTANCES: usize = 3;

/// What a task, or an instance of it, handed on.
struct Output {
    of: TaskId,
    task: String,
    href: String,
    values: Vec<(String, String)>,
    /// Instances that follow this one and are not shown, and where they are.
    more: usize,
    all_href: String,
}

/// A kept file as listed.
struct File {
    name: String,
    href: String,
    bytes: u64,
}

#[derive(Template)]
#[template(path = "run_side.html")]
struct Side<'a> {
    params: Vec<(&'a String, &'a Value)>,
    outputs: Vec<Output>,
    more_outputs: bool,
    files: Vec<File>,
    more_files: usize,
    /// Another server has more.
    elsewhere: bool,
    files_href: String,
}

impl Reading<'_> {
    pub(super) async fn side(&self) -> ApiResult<String> {
        let run = self.run();
        let (mut outputs, mut more_outputs): (Vec<Output>, bool) = (Vec::new(), false);
        if let Instances::Loaded(rows) = &self.view.instances {
            let mut room = OUTPUTS;
            for row in rows.iter().filter(|row| !row.outputs.is_empty()) {
                let before = outputs.iter().filter(|output| output.of == row.task).count();
                if let Some(last) = outputs.last_mut().filter(|_| before >= INSTANCES) {
                    last.more += 1;
                    continue;
                }
                let values = row.outputs.iter().take(room).map(|(name, value)| (name.clone(), short(value, 120)));
                let values: Vec<(String, String)> = values.collect();
                more_outputs |= values.len() < row.outputs.len();
                if values.is_empty() {
                    break;
                }
                room -= values.len();
                let index = if row.map_index == UNMAPPED { String::new() } else { format!("[{}]", row.map_index) };
                let href = links::task(&run.workflow, &run.run_id, &row.task, row.map_index);
                let (all_href, of) = (links::task(&run.workflow, &run.run_id, &row.task, UNMAPPED), row.task.clone());
                outputs.push(Output { of, task: format!("{}{index}", row.task), href, values, more: 0, all_href });
            }
        }
        let mut files = files::in_order(artifacts::of_run(self.site, run.key).await?);
        let elsewhere = self.site.lacks_files(run.key).await?;
        let more_files = files.len().saturating_sub(FILES);
        files.truncate(FILES);
        let files_href = format!("{}/files", self.href());
        let files = files.into_iter().map(|file| File {
            href: files::address(run, &file.path),
            name: file.path,
            bytes: file.bytes,
        });
        let files = files.collect();
        Ok(render(Side {
            params: run.params.iter().collect(),
            outputs,
            more_outputs,
            files,
            more_files,
            elsewhere,
            files_href,
        }))
    }
}
