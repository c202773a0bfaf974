//! A client of the engine API that Docker and Podman have: over a socket of this machine, or over TCP with or without TLS.
//!
//! Invariants: every call has a deadline, except that which reads what a container writes; answers are bounded; whether a call that failed
//! may have happened is always said ([`Kind`]); neither an error nor a `Debug` form shows the environment of a container. The
//! engine is asked once which version of the API it speaks, and nothing newer than that version is used.

mod address;
mod containers;
mod exec;
mod fault;
mod frames;
mod images;
pub mod keeper;
mod registries;
mod tar;
mod tunnel;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use address::{Address, Tls, USUAL, place_of};
pub use containers::{Container, Listed, State};
pub use exec::{Ended, Exec, Output};
pub use fault::{Fault, Kind};
pub use frames::{Frames, Stream};
pub use images::Image;
pub use registries::Registry;
pub use tar::{Entry, What};

const CONNECT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is taken.
const MOST: usize = 16 << 20;
/// The versions of the API that this client was written for. Docker 20.10 and Podman 4 speak 1.41; Docker 29 refuses what is older than 1.44.
const OLDEST: Version = Version(1, 40);
const NEWEST: Version = Version(1, 47);

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// A door to one engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    base: String,
    /// As people know it.
    name: String,
    version: Version,
    /// What `base` goes through.
    _tunnel: Option<tunnel::Tunnel>,
}

impl Engine {
    /// Asks the engine who it is.
    ///
    /// # Errors
    /// [`Kind::Away`] if nobody is there; [`Kind::Invalid`] if the address is wrong, or the engine speaks no version that we do.
    pub async fn connect(address: &Address) -> Result<Engine, Fault> {
        let tunnel = match address {
            Address::Ssh { authority, socket } => Some(tunnel::Tunnel::open(authority, socket).await?),
            Address::Unix(_) | Address::Tcp { .. } => None,
        };
        let (http, base) = match &tunnel {
            Some(tunnel) => Address::Unix(tunnel.path()).client(CONNECT)?,
            None => address.client(CONNECT)?,
        };
        let name = address.to_string();
        let first = Inner { http, base, name, version: OLDEST, _tunnel: tunnel };
        let answer = first.send(Method::GET, "/_ping", None, Some(PATIENCE)).await?;
        let code = answer.status().as_u16();
        let said = answer.headers().get("api-version").and_then(|version| version.to_str().ok()).map(str::to_owned);
        if code >= 500 {
            return Err(Fault::unknown(format!("{} answers with status {code}", first.name)));
        }
        if !(200..300).contains(&code) {
            return Err(Fault::invalid(format!("{} answers with status {code} and is no engine", first.name)));
        }
        let theirs = said.as_deref().and_then(Version::parse);
        let Some(theirs) = theirs else {
            return Err(Fault::invalid(format!("{} does not say which version of the API it speaks", first.name)));
        };
        if theirs < OLDEST {
            let Version(major, minor) = OLDEST;
            let said = said.unwrap_or_default();
            let words =
                format!("{} speaks version {said} of the API; it has to be {major}.{minor} or later", first.name);
            return Err(Fault::invalid(words));
        }
        Ok(Engine(Arc::new(Inner { version: theirs.min(NEWEST), ..first })))
    }

    /// Whether it is there.
    pub async fn ping(&self) -> Result<(), Fault> {
        let answer = self.0.send(Method::GET, "/_ping", None, Some(PATIENCE)).await?;
        self.taken(answer).await.map(drop)
    }

    /// The kind of its processors, in its own word.
    pub async fn architecture(&self) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct About {
            #[serde(rename = "Arch")]
            architecture: String,
        }
        self.ask(Method::GET, "/version", None).await.map(|about: About| about.architecture)
    }

    /// Whether a part of a volume can be mounted by itself.
    pub fn has_parts_of_volumes(&self) -> bool {
        self.0.version >= Version(1, 45)
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Fault> {
        let body = self.whole(method, path, body).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Fault::unknown(format!("the answer of {} cannot be read: {error}", self.0.name)))
    }

    async fn whole(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Vec<u8>, Fault> {
        let answer = self.0.send(method, &self.versioned(path), body, Some(PATIENCE)).await?;
        self.taken(answer).await
    }

    /// The body of a success.
    async fn taken(&self, mut answer: Response) -> Result<Vec<u8>, Fault> {
        let code = answer.status().as_u16();
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MOST => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(Fault::unknown(format!("the answer of {} is too long", self.0.name))),
                Ok(None) => break,
                Err(error) => return Err(Fault::broken(&self.0.name, &error)),
            }
        }
        if (200..300).contains(&code) { Ok(body) } else { Err(Fault::of(code, &body, &self.0.name)) }
    }

    fn versioned(&self, path: &str) -> String {
        let Version(major, minor) = self.0.version;
        format!("/v{major}.{minor}{path}")
    }
}

impl Inner {
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        within: Option<Duration>,
    ) -> Result<Response, Fault> {
        let mut request: RequestBuilder = self.http.request(method, format!("{}{path}", self.base));
        if let Some(within) = within {
            request = request.timeout(within);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        request.send().await.map_err(|error| Fault::broken(&self.name, &error))
    }
}

impl Version {
    fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Version(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// As one part of a path.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert!(Version::parse("1.9").unwrap() < Version::parse("1.41").unwrap());
        assert_eq!(Version::parse("1"), None);
        assert_eq!(Version::parse("v1.41"), None);
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(escaped("web-1.x"), "web-1.x");
        assert_eq!(escaped("../images/a?b"), "..%2Fimages%2Fa%3Fb");
    }
}
