//! Files to and from S3, in parts, many at once, and resumable: what was moved before a process or a link broke is not
//! moved again.
//!
//! Invariant: an object, or a file, appears whole or not at all, and with the SHA-256 that its source has.

mod get;
mod put;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use reqwest::Method;
use sha2::{Digest, Sha256};

use super::call::encode;
use super::{AwsError, Call, Service};

pub use get::{Got, get};
pub use put::{Put, put};

/// Parts are at least so long; S3 takes 10,000 of them.
const PART: u64 = 8 << 20;
const MOST_PARTS: u64 = 9_000;
/// Parts that are moved at the same time, while they are small.
const AT_ONCE: u64 = 8;
/// Memory that parts under way may take together.
const MEMORY: u64 = 256 << 20;
/// For one part over a slow link.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);
/// An object's own checksum, beside it.
const SHA256: &str = "x-amz-meta-sha256";

/// An object, and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    pub key: String,
    pub region: String,
    pub role: Option<String>,
}

impl Place {
    /// Reads `s3://bucket/key`. The error is the end of a sentence.
    pub fn parse(text: &str) -> Result<(String, String), String> {
        let rest = text.strip_prefix("s3://").ok_or("is no address of an object: write `s3://bucket/key`")?;
        let (bucket, key) = rest.split_once('/').ok_or("has no key: write `s3://bucket/key`")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if bucket.is_empty() || bucket.len() > 63 || !bucket.chars().all(fits) {
            return Err("has no proper name of a bucket".to_owned());
        }
        if key.is_empty() || key.len() > 1024 || key.chars().any(char::is_control) {
            return Err("has no proper key".to_owned());
        }
        if key.split('/').any(|part| part == "." || part == "..") {
            return Err("has a key with `.` or `..` in it".to_owned());
        }
        Ok((bucket.to_owned(), key.to_owned()))
    }

    /// As people write it.
    pub fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    fn call(&self, operation: &'static str, method: Method, query: &str) -> Call<'_> {
        let key: Vec<String> = self.key.split('/').map(encode).collect();
        let mut call = Call::json(Service::S3, &self.region, operation, &serde_json::Value::Null);
        call.method = method;
        call.path = format!("/{}/{}{query}", self.bucket, key.join("/"));
        call.body = Vec::new();
        call.timeout = PATIENCE;
        call.role = self.role.as_deref();
        call
    }
}

/// How a file of this many bytes is cut: the length of a part, and how many are moved at once.
fn cut(bytes: u64) -> (u64, usize) {
    let part = PART.max(bytes.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
    (part, (MEMORY / part).clamp(1, AT_ONCE) as usize)
}

/// The SHA-256 of a whole file, in hex.
fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn broken(what: &str, path: &Path) -> impl FnOnce(io::Error) -> AwsError {
    let what = format!("cannot {what} `{}`", path.display());
    move |error| {
        let hint = if error.kind() == io::ErrorKind::StorageFull { ": free some space" } else { "" };
        AwsError::local(format!("{what}: {error}{hint}"))
    }
}

/// What is moved between one look and the next, for people.
struct Progress<'p> {
    say: &'p mut (dyn FnMut(&str) + Send),
    what: &'static str,
    done: u64,
    total: u64,
    told: u64,
}

impl Progress<'_> {
    /// Every tenth of the whole is told.
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let tenths = (self.done * 10).checked_div(self.total).unwrap_or(10);
        if tenths > self.told && tenths < 10 {
            self.told = tenths;
            (self.say)(&format!("{} {}0 % ({} of {} bytes)", self.what, tenths, self.done, self.total));
        }
    }
}

/// Reads a small file of JSON that an earlier attempt left; what is missing or damaged is none.
fn recall<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Leaves a file of JSON for later attempts, whole or not at all.
fn remember(path: &Path, state: &impl serde::Serialize) -> Result<(), AwsError> {
    let temporary = path.with_extension("new");
    let written = serde_json::to_vec(state).map_err(io::Error::from).and_then(|bytes| {
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(broken("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_into_parts_that_s3_takes() {
        assert_eq!(cut(0), (PART, 8));
        assert_eq!(cut(1 << 30), (PART, 8));
        let (part, at_once) = cut(5 << 40);
        assert!((5u64 << 40).div_ceil(part) <= 10_000 && at_once == 1, "{part} {at_once}");
    }

    #[test]
    fn addresses_of_objects_are_checked() {
        assert_eq!(Place::parse("s3://b-1/a/b c"), Ok(("b-1".to_owned(), "a/b c".to_owned())));
        for text in ["", "b/k", "s3://b", "s3://b/", "s3:///k", "s3://b/../k", "s3://b?x/k", "s3://b/a\nb"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
