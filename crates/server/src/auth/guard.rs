//! What every request passes before it is answered: the name it was sent to, where it comes from, who sends it; and the
//! headers that every answer carries.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Extensions, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use pitcrew_control::clock;
use pitcrew_control::links;
use pitcrew_core::{RunKey, WorkflowId};

use super::{Role, SignInError, Use, User};
use crate::Site;
use crate::error::ApiError;
use crate::routes::Surface;
use crate::web::page::{PageError, with_navigation};

/// Scripts and styles are ours alone, nothing is loaded from elsewhere, and nobody may put our pages into a frame.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Adds the security headers; an answer that brings its own policy keeps it.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(header::REFERRER_POLICY, "same-origin");
    default(header::CACHE_CONTROL, "no-store");
    response
}

/// On a loopback address only the machine itself should get in. A page on the internet can point its own name at
/// 127.0.0.1 and let a browser ask us; then the name in `Host` is not one of ours.
pub async fn check_host(State(site): State<Site>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if site.allows_host(host.unwrap_or_default()) {
        return next.run(request).await;
    }
    let shown = host.unwrap_or("no name").chars().take(100).collect::<String>();
    let message =
        format!("this server does not answer to `{shown}`: use `localhost`, or allow the name in its options");
    ApiError::Status(StatusCode::MISDIRECTED_REQUEST, message).into_response()
}

/// Refuses changes that another site asks a browser for. Browsers say where a change comes from; programs do not.
pub async fn check_origin(State(site): State<Site>, request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_read || is_same_site(&site, request.headers()) {
        return next.run(request).await;
    }
    let message = "this change was asked for by a page of another site, so it was not made".to_owned();
    ApiError::Status(StatusCode::FORBIDDEN, message).into_response()
}

fn is_same_site(site: &Site, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let fetched_from = text(HeaderName::from_static("sec-fetch-site"));
    if !matches!(fetched_from, None | Some("same-origin" | "none")) {
        return false;
    }
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = text(header::HOST).unwrap_or_default();
    // A proxy may send another name on than browsers know us by.
    let is_ours = |name: &str| name == host || site.base_url.authority() == name;
    origin.split_once("://").is_some_and(|(_, name)| is_ours(name))
}

/// Stands before what servers ask each other.
pub async fn guard_server(State(site): State<Site>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let word = authorization.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
    match site.app.backends.homed().is_some_and(|local| local.peers().is_one(word)) {
        true => next.run(request).await,
        false => {
            let message = "only a server with the same secret key may ask this".to_owned();
            ApiError::Status(StatusCode::UNAUTHORIZED, message).into_response()
        }
    }
}

/// The address of whoever sends a request; behind a proxy that we trust, the one that the proxy saw.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<IpAddr>);

impl Peer {
    fn of(site: &Site, extensions: &Extensions, headers: &HeaderMap) -> Peer {
        let Some(ConnectInfo(direct)) = extensions.get::<ConnectInfo<SocketAddr>>() else { return Peer(None) };
        let direct = direct.ip().to_canonical();
        if !site.proxies.contains(&direct) {
            return Peer(Some(direct));
        }
        // Each proxy adds whom it saw at the end; what was there before may be made up.
        let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let mut named = named.flat_map(|line| line.split(',')).map(|part| part.trim().parse().ok()).collect::<Vec<_>>();
        named.reverse();
        let stranger = named.into_iter().map_while(|address: Option<IpAddr>| address);
        Peer(
            stranger
                .map(|address| address.to_canonical())
                .find(|address| !site.proxies.contains(address))
                .or(Some(direct)),
        )
    }
}

impl FromRequestParts<Site> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Infallible> {
        Ok(Peer::of(site, &parts.extensions, &parts.headers))
    }
}

/// Who sends it: by bearer token, by name and password, or by the cookie of a page.
async fn user_of(site: &Site, Peer(from): Peer, headers: &HeaderMap) -> Result<Option<User>, SignInError> {
    let now = clock::now();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(authorization) = text(header::AUTHORIZATION) {
        let (scheme, proof) = authorization.split_once(' ').unwrap_or((authorization, ""));
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Ok(site.auth.bearer(proof.trim(), now).await?),
            "basic" => site.auth.basic(proof.trim(), from, now).await,
            _ => Ok(None),
        };
    }
    match session_cookie(site, headers) {
        Some(token) => Ok(site.auth.verify(token, Use::Session, now).await?),
        None if site.auth.is_off() => Ok(site.auth.verify("", Use::Session, now).await?),
        None => Ok(None),
    }
}

/// The cookie by which a browser is logged in.
pub fn session_cookie<'h>(site: &Site, headers: &'h HeaderMap) -> Option<&'h str> {
    cookie(headers, site.auth.cookie_name())
}

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// What stands before a route.
#[derive(Clone)]
pub struct Gate {
    pub site: Site,
    pub role: Role,
    pub surface: Surface,
}

/// Lets a request pass whose user may use the route, and tells the handler who it is.
pub async fn guard(State(gate): State<Gate>, params: RawPathParams, mut request: Request, next: Next) -> Response {
    let from = Peer::of(&gate.site, request.extensions(), request.headers());
    let user = match user_of(&gate.site, from, request.headers()).await {
        Ok(Some(user)) => user,
        Ok(None) | Err(SignInError::Wrong) => return unknown(&gate, &request),
        Err(error) => return error.into_response(),
    };
    if user.role < gate.role {
        let (has, takes) = (user.role, gate.role);
        let message = format!("the role `{has}` of `{}` may not do this; it takes `{takes}`", user.name);
        return gate.answer(&user, gate.forbidden(message));
    }
    if let Some(limits) = &user.workflows
        && !names_one_of(limits, &gate.site, &params).await
    {
        let names: Vec<String> = limits.iter().map(|id| format!("`{id}`")).collect();
        return gate.forbidden(format!("this token is only good for the workflows {}", names.join(", ")));
    }
    request.extensions_mut().insert(user.clone());
    gate.answer(&user, next.run(request).await)
}

/// Who sends a request to an address that nobody guards, if it is known.
pub async fn reader(site: &Site, from: Peer, headers: &HeaderMap) -> Option<User> {
    user_of(site, from, headers).await.ok().flatten()
}

/// Whether the path names one of these workflows, or a run of one. A run that is not there and one of another workflow
/// look the same.
async fn names_one_of(limits: &[WorkflowId], site: &Site, params: &RawPathParams) -> bool {
    for (name, value) in params {
        let allowed = match name {
            "dag" | "dag_id" | "workflow" => limits.iter().any(|id| id.as_str() == value),
            "run_key" => match value.parse() {
                Ok(key) => {
                    matches!(site.app.store.run(RunKey(key)).await, Ok(Some(run)) if limits.contains(&run.workflow))
                }
                Err(_) => false,
            },
            _ => continue,
        };
        return allowed;
    }
    false
}

/// Nobody is logged in: programs learn how to say who they are, browsers go to the login.
fn unknown(gate: &Gate, request: &Request) -> Response {
    let uri = request.uri();
    // A link to a file of a run leads to the API, and people open it like a page.
    let opens_link = request.headers().get("sec-fetch-dest").is_some_and(|goal| goal == "document");
    let is_page = gate.surface == Surface::Pages && !uri.path().starts_with("/live/");
    if request.method() == Method::GET && (is_page || opens_link) {
        let wanted = uri.path_and_query().map_or("/", |path| path.as_str());
        return Redirect::to(&format!("/login?next={}", links::encode(wanted))).into_response();
    }
    match gate.surface {
        Surface::Api => {
            let error = ApiError::Status(StatusCode::UNAUTHORIZED, "Not authenticated".to_owned());
            ([(header::WWW_AUTHENTICATE, "Bearer")], error).into_response()
        }
        Surface::Pages => PageError::new(StatusCode::UNAUTHORIZED, "Log in first.").into_response(),
    }
}

impl Gate {
    /// An error of the pages has their navigation.
    fn answer(&self, user: &User, response: Response) -> Response {
        match self.surface {
            Surface::Api => response,
            Surface::Pages => with_navigation(&self.site, user, response),
        }
    }

    fn forbidden(&self, message: String) -> Response {
        match self.surface {
            Surface::Api => ApiError::Status(StatusCode::FORBIDDEN, message).into_response(),
            Surface::Pages => PageError::new(StatusCode::FORBIDDEN, message).into_response(),
        }
    }
}
