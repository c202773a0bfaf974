//! The grid of a workflow: a row for each task and group, a column for each run, the newest to the right.
//!
//! Fifty thousand cells are one drawing with one line for each state: neighbours in the same state are one stretch of
//! it, dashed into cells, so that a page has few elements whatever it shows. Names of tasks and heads of runs are links;
//! the script finds out what is under the pointer from where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use askama::Template;
use jiff::tz::TimeZone;
use pitcrew_control::clock;
use pitcrew_control::links;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{GroupIx, Workflow};
use pitcrew_core::{RunKey, TaskId, WorkflowId};
use pitcrew_store::{Grid, GridRun};

use super::fmt;
use super::page::render;
use crate::Site;
use crate::error::ApiResult;
use crate::input::Query;
use crate::view::STATES;

/// Columns to choose from.
pub const COLUMNS: [u32; 3] = [25, 50, 100];
/// Of them, how many are shown unless somebody chooses.
const USUAL: u32 = 50;
/// Rows on one page: beyond that nobody finds anything, and drawing takes its time.
const ROWS: usize = 1_000;
/// The distance of columns and of rows, and the size of a cell, in pixels.
const PITCH: u32 = 16;
const LINE: u32 = 20;
const CELL: u32 = 12;
/// The height of the longest run.
const HEAD: f64 = 52.0;

/// What the address asks for.
#[derive(Clone)]
pub struct Wish {
    pub runs: u32,
    before: Option<RunKey>,
    /// Groups that are shown as one row.
    folded: BTreeSet<String>,
    page: usize,
}

impl Wish {
    pub fn of(query: &Query) -> ApiResult<Wish> {
        let runs = query.number("runs")?.filter(|runs| COLUMNS.contains(runs)).unwrap_or(USUAL);
        let folded = query.text("fold").unwrap_or_default().split(',').filter(|id| !id.is_empty());
        Ok(Wish {
            runs,
            before: query.number("before")?.map(RunKey),
            folded: folded.map(str::to_owned).collect(),
            page: query.number::<usize>("page")?.unwrap_or(1).max(1),
        })
    }

    /// The query that asks for the same.
    pub fn query(&self) -> String {
        let mut query = format!("runs={}", self.runs);
        if let Some(before) = self.before {
            let _ = write!(query, "&before={before}");
        }
        if !self.folded.is_empty() {
            let folded: Vec<String> = self.folded.iter().map(|id| links::encode(id)).collect();
            let _ = write!(query, "&fold={}", folded.join(","));
        }
        if self.page > 1 {
            let _ = write!(query, "&page={}", self.page);
        }
        query
    }

    fn with(&self, change: impl FnOnce(&mut Wish)) -> String {
        let mut wish = self.clone();
        change(&mut wish);
        format!("?{}", wish.query())
    }
}

/// A row: a group, or a task.
struct Row {
    label: String,
    /// The whole name, of a task; empty for a group.
    task: String,
    depth: usize,
    href: String,
    /// Of a group: whether its tasks are hidden.
    folded: Option<bool>,
    mapped: bool,
    /// Places in [`STATES`], by column.
    cells: Vec<Option<u8>>,
}

/// The head of a column.
struct Column {
    href: String,
    label: String,
    state: &'static str,
    x: u32,
    y: f64,
    height: f64,
}

#[derive(Template)]
#[template(path = "grid.html")]
struct GridView {
    rows: Vec<Row>,
    columns: Vec<Column>,
    /// Days under the heads: where, and which.
    days: Vec<(u32, String)>,
    paths: Vec<(&'static str, String)>,
    width: u32,
    height: u32,
    longest: String,
    states: Vec<&'static str>,
    older: Option<String>,
    newest: Option<String>,
    fold_all: Option<String>,
    unfold_all: Option<String>,
    more_rows: Vec<(usize, String, bool)>,
    total_rows: usize,
}

/// The grid as HTML, with the id `grid`.
pub async fn view(site: &Site, id: &WorkflowId, workflow: Option<&Workflow>, wish: &Wish) -> ApiResult<String> {
    let mut grid = site.app.store.grid(id, wish.before, wish.runs).await?;
    let oldest = grid.runs.last().map(|column| column.run.key).filter(|_| grid.runs.len() == wish.runs as usize);
    // The newest to the right.
    grid.runs.reverse();
    let all = rows(&grid, id, workflow, wish);
    let total_rows = all.len();
    let pages = total_rows.div_ceil(ROWS).max(1);
    let page = wish.page.min(pages);
    let rows: Vec<Row> = all.into_iter().skip((page - 1) * ROWS).take(ROWS).collect();
    let present: BTreeSet<u8> = rows.iter().flat_map(|row| row.cells.iter().flatten().copied()).collect();
    let (columns, longest) = columns(&grid);
    let groups: BTreeSet<String> = workflow.iter().flat_map(|w| w.groups.iter().map(|g| g.id.to_string())).collect();
    Ok(render(GridView {
        paths: present.iter().map(|state| (STATES[usize::from(*state)], path(&rows, *state))).collect(),
        states: present.iter().map(|state| STATES[usize::from(*state)]).collect(),
        days: days(&grid),
        width: (grid.runs.len() as u32 * PITCH).max(PITCH),
        height: rows.len() as u32 * LINE,
        columns,
        longest,
        older: oldest.map(|key| wish.with(|w| w.before = Some(key))),
        newest: wish.before.map(|_| wish.with(|w| w.before = None)),
        fold_all: (!groups.is_empty() && wish.folded != groups).then(|| wish.with(|w| w.folded = groups.clone())),
        unfold_all: (!wish.folded.is_empty()).then(|| wish.with(|w| w.folded.clear())),
        more_rows: if pages > 1 {
            (1..=pages).map(|number| (number, wish.with(|w| w.page = number), number == page)).collect()
        } else {
            Vec::new()
        },
        total_rows,
        rows,
    }))
}

/// A task's states by column: the one that stands out most of all its instances.
fn cells(grid: &Grid, workflow: Option<&Workflow>) -> BTreeMap<TaskId, Vec<Option<u8>>> {
    let rank = |state: &str| STATES.iter().position(|name| *name == state).map(|at| at as u8);
    let none = rank("none");
    let mut cells: BTreeMap<TaskId, Vec<Option<u8>>> = BTreeMap::new();
    for task in workflow.iter().flat_map(|w| w.tasks.iter().map(|task| &task.id)).chain(&grid.tasks) {
        // What a run that goes on has no row of waits for its turn.
        let waits = |column: &GridRun| if column.run.state.is_final() { None } else { none };
        cells.entry(task.clone()).or_insert_with(|| grid.runs.iter().map(waits).collect());
    }
    for (at, column) in grid.runs.iter().enumerate() {
        for of_task in column.cells.chunk_by(|a, b| a.task == b.task) {
            let row = grid.tasks.get(of_task[0].task as usize).and_then(|task| cells.get_mut(task));
            let Some(place) = row.and_then(|row| row.get_mut(at)) else { continue };
            *place = of_task.iter().filter_map(|cell| rank(cell.state)).min();
        }
    }
    cells
}

/// The more prominent of two, column by column.
fn join(into: &mut [Option<u8>], other: &[Option<u8>]) {
    for (a, b) in into.iter_mut().zip(other) {
        *a = match (*a, *b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

fn rows(grid: &Grid, id: &WorkflowId, workflow: Option<&Workflow>, wish: &Wish) -> Vec<Row> {
    let mut cells = cells(grid, workflow);
    // A task's row leads to it in the newest run that has it.
    let link = |task: &TaskId, cells: &[Option<u8>]| {
        let newest = cells.iter().rposition(Option::is_some).and_then(|at| grid.runs.get(at));
        newest.map(|column| links::task(id, &column.run.run_id, task, UNMAPPED)).unwrap_or_default()
    };
    let mut rows = Vec::new();
    if let Some(workflow) = workflow {
        let mut done: BTreeSet<u32> = BTreeSet::new();
        for ix in workflow.indices() {
            let task = workflow.task(ix);
            let path = groups_of(workflow, task.group);
            for (depth, group) in path.iter().enumerate() {
                let hidden = path[..depth].iter().any(|outer| wish.folded.contains(workflow.group(*outer).id.as_str()));
                if !hidden && done.insert(group.0) {
                    rows.push(group_row(workflow, *group, depth, &cells, grid.runs.len(), wish));
                }
            }
            let own = cells.remove(&task.id).unwrap_or_default();
            if path.iter().any(|group| wish.folded.contains(workflow.group(*group).id.as_str())) {
                continue;
            }
            let outer = path.last().map(|group| format!("{}.", workflow.group(*group).id));
            let label = outer.and_then(|outer| task.id.as_str().strip_prefix(&outer).map(str::to_owned));
            rows.push(Row {
                label: label.unwrap_or_else(|| task.id.to_string()),
                task: task.id.to_string(),
                depth: path.len(),
                href: link(&task.id, &own),
                folded: None,
                mapped: workflow.mapping_of(ix).is_some(),
                cells: own,
            });
        }
    }
    // What older versions of the workflow had.
    for (task, own) in cells {
        let (label, href) = (task.to_string(), link(&task, &own));
        rows.push(Row { task: label.clone(), label, depth: 0, href, folded: None, mapped: false, cells: own });
    }
    rows
}

/// The groups around something, the outermost first.
fn groups_of(workflow: &Workflow, group: Option<GroupIx>) -> Vec<GroupIx> {
    let mut path: Vec<GroupIx> = std::iter::successors(group, |at| workflow.group(*at).parent).collect();
    path.reverse();
    path
}

fn group_row(
    workflow: &Workflow,
    group: GroupIx,
    depth: usize,
    cells: &BTreeMap<TaskId, Vec<Option<u8>>>,
    columns: usize,
    wish: &Wish,
) -> Row {
    let mut own = vec![None; columns];
    for ix in workflow.indices().filter(|ix| workflow.is_inside(workflow.task(*ix).group, group)) {
        join(&mut own, cells.get(&workflow.task(ix).id).map_or(&[][..], Vec::as_slice));
    }
    let name = workflow.group(group).id.to_string();
    let folded = wish.folded.contains(&name);
    let outer = workflow.group(group).parent.map(|outer| format!("{}.", workflow.group(outer).id));
    let label = outer.and_then(|outer| name.strip_prefix(&outer).map(str::to_owned)).unwrap_or_else(|| name.clone());
    let href = wish.with(|w| {
        if !w.folded.remove(&name) {
            w.folded.insert(name.clone());
        }
    });
    let mapped = workflow.group(group).foreach.is_some();
    Row { label, task: String::new(), depth, href, folded: Some(folded), mapped, cells: own }
}

/// The cells in one state, as a path of level lines.
fn path(rows: &[Row], state: u8) -> String {
    let mut path = String::new();
    for (line, row) in rows.iter().enumerate() {
        let y = line as u32 * LINE + LINE / 2;
        let mut at = 0;
        while at < row.cells.len() {
            let length = row.cells[at..].iter().take_while(|cell| **cell == Some(state)).count();
            if length > 0 {
                let x = at as u32 * PITCH + (PITCH - CELL) / 2;
                let _ = write!(path, "M{x} {y}h{}", length as u32 * PITCH - (PITCH - CELL));
            }
            at += length.max(1);
        }
    }
    path
}

fn columns(grid: &Grid) -> (Vec<Column>, String) {
    let now = clock::now();
    let took = |column: &GridRun| {
        let end = column.run.end.unwrap_or(now);
        column.run.start.map(|start| end.duration_since(start))
    };
    let longest = grid.runs.iter().filter_map(took).max().unwrap_or_default();
    let all = grid.runs.iter().enumerate().map(|(at, column)| {
        let run = &column.run;
        let took = took(column);
        let part = took.map_or(0.0, |took| took.as_secs_f64() / longest.as_secs_f64().max(0.001));
        let height = (part * HEAD).max(3.0).round();
        let words = fmt::words(run.state.name());
        let time = took.map(|took| format!(" in {}", fmt::duration(took))).unwrap_or_default();
        Column {
            href: links::run(&run.workflow, &run.run_id),
            label: format!("{}: {words}{time}", run.run_id),
            state: run.state.name(),
            x: at as u32 * PITCH + (PITCH - CELL) / 2,
            y: HEAD + 4.0 - height,
            height,
        }
    });
    (all.collect(), fmt::duration(longest))
}

/// A date where a new day begins, where there is room.
fn days(grid: &Grid) -> Vec<(u32, String)> {
    let mut days: Vec<(u32, String)> = Vec::new();
    let mut last = None;
    for (at, column) in grid.runs.iter().enumerate() {
        let run = &column.run;
        let day = run.logical_date.unwrap_or(run.run_after).to_zoned(TimeZone::UTC).date();
        let x = at as u32 * PITCH + 2;
        if last != Some(day) && days.last().is_none_or(|(before, _)| x >= before + 3 * PITCH) {
            days.push((x, day.strftime("%-d %b").to_string()));
            last = Some(day);
        }
    }
    days
}
