//! A server elsewhere, asked over its REST API with a token.
//!
//! What the server refuses is said in its own words and is wrong input (exit status 2); a server that cannot be reached
//! or has a fault is a failure (1). The token comes from the environment or a file, never from the command line, where
//! every user of the machine could read it.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use pitcrew_control::catalog::Catalog;
use pitcrew_control::config::Settings;
use reqwest::{Client, Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::error::{invalid, refused};
use crate::cli::ui::Ui;

/// A server on another continent answers within this; one that does not is down.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// Rows of a list at a time.
const ROWS: usize = 1000;

pub struct Remote {
    pub ui: Ui,
    pub catalog: Catalog,
    base: Url,
    token: Option<String>,
    http: Client,
}

impl Remote {
    /// Makes no connection yet.
    pub fn new(ui: Ui, settings: &Settings, server: &str) -> anyhow::Result<Remote> {
        let mut base: Url = server.parse().map_err(|error| invalid(format!("`--server` is no address: {error}")))?;
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let http = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // A token goes to the server that was named, and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("pitcrew/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot prepare a connection")?;
        Ok(Remote { ui, catalog: Catalog::default(), base, token: token(settings)?, http })
    }

    /// The address that was named, for messages.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<T> {
        self.ask(Method::GET, path, query, None).await
    }

    /// Like `get`; what is not there is `None`.
    pub async fn find<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<Option<T>> {
        match self.get(path, query).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.downcast_ref::<NotThere>().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &[&str], body: Value) -> anyhow::Result<T> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// Asks for something to be done; `None` where what it is about is not there.
    pub async fn send<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<Option<T>> {
        match self.ask(Method::POST, path, &[], Some(Value::Object(Default::default()))).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.downcast_ref::<NotThere>().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn patch(&self, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.ask(Method::PATCH, path, &[], Some(body)).await
    }

    /// Says whether it was there.
    pub async fn delete(&self, path: &[&str]) -> anyhow::Result<bool> {
        match self.ask::<Value>(Method::DELETE, path, &[], None).await {
            Ok(_) => Ok(true),
            Err(error) if error.downcast_ref::<NotThere>().is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every row of one of Airflow's lists, page by page.
    pub async fn all(&self, path: &[&str], rows: &str) -> anyhow::Result<Vec<Value>> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let query = [("limit", ROWS.to_string()), ("offset", all.len().to_string())];
            let mut page: Value = self.get(path, &query).await?;
            let Value::Array(part) = page[rows].take() else {
                bail!("`{}` answered without `{rows}`: is it a server of pitcrew?", self.address());
            };
            let is_last = part.len() < ROWS;
            all.extend(part);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> anyhow::Result<T> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            // Each part is escaped, so that a name can never become another path.
            Ok(mut segments) => drop(segments.pop_if_empty().extend(path)),
            Err(()) => return Err(invalid(format!("`{}` is no address of a server", self.base))),
        }
        let mut request = self.http.request(method, url).query(query).header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes)
            .with_context(|| format!("`{}` answered something else: is it a server of this version?", self.address()))
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let reason = std::iter::successors(error.source(), |cause| (*cause).source()).last();
        let reason = match (error.is_timeout(), reason) {
            (true, _) => "it did not answer in time".to_owned(),
            (false, Some(reason)) => reason.to_string(),
            (false, None) => error.without_url().to_string(),
        };
        anyhow!("cannot reach the server `{}`: {reason}", self.address())
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> anyhow::Error {
        let detail = serde_json::from_slice::<Value>(body).ok().and_then(|mut body| match body["detail"].take() {
            Value::String(text) => Some(text),
            Value::Array(problems) => Some(problems.iter().map(problem).collect::<Vec<_>>().join("\n")),
            _ => None,
        });
        let said = detail.unwrap_or_else(|| format!("it answered {status}"));
        match status {
            StatusCode::UNAUTHORIZED if self.token.is_none() => invalid(format!(
                "the server `{}` wants to know who you are\nhint: put a token into `PITCREW_TOKEN`, or its file's name into `PITCREW_TOKEN_FILE`",
                self.address()
            )),
            StatusCode::UNAUTHORIZED => {
                invalid(format!("the server `{}` does not take this token: it may have expired", self.address()))
            }
            StatusCode::NOT_FOUND => anyhow::Error::new(NotThere).context(crate::cli::error::Invalid(said)),
            status if status.is_client_error() => invalid(said),
            _ => anyhow!("the server `{}` failed: {said}", self.address()),
        }
    }
}

/// The server knows no such thing.
#[derive(Debug, thiserror::Error)]
#[error("not found")]
struct NotThere;

fn problem(problem: &Value) -> String {
    let part = problem["loc"].as_array().and_then(|parts| parts.last()).and_then(Value::as_str).unwrap_or_default();
    format!("`{part}`: {}", problem["msg"].as_str().unwrap_or_default())
}

fn token(settings: &Settings) -> anyhow::Result<Option<String>> {
    if let Ok(token) = std::env::var("PITCREW_TOKEN")
        && !token.trim().is_empty()
    {
        return Ok(Some(token.trim().to_owned()));
    }
    let Some(path) = settings.token_file() else { return Ok(None) };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| refused(format!("cannot read the token file `{}`: {error}", path.display())))?;
    Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
}
