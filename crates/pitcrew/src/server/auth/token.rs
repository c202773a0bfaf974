//! Signed tokens: JSON Web Tokens with HMAC-SHA256, because clients expect to be able to read when they expire.
//!
//! Only the one algorithm is accepted, whatever a token's header says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use pitcrew_core::WorkflowId;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Role;

/// What a token is good for; one for a page opens no API and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    Api,
    Session,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: String,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<WorkflowId>>,
    #[serde(rename = "use")]
    pub purpose: Use,
    /// Unix seconds.
    pub iat: i64,
    pub exp: i64,
    pub jti: String,
}

/// The key that signs; never shown.
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Derived from the store's key and the password's hash, so that it changes with the password.
    pub fn new(key: &str, password_hash: &str) -> Self {
        let start = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        let derived = start(key.as_bytes()).chain_update(password_hash).finalize().into_bytes();
        SigningKey(start(&derived))
    }

    pub fn sign(&self, claims: &Claims) -> String {
        let header = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let body = BASE64.encode(serde_json::to_vec(claims).expect("claims are plain JSON"));
        let text = format!("{header}.{body}");
        let signature = BASE64.encode(self.0.clone().chain_update(&text).finalize().into_bytes());
        format!("{text}.{signature}")
    }

    /// The claims of a token that this key signed and that has not expired.
    pub fn open(&self, token: &str, now: Timestamp) -> Option<Claims> {
        let (text, signature) = token.rsplit_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        self.0.clone().chain_update(text).verify_slice(&signature).ok()?;
        let (_, body) = text.split_once('.')?;
        let claims: Claims = serde_json::from_slice(&BASE64.decode(body).ok()?).ok()?;
        (claims.exp > now.as_second()).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            sub: "admin".into(),
            role: Role::Admin,
            workflows: None,
            purpose: Use::Api,
            iat: 0,
            exp: 100,
            jti: "1".into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let key = SigningKey::new("k", "p");
        let token = key.sign(&claims());
        assert_eq!(key.open(&token, at(99)), Some(claims()));
        assert_eq!(key.open(&token, at(100)), None);
    }

    #[test]
    fn a_token_that_was_changed_or_signed_with_another_key_is_refused() {
        let key = SigningKey::new("k", "p");
        let token = key.sign(&claims());
        let forged = BASE64.encode(r#"{"sub":"admin","role":"admin","use":"api","iat":0,"exp":999,"jti":"1"}"#);
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(key.open(&format!("{}.{forged}.{}", parts[0], parts[2]), at(1)), None);
        assert_eq!(key.open(&format!("{}.{}.", parts[0], parts[1]), at(1)), None);
        assert_eq!(SigningKey::new("k", "new password").open(&token, at(1)), None);
        for rubbish in ["", ".", "..", "a.b.c", "ä.ö.ü"] {
            assert_eq!(key.open(rubbish, at(1)), None);
        }
    }
}
