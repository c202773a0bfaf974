//! Asks a registry of images: which bytes a name means, and the signatures beside them.
//!
//! Invariants: what is read is held against the digest by which it was asked for, so a registry cannot give other bytes; a
//! password goes to the registry it is for, and to whom that names for tokens, over TLS; every answer is bounded, in time and in
//! length.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Refusal;
use super::check::Signature;
use super::name::{ImageName, is_digest};
use super::policy::hex;

const CONNECT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest manifest that is read, and the longest payload of a signature.
const MANIFEST: usize = 4 << 20;
const PAYLOAD: usize = 1 << 20;
/// How many signatures of one image are looked at.
const MOST: usize = 100;
const KINDS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                     application/vnd.docker.distribution.manifest.list.v2+json, \
                     application/vnd.docker.distribution.manifest.v2+json";
/// What a payload of `cosign` is called.
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";

/// Cheap to make; keeps its connections.
pub struct Registry {
    http: reqwest::Client,
    /// By registry.
    logins: BTreeMap<String, Login>,
}

/// Who one is at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Zeroizing<String>,
}

/// Why nothing was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Missing,
    /// Nobody may see it, or it is not what it should be.
    Wrong(String),
    /// It may be otherwise later.
    Away(String),
}

impl Fault {
    pub fn refusal(self, image: &str) -> Refusal {
        let told = |why: &str| format!("whether the image `{image}` is signed cannot be found out: {why}");
        match self {
            Fault::Missing => Refusal::Refused(told("its registry has no such image")),
            Fault::Wrong(why) => Refusal::Refused(told(&why)),
            Fault::Away(why) => Refusal::Unknown(told(&why)),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Registry {
    pub fn new(logins: BTreeMap<String, Login>) -> Result<Registry, String> {
        // The library finds the process's provider of cryptography; whoever installed one first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::custom(|next| {
                let is_fine = next.previous().len() <= 4 && is_private(next.url());
                if is_fine { next.follow() } else { next.stop() }
            }))
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .user_agent(concat!("pitcrew/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("cannot prepare connections to registries: {error}"))?;
        Ok(Registry { http, logins })
    }

    /// The digest of what the name means now.
    pub(super) async fn digest(&self, name: &ImageName) -> Result<String, Fault> {
        // What is named by its digest needs no asking: its signature names the same digest.
        if let Some(digest) = &name.digest {
            return Ok(digest.clone());
        }
        let body = self.get(name, &format!("manifests/{}", name.reference()), MANIFEST).await?;
        Ok(digest_of(&body))
    }

    /// What lies beside an image; nothing at all is fine.
    pub(super) async fn signatures(&self, name: &ImageName, digest: &str) -> Result<Vec<Signature>, Fault> {
        let tag = format!("{}.sig", digest.replacen(':', "-", 1));
        let body = match self.get(name, &format!("manifests/{tag}"), MANIFEST).await {
            Ok(body) => body,
            Err(Fault::Missing) => return Ok(Vec::new()),
            Err(fault) => return Err(fault),
        };
        let manifest: Manifest =
            serde_json::from_slice(&body).map_err(|_| Fault::Wrong(format!("`{tag}` is no manifest")))?;
        let mut found = Vec::new();
        for layer in manifest.layers.into_iter().filter(|layer| layer.media_type == SIMPLE).take(MOST) {
            if !is_digest(&layer.digest) {
                return Err(Fault::Wrong(format!("`{tag}` names a part by no digest")));
            }
            let payload = self.get(name, &format!("blobs/{}", layer.digest), PAYLOAD).await?;
            if digest_of(&payload) != layer.digest {
                return Err(Fault::Wrong(format!("the registry gave other bytes for {}", layer.digest)));
            }
            let of = |key: &str| layer.annotations.get(key).filter(|text| !text.is_empty()).cloned();
            found.push(Signature {
                payload,
                signature: STANDARD.decode(of(SIGNATURE).unwrap_or_default()).unwrap_or_default(),
                certificate: of(CERTIFICATE),
                chain: of(CHAIN),
                bundle: of(BUNDLE),
            });
        }
        Ok(found)
    }

    async fn get(&self, name: &ImageName, what: &str, most: usize) -> Result<Vec<u8>, Fault> {
        let url = address(name, what)?;
        let mut answer = self.send(name, url.clone(), None).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(credential) = self.credential(name, answer.headers()).await?
        {
            answer = self.send(name, url, Some(credential)).await?;
        }
        let status = answer.status();
        match status {
            StatusCode::NOT_FOUND => Err(Fault::Missing),
            _ if status.is_success() => read(answer, most, &name.registry).await,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let who = if self.logins.contains_key(&name.registry) { "this login" } else { "anybody" };
                Err(Fault::Wrong(format!("{} does not let {who} see `{}`", name.registry, name.repository)))
            }
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Fault::Away(format!("{} answers {status}", name.registry)))
            }
            _ => Err(Fault::Wrong(format!("{} answers {status}", name.registry))),
        }
    }

    async fn send(&self, name: &ImageName, url: Url, credential: Option<HeaderValue>) -> Result<Response, Fault> {
        let mut request = self.http.get(url).header(ACCEPT, KINDS);
        if let Some(credential) = credential {
            request = request.header(AUTHORIZATION, credential);
        }
        request.send().await.map_err(|error| away(&name.registry, &error))
    }

    /// What the registry asks for: a token of whom it names, or the password itself.
    async fn credential(&self, name: &ImageName, headers: &HeaderMap) -> Result<Option<HeaderValue>, Fault> {
        let login = self.logins.get(&name.registry);
        for asked in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
            let (scheme, rest) = asked.split_once(' ').unwrap_or((asked, ""));
            if scheme.eq_ignore_ascii_case("basic") {
                return Ok(login.map(Login::basic));
            }
            if scheme.eq_ignore_ascii_case("bearer") {
                let asked = parameters(rest);
                let realm = asked.get("realm").and_then(|realm| realm.parse::<Url>().ok());
                let Some(mut realm) = realm.filter(is_private) else {
                    return Err(Fault::Wrong(format!("{} names no address for tokens that is safe", name.registry)));
                };
                let scope = format!("repository:{}:pull", name.repository);
                realm.query_pairs_mut().append_pair("scope", &scope);
                if let Some(service) = asked.get("service") {
                    realm.query_pairs_mut().append_pair("service", service);
                }
                return self.token(name, realm, login).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn token(&self, name: &ImageName, realm: Url, login: Option<&Login>) -> Result<HeaderValue, Fault> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut request = self.http.get(realm);
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, login.basic());
        }
        let answer = request.send().await.map_err(|error| away(&name.registry, &error))?;
        let status = answer.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Fault::Away(format!("{} gives no token now: {status}", name.registry)));
        }
        if !status.is_success() {
            return Err(Fault::Wrong(format!("{} gives no token: {status}", name.registry)));
        }
        let body = Zeroizing::new(read(answer, PAYLOAD, &name.registry).await?);
        let token = serde_json::from_slice(&body).ok().and_then(|token: Token| token.token.or(token.access_token));
        let token = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let mut token = token.ok_or_else(|| Fault::Wrong(format!("{} gives no token", name.registry)))?;
        token.set_sensitive(true);
        Ok(token)
    }
}

impl Login {
    fn basic(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("{}:{}", self.user, *self.password));
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text.as_bytes())))
            .unwrap_or_else(|_| HeaderValue::from_static("Basic"));
        value.set_sensitive(true);
        value
    }

    /// Those of a file as `docker login` writes it; of logins that lie elsewhere, in a keyring, nothing is known.
    pub fn of_docker(path: &Path) -> Result<BTreeMap<String, Login>, String> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            auths: BTreeMap<String, Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            auth: String,
        }
        let text = match std::fs::read(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(format!("cannot read `{}`: {error}", path.display())),
        };
        // The error of the parser might show what it found.
        let file: File = serde_json::from_slice(&text)
            .map_err(|_| format!("`{}` is not what `docker login` writes", path.display()))?;
        let mut logins = BTreeMap::new();
        for (registry, entry) in file.auths {
            let plain = Zeroizing::new(STANDARD.decode(entry.auth.trim()).unwrap_or_default());
            let Some((user, password)) = std::str::from_utf8(&plain).ok().and_then(|text| text.split_once(':')) else {
                continue;
            };
            let login = Login { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) };
            logins.insert(registry_of(&registry).to_owned(), login);
        }
        Ok(logins)
    }
}

/// As images name it.
fn registry_of(key: &str) -> &str {
    let name = key.trim_start_matches("https://").trim_start_matches("http://");
    match name.split('/').next().unwrap_or(name) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        name => name,
    }
}

fn address(name: &ImageName, what: &str) -> Result<Url, Fault> {
    let host = if name.registry == "docker.io" { "registry-1.docker.io" } else { &name.registry };
    let scheme = if is_here(host) { "http" } else { "https" };
    format!("{scheme}://{host}/v2/{}/{what}", name.repository)
        .parse()
        .map_err(|_| Fault::Wrong(format!("`{}` is no registry", name.registry)))
}

/// Of this machine, where engines too ask without TLS.
fn is_here(host: &str) -> bool {
    let url: Option<Url> = format!("http://{host}/").parse().ok();
    let name = url.as_ref().and_then(Url::host_str).unwrap_or_default().trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_private(url: &Url) -> bool {
    let with_port = || match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    url.scheme() == "https" || url.scheme() == "http" && is_here(&with_port())
}

/// `realm="…",service="…"`: values in quotes may have commas.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => (after.split(',').next().unwrap_or_default(), after.find(',').map_or("", |at| &after[at..])),
        };
        found.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = after.trim_start_matches([',', ' ']);
    }
    found
}

async fn read(mut answer: Response, most: usize, registry: &str) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| away(registry, &error))? {
        if body.len() + chunk.len() > most {
            return Err(Fault::Wrong(format!("the answer of {registry} is too long")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// The address may hold what is nobody's business, so the error does not show it.
fn away(registry: &str, error: &reqwest::Error) -> Fault {
    let mut why = "it did not answer to the end".to_owned();
    if error.is_timeout() {
        why = format!("it gave no answer within {} s", PATIENCE.as_secs());
    } else if error.is_connect() {
        why = "it cannot be connected to".to_owned();
    }
    Fault::Away(format!("{registry}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_registry_is_asked() {
        let at = |image: &str| address(&image.parse().unwrap(), "manifests/x").unwrap().to_string();
        assert_eq!(at("busybox"), "https://registry-1.docker.io/v2/library/busybox/manifests/x");
        assert_eq!(at("127.0.0.1:5000/a"), "http://127.0.0.1:5000/v2/a/manifests/x");
        assert_eq!(at("localhost:5000/a"), "http://localhost:5000/v2/a/manifests/x");
        assert_eq!(at("127.0.0.1.example.com/a"), "https://127.0.0.1.example.com/v2/a/manifests/x");
        let private = |url: &str| is_private(&url.parse().unwrap());
        assert!(private("https://auth.example.com/token") && private("http://127.0.0.1:1/t"));
        assert!(!private("http://auth.example.com/token") && !private("ftp://127.0.0.1/t"));
    }

    #[test]
    fn what_a_registry_asks_for() {
        let asked = parameters(r#"realm="https://a.example/token?x=1,2",service="r.example", scope=pull,error="e""#);
        let of = |key: &str| asked.get(key).map(String::as_str);
        assert_eq!((of("realm"), of("service")), (Some("https://a.example/token?x=1,2"), Some("r.example")));
        assert_eq!((of("scope"), of("error")), (Some("pull"), Some("e")));
        assert!(parameters("").is_empty() && parameters("realm").is_empty());
    }

    #[test]
    fn logins_of_docker_are_found_by_the_names_of_registries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(Login::of_docker(&path).unwrap().is_empty());
        let one = STANDARD.encode("ada:pa:ss");
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{one}"}}, "r.example:5000": {{"auth": "{one}"}}, "k.example": {{}}}}}}"#
        );
        std::fs::write(&path, text).unwrap();
        let logins = Login::of_docker(&path).unwrap();
        assert_eq!(logins.keys().collect::<Vec<_>>(), ["docker.io", "r.example:5000"]);
        assert_eq!((logins["docker.io"].user.as_str(), logins["docker.io"].password.as_str()), ("ada", "pa:ss"));
        std::fs::write(&path, r#"{"auths": "secret"}"#).unwrap();
        assert!(!Login::of_docker(&path).err().unwrap().contains("secret"));
    }
}
