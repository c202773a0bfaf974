//! What forges post to: `POST /hooks/NAMESPACE/LISTENER`, and `POST /hooks/WORKFLOW`.
//!
//! Nobody signs in here; who may post is told by the signature of the body. So everything about a request is bounded before
//! it is proved: how long its body may be and how long it may take, how much of all bodies is in memory, and how often one
//! sender may post. A server that does not lead takes events all the same, since all that it does is to write them down.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use futures::StreamExt as _;
use pitcrew_control::hooks::listen::{self, Door, Post, Taken};
use pitcrew_control::{clock, metrics};
use pitcrew_lang::triggers::Headers;
use pitcrew_store::StoreError;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::Site;
use super::auth::Peer;
use super::error::{ApiError, ApiResult};
use super::openapi::doc;
use super::routes::{Access, Routes};

/// The longest body: what the largest forge sends at most.
const MOST: usize = 25 << 20;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn routes() -> Routes {
    Routes::api()
        .post("/hooks/{namespace}/{listener}", Access::Hook, post)
        .here()
        .doc(doc("Hook", "Takes an event for the triggers of an EventListener").body("any").answer(202, "object"))
        .post("/hooks/{workflow}", Access::Hook, post_to_workflow)
        .here()
        .doc(doc("Hook", "Takes an event for the webhooks of a workflow").body("any").answer(202, "object"))
}

/// What takes events and answers nothing else. Where there is one listener, it is also at `/`, as a listener of Tekton's is.
pub fn alone(site: Site) -> Router {
    Router::new()
        .route("/hooks/{namespace}/{listener}", routing::post(post))
        .route("/hooks/{workflow}", routing::post(post_to_workflow))
        .route("/", routing::post(only))
        .layer(from_fn_with_state(site.app.metrics.clone(), metrics::measure))
        .with_state(site)
}

async fn only(state: State<Site>, peer: Peer, request: Request) -> ApiResult {
    let found = state.app.hooks.only(&state.app).await.map_err(fault)?;
    let found = found.ok_or_else(|| ApiError::not_found("post to `/hooks/NAMESPACE/LISTENER`"))?;
    post(state, Path(found), peer, request).await
}

async fn post(
    State(site): State<Site>,
    Path((namespace, listener)): Path<(String, String)>,
    Peer(from): Peer,
    request: Request,
) -> ApiResult {
    let source = from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if let Err(wait) = site.app.hooks.limits.pass(source, clock::now()) {
        return Ok(slow_down(wait));
    }
    let door = listen::door(&site.app, &namespace, &listener).await.map_err(fault)?;
    let missing = || ApiError::not_found(format!("there is no EventListener `{listener}` in `{namespace}`"));
    take(&site, door.ok_or_else(missing)?, source, request).await
}

async fn post_to_workflow(
    State(site): State<Site>,
    Path(workflow): Path<String>,
    Peer(from): Peer,
    request: Request,
) -> ApiResult {
    let source = from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if let Err(wait) = site.app.hooks.limits.pass(source, clock::now()) {
        return Ok(slow_down(wait));
    }
    let door = listen::door_of_workflow(&site.app, &workflow).await.map_err(fault)?;
    let missing = || ApiError::not_found(format!("there is no workflow `{workflow}` that webhooks start"));
    take(&site, door.ok_or_else(missing)?, source, request).await
}

/// Writes down what is posted.
async fn take(site: &Site, door: Door, source: IpAddr, request: Request) -> ApiResult {
    let (now, hooks) = (clock::now(), &site.app.hooks);
    let (parts, body) = request.into_parts();
    let (body, _room) = read(site, &parts.headers, body).await?;
    let post = Post {
        url: address(&parts.uri),
        headers: headers(&parts.headers),
        body,
        source: source.to_string(),
        received: now,
    };
    match door.take(&site.app, post).await.map_err(fault)? {
        Taken::Yes(receipt) => {
            if receipt.is_refused {
                hooks.limits.refused(source, now);
            }
            let mut answer = match receipt.namespace.is_empty() {
                true => json!({ "workflow": receipt.listener, "eventID": receipt.event }),
                false => json!({
                "eventListener": receipt.listener,
                "namespace": receipt.namespace,
                "eventListenerUID": receipt.uid,
                "eventID": receipt.event,
                }),
            };
            if receipt.is_duplicate {
                answer["message"] = json!(
                    "this was delivered before, and starts nothing; `pitcrew hooks redeliver`, or the page of the delivery, \
                     sends it once more"
                );
            }
            Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
        }
        Taken::NoJson(why) => Err(ApiError::bad_request(why)),
    }
}

/// A store that is away is told as such: whoever posts again may be lucky.
fn fault(error: anyhow::Error) -> ApiError {
    match error.downcast::<StoreError>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}

fn slow_down(wait: Duration) -> Response {
    let message = "too much was posted from this address".to_owned();
    let mut response = ApiError::Status(StatusCode::TOO_MANY_REQUESTS, message).into_response();
    let seconds = HeaderValue::from(wait.as_secs().max(1));
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// The body, and the room that it takes.
async fn read(site: &Site, headers: &HeaderMap, body: Body) -> ApiResult<(Vec<u8>, Vec<OwnedSemaphorePermit>)> {
    let too_large = || {
        let message = format!("the body is too large: {} MiB at most", MOST >> 20);
        ApiError::Status(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MOST as u64) {
        return Err(too_large());
    }
    let room = &site.app.hooks.room;
    let reading = async {
        let (mut stream, mut bytes, mut held) = (body.into_data_stream(), Vec::new(), Vec::new());
        let mut taken = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| ApiError::bad_request("the body broke off"))?;
            if bytes.len() + chunk.len() > MOST {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
            let wanted = u32::try_from((bytes.len() >> 10) + 1 - taken).unwrap_or(u32::MAX);
            if wanted > 0 {
                let full = |_| {
                    let message = "too much is being posted at once; post it again".to_owned();
                    ApiError::Status(StatusCode::SERVICE_UNAVAILABLE, message)
                };
                held.push(room.clone().try_acquire_many_owned(wanted).map_err(full)?);
                taken += wanted as usize;
            }
        }
        Ok((bytes, held))
    };
    let late = |_| ApiError::Status(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive".to_owned());
    tokio::time::timeout(PATIENCE, reading).await.map_err(late)?
}

fn address(uri: &Uri) -> String {
    uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

fn headers(given: &HeaderMap) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in given {
        headers.add(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    headers
}
