//! Logging in at a provider of OpenID Connect: authorization code with PKCE, state and nonce.
//!
//! What a login under way needs is in a signed cookie of the browser that began it, so any server of several can end
//! it, and only in that browser. See [`id_token`] for what is believed, [`account`] for who somebody then is.

mod account;
mod id_token;
mod provider;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::SignedDuration;
use pitcrew_control::clock;
use pitcrew_control::provider::{OidcConfig, address_of};
use pitcrew_control::vault::random;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use account::NotIn;
pub use provider::Provider;

use super::Site;
use super::auth::{self, Peer, User};
use super::input::Query;
use super::web::page::{PageError, PageResult};

/// How long a login may take.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
const CALLBACK: &str = "/login/oidc/callback";

/// A login under way, as the browser keeps it.
#[derive(Serialize, Deserialize)]
struct Underway {
    #[serde(rename = "use")]
    purpose: auth::Use,
    state: String,
    nonce: String,
    verifier: String,
    next: String,
    exp: i64,
}

/// Leads to the provider.
pub async fn begin(State(site): State<Site>, query: Query) -> PageResult<Response> {
    let provider = provider(&site)?;
    let now = clock::now();
    let places = provider.places(now).await.map_err(unreachable_provider)?;
    let chance = || Ok::<_, anyhow::Error>(BASE64.encode(random::<32>()?));
    let underway = Underway {
        purpose: auth::Use::SignIn,
        state: chance()?,
        nonce: chance()?,
        verifier: chance()?,
        next: auth::local(query.text("next").unwrap_or("/")),
        exp: (now + PATIENCE).as_second(),
    };
    let config = provider.config();
    let mut address = places.authorization;
    address.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", config.client_id.as_str()),
        ("redirect_uri", redirect_uri(&site).as_str()),
        ("scope", config.scopes.as_str()),
        ("state", underway.state.as_str()),
        ("nonce", underway.nonce.as_str()),
        ("code_challenge", BASE64.encode(Sha256::digest(&underway.verifier)).as_str()),
        ("code_challenge_method", "S256"),
    ]);
    let cookie = site.auth.set_cookie(COOKIE, &site.auth.sign(&underway), "/", PATIENCE.as_secs());
    Ok(with_cookie(Redirect::to(address.as_str()).into_response(), &cookie))
}

/// The provider leads back here.
pub async fn finish(
    State(site): State<Site>,
    Peer(from): Peer,
    headers: HeaderMap,
    query: Query,
) -> PageResult<Response> {
    let provider = provider(&site)?;
    let now = clock::now();
    let underway: Option<Underway> = site.auth.side_cookie(&headers, COOKIE).and_then(|text| site.auth.read(text));
    let fits = |login: &Underway| {
        login.purpose == auth::Use::SignIn
            && login.exp > now.as_second()
            && query.text("state") == Some(login.state.as_str())
            && query.text("iss").is_none_or(|issuer| issuer == provider.config().issuer)
    };
    let forget = site.auth.set_cookie(COOKIE, "", "/", 0);
    let refuse = |why: &str| Ok(with_cookie(auth::refused_form(&site, why), &forget));
    let Some(login) = underway.filter(fits) else {
        return refuse("This login was not begun here, or took too long. Try again.");
    };
    let Some(code) = query.text("code") else {
        let said: String =
            query.text("error_description").or(query.text("error")).unwrap_or("nothing").chars().take(200).collect();
        return refuse(&format!("The provider did not let you in: {said}"));
    };
    let claims = provider.redeem(code, &login.verifier, &login.nonce, &redirect_uri(&site), now).await;
    let claims = claims.map_err(unreachable_provider)?;
    let row = match account::find(&site.app.store, provider.config(), &claims, now).await {
        Ok(row) => row,
        Err(NotIn::Store(error)) => return Err(error.into()),
        Err(NotIn::Refused(why)) => return refuse(&format!("You were not let in: {why}.")),
    };
    site.auth.changed();
    site.auth.signed_in(&row, "oidc", from, now).await?;
    Ok(with_cookie(auth::enter(&site, &User::of(&row), &login.next), &forget))
}

/// Beside the cookie of the login.
const COOKIE: &str = "_oidc";

fn provider(site: &Site) -> PageResult<&Provider> {
    let missing = || PageError::not_found("No provider of logins is configured.");
    site.provider.as_deref().ok_or_else(missing)
}

fn redirect_uri(site: &Site) -> String {
    format!("{}{CALLBACK}", site.base_url)
}

/// The operator is told everything, whoever logs in only that it is not their fault.
fn unreachable_provider(error: anyhow::Error) -> PageError {
    tracing::warn!("a login at the provider failed: {error:#}");
    let message = "The provider of logins did not answer as it should; the server's log says why.";
    PageError::new(axum::http::StatusCode::BAD_GATEWAY, message)
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The provider that settings name, if they do; problems are told before the server starts.
pub fn open(config: Option<OidcConfig>) -> anyhow::Result<Option<Provider>> {
    let Some(config) = config else { return Ok(None) };
    address_of(&config.issuer).context("`oidc_issuer` cannot be used")?;
    if !config.scopes.split(' ').any(|scope| scope == "openid") {
        anyhow::bail!("`oidc_scopes` must have `openid` among them, found `{}`", config.scopes);
    }
    if config.roles.is_empty() && config.default_role.is_none() {
        anyhow::bail!("nobody could log in at the provider: set `oidc_roles`, or `oidc_default_role`");
    }
    Ok(Some(Provider::new(config)?))
}
