//! Keeps the store in step with a folder of workflow files.
//!
//! Invariant: a file that breaks changes nothing but its entry among the broken files; its last good version goes on
//! running. A workflow whose file is gone is no longer active, and its runs stay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use notify::{RecursiveMode, Watcher};
use pitcrew_core::WorkflowId;
use pitcrew_lang::{Compiled, render_all};
use pitcrew_store::{PutWorkflow, WorkflowRow};

use crate::app::App;
use crate::catalog;
use crate::clock;

/// How long to let a burst of writes calm down.
const CALM: Duration = Duration::from_millis(100);
/// Some file systems tell nothing; so the folder is read now and then.
const POLL: Duration = Duration::from_secs(10);
/// A larger file is no workflow.
const LARGEST: u64 = 64 << 20;

/// Reads the folder and follows its changes, for as long as the process lives and leads: of several servers one speaks
/// for the files, or two folders that differ would take each other's workflows away.
pub async fn watch(app: App, folder: PathBuf) -> anyhow::Result<()> {
    let (bell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too, and reading is what we do.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = bell.send(());
        }
    })
    .map_err(|error| tracing::warn!(%error, "cannot watch `{}`; reading it every {POLL:?}", folder.display()))
    .ok();
    if let Some(watcher) = &mut watcher
        && let Err(error) = watcher.watch(&folder, RecursiveMode::Recursive)
    {
        tracing::warn!(%error, "cannot watch `{}`; reading it every {POLL:?}", folder.display());
    }
    let mut scan = Scan::default();
    let mut standing = app.scheduler.standing();
    loop {
        if !*standing.borrow_and_update() {
            // Who led in between may have read other files.
            scan = Scan::default();
        } else if let Err(error) = scan.run(&app, &folder).await {
            tracing::warn!("cannot read `{}`: {error:#}", folder.display());
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            Ok(()) = standing.changed() => {}
            Some(()) = heard.recv() => {
                tokio::time::sleep(CALM).await;
                while heard.try_recv().is_ok() {}
            }
        }
    }
}

/// Reads the folder once; for tests and for commands that need no server.
pub async fn read_once(app: &App, folder: &Path) -> anyhow::Result<()> {
    Scan::default().run(app, folder).await
}

/// What the last look at the folder found.
#[derive(Default)]
struct Scan {
    files: BTreeMap<PathBuf, Seen>,
}

/// A file that did not change since it was read.
#[derive(Clone, PartialEq)]
struct Seen {
    modified: Option<SystemTime>,
    length: u64,
    /// The workflows that it holds.
    workflows: BTreeSet<WorkflowId>,
}

impl Scan {
    async fn run(&mut self, app: &App, folder: &Path) -> anyhow::Result<()> {
        let found = tokio::task::spawn_blocking({
            let folder = folder.to_owned();
            move || files(&folder)
        })
        .await??;
        let mut changed = false;
        for (path, (modified, length)) in &found {
            let old = self.files.get(path);
            if old.is_some_and(|seen| seen.modified == *modified && seen.length == *length) {
                continue;
            }
            let mut workflows = old.map(|seen| seen.workflows.clone()).unwrap_or_default();
            let name = path.strip_prefix(folder).unwrap_or(path).display().to_string();
            match self.read(app, path, &name, *length).await? {
                Some(compiled) => {
                    workflows = put(app, &name, &compiled).await?;
                    app.store.clear_file_error(&name).await?;
                    changed = true;
                }
                None => tracing::debug!("`{name}` keeps what it last held"),
            }
            self.files.insert(path.clone(), Seen { modified: *modified, length: *length, workflows });
        }
        self.files.retain(|path, _| found.contains_key(path));
        changed |= self.deactivate_missing(app, folder, &found).await?;
        if changed {
            app.schedules.notify_one();
            app.scheduler.look();
        }
        Ok(())
    }

    /// Compiles a file; `None` when it is broken, which is then among the broken files.
    async fn read(&self, app: &App, path: &Path, name: &str, length: u64) -> anyhow::Result<Option<Vec<Compiled>>> {
        let problem = if length > LARGEST {
            format!("{name}: the file has more than {} MiB", LARGEST >> 20)
        } else {
            match tokio::fs::read(path).await {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => {
                        let file = name.to_owned();
                        let channels = app.notify.names();
                        let compile = move || catalog::compile_for(&text, &file, Some(&channels));
                        let compiled = tokio::task::spawn_blocking(compile).await?;
                        match compiled {
                            Ok(compiled) => match self.taken(&compiled, path) {
                                None => {
                                    let warnings = compiled.iter().flat_map(|compiled| &compiled.warnings);
                                    warnings.for_each(|warning| tracing::warn!("{}", warning.render(false).trim_end()));
                                    return Ok(Some(compiled));
                                }
                                Some(problem) => format!("{name}: {problem}"),
                            },
                            Err(found) => render_all(&found, false),
                        }
                    }
                    Err(_) => format!("{name}: the file is not UTF-8 text"),
                },
                Err(error) => format!("{name}: cannot read it: {error}"),
            }
        };
        tracing::warn!("`{name}` is broken; its last good version stays\n{problem}");
        app.store.put_file_error(name, &problem, clock::now()).await?;
        Ok(None)
    }

    /// A workflow belongs to the first file that holds it.
    fn taken(&self, compiled: &[Compiled], path: &Path) -> Option<String> {
        compiled.iter().find_map(|c| {
            let id = &c.workflow.id;
            let other = self.files.iter().find(|(other, seen)| *other != path && seen.workflows.contains(id));
            other.map(|(other, _)| format!("the workflow `{id}` is in `{}` already", other.display()))
        })
    }

    /// Workflows of the store that no file holds any more.
    async fn deactivate_missing(
        &self,
        app: &App,
        folder: &Path,
        found: &BTreeMap<PathBuf, (Option<SystemTime>, u64)>,
    ) -> anyhow::Result<bool> {
        let held: BTreeSet<&WorkflowId> = self.files.values().flat_map(|seen| &seen.workflows).collect();
        let filter = pitcrew_store::WorkflowFilter { active: Some(true), ..Default::default() };
        let mut changed = false;
        for row in app.store.workflows(&filter, pitcrew_store::Paging::ALL).await?.rows {
            // A file that was broken when this process began still owns what it last held.
            let path = folder.join(&row.path);
            let broken =
                found.contains_key(&path) && self.files.get(&path).is_some_and(|seen| seen.workflows.is_empty());
            let ours = Path::new(&row.path).is_relative();
            if ours && !held.contains(&row.id) && !broken {
                changed |= app.store.deactivate(&row.id).await?;
                tracing::info!("`{}` is gone with its file `{}`", row.id, row.path);
            }
        }
        for error in app.store.file_errors().await? {
            if !found.contains_key(&folder.join(&error.path)) {
                app.store.clear_file_error(&error.path).await?;
            }
        }
        Ok(changed)
    }
}

async fn put(app: &App, path: &str, compiled: &[Compiled]) -> anyhow::Result<BTreeSet<WorkflowId>> {
    let mut ids = BTreeSet::new();
    for compiled in compiled {
        let mut row = row(compiled, path);
        ids.insert(row.id.clone());
        // The scheduler's own column; an unchanged workflow is not written.
        row.next_run = app.store.workflow(&row.id).await?.and_then(|old| old.next_run);
        match app.store.put_workflow(&row, &compiled.source, clock::now()).await? {
            PutWorkflow::Created => tracing::info!("added `{}` from `{path}`", row.id),
            PutWorkflow::Updated => tracing::info!("updated `{}` from `{path}`", row.id),
            PutWorkflow::Unchanged => {}
        }
    }
    Ok(ids)
}

/// The row of a compiled workflow.
pub fn row(compiled: &Compiled, path: &str) -> WorkflowRow {
    let workflow = &compiled.workflow;
    WorkflowRow {
        id: workflow.id.clone(),
        path: path.to_owned(),
        version: compiled.hash.clone(),
        description: workflow.description.clone(),
        tags: workflow.tags.clone(),
        schedule: workflow.schedule.as_ref().map(|schedule| schedule.describe()),
        is_paused: false,
        active: true,
        next_run: None,
    }
}

/// Every workflow file below the folder; hidden files and folders are left out.
fn files(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, (Option<SystemTime>, u64)>> {
    let mut found = BTreeMap::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read `{}`", dir.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            if hidden {
                continue;
            }
            if meta.is_dir() && depth < 8 {
                open.push((path, depth + 1));
            } else if meta.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                found.insert(path, (meta.modified().ok(), meta.len()));
            }
        }
    }
    Ok(found)
}
