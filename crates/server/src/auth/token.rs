//! What proves who somebody is without a password: signed tokens for some hours, and API tokens for as long as wanted.
//!
//! Signed ones are JSON Web Tokens with HMAC-SHA256, because clients expect to be able to read when they expire; only
//! the one algorithm is accepted, whatever a token's header says. They carry the user's epoch, so raising it ends them.
//! API tokens are 200 random bits, `pct_…`; the store has their SHA-256, which so much chance makes enough.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::password;

/// What every API token begins with, so that people and scanners of secrets know one when they see it.
pub const PREFIX: &str = "pct_";

/// What a signed token is good for; one for a page opens no API and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    Api,
    Session,
    /// A login at the provider that is under way.
    SignIn,
}

/// What a signed token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: String,
    #[serde(rename = "use")]
    pub purpose: Use,
    /// Of the user when it was signed.
    pub epoch: i64,
    /// Unix seconds.
    pub iat: i64,
    pub exp: i64,
    pub jti: String,
}

/// The key that signs; never shown.
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    pub fn new(key: &str) -> Self {
        SigningKey(Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length"))
    }

    pub fn sign(&self, claims: &impl Serialize) -> String {
        let header = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let body = BASE64.encode(serde_json::to_vec(claims).expect("claims are plain JSON"));
        let text = format!("{header}.{body}");
        let signature = BASE64.encode(self.mac(&text));
        format!("{text}.{signature}")
    }

    /// What this key signed, whatever it says; when it expires is the caller's to check.
    pub fn read<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let (text, signature) = token.rsplit_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        self.0.clone().chain_update(text).verify_slice(&signature).ok()?;
        let (_, body) = text.split_once('.')?;
        serde_json::from_slice(&BASE64.decode(body).ok()?).ok()
    }

    /// The claims of a token that this key signed for this use and that has not expired.
    pub fn open(&self, token: &str, purpose: Use, now: Timestamp) -> Option<Claims> {
        let claims: Claims = self.read(token)?;
        (claims.exp > now.as_second() && claims.purpose == purpose).then_some(claims)
    }

    /// A code over a text that nobody without the key can make.
    pub fn mac(&self, text: &str) -> Vec<u8> {
        self.0.clone().chain_update(text).finalize().into_bytes().to_vec()
    }
}

/// A new API token: its id, itself, and the hash to store.
pub fn mint() -> anyhow::Result<(String, String, String)> {
    let secret = format!("{PREFIX}{}", password::letters::<40>()?);
    let hash = hash(&secret);
    Ok((password::letters::<8>()?, secret, hash))
}

/// Under what the store knows an API token.
pub fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims { sub: "admin".into(), purpose: Use::Api, epoch: 7, iat: 0, exp: 100, jti: "1".into() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_use_until_it_expires() {
        let key = SigningKey::new("k");
        let token = key.sign(&claims());
        assert_eq!(key.open(&token, Use::Api, at(99)), Some(claims()));
        assert_eq!(key.open(&token, Use::Api, at(100)), None);
        assert_eq!(key.open(&token, Use::Session, at(99)), None);
    }

    #[test]
    fn a_token_that_was_changed_or_signed_with_another_key_is_refused() {
        let key = SigningKey::new("k");
        let open = |key: &SigningKey, token: &str| key.open(token, Use::Api, at(1));
        let token = key.sign(&claims());
        let forged = BASE64.encode(r#"{"sub":"admin","use":"api","epoch":7,"iat":0,"exp":999,"jti":"1"}"#);
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(open(&key, &format!("{}.{forged}.{}", parts[0], parts[2])), None);
        assert_eq!(open(&key, &format!("{}.{}.", parts[0], parts[1])), None);
        assert_eq!(open(&SigningKey::new("other"), &token), None);
        for rubbish in ["", ".", "..", "a.b.c", "ä.ö.ü"] {
            assert_eq!(open(&key, rubbish), None);
        }
    }

    #[test]
    fn an_api_token_is_long_random_and_stored_as_a_hash() {
        let (id, secret, hash) = mint().unwrap();
        assert!(secret.starts_with("pct_") && secret.len() == 44 && id.len() == 8 && hash.len() == 64);
        assert!(!hash.contains(&secret) && super::hash(&secret) == hash);
        assert_ne!(mint().unwrap().1, secret);
    }
}
