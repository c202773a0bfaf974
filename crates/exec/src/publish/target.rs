//! Where to publish: `dir/…`, `file:///…`, or `s3://bucket/prefix?endpoint=…&region=…&allow_http=true`.

use std::path::PathBuf;

use super::PublishError;
use crate::git::percent_decoded;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Directory(PathBuf),
    S3(S3Target),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Target {
    pub bucket: String,
    /// Without `/` at its ends; may be empty.
    pub prefix: String,
    /// Of a store that is not Amazon's; `None`: what the `AWS_*` variables say.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Only then is an endpoint without TLS accepted.
    pub allow_http: bool,
}

impl std::str::FromStr for Target {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let refused = |why: &str| PublishError::Request(format!("the target `{text}` {why}"));
        if let Some(rest) = text.strip_prefix("s3://") {
            return S3Target::parse(rest).map(Target::S3).map_err(|why| refused(&why));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return match path.starts_with('/') {
                true => Ok(Target::Directory(percent_decoded(path).into())),
                false => Err(refused("has a host; write `file:///` and the path")),
            };
        }
        match text {
            "" => Err(PublishError::Request("the target is empty; name a directory or `s3://bucket/prefix`".into())),
            _ if text.contains("://") => Err(refused("is none of: a directory, `file:///…`, `s3://bucket/prefix`")),
            _ => Ok(Target::Directory(text.into())),
        }
    }
}

impl S3Target {
    fn parse(rest: &str) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err("has no proper bucket name".into());
        }
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|part| part == "." || part == "..") {
            return Err("has a prefix with `.` or `..` in it".into());
        }
        let mut target = S3Target { bucket: bucket.into(), prefix: prefix.into(), ..S3Target::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value);
            match name {
                "endpoint" => target.endpoint = Some(value),
                "region" => target.region = Some(value),
                "allow_http" => target.allow_http = value == "true",
                _ => return Err(format!("has an unknown setting `{name}`; known: endpoint, region, allow_http")),
            }
        }
        if target.endpoint.as_ref().is_some_and(|e| e.starts_with("http://")) && !target.allow_http {
            return Err("has an endpoint without TLS; add `allow_http=true` if that is meant".into());
        }
        if target.endpoint.as_ref().is_some_and(|e| !e.starts_with("http://") && !e.starts_with("https://")) {
            return Err("has an endpoint that does not begin with `https://`".into());
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart_and_checked() {
        let of = |text: &str| text.parse::<Target>().map_err(|e| e.to_string());
        assert_eq!(of("out/x"), Ok(Target::Directory("out/x".into())));
        assert_eq!(of("file:///a%20b"), Ok(Target::Directory("/a b".into())));
        let full = of("s3://b-1/p/q/?endpoint=http%3A%2F%2Fh:9000&allow_http=true&region=eu-1").unwrap();
        let expected = S3Target {
            bucket: "b-1".into(),
            prefix: "p/q".into(),
            endpoint: Some("http://h:9000".into()),
            region: Some("eu-1".into()),
            allow_http: true,
        };
        assert_eq!(full, Target::S3(expected));
        for (bad, why) in [
            ("s3://b?endpoint=http://h", "without TLS"),
            ("s3://b?endpont=x", "unknown setting `endpont`"),
            ("s3:///p", "bucket"),
            ("s3://b/../c", ".."),
            ("gs://b", "is none of"),
            ("file://host/x", "has a host"),
            ("", "is empty"),
        ] {
            assert!(of(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
