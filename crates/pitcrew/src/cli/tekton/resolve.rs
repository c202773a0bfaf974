//! The resolver `git`: one file of a repository, at a revision, for a run that somebody starts here.
//!
//! The repository is cloned into a directory that goes at once; the commit it was is in no version, but the text of the file is.

use std::path::{Component, Path};

use pitcrew_exec::git::{self, Access, GitRequest, without_credentials};
use pitcrew_lang::tekton::ReadOptions;
use pitcrew_lang::tekton::compile::resolver::Asked;
use serde_json::Value;

use super::all;

/// What Tekton takes where nothing is said.
const REVISION: &str = "main";
/// A larger file is no document.
const MOST: u64 = 8 << 20;

/// What a resolver other than `cluster` is asked for.
pub fn remote(asked: &Asked) -> Result<Value, String> {
    match asked.resolver.as_str() {
        "git" => in_git(asked),
        other => Err(format!("the resolver `{other}` cannot be used here")),
    }
}

fn in_git(asked: &Asked) -> Result<Value, String> {
    let (url, path) = (asked.param("url"), Path::new(asked.param("pathInRepo")));
    let path = path.strip_prefix("/").unwrap_or(path);
    if url.is_empty() || path.as_os_str().is_empty() {
        return Err("it needs the params `url` and `pathInRepo`".to_owned());
    }
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("`{}` leaves the repository", path.display()));
    }
    let dir = tempfile::tempdir().map_err(|why| format!("no directory can be made for the clone: {why}"))?;
    let revision = Some(asked.param("revision")).filter(|named| !named.is_empty()).unwrap_or(REVISION);
    let request = GitRequest {
        url: url.to_owned(),
        revision: revision.to_owned(),
        into: dir.path().join("clone"),
        depth: Some(1),
        ..GitRequest::default()
    };
    git::checkout(&request, &Access::default(), &mut |_| ()).map_err(|why| why.to_string())?;
    let shown = format!("{}@{revision}:{}", without_credentials(url), path.display());
    let cannot = |why: std::io::Error| format!("`{shown}` cannot be read: {why}");
    // A link of the repository may lead anywhere.
    let root = request.into.canonicalize().map_err(cannot)?;
    let file = root.join(path).canonicalize().map_err(cannot)?;
    if !file.starts_with(&root) || file.starts_with(root.join(".git")) {
        return Err(format!("`{shown}` leads out of the repository"));
    }
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() || metadata.len() > MOST {
        return Err(format!("`{shown}` is no file of at most {} MB", MOST >> 20));
    }
    let text = std::fs::read_to_string(&file).map_err(cannot)?;
    let source = pitcrew_lang::tekton::Source { file: &shown, text: &text };
    let docs = pitcrew_lang::tekton::read(&[source], &ReadOptions::default())
        .map_err(|problems| pitcrew_lang::render_all(&problems, false).trim_end().to_owned())?;
    let mut found = all(&docs).into_iter().filter(|document| document.kind() == asked.kind);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.json),
        (None, _) => Err(format!("`{shown}` holds no {}", asked.kind)),
        (Some(_), Some(_)) => {
            Err(format!("`{shown}` holds several objects of the kind {}: which is meant?", asked.kind))
        }
    }
}
