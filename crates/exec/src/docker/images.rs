//! Images of an engine: what they say of themselves, and how they come there.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use super::fault::Fault;
use super::registries::Registry;
use super::{Engine, escaped};

/// How long a registry may say nothing while an image comes.
const SILENCE: Duration = Duration::from_secs(300);
/// The longest line that an engine says about it.
const LINE: usize = 1 << 20;

/// An image that is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    pub id: String,
    #[serde(default)]
    pub repo_digests: Option<Vec<String>>,
    #[serde(default)]
    pub config: Option<Config>,
}

/// What it says of its containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub working_dir: Option<String>,
}

/// A line of what an engine says while an image comes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Progress {
    error: Option<String>,
}

impl Engine {
    /// The image of this name; its kind of fault is `NotFound` if it is not there.
    pub async fn image(&self, name: &str) -> Result<Image, Fault> {
        // A `/` is part of the name, and of the path.
        let path: Vec<String> = name.split('/').map(escaped).collect();
        self.ask(Method::GET, &format!("/images/{}/json", path.join("/")), None).await
    }

    /// Fetches an image from its registry, with whatever of this signs in there.
    ///
    /// # Errors
    /// The words of the engine, also where it says only in the middle that it cannot go on.
    pub async fn pull(&self, image: &str, registries: &[Registry]) -> Result<(), Fault> {
        let all = Registry::of_image(registries, parts(image).0);
        let Some((last, others)) = all.split_last() else { return self.pull_as(image, None).await };
        for registry in others {
            match self.pull_as(image, Some(registry)).await {
                // It may be one for other images of that registry.
                Err(fault) if !fault.is_unanswered() => {}
                other => return other,
            }
        }
        self.pull_as(image, Some(last)).await
    }

    async fn pull_as(&self, image: &str, registry: Option<&Registry>) -> Result<(), Fault> {
        let (name, tag) = parts(image);
        let path = format!("/images/create?fromImage={}&tag={}", escaped(name), escaped(tag));
        let mut request = self.0.http.post(format!("{}{}", self.0.base, self.versioned(&path)));
        if let Some(registry) = registry {
            request = request.header("X-Registry-Auth", registry.header());
        }
        let late = |_| Fault::unknown(format!("fetching the image `{image}`: the registry says nothing any more"));
        let sent = tokio::time::timeout(SILENCE, request.send()).await.map_err(late)?;
        let mut answer = sent.map_err(|error| Fault::broken(&self.0.name, &error))?;
        if !answer.status().is_success() {
            return self.taken(answer).await.map(drop);
        }
        let mut line = Vec::new();
        loop {
            let chunk = tokio::time::timeout(SILENCE, answer.chunk()).await.map_err(late)?;
            let Some(chunk) = chunk.map_err(|error| Fault::broken(&self.0.name, &error))? else { break };
            for byte in chunk {
                if byte != b'\n' && line.len() < LINE {
                    line.push(byte);
                    continue;
                }
                said(&line)?;
                line.clear();
            }
        }
        said(&line)
    }
}

fn said(line: &[u8]) -> Result<(), Fault> {
    let progress: Progress = serde_json::from_slice(line).unwrap_or_default();
    match progress.error {
        Some(words) => Err(Fault::invalid(words.chars().take(500).collect::<String>())),
        None => Ok(()),
    }
}

/// Without a tag and a digest an engine would fetch all tags.
fn parts(image: &str) -> (&str, &str) {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    };
    (name, digest.unwrap_or(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_its_latest() {
        assert_eq!(parts("busybox"), ("busybox", "latest"));
        assert_eq!(parts("host:5000/a/b"), ("host:5000/a/b", "latest"));
        assert_eq!(parts("host:5000/a/b:v1"), ("host:5000/a/b", "v1"));
        assert_eq!(parts("a:v1@sha256:00"), ("a", "sha256:00"));
    }
}
