//! The live picture of a run on a terminal.
//!
//! Invariant: what is drawn is at most as high as the terminal, and is erased before anything else is written; so
//! lasting lines (failures, the summary) stand above it in order. However many tasks there are, mapped ones and groups
//! are folded to one line each, and what does not fit is counted.

use jiff::Timestamp;
use pitcrew_core::ir::{GroupIx, TaskIx};
use pitcrew_core::state::State;

use super::model::{Cell, Model, Tally};
use crate::cli::format;
use crate::cli::ui::Paint;

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// A group with more tasks than this is one line.
const UNFOLDED: usize = 12;

/// One line of the picture.
#[derive(Debug, Clone)]
enum Item {
    Task {
        task: TaskIx,
        depth: usize,
    },
    /// A group, with all tasks in it counted.
    Folded {
        group: GroupIx,
        depth: usize,
    },
    /// The heading of a group whose tasks follow.
    Group {
        group: GroupIx,
        depth: usize,
    },
}

/// The lines of a workflow, in the order of its file.
pub struct Outline {
    items: Vec<Item>,
    /// The tasks inside each folded group.
    inside: Vec<Vec<TaskIx>>,
    name_width: usize,
}

impl Outline {
    pub fn new(model: &Model) -> Outline {
        let workflow = &model.workflow;
        let mut inside = vec![Vec::new(); workflow.groups.len()];
        for ix in workflow.indices() {
            let mut group = workflow.task(ix).group;
            while let Some(at) = group {
                inside[at.at()].push(ix);
                group = workflow.group(at).parent;
            }
        }
        let folded = |group: GroupIx| inside[group.at()].len() > UNFOLDED || workflow.group(group).foreach.is_some();
        let mut seen = vec![false; workflow.groups.len()];
        let mut items = Vec::new();
        for task in workflow.indices() {
            let mut path = Vec::new();
            let mut group = workflow.task(task).group;
            while let Some(at) = group {
                path.push(at);
                group = workflow.group(at).parent;
            }
            path.reverse();
            let mut hidden = false;
            for (depth, group) in path.iter().copied().enumerate() {
                let first = !std::mem::replace(&mut seen[group.at()], true);
                if folded(group) {
                    items.extend(first.then_some(Item::Folded { group, depth }));
                    hidden = true;
                    break;
                }
                items.extend(first.then_some(Item::Group { group, depth }));
            }
            if !hidden {
                items.push(Item::Task { task, depth: path.len() });
            }
        }
        let width = |item: &Item| match item {
            Item::Task { task, depth } => 2 * depth + short(workflow.task(*task).id.as_str(), *depth).len(),
            Item::Folded { group, depth } | Item::Group { group, depth } => {
                2 * depth + short(workflow.group(*group).id.as_str(), *depth).len()
            }
        };
        let name_width = items.iter().map(width).max().unwrap_or(0).clamp(12, 40);
        Outline { items, inside, name_width }
    }
}

/// The name inside its group; the groups around it are told by the indentation.
fn short(id: &str, depth: usize) -> &str {
    if depth == 0 { id } else { id.rsplit('.').next().unwrap_or(id) }
}

/// What a picture is drawn from.
pub struct Scene<'a> {
    pub model: &'a Model,
    pub outline: &'a Outline,
    pub title: &'a str,
    pub began: Timestamp,
    pub now: Timestamp,
    /// The last line that a running instance wrote.
    pub last_line: &'a dyn Fn(TaskIx, usize) -> Option<String>,
    /// Said below everything, such as how to stop.
    pub footer: &'a str,
}

/// The lines to draw, at most `height`, without line breaks; each is cut to `width`.
pub fn draw(scene: &Scene<'_>, paint: Paint, width: usize, height: usize) -> Vec<String> {
    let model = scene.model;
    let tally = model.tally;
    let took = format::duration(scene.now.duration_since(scene.began));
    let mut lines = vec![format!("{}  {}", paint.bold(scene.title), paint.dim(took))];
    let room = height.saturating_sub(4).max(1);
    let mut shown: Vec<&Item> = scene.outline.items.iter().collect();
    let mut left_out = 0;
    if shown.len() > room {
        // What runs or failed matters most; then what comes next; what is done was told.
        shown.sort_by_key(|item| rank(scene, item));
        left_out = shown.len() - room;
        shown.truncate(room);
    }
    for item in shown {
        lines.push(clip(item_line(scene, item, paint).trim_end(), width));
    }
    if left_out > 0 || tally.total() > 20 {
        lines.push(counts(tally, left_out, paint));
    }
    if !scene.footer.is_empty() {
        lines.push(paint.dim(scene.footer));
    }
    lines
}

fn counts(tally: Tally, left_out: usize, paint: Paint) -> String {
    let mut parts = vec![format!("{} of {} done", format::count(tally.done()), format::count(tally.total()))];
    let mut part = |number: u64, word: &str, state: &str| {
        if number > 0 {
            parts.push(format::tint(paint, state, &format!("{} {word}", format::count(number))));
        }
    };
    part(tally.running, "running", "running");
    part(tally.waiting, "waiting", "none");
    part(tally.failed, "failed", "failed");
    part(tally.skipped, "not run", "skipped");
    let more = if left_out > 0 {
        paint.dim(format!(" · {} more not shown", format::count(left_out as u64)))
    } else {
        String::new()
    };
    format!("  {}{more}", parts.join(" · "))
}

fn rank(scene: &Scene<'_>, item: &Item) -> u8 {
    let tally = match item {
        Item::Group { .. } => return 9,
        item => item_tally(scene, item),
    };
    match () {
        () if tally.running > 0 => 0,
        () if tally.failed > 0 => 1,
        () if tally.waiting > 0 && tally.done() > 0 => 2,
        () if tally.waiting > 0 => 3,
        () => 4,
    }
}

fn item_tally(scene: &Scene<'_>, item: &Item) -> Tally {
    let mut tally = Tally::default();
    let mut add = |task: &TaskIx| scene.model.rows[task.at()].cells.iter().for_each(|cell| tally.add(cell.state));
    match item {
        Item::Task { task, .. } => add(task),
        Item::Folded { group, .. } | Item::Group { group, .. } => scene.outline.inside[group.at()].iter().for_each(add),
    }
    tally
}

fn item_line(scene: &Scene<'_>, item: &Item, paint: Paint) -> String {
    let workflow = &scene.model.workflow;
    match item {
        Item::Group { group, depth } => {
            let id = short(workflow.group(*group).id.as_str(), *depth);
            format!("  {}{}", "  ".repeat(*depth), paint.dim(format!("▾ {id}")))
        }
        Item::Folded { group, depth } => {
            let name = name(scene, workflow.group(*group).id.as_str(), *depth);
            folded(scene, item_tally(scene, item), *depth, &name, None, paint)
        }
        Item::Task { task, depth } => {
            let row = &scene.model.rows[task.at()];
            let name = name(scene, workflow.task(*task).id.as_str(), *depth);
            match row.cells.as_slice() {
                [cell] => single(scene, *task, cell, *depth, &name, paint),
                cells => {
                    let running = cells.iter().position(|cell| cell.state == State::Running);
                    let last = running.and_then(|at| (scene.last_line)(*task, at));
                    folded(scene, item_tally(scene, item), *depth, &name, last, paint)
                }
            }
        }
    }
}

/// The name inside its group, filled up so that what follows stands in one column.
fn name(scene: &Scene<'_>, id: &str, depth: usize) -> String {
    let id = short(id, depth);
    let width = scene.outline.name_width.saturating_sub(2 * depth).max(8);
    if id.len() > width { format!("{}…", &id[..width - 1]) } else { format!("{id:width$}") }
}

fn spinner(scene: &Scene<'_>) -> &'static str {
    let tenth = scene.now.as_millisecond().rem_euclid(1000) / 100;
    SPINNER[tenth as usize % SPINNER.len()]
}

fn single(scene: &Scene<'_>, task: TaskIx, cell: &Cell, depth: usize, name: &str, paint: Paint) -> String {
    let state = cell.state.name();
    let sign = if cell.state == State::Running { spinner(scene) } else { format::sign(state) };
    let sign = format::tint(paint, state, sign);
    let name = if matches!(cell.state, State::None | State::Scheduled) { paint.dim(name) } else { name.to_owned() };
    let attempt = if cell.attempt > 1 { paint.yellow(format!("  attempt {}", cell.attempt)) } else { String::new() };
    let rest = match cell.state {
        State::Running => {
            let took = cell.start.map_or_else(String::new, |start| format::duration(scene.now.duration_since(start)));
            let last = (scene.last_line)(task, 0).unwrap_or_default();
            format!("{took:>9}{attempt}  {}", paint.dim(format::one_line(&last)))
        }
        State::Success | State::Failed => format!("{:>9}{attempt}", format::span(cell.start.or(cell.end), cell.end)),
        State::UpForRetry { at } => {
            paint.yellow(format!("   failed; attempt {} {}", cell.attempt + 1, format::until(at, scene.now)))
        }
        State::Queued => paint.dim("   starting"),
        State::None | State::Scheduled => String::new(),
        _ => paint.dim(format!("   {}", state.replace('_', " "))),
    };
    format!("  {}{sign} {name}  {rest}", "  ".repeat(depth))
}

fn folded(scene: &Scene<'_>, tally: Tally, depth: usize, name: &str, last: Option<String>, paint: Paint) -> String {
    let state = match () {
        () if tally.failed > 0 => "failed",
        () if tally.running > 0 => "running",
        () if tally.waiting > 0 => "none",
        () if tally.success > 0 => "success",
        () => "skipped",
    };
    let sign = if tally.running > 0 { spinner(scene) } else { format::sign(state) };
    let mut parts = vec![format!("{:>9}", format!("{}/{}", format::count(tally.done()), format::count(tally.total())))];
    if tally.running > 0 {
        parts.push(paint.cyan(format!("{} running", format::count(tally.running))));
    }
    if tally.failed > 0 {
        parts.push(paint.red(format!("{} failed", format::count(tally.failed))));
    }
    if let Some(last) = last {
        parts.push(paint.dim(format::one_line(&last)));
    }
    format!("  {}{} {name}  {}", "  ".repeat(depth), format::tint(paint, state, sign), parts.join("  "))
}

/// Cuts a line to so many characters, colour codes not counted.
fn clip(line: &str, width: usize) -> String {
    let mut out = String::new();
    let mut visible = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            out.push(c);
            for c in chars.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if visible < width {
            out.push(c);
            visible += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_control::catalog;
    use pitcrew_control::scheduler::Step;
    use std::sync::Arc;

    fn model(source: &str) -> Model {
        let compiled = catalog::compile(source, "w.yaml").unwrap();
        Model::new(Arc::new(compiled.into_iter().next().unwrap().workflow))
    }

    fn picture(model: &Model, height: usize) -> String {
        let outline = Outline::new(model);
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let began = now - jiff::SignedDuration::from_secs(65);
        let last = |_, _| Some("cell 3 of 9".to_owned());
        let scene = Scene { model, outline: &outline, title: "w", began, now, last_line: &last, footer: "" };
        draw(&scene, Paint { on: false }, 70, height).join("\n")
    }

    fn step(model: &mut Model, task: &str, map_index: i32, to: State) {
        let now: Timestamp = "2026-01-02T03:04:01Z".parse().unwrap();
        model.step(&Step { task: task.parse().unwrap(), map_index, to }, now);
    }

    #[test]
    fn groups_are_indented_and_mapped_tasks_are_one_line() {
        let mut model = model(
            "workflow: w\ntasks:\n  fetch: {run: 'true'}\n  eval:\n    tasks:\n      gpu: {run: 'true'}\n      cpu: {run: 'true'}\n  each: {foreach: {i: [1, 2, 3]}, run: 'true'}\n",
        );
        step(&mut model, "fetch", -1, State::Queued);
        step(&mut model, "fetch", -1, State::Success);
        step(&mut model, "eval.gpu", -1, State::Running);
        step(&mut model, "each", 0, State::Failed);
        step(&mut model, "each", 2, State::Running);
        insta::assert_snapshot!(picture(&model, 30), @r"
        w  1 m 05 s
          ✓ fetch              0 ms
          ▾ eval
            ⠋ gpu             4.0 s  cell 3 of 9
            · cpu
          ⠋ each                1/3  1 running  1 failed  cell 3 of 9
        ");
    }

    #[test]
    fn five_thousand_tasks_fit_on_a_small_terminal_with_the_running_ones_first() {
        let tasks: String = (0..5000).map(|n| format!("  t{n}: {{run: 'true'}}\n")).collect();
        let mut model = model(&format!("workflow: w\ntasks:\n{tasks}"));
        step(&mut model, "t4321", -1, State::Running);
        step(&mut model, "t7", -1, State::Failed);
        insta::assert_snapshot!(picture(&model, 8), @r"
        w  1 m 05 s
          ⠋ t4321             4.0 s  cell 3 of 9
          ✗ t7                 0 ms
          · t0
          · t1
          1 of 5,000 done · 1 running · 4,998 waiting · 1 failed · 4,996 more not shown
        ");
    }
}
