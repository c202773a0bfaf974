//! Interceptors: what an event passes before it starts anything.
//!
//! A [`Chain`] goes from one to the next. Those that are here are functions of the event and of secrets; for those that
//! are elsewhere, and for what only the forge knows, it asks ([`Next::Ask`]) and goes on with the answer. So it does no
//! IO, and every question is one that the server can refuse to put.

mod cel;
mod forges;
mod generic;
mod github;
mod slack;

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::event::{Body, Event, Headers};
use super::model::{InterceptorParam, InterceptorUse, SecretRef, Webhook};
use super::replay::Proof;
use super::stop::Stop;
use crate::cel::Secrets;

pub use github::CheckType;

/// An interceptor of a trigger, checked.
#[derive(Debug, Clone)]
pub struct Interceptor {
    /// For messages: its own name, or the one that it refers to.
    pub name: String,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Github(github::Github),
    Gitlab(forges::Forge),
    Bitbucket(forges::Forge),
    Slack(slack::Slack),
    /// Any program, by a signature or a token; only webhooks of native workflows have it.
    Generic(SecretRef),
    Cel(cel::Cel),
    /// A ClusterInterceptor or an Interceptor of the user's own.
    Other {
        name: String,
        namespaced: bool,
        params: Map<String, Value>,
    },
    Webhook(Webhook),
}

/// What has to be asked elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// An interceptor at an address: it is posted `request`.
    Interceptor { name: String, namespaced: bool, request: Value },
    /// A service that answers with another body.
    Webhook { webhook: Webhook, headers: Headers, body: Vec<u8> },
    /// The files that a pull request changes.
    ChangedFiles { host: Option<String>, owner: String, repository: String, number: i64, token: Option<SecretRef> },
    /// Whether somebody may have a pull request built: a member of the organisation or the repository, as
    /// `check` says, or one whom its OWNERS file names.
    Owner {
        host: Option<String>,
        owner: String,
        repository: String,
        sender: String,
        check: CheckType,
        token: Option<SecretRef>,
    },
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// `{continue, extensions, status: {message}}`.
    Interceptor(Value),
    Webhook {
        headers: Headers,
        body: Vec<u8>,
    },
    ChangedFiles(Vec<String>),
    Owner(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// All have let it pass.
    Passed,
    Ask(Question),
}

/// What one interceptor comes to.
enum Verdict {
    Go(Map<String, Value>),
    Ask(Question),
}

impl Verdict {
    fn go() -> Verdict {
        Verdict::Go(Map::new())
    }
}

/// What an interceptor is given.
struct Request<'r> {
    event: &'r Event,
    headers: &'r Headers,
    body: &'r Body,
    extensions: &'r Map<String, Value>,
    secrets: &'r dyn Secrets,
}

impl Request<'_> {
    /// The secret, or why there is none.
    fn secret(&self, reference: &SecretRef) -> Result<&[u8], Stop> {
        let SecretRef { secret_name, secret_key } = reference;
        let found = self.secrets.get(secret_name, secret_key);
        found.ok_or_else(|| Stop::refused(format!("there is no secret `{secret_name}` with the key `{secret_key}`")))
    }
}

/// The way of one event through interceptors, one after the other.
#[derive(Debug, Clone)]
pub struct Chain<'c> {
    interceptors: &'c [Interceptor],
    event: &'c Event,
    /// For interceptors elsewhere: `namespaces/NS/triggers/NAME`.
    trigger: String,
    at: usize,
    asked: bool,
    headers: Headers,
    body: Body,
    extensions: Map<String, Value>,
}

impl<'c> Chain<'c> {
    /// `extensions` are those that a group of triggers has added already.
    pub fn new(
        interceptors: &'c [Interceptor],
        event: &'c Event,
        trigger: String,
        extensions: Map<String, Value>,
    ) -> Result<Chain<'c>, Stop> {
        let first_is_webhook = matches!(interceptors.first(), Some(Interceptor { what: What::Webhook(_), .. }));
        let as_json = event.headers.is_form() && (!first_is_webhook || !extensions.is_empty());
        let body = if as_json { event.body.form().map_err(Stop::failed)? } else { event.body.clone() };
        let headers = event.headers.clone();
        Ok(Chain { interceptors, event, trigger, at: 0, asked: false, headers, body, extensions })
    }

    /// Goes on as far as it can without asking.
    pub fn advance(&mut self, secrets: &dyn Secrets) -> Result<Next, Stop> {
        while let Some(interceptor) = self.interceptors.get(self.at) {
            match self.one(interceptor, secrets).map_err(|stop| stop.by(&interceptor.name))? {
                Verdict::Go(extensions) => {
                    self.extensions.extend(extensions);
                    self.at += 1;
                }
                Verdict::Ask(question) => {
                    self.asked = true;
                    return Ok(Next::Ask(question));
                }
            }
        }
        Ok(Next::Passed)
    }

    fn one(&self, interceptor: &Interceptor, secrets: &dyn Secrets) -> Result<Verdict, Stop> {
        let Chain { event, headers, body, extensions, .. } = self;
        let request = Request { event, headers, body, extensions, secrets };
        match &interceptor.what {
            What::Github(github) => github.process(&request),
            What::Gitlab(forge) => forge.gitlab(&request),
            What::Bitbucket(forge) => forge.bitbucket(&request),
            What::Slack(slack) => slack.process(&request),
            What::Generic(secret) => generic::proof(secret, &request).map(|_| Verdict::go()),
            What::Cel(cel) => cel.process(&request),
            What::Other { name, namespaced, params } => {
                let context = [
                    ("event_url", self.event.url.clone()),
                    ("event_id", self.event.id.clone()),
                    ("trigger_id", self.trigger.clone()),
                ];
                let context: Map<String, Value> = context.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
                let mut request = Map::new();
                request.insert("body".into(), String::from_utf8_lossy(self.body.raw()).into());
                request.insert("header".into(), self.headers.lists());
                request.insert("extensions".into(), self.extensions.clone().into());
                request.insert("interceptor_params".into(), params.clone().into());
                request.insert("context".into(), context.into());
                let (name, namespaced) = (name.clone(), *namespaced);
                Ok(Verdict::Ask(Question::Interceptor { name, namespaced, request: request.into() }))
            }
            What::Webhook(webhook) => {
                let body = self.body_with_extensions()?;
                Ok(Verdict::Ask(Question::Webhook { webhook: webhook.clone(), headers: self.headers.clone(), body }))
            }
        }
    }

    /// The body, with the extensions so far in its field `extensions`.
    fn body_with_extensions(&self) -> Result<Vec<u8>, Stop> {
        if self.extensions.is_empty() {
            return Ok(self.body.raw().to_vec());
        }
        let mut body = self.body.json().map_err(Stop::failed)?.clone();
        let object = body.as_object_mut().ok_or_else(|| Stop::failed("the body is JSON, but no object"))?;
        object.insert("extensions".into(), self.extensions.clone().into());
        Ok(body.to_string().into_bytes())
    }

    /// The name of the interceptor that it has come to.
    pub fn at(&self) -> &str {
        self.interceptors.get(self.at).map_or("", |interceptor| &interceptor.name)
    }

    /// Goes past the interceptor that asked.
    pub fn answer(&mut self, answer: Answer) -> Result<(), Stop> {
        let Some(interceptor) = self.interceptors.get(self.at).filter(|_| self.asked) else {
            return Err(Stop::failed("an answer came that nobody had asked for"));
        };
        let extensions = match (&interceptor.what, answer) {
            (What::Other { .. }, Answer::Interceptor(answer)) => answered(&answer),
            (What::Webhook(_), Answer::Webhook { headers, body }) => {
                self.headers = headers;
                self.body = Body::new(body);
                Ok(Map::new())
            }
            (What::Github(_), Answer::ChangedFiles(files)) => Ok(github::changed(&files)),
            (What::Github(_), Answer::Owner(true)) => Ok(Map::new()),
            (What::Github(_), Answer::Owner(false)) => Err(Stop::filtered("who sent it is no owner and no member")),
            _ => Err(Stop::failed("the answer is not one to the question")),
        };
        self.extensions.extend(extensions.map_err(|stop| stop.by(&interceptor.name))?);
        self.asked = false;
        self.at += 1;
        Ok(())
    }

    /// What is left when all have let it pass: the headers, the body, and what was added.
    pub fn finish(self) -> (Headers, Body, Map<String, Value>) {
        (self.headers, self.body, self.extensions)
    }
}

fn answered(answer: &Value) -> Result<Map<String, Value>, Stop> {
    let wrong = || Stop::failed("its answer is not `{\"continue\": …, \"extensions\": {…}}`");
    let object = answer.as_object().ok_or_else(wrong)?;
    let message = || object.get("status").and_then(|status| status.get("message")?.as_str()).unwrap_or("it says no");
    match object.get("continue") {
        Some(Value::Bool(true)) => match object.get("extensions") {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(extensions)) => Ok(extensions.clone()),
            Some(_) => Err(wrong()),
        },
        None | Some(Value::Bool(false)) => Err(Stop::filtered(message())),
        Some(_) => Err(wrong()),
    }
}

impl Interceptor {
    /// Checks what a trigger says of an interceptor. The error is the path of a field in it, and a sentence.
    pub fn read(written: &InterceptorUse) -> Result<Interceptor, (String, String)> {
        let reference = &written.reference;
        if let Some(webhook) = &written.webhook {
            if webhook.url.is_none() && webhook.object_ref.is_none() {
                return Err(("webhook".into(), "a webhook needs `objectRef` or `url`".into()));
            }
            let name = written.name.clone().unwrap_or_else(|| "webhook".into());
            return Ok(Interceptor { name, what: What::Webhook(webhook.clone()) });
        }
        if reference.name.is_empty() {
            return Err((
                "ref".into(),
                "`ref.name` is missing: github, gitlab, bitbucket, slack, cel, or one of yours".into(),
            ));
        }
        let namespaced = match reference.kind.as_str() {
            "" | "ClusterInterceptor" => false,
            "NamespacedInterceptor" => true,
            other => {
                let message =
                    format!("`{other}` is no kind of interceptor: write ClusterInterceptor or NamespacedInterceptor");
                return Err(("ref.kind".into(), message));
            }
        };
        let params = &written.params;
        let what = match reference.name.as_str() {
            "github" if !namespaced => What::Github(github::Github::read(typed(params)?)?),
            "gitlab" if !namespaced => What::Gitlab(forges::Forge::read(typed(params)?)?),
            "bitbucket" if !namespaced => What::Bitbucket(forges::Forge::read(typed(params)?)?),
            "slack" if !namespaced => What::Slack(slack::Slack::read(typed(params)?)?),
            "cel" if !namespaced => What::Cel(cel::Cel::read(typed(params)?)?),
            other => What::Other { name: other.to_owned(), namespaced, params: object(params)? },
        };
        let name = written.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| reference.name.clone());
        Ok(Interceptor { name, what })
    }

    /// Any program that knows a secret.
    pub fn generic(secret: SecretRef) -> Interceptor {
        Interceptor { name: "generic".to_owned(), what: What::Generic(secret) }
    }

    /// The secrets that it may ask for, as (name, key).
    pub fn secrets(&self, wanted: &mut BTreeSet<(String, String)>) {
        match &self.what {
            What::Github(github) => github.secrets(wanted),
            What::Gitlab(forge) | What::Bitbucket(forge) => forge.secrets(wanted),
            What::Slack(slack) => slack.secrets(wanted),
            What::Generic(secret) => want(Some(secret), wanted),
            What::Cel(cel) => cel.secrets(wanted),
            What::Other { .. } | What::Webhook(_) => {}
        }
    }

    fn proof(&self, request: &Request<'_>) -> Result<Proof, Stop> {
        match &self.what {
            What::Github(github) => github.proof(request),
            What::Gitlab(forge) => forge.token(request),
            What::Bitbucket(forge) => forge.signature(request),
            What::Slack(slack) => slack.proof(request),
            What::Generic(secret) => generic::proof(secret, request),
            What::Cel(_) | What::Other { .. } | What::Webhook(_) => Ok(Proof::None),
        }
    }
}

/// What an event proves to all of these interceptors: the strongest of it, or why one of them refuses. Nothing that the
/// event says is read for it but headers, and the body as bytes.
pub fn prove<'i>(
    interceptors: impl IntoIterator<Item = &'i Interceptor>,
    event: &Event,
    secrets: &dyn Secrets,
) -> Result<Proof, Stop> {
    let (extensions, headers, body) = (Map::new(), &event.headers, &event.body);
    let request = Request { event, headers, body, extensions: &extensions, secrets };
    interceptors.into_iter().try_fold(Proof::None, |best, interceptor| {
        let proof = interceptor.proof(&request).map_err(|stop| stop.by(&interceptor.name))?;
        Ok(best.max(proof))
    })
}

fn object(params: &[InterceptorParam]) -> Result<Map<String, Value>, (String, String)> {
    let mut map = Map::new();
    for (n, param) in params.iter().enumerate() {
        if param.name.is_empty() {
            return Err((format!("params[{n}]"), "a param needs a name".into()));
        }
        if map.insert(param.name.clone(), param.value.clone()).is_some() {
            return Err((format!("params[{n}].name"), format!("the param `{}` is there twice", param.name)));
        }
    }
    Ok(map)
}

/// The params of an interceptor that is here, whose names are known.
fn typed<T: DeserializeOwned>(params: &[InterceptorParam]) -> Result<T, (String, String)> {
    // One by one first, so that the message is of the param that is wrong.
    for (n, param) in params.iter().enumerate() {
        let alone = Map::from_iter([(param.name.clone(), param.value.clone())]);
        if let Err(error) = serde_json::from_value::<T>(alone.into()) {
            return Err((format!("params[{n}]"), error.to_string()));
        }
    }
    serde_json::from_value(object(params)?.into()).map_err(|error| ("params".into(), error.to_string()))
}

/// The key of a secret must be named.
fn named(reference: Option<&SecretRef>, param: &str) -> Result<(), (String, String)> {
    match reference {
        Some(SecretRef { secret_key, secret_name }) if secret_key.is_empty() || secret_name.is_empty() => {
            Err(("params".into(), format!("`{param}` needs `secretName` and `secretKey`")))
        }
        _ => Ok(()),
    }
}

fn want(reference: Option<&SecretRef>, wanted: &mut BTreeSet<(String, String)>) {
    wanted.extend(reference.map(|secret| (secret.secret_name.clone(), secret.secret_key.clone())));
}

/// Whether the event is of a type that is asked for; no list is all of them.
fn is_of(types: Option<&Vec<String>>, actual: &str) -> Result<(), Stop> {
    match types {
        Some(types) if !types.iter().any(|wanted| wanted == actual) => {
            Err(Stop::filtered(format!("the event type `{actual}` is not among those that it lets pass")))
        }
        _ => Ok(()),
    }
}
