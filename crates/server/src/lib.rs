//! The HTTP server: Airflow's REST API, our own beside it, and the pages.
//!
//! Handlers read the store and ask the scheduler; they decide nothing, and two requests share nothing but the two.
//! Nothing here runs while nobody asks: a live page is a connection that waits for changes, and ends with it.

mod auth;
mod error;
mod hooks;
mod input;
mod live;
mod oidc;
mod openapi;
mod own;
mod pass_on;
mod rest;
mod routes;
#[cfg(test)]
mod tests;
mod view;
mod web;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use pitcrew_core::RunKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

pub use auth::{ADMIN, AuthConfig, User, manage};
use auth::{Auth, Role};
use error::ApiError;
pub use input::parse_time;
pub use own::nodes::audit as node_audit;
pub use own::workers::{
    NEVER, audit as worker_audit, fresh_credential, fresh_token as fresh_worker_token, token_view as worker_token_view,
};
use routes::{Access, Routes};
use web::figures::FigureCache;

use pitcrew_control::app::App;
use pitcrew_control::base_url::BaseUrl;
use pitcrew_control::cluster::Leader;
use pitcrew_control::cluster::files::Elsewhere;
use pitcrew_control::config::Settings;
use pitcrew_control::links;
use pitcrew_control::{clock, metrics};

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 2 << 20;
/// How long open requests may take after the server was told to end.
const DRAIN: Duration = Duration::from_secs(3);
/// How long a server that does not lead shows what happens by itself.
const TAKEOVER: Duration = Duration::from_secs(2);
/// How long the link on the terminal works.
const LINK: SignedDuration = SignedDuration::from_mins(30);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The address that the listener has.
    pub listen: SocketAddr,
    pub auth: AuthConfig,
    /// Names besides `localhost` under which browsers reach a server that listens on loopback, `name` or `name:port`.
    pub hosts: Vec<String>,
    /// Whether `/metrics` answers without a token.
    pub metrics_open: bool,
    /// What the server was started with, to be shown.
    pub settings: Settings,
}

/// What every handler gets. It is cloned for each layer of each connection, of which there may be thousands: so it is one
/// pointer.
#[derive(Clone)]
pub struct Site(Arc<Shared>);

#[derive(Clone)]
pub struct Shared {
    pub app: App,
    auth: Auth,
    listen: SocketAddr,
    hosts: Arc<[String]>,
    pub base_url: BaseUrl,
    proxies: Arc<[IpAddr]>,
    metrics_open: bool,
    settings: Arc<Settings>,
    figures: FigureCache,
    /// Where users may log in instead of here.
    provider: Option<Arc<oidc::Provider>>,
    /// Live pages end when the server does.
    closing: CancellationToken,
    /// What is being watched.
    live: live::Hub,
    /// To the server that leads, where this one does not.
    wire: Arc<pass_on::Wire>,
}

impl std::ops::Deref for Site {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Answers `GET /metrics`.
async fn exposition(State(site): State<Site>) -> Response {
    ([(CONTENT_TYPE, metrics::TEXT_FORMAT)], metrics::exposition(&site.app).await).into_response()
}

#[cfg(test)]
impl std::ops::DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Shared {
        Arc::make_mut(&mut self.0)
    }
}

impl Site {
    fn of(shared: Shared) -> Site {
        Site(Arc::new(shared))
    }

    /// Returns when the files of a run are here that other servers have; a server that does not lead shows what it has.
    pub async fn has_files(&self, run: RunKey) -> error::ApiResult<()> {
        let homed = self.app.backends.homed().filter(|_| self.app.scheduler.leads());
        let Some(homed) = homed else { return Ok(()) };
        let missing = |why: Elsewhere| {
            let status = match why {
                Elsewhere::Later(_) => StatusCode::SERVICE_UNAVAILABLE,
                // Whoever asks again and again, as workers do, is to stop.
                Elsewhere::Gone(_) => StatusCode::GONE,
            };
            error::ApiError::Status(status, why.to_string())
        };
        homed.files().here(run).await.map_err(missing)
    }

    /// Whether other servers have files of a run that are not here, as far as that is written down.
    pub async fn lacks_files(&self, run: RunKey) -> error::ApiResult<bool> {
        match self.app.backends.homed() {
            Some(homed) => Ok(homed.files().lacks(run).await?),
            None => Ok(false),
        }
    }

    /// Resolves when streams of what happens are to end: the server ends, or what happens, happens elsewhere. Whoever
    /// comes back is then passed on to the server that leads.
    fn stream_ends(&self) -> impl Future<Output = ()> + Send + use<> {
        let (closing, mut standing) = (self.closing.clone(), self.app.scheduler.standing());
        async move {
            let moved = async {
                // It may be about to lead.
                let _ = tokio::time::timeout(TAKEOVER, standing.wait_for(|leads| *leads)).await;
                let _ = standing.wait_for(|leads| !*leads).await;
            };
            tokio::select! {
                () = closing.cancelled_owned() => {}
                () = moved => {}
            }
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        if !self.listen.ip().is_loopback() {
            return true;
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(port)),
            _ => (host, None),
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = name.eq_ignore_ascii_case("localhost")
            || name.to_ascii_lowercase().ends_with(".localhost")
            || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_named = |allowed: &String| allowed == host || (port.is_some() && allowed == name);
        is_loopback || host.eq_ignore_ascii_case(self.base_url.authority()) || self.hosts.iter().any(is_named)
    }
}

/// A server that is bound to its address and answers once it [runs](Server::run).
pub struct Server {
    site: Site,
    listener: TcpListener,
    /// Where webhooks alone are taken.
    hooks: Option<TcpListener>,
    fresh_password: Option<String>,
}

impl Server {
    /// Takes the address. The error says what to do when it is taken or not ours.
    pub async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
        TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen}: is another server running there? Choose another with `--listen ADDRESS:PORT`")
        })
    }

    /// Makes the server, on an address that was bound before.
    pub async fn new(app: App, listener: TcpListener, options: ServeOptions) -> anyhow::Result<Server> {
        let ServeOptions { listen, auth, hosts, metrics_open, settings } = options;
        let base_url = settings.base_url();
        let (auth, fresh_password) = Auth::open(&app.store, &auth, listen, base_url.as_ref(), clock::now()).await?;
        let site = Site::of(Shared {
            app,
            auth,
            listen,
            hosts: hosts.into(),
            base_url: base_url.unwrap_or_else(|| BaseUrl::of(listen)),
            proxies: settings.proxies().into(),
            provider: oidc::open(settings.oidc()?)?.map(Arc::new),
            metrics_open,
            settings: Arc::new(settings),
            figures: FigureCache::default(),
            closing: CancellationToken::new(),
            live: live::Hub::default(),
            wire: Arc::default(),
        });
        Ok(Server { site, listener, hooks: None, fresh_password })
    }

    /// Takes webhooks at another address too, where nothing else is answered.
    pub fn with_hooks(self, listener: TcpListener) -> Server {
        Server { hooks: Some(listener), ..self }
    }

    /// Where browsers find it: `http://127.0.0.1:8080`.
    pub fn base_url(&self) -> String {
        self.site.base_url.to_string()
    }

    /// What other servers are to know when this one leads.
    pub fn as_leader(&self) -> Leader {
        let listens = (!self.site.listen.ip().is_unspecified()).then(|| BaseUrl::of(self.site.listen));
        let url = self.site.settings.advertise().or(listens);
        Leader { url: url.map(|url| url.to_string()), cookie: self.site.auth.cookie_name().to_owned() }
    }

    /// The password of `admin`, if it was made now; it is shown once and cannot be found out later.
    pub fn fresh_password(&self) -> Option<&str> {
        self.fresh_password.as_deref()
    }

    /// An address that logs in whoever opens it first, within half an hour, and leads to `path`.
    pub fn login_link(&self, path: &str) -> String {
        let base = self.base_url();
        if self.site.auth.is_off() {
            return format!("{base}{path}");
        }
        let next = if path == "/" { String::new() } else { format!("&next={}", links::encode(path)) };
        match self.site.auth.issue_link(LINK, clock::now()) {
            Ok(code) => format!("{base}/login?code={code}{next}"),
            Err(_) => format!("{base}{path}"),
        }
    }

    /// Answers requests until `shutdown`; open ones get a few seconds to end.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let closing = self.site.closing.clone();
        let beside = self.hooks.map(|listener| {
            let service = hooks::alone(self.site.clone()).into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).with_graceful_shutdown(closing.clone().cancelled_owned()).into_future()
        });
        let beside = async {
            match beside {
                Some(serving) => serving.await,
                None => std::future::pending().await,
            }
        };
        let router = router(self.site);
        let asked = closing.clone();
        let signal = async move {
            shutdown.await;
            asked.cancel();
        };
        let serving = axum::serve(self.listener, router.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(signal)
            .into_future();
        let drained = async {
            closing.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = serving => Ok(ended?),
            Err(error) = beside => Err(error.into()),
            () = drained => Ok(()),
        }
    }
}

/// Every route that there is.
fn table(metrics_open: bool) -> Routes {
    let access = if metrics_open { Access::Open } else { Access::Role(Role::Viewer) };
    let scrape = Routes::api().get("/metrics", access, exposition).here();
    rest::routes()
        .merge(own::routes())
        .merge(openapi::routes())
        .merge(web::routes())
        .merge(hooks::routes())
        .merge(scrape)
}

/// Every route as a line: its method, `api` or `pages`, and its path.
pub fn routes() -> impl Iterator<Item = String> {
    let line = |info: &routes::RouteInfo| format!("{} {} {}", info.method, info.surface.name(), info.path);
    table(false).infos().map(line).collect::<Vec<_>>().into_iter()
}

/// Every route, behind what every request must pass.
fn router(site: Site) -> Router {
    // A page's events must leave at once; an artifact may be compressed already.
    let compressed = DefaultPredicate::new()
        .and(NotForContentType::const_new("application/pdf"))
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("application/x-ndjson"));
    table(site.metrics_open)
        .build(&site)
        .fallback(web::not_found)
        .method_not_allowed_fallback(async || {
            ApiError::Status(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".into())
        })
        .layer(from_fn_with_state(site.clone(), auth::check_origin))
        .layer(from_fn(rest::v1::problems))
        .layer(from_fn_with_state(site.clone(), auth::check_host))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(from_fn(auth::headers))
        .layer(from_fn_with_state(site.app.metrics.clone(), metrics::measure))
        .with_state(site)
}

/// Text for a `Content-Type`.
const TEXT: [(axum::http::HeaderName, &str); 1] = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
