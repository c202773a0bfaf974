//! What a standby is asked: it passes the request on to the server that leads, with the caller's own credentials, and
//! gives back the answer as it comes, live pages and logs too.
//!
//! Invariant: a request that changes something is passed on again only when nobody can have taken it. Whoever reads gets
//! an answer in any case: while no leader is to be reached, the one that the database gives. Of what is kept to be passed
//! on again there is a limit; files, which have none, go by as they come.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pitcrew_control::cluster::{self, Leader};
use pitcrew_exec::worker::protocol;
use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::time::Instant;

use super::auth::{Gate, session_cookie};
use super::error::ApiError;
use super::own::workers;
use super::routes::Surface;
use super::web::page::PageError;
use super::{MAX_BODY, Site};

/// On a request that another server passed on; it is not passed on again.
const PASSED_ON: HeaderName = HeaderName::from_static("x-pitcrew-passed-on");
/// On the answer of a server that was taken for the leader and is not.
const STANDS_BY: HeaderName = HeaderName::from_static("x-pitcrew-stands-by");
/// How long a change waits for a server that leads; a takeover takes a second or two.
const PATIENCE: Duration = Duration::from_secs(8);
const AGAIN: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(2);

/// Meant for one connection, or made anew for the next: what a proxy must not pass on.
const OWN: [HeaderName; 12] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    // Checked here, where the page came from.
    header::ORIGIN,
    HeaderName::from_static("sec-fetch-site"),
];

/// Talks to other servers; made when it is first needed.
#[derive(Default)]
pub struct Wire(OnceLock<Client>);

impl Wire {
    fn client(&self) -> Result<&Client, reqwest::Error> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            // A connection that idled may be half dead, and then nobody knows whether a request arrived.
            .pool_max_idle_per_host(0)
            .tcp_keepalive(Duration::from_secs(5))
            .tcp_keepalive_interval(Duration::from_secs(2))
            .tcp_keepalive_retries(3)
            .build()?;
        Ok(self.0.get_or_init(|| client))
    }
}

/// Why there is no answer of the leader.
enum Miss {
    /// Nobody has taken the request.
    Nobody(String),
    /// It was sent, and what became of it is not known.
    Unknown(String),
}

/// Stands before every route that the leader answers.
pub async fn pass_on(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let scheduler = &gate.site.app.scheduler;
    let is_worker = is_of_worker(&request);
    let leads = || if is_worker { scheduler.holds_lead() } else { scheduler.leads() };
    if leads() {
        return answer(&gate, next, request).await;
    }
    if request.headers().contains_key(PASSED_ON) {
        return stands_by(&gate);
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD) && !is_worker;
    if is_file(&request) {
        return pass_file(&gate, request).await;
    }
    let (parts, body) = request.into_parts();
    // What workers tell may be long.
    let most = if is_worker { workers::MOST } else { MAX_BODY };
    let Ok(body) = to_bytes(body, most).await else {
        let message = format!("the body is too large: {} MiB at most", most >> 20);
        return ApiError::Status(StatusCode::PAYLOAD_TOO_LARGE, message).into_response();
    };
    let deadline = Instant::now() + PATIENCE;
    let mut why;
    loop {
        if leads() {
            return answer(&gate, next, Request::from_parts(parts, Body::from(body))).await;
        }
        why = match ask(&gate.site, &parts, body.clone().into()).await {
            Ok(answer) => return answer,
            Err(Miss::Unknown(why)) if !is_read => {
                return refused(&gate, &format!("{why}; look whether it was done before you ask again"));
            }
            Err(Miss::Unknown(why) | Miss::Nobody(why)) => why,
        };
        if is_read || Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(AGAIN).await;
    }
    if is_read {
        tracing::debug!("answering from the database: {why}");
        return next.run(Request::from_parts(parts, Body::from(body))).await;
    }
    refused(&gate, &format!("{why}; ask again in a moment"))
}

fn is_of_worker(request: &Request) -> bool {
    request.uri().path().starts_with(protocol::ROOT)
}

/// By this server. A worker is answered by whoever leads and by nobody else: what another one has of a run may be less, and
/// each answer tells it to go on. So who leads is looked at once more when the answer is there, which may be long after the
/// question; a worker asks again.
async fn answer(gate: &Gate, next: Next, request: Request) -> Response {
    let is_worker = is_of_worker(&request);
    let answer = next.run(request).await;
    if is_worker && !gate.site.app.scheduler.holds_lead() { stands_by(gate) } else { answer }
}

/// Whether it brings the bytes of a file of a run: they are as many as the file has, and are never in memory.
fn is_file(request: &Request) -> bool {
    let rest = request.uri().path().strip_prefix(protocol::ROOT);
    *request.method() == Method::PUT && rest.is_some_and(|rest| rest.starts_with("/runs/") && rest.contains("/blobs/"))
}

/// Passes bytes on as they come, and so once; a worker that is told that nobody took them brings them again.
async fn pass_file(gate: &Gate, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    match ask(&gate.site, &parts, body).await {
        Ok(answer) => answer,
        Err(Miss::Unknown(why) | Miss::Nobody(why)) => refused(gate, &format!("{why}; ask again in a moment")),
    }
}

/// The answer of the leader.
async fn ask(site: &Site, parts: &Parts, body: reqwest::Body) -> Result<Response, Miss> {
    let leader = cluster::leader(&site.app.store).await.map_err(|error| Miss::Nobody(error.to_string()))?;
    let leader = leader.ok_or_else(|| Miss::Nobody("no server leads yet".to_owned()))?;
    let Some(url) = &leader.url else {
        return Err(Miss::Nobody(
            "the server that leads does not say where it is reached: set `advertise` on each server".to_owned(),
        ));
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let client = site.wire.client().map_err(|error| Miss::Nobody(error.to_string()))?;
    let mut headers = carried(&parts.headers);
    headers.insert(PASSED_ON, HeaderValue::from_static("1"));
    if let Some(token) = session_cookie(site, &parts.headers)
        && let Ok(cookie) = HeaderValue::from_str(&format!("{}={token}", leader.cookie))
    {
        headers.insert(header::COOKIE, cookie);
    }
    if let Some(ConnectInfo(from)) = parts.extensions.get::<ConnectInfo<SocketAddr>>()
        && let Ok(from) = HeaderValue::from_str(&from.ip().to_canonical().to_string())
    {
        headers.append("x-forwarded-for", from);
    }
    let request = client.request(parts.method.clone(), format!("{url}{path}")).headers(headers).body(body);
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() || error.is_builder() => {
            return Err(Miss::Nobody(format!("the server that leads cannot be reached at {url}")));
        }
        Err(_) => return Err(Miss::Unknown(format!("the server that leads, {url}, went away before it answered"))),
    };
    if answer.headers().contains_key(STANDS_BY) {
        return Err(Miss::Nobody("no server leads just now".to_owned()));
    }
    Ok(relay(site, &leader, answer))
}

/// The answer as it comes.
fn relay(site: &Site, leader: &Leader, answer: reqwest::Response) -> Response {
    let (status, mut headers) = (answer.status(), carried(answer.headers()));
    let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        // A browser knows this server by another name of the cookie.
        let renamed = cookie.to_str().ok().and_then(|text| text.strip_prefix(leader.cookie.as_str()));
        let renamed = renamed.map(|rest| HeaderValue::from_str(&format!("{}{rest}", site.auth.cookie_name())));
        headers.append(header::SET_COOKIE, renamed.and_then(Result::ok).unwrap_or(cookie));
    }
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

fn carried(headers: &HeaderMap) -> HeaderMap {
    let mut carried = headers.clone();
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|names| names.split(',')) {
        carried.remove(name.trim());
    }
    for name in &OWN {
        carried.remove(name);
    }
    carried.remove("keep-alive");
    carried
}

fn stands_by(gate: &Gate) -> Response {
    let mut answer = refused(gate, "this server does not lead any more; ask again in a moment");
    answer.headers_mut().insert(STANDS_BY, HeaderValue::from_static("1"));
    answer
}

fn refused(gate: &Gate, why: &str) -> Response {
    match gate.surface {
        Surface::Api => ApiError::Status(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()).into_response(),
        Surface::Pages => PageError::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}
