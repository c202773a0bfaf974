//! Names of images, as everybody writes them: with or without registry, tag and digest.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The registry that is meant where none is named.
const USUAL: &str = "docker.io";

/// The name of an image, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// With its port.
    pub registry: String,
    pub repository: String,
    /// `None`: `latest`, unless there is a digest.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl ImageName {
    /// What a registry is asked for.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Without tag and digest.
    pub fn bare(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Those very bytes.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.bare())
    }
}

/// Whether this is what a digest looks like.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// The part before the first `/` is a registry if it looks like a machine.
pub(super) fn split_registry(name: &str) -> (&str, Option<&str>) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':', '*']) || first == "localhost" => (first, Some(rest)),
        _ => (USUAL, None),
    }
}

/// A part of a repository's name; what else there is would be a part of an address.
fn is_part(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.chars().all(fits) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// A name or an address, IPv6 in brackets, with or without a port.
fn is_machine(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')),
    };
    fits && port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'))
}

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<ImageName, String> {
        let wrong = || format!("`{text}` is no name of an image: it is such as `registry.example.com/team/name:tag`");
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) if is_digest(digest) => (name, Some(digest.to_owned())),
            Some((_, digest)) => return Err(format!("`{digest}` is no digest: it is `sha256:` and 64 digits")),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        let is_tag = |tag: &String| {
            tag.len() <= 128
                && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        if !tag.as_ref().is_none_or(is_tag) {
            return Err(wrong());
        }
        let (registry, rest) = split_registry(name);
        let repository = match rest {
            Some(rest) => rest.to_owned(),
            None if name.contains('/') => name.to_owned(),
            None => format!("library/{name}"),
        };
        if !is_machine(registry) || !repository.split('/').all(is_part) {
            return Err(wrong());
        }
        Ok(ImageName { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bare())?;
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => write!(f, "@{digest}"),
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_mean_to_everybody() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, bare, reference) in [
            ("busybox", "docker.io/library/busybox", "latest"),
            ("busybox:local", "docker.io/library/busybox", "local"),
            ("team/tool:1", "docker.io/team/tool", "1"),
            ("localhost/tool", "localhost/tool", "latest"),
            ("127.0.0.1:5000/a/b:v2", "127.0.0.1:5000/a/b", "v2"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "latest"),
            ("[::1]:5000/a/b:v2", "[::1]:5000/a/b", "v2"),
            ("[::1]/a", "[::1]/a", "latest"),
            ("registry.example.com/ml/train_2", "registry.example.com/ml/train_2", "latest"),
            (&format!("ghcr.io/a/b:1@{digest}"), "ghcr.io/a/b", &digest),
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!((name.bare().as_str(), name.reference()), (bare, reference), "{text}");
        }
        for text in [
            "",
            "a b",
            "A/b",
            "a/../b",
            "a:",
            "a@sha256:12",
            "x/../../v2",
            "a//b",
            "https://a.example/b",
            "a?b=c",
            "a:b/c",
            "a:99999/c",
            "[a/b]/c",
            "a.example:/c",
        ] {
            assert!(text.parse::<ImageName>().is_err(), "{text}");
        }
        let name: ImageName = "busybox:1".parse().unwrap();
        assert_eq!(name.at(&digest), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(name.to_string(), "docker.io/library/busybox:1");
    }
}
