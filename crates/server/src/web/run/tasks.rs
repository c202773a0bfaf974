//! The table of a run's tasks on the time axis: a row a task, with the instances of a mapped one below it; or, narrowed to
//! a state, a row an instance.

use askama::Template;
use pitcrew_control::clock;
use pitcrew_control::links;
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_store::StateCounts;

use super::Reading;
use crate::auth::Role;
use crate::error::ApiResult;
use crate::rest::short;
use crate::view::{Filter, TaskSummary, by_rank};
use crate::web::fmt;
use crate::web::gantt::{Axis, Bar};
use crate::web::page::render;
use crate::web::paging::{Pager, rows_of};
use crate::web::runs::{Share, shares};
use crate::web::task::kind_of;

/// Tasks, or instances, on one page.
const PAGE: u32 = 100;
/// Instances listed under a mapped task.
const LISTED: usize = 20;

/// A task, or one instance of it, in the table.
struct Row {
    name: String,
    /// How a form names it.
    pick: String,
    href: String,
    kind: String,
    state: &'static str,
    attempts: String,
    elapsed: String,
    bar: Option<Bar>,
    message: String,
    /// Of a mapped task: its instances.
    many: Option<Many>,
}

struct Many {
    total: u64,
    shares: Vec<Share>,
    counts: Vec<(&'static str, u64)>,
    rows: Vec<Row>,
    more: u64,
}

#[derive(Template)]
#[template(path = "run_tasks.html")]
struct Tasks {
    rows: Vec<Row>,
    pager: Pager,
    length: String,
    /// Links that narrow the list, with how many there are and which is chosen.
    filters: Vec<(&'static str, u64, String, bool)>,
    all: (u64, String, bool),
    href: String,
    /// The user may change it.
    may: bool,
}

impl Reading<'_> {
    pub(super) async fn tasks(&self, counts: &StateCounts) -> ApiResult<String> {
        let axis = Axis::of(self.run(), clock::now());
        let (rows, total) = match self.wish.state {
            None => self.all_tasks(&axis).await?,
            Some(state) => self.instances_in(state, &axis).await?,
        };
        let href = self.href();
        let pager = Pager::new(&href, &[("state", self.wish.state.unwrap_or_default())], self.wish.page, PAGE, total);
        let filters = by_rank(counts)
            .into_iter()
            .map(|(state, count)| {
                (state, count, format!("{href}?state={state}#run-tasks"), self.wish.state == Some(state))
            })
            .collect();
        let all = (counts.values().sum(), format!("{href}#run-tasks"), self.wish.state.is_none());
        let may = self.role >= Role::User;
        Ok(render(Tasks { rows, pager, length: axis.length(), filters, all, href, may }))
    }

    /// One row a task, the instances of a mapped one below it.
    async fn all_tasks(&self, axis: &Axis) -> ApiResult<(Vec<Row>, u64)> {
        let ids = self.view.task_ids();
        let paging = rows_of(self.wish.page, PAGE);
        let shown: Vec<TaskId> = ids.iter().skip(paging.offset as usize).take(PAGE as usize).cloned().collect();
        let summaries = self.view.tasks(&self.site.app, &shown).await?;
        Ok((summaries.iter().map(|summary| self.task_row(summary, axis)).collect(), ids.len() as u64))
    }

    /// One row an instance.
    async fn instances_in(&self, state: &'static str, axis: &Axis) -> ApiResult<(Vec<Row>, u64)> {
        let filter = Filter { states: vec![state], task: None };
        let page = self.view.page(&self.site.app, &filter, rows_of(self.wish.page, PAGE)).await?;
        Ok((page.rows.iter().map(|row| self.instance_row(row, axis)).collect(), page.total))
    }

    fn task_row(&self, summary: &TaskSummary, axis: &Axis) -> Row {
        match summary.rows.first() {
            Some(row) if !summary.is_mapped() => self.instance_row(row, axis),
            _ => {
                let rows: Vec<Row> = summary.rows.iter().take(LISTED).map(|row| self.instance_row(row, axis)).collect();
                let more = summary.total() - rows.len() as u64;
                // Together they take the time from the first start to the last end.
                let bar = if summary.total() == summary.rows.len() as u64 { axis.span(summary) } else { None };
                let many = Many {
                    total: summary.total(),
                    shares: shares(&summary.counts),
                    counts: by_rank(&summary.counts),
                    rows,
                    more,
                };
                Row {
                    name: summary.task.to_string(),
                    pick: summary.task.to_string(),
                    href: links::task(&self.run().workflow, &self.run().run_id, &summary.task, UNMAPPED),
                    kind: self.kind(&summary.task),
                    state: summary.state.name(),
                    attempts: String::new(),
                    elapsed: String::new(),
                    bar,
                    message: String::new(),
                    many: Some(many),
                }
            }
        }
    }

    fn instance_row(&self, row: &InstanceRecord, axis: &Axis) -> Row {
        let name = match &row.item {
            Some(item) => format!("{}[{}] {}", row.task, row.map_index, short(item, 60)),
            None if row.map_index != UNMAPPED => format!("{}[{}]", row.task, row.map_index),
            None => row.task.to_string(),
        };
        let index = if row.map_index == UNMAPPED { String::new() } else { format!("[{}]", row.map_index) };
        Row {
            name,
            pick: format!("{}{index}", row.task),
            href: links::task(&self.run().workflow, &self.run().run_id, &row.task, row.map_index),
            kind: self.kind(&row.task),
            state: row.state.name(),
            attempts: if row.attempt > 1 { format!("attempt {}", row.attempt) } else { String::new() },
            elapsed: fmt::row_elapsed(row),
            bar: axis.bar(row),
            message: if row.state.name() == "success" { String::new() } else { fmt::last_lines(&row.message) },
            many: None,
        }
    }

    fn kind(&self, id: &TaskId) -> String {
        let workflow = self.view.workflow.as_deref();
        workflow.and_then(|w| w.by_name.get(id).map(|ix| kind_of(w.task(*ix)))).unwrap_or_default()
    }
}
