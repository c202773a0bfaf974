//! Registries on this machine: one of the test's own, which does as it is told, and Debian's.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::maker::Signature;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What the registry gives to who has the password.
const TOKEN: &str = "a-token-for-an-hour";

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A registry that has what is put into it.
pub struct Own {
    pub host: String,
    state: Shared,
    server: tokio::task::JoinHandle<()>,
}

type Shared = Arc<Mutex<Held>>;

#[derive(Default)]
struct Held {
    host: String,
    /// By what stands behind `/v2/`.
    all: BTreeMap<String, Vec<u8>>,
    /// `user:password` of who may see it.
    login: Option<String>,
    broken: Option<u16>,
    asked: Vec<String>,
}

impl Own {
    pub async fn start() -> Own {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Shared::default();
        state.lock().unwrap().host = host.clone();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Own { host, state, server }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap()
    }

    fn put(&self, repository: &str, kind: &str, name: &str, bytes: Vec<u8>) {
        self.held().all.insert(format!("{repository}/{kind}/{name}"), bytes);
    }

    /// Gives its digest.
    pub fn image(&self, repository: &str, tag: &str, contents: &str) -> String {
        let manifest = manifest(vec![], json!({ "contents": contents }));
        let digest = digest(&manifest);
        self.put(repository, "manifests", &digest, manifest.clone());
        self.put(repository, "manifests", tag, manifest);
        digest
    }

    /// These are its signatures, and no others.
    pub fn signed(&self, repository: &str, image: &str, signatures: &[Signature]) {
        for signature in signatures {
            self.put(repository, "blobs", &digest(&signature.payload), signature.payload.clone());
        }
        self.put(repository, "manifests", &tag(image), manifest(layers(signatures), json!({})));
    }

    /// Only who has this password sees anything from now on.
    pub fn private(&self, user: &str, password: &str) {
        self.held().login = Some(format!("{user}:{password}"));
    }

    /// Payloads of the signatures of this image are other bytes than they should be.
    pub fn lie(&self, repository: &str, image: &str) {
        let blobs = format!("{repository}/blobs/");
        let mut held = self.held();
        assert!(held.all.contains_key(&format!("{repository}/manifests/{}", tag(image))));
        held.all.iter_mut().filter(|(key, _)| key.starts_with(&blobs)).for_each(|(_, bytes)| bytes.push(b' '));
    }

    /// It answers nothing but this.
    pub fn broken(&self, status: u16) {
        self.held().broken = Some(status);
    }

    pub fn asked(&self, what: &str) -> usize {
        self.held().asked.iter().filter(|path| path.ends_with(what)).count()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let mut held = state.lock().unwrap();
    held.asked.push(uri.path().to_owned());
    if let Some(status) = held.broken {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(login) = &held.login {
        if uri.path() == "/token" {
            let asks_well = uri.query().is_some_and(|query| query.contains("pull") && query.contains("service=tests"));
            let is_right = given == format!("Basic {}", STANDARD.encode(login));
            return match asks_well && is_right {
                true => json!({ "token": TOKEN }).to_string().into_response(),
                false => StatusCode::UNAUTHORIZED.into_response(),
            };
        }
        if given != format!("Bearer {TOKEN}") {
            let asked = format!("Bearer realm=\"http://{}/token\",service=\"tests\"", held.host);
            return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, asked)]).into_response();
        }
    }
    match uri.path().strip_prefix("/v2/").and_then(|path| held.all.get(path)) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn tag(image: &str) -> String {
    format!("{}.sig", image.replace(':', "-"))
}

fn manifest(layers: Vec<Value>, annotations: Value) -> Vec<u8> {
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2 });
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": annotations })
        .to_string()
        .into_bytes()
}

fn layers(signatures: &[Signature]) -> Vec<Value> {
    signatures
        .iter()
        .map(|one| {
            let mut annotations =
                json!({ "dev.cosignproject.cosign/signature": STANDARD.encode(&one.signature) });
            for (key, value) in [("certificate", &one.certificate), ("chain", &one.chain), ("bundle", &one.bundle)] {
                if let Some(value) = value {
                    annotations[format!("dev.sigstore.cosign/{key}")] = json!(value);
                }
            }
            json!({ "mediaType": SIMPLE, "digest": digest(&one.payload), "size": one.payload.len(), "annotations": annotations })
        })
        .collect()
}

/// `docker-registry` of Debian.
pub struct Debian {
    pub host: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Debian {
    pub fn start() -> Option<Debian> {
        let Some(program) = std::env::var_os("PITCREW_TEST_REGISTRY").filter(|path| !path.is_empty()) else {
            eprintln!(
                "NOT TESTED: `PITCREW_TEST_REGISTRY` names no registry: it is in Debian's package `docker-registry`"
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let config = json!({ "version": 0.1, "log": { "level": "info", "formatter": "json" }, "http": { "addr": "127.0.0.1:0" },
            "storage": { "filesystem": { "rootdirectory": dir.path().join("held") } } });
        std::fs::write(dir.path().join("config.yml"), config.to_string()).unwrap();
        let mut child = Command::new(program)
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it listens, and then is read on, so that it never waits for who reads.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ' ', ',']).next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Some(Debian { host, child, _dir: dir })
    }

    async fn push(&self, repository: &str, bytes: &[u8]) {
        let http = reqwest::Client::new();
        let begun = http.post(format!("http://{}/v2/{repository}/blobs/uploads/", self.host)).send().await.unwrap();
        let at = begun.headers()["location"].to_str().unwrap().to_owned();
        let between = if at.contains('?') { '&' } else { '?' };
        let put = http.put(format!("{at}{between}digest={}", digest(bytes))).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }

    async fn name(&self, repository: &str, tag: &str, manifest: Vec<u8>) {
        self.push(repository, b"{}").await;
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        let put = reqwest::Client::new().put(url).header("content-type", MANIFEST).body(manifest).send().await.unwrap();
        assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
    }

    /// Gives its digest.
    pub async fn push_image(&self, repository: &str, tag: &str) -> String {
        let manifest = manifest(vec![], json!({ "contents": "pushed" }));
        self.name(repository, tag, manifest.clone()).await;
        digest(&manifest)
    }

    pub async fn push_signatures(&self, repository: &str, image: &str, signatures: &[Signature]) {
        for signature in signatures {
            self.push(repository, &signature.payload).await;
        }
        self.name(repository, &tag(image), manifest(layers(signatures), json!({}))).await;
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
