//! Calls of an API server: JSON over HTTPS, with what a kubeconfig says of who we are.
//!
//! Invariants: every call has a deadline and a bounded answer; a credential goes to the server that was named, and nowhere
//! else; whether a call that failed may have happened is always said ([`Kind`]).

mod credentials;
mod fault;
mod kubeconfig;
mod lines;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Proxy, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use fault::{Fault, Kind, Right};
pub use kubeconfig::{Access, Env};
pub use lines::Lines;
pub use watch::{Change, Watch};

use credentials::Credentials;

const CONNECT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is taken.
const MOST: usize = 64 << 20;
/// How many things a list gives at a time.
const PAGE: u32 = 500;
/// What need not be escaped in a part of a path or a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A door to one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    server: String,
    credentials: Credentials,
    acts_as: Option<(String, Vec<String>)>,
    namespace: Option<String>,
}

/// What is called.
#[derive(Debug, Clone)]
pub struct Call {
    right: Right,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<(&'static str, Value)>,
    within: Duration,
}

/// A kind of thing that an API server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// `api/v1`, or `apis/GROUP/VERSION`.
    pub api: &'static str,
    pub name: &'static str,
}

pub const NODES: Resource = Resource { api: "api/v1", name: "nodes" };
pub const PODS: Resource = Resource { api: "api/v1", name: "pods" };
pub const SECRETS: Resource = Resource { api: "api/v1", name: "secrets" };
pub const CLAIMS: Resource = Resource { api: "api/v1", name: "persistentvolumeclaims" };

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<T>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    r#continue: String,
    resource_version: String,
}

impl Call {
    fn new(verb: &'static str, method: Method, resource: Resource, namespace: Option<&str>, name: &str) -> Call {
        let mut path = format!("/{}", resource.api);
        if let Some(namespace) = namespace {
            path.push_str(&format!("/namespaces/{}", escaped(namespace)));
        }
        path.push_str(&format!("/{}", resource.name));
        if !name.is_empty() {
            path.push_str(&format!("/{}", escaped(name)));
        }
        let right = Right { verb, resource: resource.name.to_owned(), namespace: namespace.map(str::to_owned) };
        Call { right, method, path, query: Vec::new(), body: None, within: PATIENCE }
    }

    pub fn get(resource: Resource, namespace: Option<&str>, name: &str) -> Call {
        Call::new("get", Method::GET, resource, namespace, name)
    }

    /// Those of all namespaces without one.
    pub fn list(resource: Resource, namespace: Option<&str>) -> Call {
        Call::new("list", Method::GET, resource, namespace, "")
    }

    pub fn create(resource: Resource, namespace: Option<&str>, what: Value) -> Call {
        Call::new("create", Method::POST, resource, namespace, "").with(what)
    }

    /// What stands in `what` is set, and what is null there is removed.
    pub fn patch(resource: Resource, namespace: Option<&str>, name: &str, what: Value) -> Call {
        let call = Call::new("patch", Method::PATCH, resource, namespace, name);
        Call { body: Some(("application/merge-patch+json", what)), ..call }
    }

    pub fn delete(resource: Resource, namespace: Option<&str>, name: &str, options: Value) -> Call {
        Call::new("delete", Method::DELETE, resource, namespace, name).with(options)
    }

    fn with(self, body: Value) -> Call {
        Call { body: Some(("application/json", body)), ..self }
    }

    /// Of a thing, what is below it, such as its log.
    pub fn below(mut self, what: &str) -> Call {
        self.path.push_str(&format!("/{what}"));
        self.right.resource.push_str(&format!("/{what}"));
        self
    }

    /// Creates what is below a thing, such as an eviction.
    pub fn create_below(resource: Resource, namespace: &str, name: &str, what: &str, body: Value) -> Call {
        Call::new("create", Method::POST, resource, Some(namespace), name).below(what).with(body)
    }

    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.query.push((name, value.into()));
        self
    }
}

impl Client {
    /// Asks nobody yet; the error is a sentence. `kubeconfig` and `context` as [`Access::find`] takes them.
    pub fn find(kubeconfig: Option<&Path>, context: Option<&str>, env: Env<'_>) -> Result<Client, String> {
        Client::new(Access::find(kubeconfig, context, env)?)
    }

    pub fn new(access: Access) -> Result<Client, String> {
        // The library finds the process's provider of cryptography; whoever installed one first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let is_address =
            |text: &str| text.parse::<reqwest::Url>().is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
        if !is_address(&access.server) {
            return Err(format!("`{}` is no address of an API server: it begins with `https://`", access.server));
        }
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            // An API server that died is noticed, although a watch is quiet.
            .tcp_keepalive(Duration::from_secs(20))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(20))
            .user_agent(concat!("pitcrew/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &access.authority {
            let all = reqwest::Certificate::from_pem_bundle(pem).ok().filter(|all| !all.is_empty());
            http = http.tls_certs_only(all.ok_or("the certificate of the authority is no PEM")?);
        }
        if let Some(pem) = &access.identity {
            // The error might show the key.
            let wrong = |_| "the client's certificate and key are no PEM that can be read".to_owned();
            http = http.identity(reqwest::Identity::from_pem(pem).map_err(wrong)?);
        }
        if let Some(proxy) = &access.proxy {
            let wrong = |error| format!("`proxy-url` is no address of a proxy: {error}");
            http = http.proxy(Proxy::all(proxy).map_err(wrong)?);
        }
        if access.insecure {
            http = http.tls_danger_accept_invalid_certs(true);
        }
        let http =
            http.build().map_err(|error| format!("cannot prepare a connection to {}: {error}", access.server))?;
        let Access { server, credentials, acts_as, namespace, .. } = access;
        Ok(Client(Arc::new(Inner { http, server, credentials, acts_as, namespace })))
    }

    /// Where it asks.
    pub fn server(&self) -> &str {
        &self.0.server
    }

    /// That of the context, or of the pod that this is.
    pub fn namespace(&self) -> &str {
        self.0.namespace.as_deref().unwrap_or("default")
    }

    /// What the API server answers.
    pub async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Fault> {
        let right = call.right.clone();
        let body = self.body(call).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Fault::unknown(format!("the answer to `{right}` cannot be read: {error}")))
    }

    /// For what the answer says nothing of.
    pub async fn tell(&self, call: Call) -> Result<(), Fault> {
        self.body(call).await.map(|_| ())
    }

    /// What is no JSON; at most so many bytes of it.
    pub async fn text(&self, call: Call, most: usize) -> Result<String, Fault> {
        let body = self.body(call.query("limitBytes", most.to_string())).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// All pages of a list.
    pub async fn all<T: DeserializeOwned>(&self, call: Call) -> Result<Vec<T>, Fault> {
        Ok(self.all_at(call).await?.0)
    }

    /// The same, and the version from which it can be watched.
    pub async fn all_at<T: DeserializeOwned>(&self, call: Call) -> Result<(Vec<T>, String), Fault> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let mut page = call.clone().query("limit", PAGE.to_string());
            if !next.is_empty() {
                page = page.query("continue", next);
            }
            let list: List<T> = self.ask(page).await?;
            all.extend(list.items);
            if list.metadata.r#continue.is_empty() {
                return Ok((all, list.metadata.resource_version));
            }
            next = list.metadata.r#continue;
        }
    }

    async fn body(&self, call: Call) -> Result<Vec<u8>, Fault> {
        let mut answer = self.send(&call).await?;
        let code = answer.status().as_u16();
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MOST => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(Fault::unknown(format!("the answer to `{}` is too long", call.right))),
                Ok(None) => break,
                Err(error) => return Err(broken(&call, &error)),
            }
        }
        if (200..300).contains(&code) { Ok(body) } else { Err(Fault::of(code, &body, call.right)) }
    }

    /// Once more with new credentials where those that we had are not taken any more.
    async fn send(&self, call: &Call) -> Result<Response, Fault> {
        let token = self.0.credentials.get().await.map_err(Fault::away)?;
        let answer = self.send_as(call, token.as_deref()).await?;
        if answer.status().as_u16() != 401 || !self.0.credentials.refused(token.as_deref()).await {
            return Ok(answer);
        }
        let token = self.0.credentials.get().await.map_err(Fault::away)?;
        self.send_as(call, token.as_deref()).await
    }

    async fn send_as(&self, call: &Call, token: Option<&str>) -> Result<Response, Fault> {
        let mut url = format!("{}{}", self.0.server, call.path);
        for (at, (name, value)) in call.query.iter().enumerate() {
            url.push_str(&format!("{}{name}={}", if at == 0 { '?' } else { '&' }, escaped(value)));
        }
        let mut request: RequestBuilder = self.0.http.request(call.method.clone(), url).timeout(call.within);
        request = request.header(ACCEPT, "application/json, */*");
        if let Some(token) = token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| Fault::invalid("the token has letters that no token can have"))?;
            value.set_sensitive(true);
            request = request.header(reqwest::header::AUTHORIZATION, value);
        }
        if let Some((user, groups)) = &self.0.acts_as {
            request = request.header("Impersonate-User", user);
            request = groups.iter().fold(request, |request, group| request.header("Impersonate-Group", group));
        }
        if let Some((kind, body)) = &call.body {
            request = request.header(CONTENT_TYPE, *kind).body(body.to_string());
        }
        request.send().await.map_err(|error| broken(call, &error))
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// No answer came, or not all of it.
fn broken(call: &Call, error: &reqwest::Error) -> Fault {
    let mut words = format!("`{}`: the API server ", call.right);
    if error.is_connect() {
        words.push_str("cannot be connected to");
    } else if error.is_timeout() {
        words.push_str(&format!("gave no answer within {} s", call.within.as_secs()));
    } else {
        words.push_str("did not answer to the end");
    }
    // The innermost reason is the one that says something, such as a certificate that nobody here trusts.
    let mut inner: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut why = String::new();
    while let Some(error) = inner {
        why = error.to_string();
        inner = error.source();
    }
    if !why.is_empty() {
        words.push_str(&format!(": {why}"));
    }
    if error.is_connect() { Fault::away(words) } else { Fault::unknown(words) }
}
