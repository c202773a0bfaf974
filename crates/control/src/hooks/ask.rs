//! What interceptors have to ask elsewhere: services of the user's own, and the API of GitHub.
//!
//! Invariant: an event names no address. Interceptors are at addresses that were applied, and forges at those that are
//! known; so whoever can post cannot make this server ask anybody.

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pitcrew_lang::cel::Secrets as _;
use pitcrew_lang::triggers::event::Headers;
use pitcrew_lang::triggers::interceptors::CheckType;
use pitcrew_lang::triggers::model::{ClientConfig, SecretRef, Webhook};
use pitcrew_lang::triggers::{Answer, Question};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::OfNamespace;
use crate::app::App;
use crate::notify::http::{self, Clients};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that is read of an answer.
const MOST: usize = 8 << 20;
const GITHUB: &str = "https://api.github.com";
/// Files of a page, and pages of a pull request: as many as GitHub tells.
const PER_PAGE: usize = 100;
const PAGES: usize = 30;

pub async fn ask(app: &App, namespace: &str, held: &OfNamespace, question: Question) -> anyhow::Result<Answer> {
    match question {
        Question::Interceptor { name, namespaced, request } => {
            let known = app.hooks.known(app).await?;
            let found = known.set.interceptor(namespace, &name, namespaced);
            let kind = if namespaced { "Interceptor" } else { "ClusterInterceptor" };
            let config = &found.with_context(|| format!("there is no {kind} `{name}`"))?.client_config;
            let url = address(config)?;
            let client = client(config)?;
            let request = client.get(&url)?.request(Method::POST, url.clone()).json(&request);
            let response = sent(request, &url).await?;
            if response.status() != StatusCode::OK {
                bail!("{} answered {}", http::host(url.as_str()), response.status());
            }
            let body = read(response, &url).await?;
            let answer = serde_json::from_slice(&body).map_err(|_| anyhow::anyhow!("its answer is no JSON"))?;
            Ok(Answer::Interceptor(answer))
        }
        Question::Webhook { webhook, headers, body } => webhook_answer(&webhook, namespace, &headers, body).await,
        Question::ChangedFiles { host, owner, repository, number, token } => {
            let github = Github::new(host.as_deref(), held, token.as_ref())?;
            let number = number.to_string();
            let mut files = Vec::new();
            for page in 1..=PAGES {
                let path = ["repos", &owner, &repository, "pulls", &number, "files"];
                let answer = github.get(&path, &format!("per_page={PER_PAGE}&page={page}")).await?;
                let answer =
                    answer.with_context(|| format!("GitHub knows no pull request {number} of {owner}/{repository}"))?;
                let list = answer.as_array().context("the answer of GitHub is no list")?;
                files.extend(list.iter().filter_map(|file| file["filename"].as_str().map(str::to_owned)));
                if list.len() < PER_PAGE {
                    break;
                }
            }
            Ok(Answer::ChangedFiles(files))
        }
        Question::Owner { host, owner, repository, sender, check, token } => {
            let github = Github::new(host.as_deref(), held, token.as_ref())?;
            let is = github.may_build(&owner, &repository, &sender, check).await?;
            Ok(Answer::Owner(is))
        }
    }
}

/// A client for one interceptor.
enum Wire {
    Plain(Clients),
    /// With the authorities that it names.
    Own(reqwest::Client),
}

impl Wire {
    fn get(&self, url: &Url) -> anyhow::Result<&reqwest::Client> {
        match self {
            Wire::Plain(clients) => clients.client_for(url, false).map_err(|failed| anyhow::anyhow!("{failed}")),
            Wire::Own(client) => Ok(client),
        }
    }
}

fn client(config: &ClientConfig) -> anyhow::Result<Wire> {
    if config.ca_bundle.is_empty() {
        return Ok(Wire::Plain(Clients::new()?));
    }
    let pem = BASE64.decode(config.ca_bundle.trim()).context("`caBundle` is not base64")?;
    let authorities = reqwest::Certificate::from_pem_bundle(&pem).context("`caBundle` holds no certificates")?;
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).tls_certs_only(authorities);
    Ok(Wire::Own(builder.build().context("cannot make an HTTP client")?))
}

/// Where an interceptor is; a service is found as pods of its cluster find it.
fn address(config: &ClientConfig) -> anyhow::Result<Url> {
    let text = match (&config.url, &config.service) {
        (Some(url), _) => url.clone(),
        (None, Some(service)) => {
            let (scheme, port) = if config.ca_bundle.is_empty() { ("http", 80) } else { ("https", 443) };
            let port = service.port.unwrap_or(port);
            format!(
                "{scheme}://{}.{}.svc:{port}/{}",
                service.name,
                service.namespace,
                service.path.trim_start_matches('/')
            )
        }
        (None, None) => bail!("it has neither `url` nor `service`"),
    };
    http::address(&text).map_err(|why| anyhow::anyhow!("its address {why}"))
}

async fn webhook_answer(
    webhook: &Webhook,
    namespace: &str,
    headers: &Headers,
    body: Vec<u8>,
) -> anyhow::Result<Answer> {
    let text = match (&webhook.url, &webhook.object_ref) {
        (Some(url), _) => url.clone(),
        (None, Some(service)) => {
            let namespace = if service.namespace.is_empty() { namespace } else { &service.namespace };
            format!("http://{}.{namespace}.svc/", service.name)
        }
        (None, None) => bail!("it has neither `url` nor `objectRef`"),
    };
    let url = http::address(&text).map_err(|why| anyhow::anyhow!("its address {why}"))?;
    let clients = Clients::new()?;
    let client = clients.client_for(&url, false).map_err(|failed| anyhow::anyhow!("{failed}"))?;
    let mut request = client.post(url.clone());
    let own = |name: &str| {
        ["host", "content-length", "transfer-encoding", "connection", "accept-encoding"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
    };
    for (name, values) in headers.iter().filter(|(name, _)| !own(name)) {
        for value in values {
            let (name, value) = http::header(name, value)?;
            request = request.header(name, value);
        }
    }
    for header in &webhook.header {
        let values: Vec<&str> = match &header.value {
            Value::String(value) => vec![value.as_str()],
            Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
            _ => bail!("the header `{}` is neither a text nor a list of texts", header.name),
        };
        for value in values {
            let (name, value) = http::header(&header.name, value)?;
            request = request.header(name, value);
        }
    }
    let response = sent(request.body(body), &url).await?;
    if !response.status().is_success() {
        bail!("{} answered {}", http::host(url.as_str()), response.status());
    }
    let mut answered = Headers::default();
    for (name, value) in response.headers() {
        answered.add(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    Ok(Answer::Webhook { headers: answered, body: read(response, &url).await? })
}

async fn sent(request: RequestBuilder, url: &Url) -> anyhow::Result<Response> {
    let sent = request.timeout(PATIENCE).send().await;
    sent.map_err(|error| anyhow::anyhow!("{}", http::unanswered(error, &http::host(url.as_str()))))
}

async fn read(mut response: Response, url: &Url) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    let broken = |error: reqwest::Error| anyhow::anyhow!("{}", http::unanswered(error, &http::host(url.as_str())));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST {
            bail!("{} answers more than {} MiB", http::host(url.as_str()), MOST >> 20);
        }
    }
    Ok(body)
}

/// The API of GitHub.
struct Github {
    clients: Clients,
    base: Url,
    token: Option<String>,
}

impl Github {
    fn new(host: Option<&str>, held: &OfNamespace, token: Option<&SecretRef>) -> anyhow::Result<Github> {
        if let Some(host) = host {
            bail!("the event names the server `{host}` of its own accord; only github.com is asked");
        }
        let token = match token {
            None => None,
            Some(SecretRef { secret_name, secret_key }) => {
                let found = held.get(secret_name, secret_key);
                let found =
                    found.with_context(|| format!("there is no secret `{secret_name}` with the key `{secret_key}`"))?;
                Some(String::from_utf8_lossy(found).trim().to_owned())
            }
        };
        Ok(Github { clients: Clients::new()?, base: Url::parse(GITHUB)?, token })
    }

    /// `None`: it is not there.
    async fn get(&self, path: &[&str], query: &str) -> anyhow::Result<Option<Value>> {
        let response = self.ask(path, query).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let body = read(response, &self.base).await?;
                Ok(Some(serde_json::from_slice(&body).context("the answer of GitHub is no JSON")?))
            }
            status => bail!("GitHub answered {status}"),
        }
    }

    async fn ask(&self, path: &[&str], query: &str) -> anyhow::Result<Response> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // What an event says stays one part of the path.
            segments.pop_if_empty().extend(path);
        }
        url.set_query((!query.is_empty()).then_some(query));
        let client = self.clients.client_for(&url, false).map_err(|failed| anyhow::anyhow!("{failed}"))?;
        let mut request = client.get(url.clone()).header("accept", "application/vnd.github+json");
        if let Some(token) = &self.token {
            let (name, value) = http::header("authorization", &format!("Bearer {token}"))?;
            request = request.header(name, value);
        }
        sent(request, &url).await
    }

    async fn is(&self, path: &[&str]) -> anyhow::Result<bool> {
        let response = self.ask(path, "").await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::FOUND => Ok(false),
            status => bail!("GitHub answered {status}"),
        }
    }

    async fn may_build(&self, owner: &str, repository: &str, sender: &str, check: CheckType) -> anyhow::Result<bool> {
        let (org, repo) = match check {
            CheckType::None => (false, false),
            CheckType::OrgMembers => (true, false),
            CheckType::RepoMembers => (false, true),
            CheckType::All => (true, true),
        };
        if org && self.is(&["orgs", owner, "public_members", sender]).await? {
            return Ok(true);
        }
        if repo && self.is(&["repos", owner, repository, "collaborators", sender]).await? {
            return Ok(true);
        }
        let Some(file) = self.get(&["repos", owner, repository, "contents", "OWNERS"], "").await? else {
            return Ok(false);
        };
        let encoded: String = file["content"].as_str().unwrap_or_default().split_whitespace().collect();
        let bytes = BASE64.decode(encoded).context("the OWNERS file of GitHub is not base64")?;
        Ok(names(&String::from_utf8_lossy(&bytes), sender))
    }
}

/// Whether an OWNERS file has somebody among its approvers or reviewers.
fn names(file: &str, sender: &str) -> bool {
    let mut listed = false;
    file.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        match line.trim().strip_prefix('-') {
            Some(name) => listed && name.trim().trim_matches(['"', '\'']).eq_ignore_ascii_case(sender),
            None => {
                if !line.trim().is_empty() {
                    listed = matches!(line.trim(), "approvers:" | "reviewers:");
                }
                false
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_approvers_and_reviewers() {
        let file = "# who may\napprovers:\n- ada\n  - \"Bob\"\nreviewers:\n- cy # often\nlabels:\n- dan\n";
        assert!(names(file, "ada") && names(file, "bob") && names(file, "cy"));
        assert!(!names(file, "dan") && !names(file, "eve") && !names("", "ada"));
    }
}
