//! Kept files of a run: listed, and served so that they can do no harm.
//!
//! A notebook may contain any script. It is served with a policy that gives it an origin of its own and lets nothing
//! run, so it can neither read our pages nor act for the user. A path is taken apart before it meets the disk, and what
//! it leads to must lie in the run's own folder, links included.

use std::io;
use std::path::{Path as FsPath, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use pitcrew_control::links;
use pitcrew_core::RunKey;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::find;
use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::web::notebook;

/// Files listed at most; more are there all the same.
const MAX_LISTED: usize = 2_000;
/// Folders inside folders at most.
const MAX_DEPTH: usize = 12;

/// No script, no request, no origin; its own styles and embedded pictures do.
const SANDBOX: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; \
     frame-ancestors 'self'";
/// The viewer of a browser does not work in a sandbox; it has its own.
const VIEWER: &str = "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; frame-ancestors 'self'";

/// A kept file.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    /// Relative, with `/` between its parts.
    pub path: String,
    pub bytes: u64,
    pub modified: Option<Timestamp>,
}

/// Every kept file of a run that is here, by path; links are left out. Other servers may have more: see
/// [`Site::lacks_files`].
pub async fn of_run(site: &Site, run: RunKey) -> ApiResult<Vec<Artifact>> {
    let root = site.app.data.artifacts(run);
    let listed = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        walk(&root, "", MAX_DEPTH, &mut found).map(|()| found)
    });
    match listed.await.map_err(anyhow::Error::from)? {
        Ok(mut found) => {
            found.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(found)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(anyhow::anyhow!("cannot list the artifacts of run {run}: {error}").into()),
    }
}

fn walk(dir: &FsPath, prefix: &str, depth: usize, found: &mut Vec<Artifact>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if found.len() >= MAX_LISTED {
            return Ok(());
        }
        if kind.is_dir() && depth > 0 {
            walk(&entry.path(), &format!("{path}/"), depth - 1, found)?;
        } else if kind.is_file() {
            let meta = entry.metadata()?;
            let modified = meta.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
            found.push(Artifact { path, bytes: meta.len(), modified });
        }
    }
    Ok(())
}

/// The same, once what other servers have is here, where `?bring=true` asks for that; and whether they have more.
pub async fn listed(site: &Site, run: RunKey, query: &Query) -> ApiResult<(Vec<Artifact>, bool)> {
    if query.boolean("bring")?.unwrap_or(false) {
        site.has_files(run).await?;
    }
    Ok((of_run(site, run).await?, site.lacks_files(run).await?))
}

pub async fn list(State(site): State<Site>, Path(key): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let run = find(&site, &key).await?;
    let (files, elsewhere) = listed(&site, run.key, &query).await?;
    let shaped: Vec<Value> = files
        .iter()
        .map(|file| {
            json!({
                "path": file.path,
                "bytes": file.bytes,
                "modified": file.modified,
                "content_type": kind_of(&file.path).0,
                "url": links::artifact(run.key, &file.path),
            })
        })
        .collect();
    Ok(Json(json!({ "artifacts": shaped, "total_entries": files.len(), "elsewhere": elsewhere })))
}

pub async fn download(
    State(site): State<Site>,
    Path((key, path)): Path<(String, String)>,
    query: Query,
) -> ApiResult<Response> {
    let run = find(&site, &key).await?;
    let brought = site.has_files(run.key).await;
    let missing = || ApiError::not_found(format!("the run has no artifact `{path}`"));
    let root = site.app.data.artifacts(run.key);
    let file = match (locate(&root, &path).await, brought) {
        (Some(file), Ok(())) => file,
        (None, Ok(())) => return Err(missing()),
        // A newer one may be lost, but nobody will ever have that.
        (Some(file), Err(error)) if error.status() == StatusCode::GONE => file,
        (_, Err(error)) => return Err(error),
    };
    let mut file = tokio::fs::File::open(file).await.map_err(|_| missing())?;
    let length = file.metadata().await.map_err(|_| missing())?.len();
    let (mut content_type, policy) = kind_of(&path);
    let wants_notebook = query.text("view") == Some("notebook") && notebook::is_notebook(&path);
    let notebook = if wants_notebook { as_notebook(&mut file, length).await } else { None };
    let (body, length) = match notebook {
        Some(html) => {
            content_type = kind_of("notebook.html").0;
            let length = html.len() as u64;
            (Body::from(html), length)
        }
        None => (Body::from_stream(chunks(file).fuse()), length),
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    if content_type == UNKNOWN || query.boolean("download")?.unwrap_or(false) {
        let name = links::encode(path.rsplit('/').next().unwrap_or("artifact"));
        if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{name}")) {
            headers.insert(header::CONTENT_DISPOSITION, value);
        }
    }
    Ok(response)
}

/// A notebook as a page; `None`, with the file at its beginning, if it cannot be shown as one.
async fn as_notebook(file: &mut tokio::fs::File, length: u64) -> Option<String> {
    if length > notebook::LARGEST {
        return None;
    }
    let mut bytes = Vec::with_capacity(length as usize);
    let read = file.read_to_end(&mut bytes).await;
    file.rewind().await.ok()?;
    read.ok()?;
    tokio::task::spawn_blocking(move || notebook::to_html(&bytes)).await.ok().flatten()
}

/// The file that a path means, if it is a file inside `root`.
async fn locate(root: &FsPath, path: &str) -> Option<PathBuf> {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    if !path.split('/').all(is_plain) {
        return None;
    }
    let root = tokio::fs::canonicalize(root).await.ok()?;
    let file = tokio::fs::canonicalize(root.join(path)).await.ok()?;
    let is_file = tokio::fs::metadata(&file).await.ok()?.is_file();
    (is_file && file.starts_with(&root)).then_some(file)
}

fn chunks(file: tokio::fs::File) -> impl stream::Stream<Item = io::Result<Vec<u8>>> {
    stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let mut buffer = vec![0; 128 << 10];
        match file.read(&mut buffer).await {
            Ok(0) => None,
            Ok(got) => {
                buffer.truncate(got);
                Some((Ok(buffer), Some(file)))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// Of what we do not know.
pub const UNKNOWN: &str = "application/octet-stream";

/// How a file is served: its type, and what it may do. What could be run is text; what we do not know is a download.
pub fn kind_of(path: &str) -> (&'static str, &'static str) {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => ("text/html; charset=utf-8", SANDBOX),
        "svg" => ("image/svg+xml", SANDBOX),
        "pdf" => ("application/pdf", VIEWER),
        "png" => ("image/png", SANDBOX),
        "jpg" | "jpeg" => ("image/jpeg", SANDBOX),
        "gif" => ("image/gif", SANDBOX),
        "webp" => ("image/webp", SANDBOX),
        "json" | "ipynb" => ("application/json", SANDBOX),
        "txt" | "log" | "md" | "csv" | "tsv" | "xml" | "yaml" | "yml" | "toml" | "py" | "sh" => {
            ("text/plain; charset=utf-8", SANDBOX)
        }
        _ => (UNKNOWN, SANDBOX),
    }
}
