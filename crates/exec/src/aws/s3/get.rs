//! An object to a file.
//!
//! Parts are written where they belong in a file beside the target; which of them are there is kept in another. Both are
//! good only for the very object that they were begun with: every request names its `ETag`.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Place, Progress, SHA256, broken, cut, digest, recall, remember};
use crate::aws::{Aws, AwsError};

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Got {
    pub bytes: u64,
    pub sha256: String,
    pub etag: String,
}

/// A download under way.
#[derive(Default, Serialize, Deserialize)]
struct State {
    etag: String,
    bytes: u64,
    part: u64,
    done: BTreeSet<u64>,
}

/// Fetches the object into the file, which it replaces. `say` gets lines of progress.
pub async fn get(aws: &Aws, place: &Place, file: &Path, say: &mut (dyn FnMut(&str) + Send)) -> Result<Got, AwsError> {
    let head = aws.send(&place.call("HeadObject", Method::HEAD, "")).await.map_err(|error| named(error, place))?;
    let bytes = head.header("content-length").and_then(|text| text.parse::<u64>().ok());
    let (Some(bytes), Some(etag)) = (bytes, head.header("etag").map(str::to_owned)) else {
        return Err(AwsError::local("the answer of `s3` to `HeadObject` has no length or no `ETag`"));
    };
    let expected = head.header(SHA256).map(str::to_owned);
    let (part, at_once) = cut(bytes);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(broken("make", folder))?;
    }
    let (beside, notes) = (with(file, ".part"), with(file, ".parts"));
    let mut state = match recall::<State>(&notes) {
        Some(state) if state.etag == etag && state.bytes == bytes && state.part == part && beside.exists() => {
            say(&format!("going on with a download of which {} parts are there", state.done.len()));
            state
        }
        _ => State { etag: etag.clone(), bytes, part, done: BTreeSet::new() },
    };
    let target =
        File::options().write(true).create(true).truncate(false).open(&beside).map_err(broken("write", &beside))?;
    target.set_len(bytes).map_err(broken("write", &beside))?;
    let length = |number: u64| part.min(bytes - number * part);
    let done: u64 = state.done.iter().map(|number| length(*number)).sum();
    let told = (done * 10).checked_div(bytes).unwrap_or_default();
    let mut progress = Progress { say, what: "fetched", done, total: bytes, told };
    let missing: Vec<u64> = (0..bytes.div_ceil(part)).filter(|number| !state.done.contains(number)).collect();
    let (target, etag, shown) = (&target, etag.as_str(), beside.as_path());
    let mut fetching = stream::iter(missing)
        .map(|number| async move {
            let from = number * part;
            let mut call = place.call("GetObject", Method::GET, "");
            let range = format!("bytes={from}-{}", from + length(number) - 1);
            call.headers = vec![("range", range), ("if-match", etag.to_owned())];
            call.most = part as usize + 1;
            let answer = aws.send(&call).await.map_err(|error| match error.status {
                412 => AwsError::local(format!("`{}` changed while it was fetched", place.url())),
                _ => error,
            })?;
            if answer.body.len() as u64 != length(number) {
                let error = format!("`{}` gave {} bytes of {}", place.url(), answer.body.len(), length(number));
                return Err(AwsError { passing: true, ..AwsError::local(error) });
            }
            target.write_all_at(&answer.body, from).map_err(broken("write", shown))?;
            Ok(number)
        })
        .buffer_unordered(at_once);
    while let Some(fetched) = fetching.next().await {
        let number = fetched?;
        progress.add(length(number));
        state.done.insert(number);
        remember(&notes, &state)?;
    }
    drop(fetching);
    target.sync_all().map_err(broken("write", &beside))?;
    let sha256 = digest(&beside).map_err(broken("read", &beside))?;
    let _ = std::fs::remove_file(&notes);
    if expected.is_some_and(|expected| !expected.eq_ignore_ascii_case(&sha256)) {
        let _ = std::fs::remove_file(&beside);
        return Err(AwsError {
            passing: true,
            ..AwsError::local(format!("`{}` came damaged: its SHA-256 is not the one it was put with", place.url()))
        });
    }
    std::fs::rename(&beside, file).map_err(broken("write", file))?;
    Ok(Got { bytes, sha256, etag: etag.to_owned() })
}

/// The answer to a `HEAD` has no body that could say what is wrong.
fn named(error: AwsError, place: &Place) -> AwsError {
    let (code, message) = match error.status {
        404 => ("NoSuchKey", format!("there is no `{}`", place.url())),
        403 => ("AccessDenied", format!("`s3:GetObject` on `{}` is not allowed", place.url())),
        _ => return error,
    };
    AwsError { code: code.to_owned(), message, ..error }
}

fn with(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
