//! Talks to the provider: where its addresses are, which keys it has, and what it says about a login.
//!
//! What it publishes is remembered for an hour; a token that was signed with a key that nobody has seen makes us look
//! again, so new keys count at once. Only what the configured issuer says is believed, over TLS unless it is on this
//! machine, and of its answers only so much is read.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use pitcrew_control::provider::address_of;
use reqwest::{Client, RequestBuilder, Url, redirect};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::OidcConfig;
use super::id_token::{Expected, Keys, Wrong};

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 1 << 20;
const FRESH: SignedDuration = SignedDuration::from_hours(1);

/// The provider, as far as it was asked.
pub struct Provider {
    config: OidcConfig,
    http: Client,
    known: Mutex<Option<Known>>,
}

struct Known {
    at: Timestamp,
    places: Places,
    keys: Keys,
}

/// Addresses that the provider publishes.
#[derive(Clone)]
pub struct Places {
    pub authorization: Url,
    token: Url,
    userinfo: Option<Url>,
    keys: Url,
    /// It takes the secret in the body only.
    secret_in_body: bool,
}

impl Provider {
    pub fn new(config: OidcConfig) -> anyhow::Result<Provider> {
        let http = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build()?;
        Ok(Provider { config, http, known: Mutex::default() })
    }

    pub fn config(&self) -> &OidcConfig {
        &self.config
    }

    /// Where a login begins.
    pub async fn places(&self, now: Timestamp) -> anyhow::Result<Places> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| now.duration_since(known.at).abs() < FRESH) {
            return Ok(known.places.clone());
        }
        let fresh = self.discover(now).await?;
        Ok(known.insert(fresh).places.clone())
    }

    async fn discover(&self, now: Timestamp) -> anyhow::Result<Known> {
        let issuer = &self.config.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.ask(self.http.get(address)).await.context("cannot read what the provider publishes")?;
        if document["issuer"] != issuer.as_str() {
            bail!(
                "the provider calls itself {}, and `oidc_issuer` says `{issuer}`: they must be the same",
                document["issuer"]
            );
        }
        let place = |name: &str| -> anyhow::Result<Url> {
            let text = document[name].as_str().with_context(|| format!("the provider publishes no `{name}`"))?;
            address_of(text).with_context(|| format!("the provider's `{name}` cannot be used"))
        };
        let methods = document["token_endpoint_auth_methods_supported"].as_array();
        let takes = |method: &str| methods.is_some_and(|all| all.iter().any(|one| one == method));
        let places = Places {
            authorization: place("authorization_endpoint")?,
            token: place("token_endpoint")?,
            userinfo: document.get("userinfo_endpoint").map(|_| place("userinfo_endpoint")).transpose()?,
            keys: place("jwks_uri")?,
            secret_in_body: takes("client_secret_post") && !takes("client_secret_basic"),
        };
        let keys = self.keys(&places).await?;
        Ok(Known { at: now, places, keys })
    }

    async fn keys(&self, places: &Places) -> anyhow::Result<Keys> {
        let set = self.ask(self.http.get(places.keys.clone())).await.context("cannot read the provider's keys")?;
        Ok(Keys::new(&set))
    }

    /// What the provider says of whoever brought this code back; `verifier` proves that we asked for it.
    pub async fn redeem(
        &self,
        code: &str,
        verifier: &str,
        nonce: &str,
        redirect: &str,
        now: Timestamp,
    ) -> anyhow::Result<Map<String, Value>> {
        let places = self.places(now).await?;
        let config = &self.config;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        let mut request = self.http.post(places.token.clone());
        match &config.client_secret {
            Some(secret) if places.secret_in_body => {
                form.extend([("client_id", config.client_id.as_str()), ("client_secret", secret.as_str())]);
            }
            Some(secret) => {
                // The standard wants both encoded as in a form before they are joined.
                let encoded = |text: &str| pitcrew_control::links::encode(text);
                request = request.basic_auth(encoded(&config.client_id), Some(encoded(secret)));
            }
            None => form.push(("client_id", config.client_id.as_str())),
        }
        let answer = self.ask(request.form(&form)).await.context("the provider gave no token for the login")?;
        let token =
            answer["id_token"].as_str().context("the provider gave no ID token: is `openid` among `oidc_scopes`?")?;
        let mut claims = self.verify(token, nonce, now).await?;
        // Many providers put names and groups only here.
        if let (Some(place), Some(access)) = (&places.userinfo, answer["access_token"].as_str()) {
            let more = self.ask(self.http.get(place.clone()).bearer_auth(access)).await;
            let more = more.context("the provider does not say who logged in")?;
            if more["sub"] != claims["sub"] {
                bail!("the provider says two things about who logged in");
            }
            if let Value::Object(more) = more {
                for (name, value) in more {
                    claims.entry(name).or_insert(value);
                }
            }
        }
        Ok(claims)
    }

    async fn verify(&self, token: &str, nonce: &str, now: Timestamp) -> anyhow::Result<Map<String, Value>> {
        let expected = Expected { issuer: &self.config.issuer, client_id: &self.config.client_id, nonce };
        let mut known = self.known.lock().await;
        let Some(known) = known.as_mut() else { bail!("nothing is known of the provider") };
        let first = known.keys.verify(token, &expected, now);
        let verified = match first {
            Err(Wrong::UnknownKey) => {
                known.keys = self.keys(&known.places).await?;
                known.keys.verify(token, &expected, now)
            }
            other => other,
        };
        verified.map_err(|wrong| match wrong {
            Wrong::UnknownKey => {
                anyhow::anyhow!("the ID token was signed with a key that the provider does not publish")
            }
            Wrong::Other(why) => anyhow::anyhow!("the provider cannot be believed: {why}"),
        })
    }

    /// The JSON of an answer. What the provider says is wrong is part of the error, what we sent is not.
    async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let answer = request.header("accept", "application/json").send().await;
        let answer = answer.map_err(|error| anyhow::anyhow!("{:#}", anyhow::Error::from(error.without_url())))?;
        let status = answer.status();
        let mut body = Vec::new();
        let mut stream = answer.bytes_stream();
        while let Some(chunk) = stream.next().await {
            body.extend_from_slice(&chunk.map_err(reqwest::Error::without_url)?);
            if body.len() > MAX_ANSWER {
                bail!("it answered with more than {MAX_ANSWER} bytes");
            }
        }
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            let said = value["error_description"].as_str().or(value["error"].as_str()).unwrap_or_default();
            bail!("it answered {status} {}", said.chars().take(200).collect::<String>());
        }
        if !value.is_object() {
            bail!("it answered with something that is not a JSON object");
        }
        Ok(value)
    }
}
