//! Publishing files of a run: to a directory, or to a bucket of an S3-compatible store.
//!
//! Invariants: only files below the run's root leave it, whatever links or `..` there are; a published file is there
//! whole or not at all; the manifest is written last, so that who finds it finds everything that it names.

mod directory;
mod s3;
mod select;
mod target;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use target::{S3Target, Target};

/// The name of the manifest, beside the files.
pub const MANIFEST: &str = "pitcrew-manifest.json";

/// One published file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Relative to the target, with `/` between directories.
    pub name: String,
    /// A path, or `s3://bucket/key`.
    pub url: String,
    pub bytes: u64,
    pub sha256: String,
    pub content_type: String,
}

/// Why files are not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A whole clause about the target or the list of files.
    #[error("{0}")]
    Request(String),
    /// `what` is a whole clause.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("cannot publish `{name}` to `{target}`: {reason}")]
    Store { name: String, target: String, reason: String },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> PublishError {
    let what = what.into();
    move |source| PublishError::Io { what, source }
}

/// Publishes the files that `patterns` name below `root`: files, directories, or patterns with `*`, `?` and `**`.
/// A file's name at the target is its path without the directories before its pattern's last fixed part:
/// `results/report.html` becomes `report.html`, and so do `results` and `results/*.html`. `progress` gets a line per
/// file. Credentials and settings of S3 are the usual `AWS_*` variables in `env`; others in it are ignored.
pub async fn publish(
    root: &Path,
    patterns: &[String],
    target: &Target,
    env: &BTreeMap<String, String>,
    now: Timestamp,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Published>, PublishError> {
    let files = select::select(root, patterns)?;
    let store = match target {
        Target::Directory(dir) => Store::Directory(directory::Directory::open(dir)?),
        Target::S3(bucket) => Store::S3(s3::Bucket::open(bucket, env)?),
    };
    let mut published = Vec::with_capacity(files.len());
    for file in &files {
        let content_type = content_type(&file.name);
        let done = match &store {
            Store::Directory(directory) => directory.put_file(file, content_type)?,
            Store::S3(bucket) => bucket.put_file(file, content_type).await?,
        };
        progress(&format!("{} ({} bytes)", done.url, done.bytes));
        published.push(done);
    }
    let manifest = serde_json::json!({ "published": now, "files": published });
    let text = format!("{manifest:#}\n");
    match &store {
        Store::Directory(directory) => directory.put_text(MANIFEST, &text)?,
        Store::S3(bucket) => bucket.put_text(MANIFEST, &text).await?,
    }
    Ok(published)
}

enum Store {
    Directory(directory::Directory),
    S3(s3::Bucket),
}

/// By the name's ending; what a browser should show, it can.
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("pdf") => "application/pdf",
        Some("json") => "application/json",
        Some("ipynb") => "application/x-ipynb+json",
        Some("xml") => "application/xml",
        Some("csv") => "text/csv; charset=utf-8",
        Some("txt" | "log" | "md" | "yaml" | "yml") => "text/plain; charset=utf-8",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        Some("gz" | "tgz") => "application/gzip",
        Some("zip") => "application/zip",
        _ => "application/octet-stream",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
