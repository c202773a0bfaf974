//! A file to an object.
//!
//! The upload that is under way is kept in a small file, with what the source was; which of its parts are there is asked
//! of S3. So an attempt that follows one that broke sends what is missing, and a source that changed begins anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt, stream};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Place, Progress, SHA256, broken, cut, digest, recall, remember};
use crate::aws::call::encode;
use crate::aws::{Aws, AwsError, xml};

/// An object that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Put {
    pub url: String,
    pub bytes: u64,
    pub sha256: String,
    pub etag: String,
}

/// An upload under way.
#[derive(Serialize, Deserialize)]
struct State {
    upload: String,
    url: String,
    source: Source,
}

/// What the source was when the upload began.
#[derive(PartialEq, Serialize, Deserialize)]
struct Source {
    bytes: u64,
    modified: u128,
    sha256: String,
}

/// Makes the object out of the file. `state` is where an upload that breaks is kept for the next call; `say` gets lines
/// of progress.
pub async fn put(
    aws: &Aws,
    file: &Path,
    place: &Place,
    content_type: &str,
    state: &Path,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<Put, AwsError> {
    let source = look(file)?;
    let (part, at_once) = cut(source.bytes);
    if source.bytes <= part {
        return whole(aws, file, place, content_type, source).await;
    }
    let (upload, mut parts) = match resume(aws, place, state, &source, part).await? {
        Some((upload, parts)) => {
            say(&format!("going on with an upload of which {} parts are there", parts.len()));
            (upload, parts)
        }
        None => (begin(aws, place, content_type, state, &source).await?, BTreeMap::new()),
    };
    let handle = File::open(file).map_err(broken("read", file))?;
    let count = source.bytes.div_ceil(part);
    let length = |number: u64| part.min(source.bytes - (number - 1) * part);
    let done: u64 = parts.keys().map(|number| length(*number)).sum();
    let mut progress = Progress { say, what: "sent", done, total: source.bytes, told: done * 10 / source.bytes };
    let missing: Vec<u64> = (1..=count).filter(|number| !parts.contains_key(number)).collect();
    let (handle, upload_id) = (&handle, upload.as_str());
    let mut sending = stream::iter(missing)
        .map(|number| async move {
            let mut body = vec![0; length(number) as usize];
            handle.read_exact_at(&mut body, (number - 1) * part).map_err(broken("read", file))?;
            let etag = send(aws, place, upload_id, number, body).await?;
            Ok::<_, AwsError>((number, etag))
        })
        .buffer_unordered(at_once);
    while let Some(sent) = sending.next().await {
        let (number, etag) = sent?;
        progress.add(length(number));
        parts.insert(number, etag);
    }
    drop(sending);
    if look(file)? != source {
        abort(aws, place, &upload, state).await;
        return Err(AwsError::local(format!("`{}` changed while it was sent", file.display())));
    }
    let etag = complete(aws, place, &upload, &parts).await?;
    let _ = std::fs::remove_file(state);
    Ok(Put { url: place.url(), bytes: source.bytes, sha256: source.sha256, etag })
}

fn look(file: &Path) -> Result<Source, AwsError> {
    let meta = std::fs::metadata(file).map_err(broken("read", file))?;
    if !meta.is_file() {
        return Err(AwsError::local(format!("`{}` is no file", file.display())));
    }
    let modified = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let sha256 = digest(file).map_err(broken("read", file))?;
    Ok(Source { bytes: meta.len(), modified: modified.as_nanos(), sha256 })
}

async fn whole(aws: &Aws, file: &Path, place: &Place, kind: &str, source: Source) -> Result<Put, AwsError> {
    let mut call = place.call("PutObject", Method::PUT, "");
    call.body = std::fs::read(file).map_err(broken("read", file))?;
    let digest = Sha256::digest(&call.body);
    if super::hex(&digest) != source.sha256 {
        return Err(AwsError::local(format!("`{}` changed while it was sent", file.display())));
    }
    call.headers = vec![
        ("content-type", kind.to_owned()),
        (SHA256, source.sha256.clone()),
        ("x-amz-checksum-sha256", BASE64.encode(digest)),
    ];
    let answer = aws.send(&call).await?;
    let etag = answer.header("etag").unwrap_or_default().to_owned();
    Ok(Put { url: place.url(), bytes: source.bytes, sha256: source.sha256, etag })
}

async fn begin(aws: &Aws, place: &Place, kind: &str, state: &Path, source: &Source) -> Result<String, AwsError> {
    let mut call = place.call("CreateMultipartUpload", Method::POST, "?uploads=");
    call.headers = vec![
        ("content-type", kind.to_owned()),
        (SHA256, source.sha256.clone()),
        ("x-amz-checksum-algorithm", "SHA256".to_owned()),
    ];
    let answer = aws.send(&call).await?;
    let upload = xml::text(&String::from_utf8_lossy(&answer.body), "UploadId")
        .ok_or_else(|| AwsError::local("the answer of `s3` to `CreateMultipartUpload` has no `UploadId`"))?;
    let source = Source { bytes: source.bytes, modified: source.modified, sha256: source.sha256.clone() };
    remember(state, &State { upload: upload.clone(), url: place.url(), source })?;
    Ok(upload)
}

/// The upload that an earlier attempt began, with the parts that S3 has of it; `None` if there is none to go on with.
async fn resume(
    aws: &Aws,
    place: &Place,
    path: &Path,
    source: &Source,
    part: u64,
) -> Result<Option<(String, BTreeMap<u64, String>)>, AwsError> {
    let Some(state) = recall::<State>(path).filter(|state| state.url == place.url()) else { return Ok(None) };
    if state.source != *source {
        abort(aws, place, &state.upload, path).await;
        return Ok(None);
    }
    let mut parts = BTreeMap::new();
    let mut marker = String::new();
    loop {
        let query = format!("?part-number-marker={marker}&uploadId={}", encode(&state.upload));
        let query = if marker.is_empty() { format!("?uploadId={}", encode(&state.upload)) } else { query };
        let answer = match aws.send(&place.call("ListParts", Method::GET, &query)).await {
            Ok(answer) => answer,
            Err(error) if error.status == 404 => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&answer.body);
        for entry in text.split("<Part>").skip(1) {
            let entry = format!("<Part>{entry}");
            let field = |name| xml::text(&entry, name);
            let number = field("PartNumber").and_then(|text| text.parse::<u64>().ok()).filter(|number| *number >= 1);
            let (Some(number), Some(etag)) = (number, field("ETag")) else { continue };
            let begin = (number - 1).saturating_mul(part);
            let expected = part.min(source.bytes.saturating_sub(begin));
            if field("Size").and_then(|text| text.parse().ok()) == Some(expected) {
                parts.insert(number, etag);
            }
        }
        match (xml::text(&text, "IsTruncated").as_deref(), xml::text(&text, "NextPartNumberMarker")) {
            (Some("true"), Some(next)) if next != marker => marker = next,
            _ => return Ok(Some((state.upload, parts))),
        }
    }
}

async fn send(aws: &Aws, place: &Place, upload: &str, number: u64, body: Vec<u8>) -> Result<String, AwsError> {
    let query = format!("?partNumber={number}&uploadId={}", encode(upload));
    let mut call = place.call("UploadPart", Method::PUT, &query);
    call.headers = vec![("x-amz-checksum-sha256", BASE64.encode(Sha256::digest(&body)))];
    call.body = body;
    let answer = aws.send(&call).await?;
    let etag = answer.header("etag").map(str::to_owned);
    etag.ok_or_else(|| AwsError::local("the answer of `s3` to `UploadPart` has no `ETag`"))
}

async fn complete(aws: &Aws, place: &Place, upload: &str, parts: &BTreeMap<u64, String>) -> Result<String, AwsError> {
    let mut call = place.call("CompleteMultipartUpload", Method::POST, &format!("?uploadId={}", encode(upload)));
    let list: String = parts
        .iter()
        .map(|(number, etag)| {
            let etag = etag.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        })
        .collect();
    call.body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>").into_bytes();
    call.headers = vec![("content-type", "application/xml".to_owned())];
    let answer = aws.send(&call).await?;
    let text = String::from_utf8_lossy(&answer.body);
    // S3 may begin to answer 200 before it knows.
    match (xml::text(&text, "ETag"), xml::text(&text, "Code")) {
        (Some(etag), None) => Ok(etag),
        (_, code) => Err(AwsError {
            passing: true,
            code: code.unwrap_or_default(),
            ..AwsError::local(xml::text(&text, "Message").unwrap_or_else(|| "S3 did not put the parts together".into()))
        }),
    }
}

/// Gives the parts up; they would cost. If that fails, a rule of the bucket has to.
async fn abort(aws: &Aws, place: &Place, upload: &str, state: &Path) {
    let query = format!("?uploadId={}", encode(upload));
    let _ = aws.send(&place.call("AbortMultipartUpload", Method::DELETE, &query)).await;
    let _ = std::fs::remove_file(state);
}
