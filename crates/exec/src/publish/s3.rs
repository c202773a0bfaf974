//! A bucket of an S3-compatible store as a target. An object appears when its upload is complete; large files go in
//! parts. Requests that fail for a passing reason are repeated.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::{Path, PathPart};
use object_store::{Attribute, Attributes, ClientOptions, RetryConfig};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::select::Selected;
use super::target::S3Target;
use super::{PublishError, Published, io_error};

/// What is larger goes in parts of this size.
const PART: usize = 16 << 20;

pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    target: S3Target,
}

impl Bucket {
    pub fn open(target: &S3Target, env: &BTreeMap<String, String>) -> Result<Self, PublishError> {
        // The library finds the process's provider of cryptography; whoever installed one first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig { max_retries: 6, retry_timeout: Duration::from_secs(90), ..RetryConfig::default() };
        let client =
            ClientOptions::new().with_connect_timeout(Duration::from_secs(10)).with_timeout(Duration::from_secs(300));
        let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
        for (name, value) in env.iter().filter(|(name, _)| name.starts_with("AWS_")) {
            // Those that the library does not know are of other programs.
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder.with_bucket_name(&target.bucket);
        if target.allow_http {
            builder = builder.with_allow_http(true);
        }
        if let Some(endpoint) = &target.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &target.region {
            builder = builder.with_region(region);
        }
        let store = builder.build().map_err(|e| {
            PublishError::Request(format!("the target `s3://{}` cannot be used: {}", target.bucket, reasons(&e)))
        })?;
        Ok(Bucket { store: Arc::new(store), target: target.clone() })
    }

    pub async fn put_file(&self, file: &Selected, content_type: &'static str) -> Result<Published, PublishError> {
        let what = || io_error(format!("cannot read `{}`", file.path.display()));
        let mut source = tokio::fs::File::open(&file.path).await.map_err(what())?;
        let mut writer = self.writer(&file.name, content_type);
        let mut hash = Sha256::new();
        let mut bytes = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = source.read(&mut buffer).await.map_err(what())?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
            if let Err(e) = writer.write_all(&buffer[..read]).await {
                // Else its parts would stay, and cost.
                let _ = writer.abort().await;
                return Err(self.failed(&file.name, &e));
            }
        }
        writer.shutdown().await.map_err(|e| self.failed(&file.name, &e))?;
        Ok(Published {
            name: file.name.clone(),
            url: self.url(&file.name),
            bytes,
            sha256: super::hex(&hash.finalize()),
            content_type: content_type.into(),
        })
    }

    pub async fn put_text(&self, name: &str, text: &str) -> Result<(), PublishError> {
        let mut writer = self.writer(name, super::content_type(name));
        writer.write_all(text.as_bytes()).await.map_err(|e| self.failed(name, &e))?;
        writer.shutdown().await.map_err(|e| self.failed(name, &e))
    }

    fn writer(&self, name: &str, content_type: &'static str) -> BufWriter {
        let parts = self.target.prefix.split('/').chain(name.split('/')).filter(|part| !part.is_empty());
        let key = Path::from_iter(parts.map(PathPart::from));
        let attributes = Attributes::from_iter([(Attribute::ContentType, content_type)]);
        BufWriter::with_capacity(self.store.clone(), key, PART).with_attributes(attributes)
    }

    fn url(&self, name: &str) -> String {
        let S3Target { bucket, prefix, .. } = &self.target;
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("s3://{bucket}/{prefix}{slash}{name}")
    }

    fn failed(&self, name: &str, error: &(dyn Error + 'static)) -> PublishError {
        PublishError::Store { name: name.into(), target: self.url(""), reason: reasons(error) }
    }
}

/// The whole chain of causes, each once, on one line and without what stands in an address before its host.
fn reasons(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::git::without_credentials(&line).into_owned()
}
