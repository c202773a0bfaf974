//! Checks ID tokens: signed by a key of the provider, made for us, for this login, and not expired.
//!
//! Keys and signatures are the business of `ring`; a client library for OpenID Connect would bring forty crates to do
//! the same. Only algorithms with public keys are known here, so `none`, or our own secret as a key, cannot be chosen
//! by whoever writes a token; and a key is used only with the algorithms of its kind.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use ring::signature::{self as sig, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

/// How far the clocks of the provider and this machine may be apart, in seconds.
const SKEW: i64 = 60;

/// What is asked of a token.
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
}

/// Why a token is not believed.
#[derive(Debug, PartialEq)]
pub enum Wrong {
    /// No key of the provider has this name: it may have new ones.
    UnknownKey,
    Other(&'static str),
}

const MALFORMED: Wrong = Wrong::Other("its ID token is malformed");

/// The public keys of a provider, as it publishes them.
#[derive(Debug, Default)]
pub struct Keys(Vec<Value>);

impl Keys {
    /// Out of a JSON Web Key Set.
    pub fn new(set: &Value) -> Keys {
        Keys(set["keys"].as_array().cloned().unwrap_or_default())
    }

    /// The claims of a token that is right in every respect.
    pub fn verify(&self, token: &str, expected: &Expected, now: Timestamp) -> Result<Map<String, Value>, Wrong> {
        let claims = self.open(token)?;
        check(&claims, expected, now).map_err(Wrong::Other)?;
        Ok(claims)
    }

    /// The claims of a token that one of the keys signed.
    fn open(&self, token: &str) -> Result<Map<String, Value>, Wrong> {
        let (text, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, body) = text.split_once('.').ok_or(MALFORMED)?;
        let json = |part: &str| -> Option<Value> { serde_json::from_slice(&BASE64.decode(part).ok()?).ok() };
        let (Some(header), Some(Value::Object(claims)), Ok(signature)) =
            (json(header), json(body), BASE64.decode(signature))
        else {
            return Err(MALFORMED);
        };
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let id = header["kid"].as_str();
        let mut fitting = self.0.iter().filter(|key| is_for(key, algorithm, id)).peekable();
        if fitting.peek().is_none() {
            return Err(Wrong::UnknownKey);
        }
        match fitting.any(|key| is_signed_by(key, algorithm, text.as_bytes(), &signature)) {
            true => Ok(claims),
            false => Err(Wrong::Other("its ID token has a wrong signature")),
        }
    }
}

/// Whether a key is one that signs with that algorithm, and has the name that a token gives.
fn is_for(key: &Value, algorithm: &str, id: Option<&str>) -> bool {
    let kind = match algorithm {
        "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => ("RSA", None),
        "ES256" => ("EC", Some("P-256")),
        "ES384" => ("EC", Some("P-384")),
        "EdDSA" => ("OKP", Some("Ed25519")),
        _ => return false,
    };
    let fits = |name: &str, value: &str| key[name].as_str().is_none_or(|text| text == value);
    key["kty"] == kind.0
        && kind.1.is_none_or(|curve| key["crv"] == curve)
        && fits("use", "sig")
        && fits("alg", algorithm)
        && id.is_none_or(|id| key["kid"] == id)
}

fn is_signed_by(key: &Value, algorithm: &str, text: &[u8], signature: &[u8]) -> bool {
    let part = |name: &str| BASE64.decode(key[name].as_str().unwrap_or_default()).unwrap_or_default();
    let rsa = |params| RsaPublicKeyComponents { n: part("n"), e: part("e") }.verify(params, text, signature).is_ok();
    let other = |algorithm: &'static dyn VerificationAlgorithm, bytes: Vec<u8>| {
        UnparsedPublicKey::new(algorithm, bytes).verify(text, signature).is_ok()
    };
    // An uncompressed point.
    let point = || [vec![4], part("x"), part("y")].concat();
    match algorithm {
        "RS256" => rsa(&sig::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => rsa(&sig::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => rsa(&sig::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => rsa(&sig::RSA_PSS_2048_8192_SHA256),
        "PS384" => rsa(&sig::RSA_PSS_2048_8192_SHA384),
        "PS512" => rsa(&sig::RSA_PSS_2048_8192_SHA512),
        "ES256" => other(&sig::ECDSA_P256_SHA256_FIXED, point()),
        "ES384" => other(&sig::ECDSA_P384_SHA384_FIXED, point()),
        "EdDSA" => other(&sig::ED25519, part("x")),
        _ => false,
    }
}

fn check(claims: &Map<String, Value>, expected: &Expected, now: Timestamp) -> Result<(), &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let (is_for_us, is_for_others) = match claims.get("aud") {
        Some(Value::String(one)) => (one == expected.client_id, false),
        Some(Value::Array(all)) => (all.iter().any(|one| one == expected.client_id), all.len() > 1),
        _ => (false, false),
    };
    let now = now.as_second();
    let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default() as i64;
    let issued = claims.get("iat").and_then(Value::as_f64).unwrap_or_default() as i64;
    match () {
        () if text("iss") != Some(expected.issuer) => Err("its ID token names another issuer"),
        () if !is_for_us => Err("its ID token was made for another client"),
        () if is_for_others && text("azp") != Some(expected.client_id) => {
            Err("its ID token was asked for by another client")
        }
        () if expires.saturating_add(SKEW) <= now => Err("its ID token has expired"),
        () if issued.saturating_sub(SKEW) > now => Err("its ID token is from the future: compare the clocks"),
        () if text("nonce") != Some(expected.nonce) => Err("its ID token is of another login"),
        () if text("sub").is_none_or(str::is_empty) => Err("its ID token names nobody"),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    const EXPECTED: Expected = Expected { issuer: "https://id.example", client_id: "pitcrew", nonce: "n" };

    struct Provider(EcdsaKeyPair);

    impl Provider {
        fn new() -> Provider {
            let document =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &SystemRandom::new());
            Provider(pair.unwrap())
        }

        fn key(&self, id: &str) -> Value {
            let point = &self.0.public_key().as_ref()[1..];
            let (x, y) = point.split_at(32);
            json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": BASE64.encode(x), "y": BASE64.encode(y) })
        }

        fn sign(&self, header: Value, claims: &Value) -> String {
            let part = |value: &Value| BASE64.encode(value.to_string());
            let text = format!("{}.{}", part(&header), part(claims));
            let signature = self.0.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
            format!("{text}.{}", BASE64.encode(signature))
        }
    }

    fn claims() -> Value {
        json!({ "iss": "https://id.example", "aud": "pitcrew", "sub": "1", "nonce": "n", "iat": 1000, "exp": 2000 })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_believed_if_a_known_key_signed_it() {
        let (provider, other) = (Provider::new(), Provider::new());
        let keys = Keys::new(&json!({ "keys": [other.key("b"), provider.key("a")] }));
        let header = json!({ "alg": "ES256", "kid": "a" });
        let token = provider.sign(header.clone(), &claims());
        assert_eq!(keys.verify(&token, &EXPECTED, at(1500)).unwrap()["sub"], "1");
        let forged = other.sign(header, &claims());
        assert_eq!(keys.verify(&forged, &EXPECTED, at(1500)), Err(Wrong::Other("its ID token has a wrong signature")));
        let rotated = provider.sign(json!({ "alg": "ES256", "kid": "c" }), &claims());
        assert_eq!(keys.verify(&rotated, &EXPECTED, at(1500)), Err(Wrong::UnknownKey));
    }

    #[test]
    fn no_token_can_choose_a_weaker_way_to_be_checked() {
        let provider = Provider::new();
        let keys = Keys::new(&json!({ "keys": [provider.key("a")] }));
        for algorithm in ["none", "HS256", "RS256", "ES384", "es256", ""] {
            let token = provider.sign(json!({ "alg": algorithm, "kid": "a" }), &claims());
            assert_eq!(keys.verify(&token, &EXPECTED, at(1500)), Err(Wrong::UnknownKey), "{algorithm}");
        }
        for rubbish in ["", ".", "..", "a.b.c", "ä.ö.ü", "e30.e30."] {
            assert!(keys.verify(rubbish, &EXPECTED, at(1500)).is_err(), "{rubbish}");
        }
        let encrypts = {
            let mut key = provider.key("a");
            key["use"] = json!("enc");
            key
        };
        let token = provider.sign(json!({ "alg": "ES256", "kid": "a" }), &claims());
        assert_eq!(
            Keys::new(&json!({ "keys": [encrypts] })).verify(&token, &EXPECTED, at(1500)),
            Err(Wrong::UnknownKey)
        );
        assert_eq!(Keys::new(&json!(null)).verify(&token, &EXPECTED, at(1500)), Err(Wrong::UnknownKey));
    }

    #[test]
    fn claims_must_be_of_this_provider_for_us_now_and_for_this_login() {
        let checked = |change: &dyn Fn(&mut Value), now: i64| {
            let mut claims = claims();
            change(&mut claims);
            let Value::Object(claims) = claims else { unreachable!() };
            check(&claims, &EXPECTED, at(now))
        };
        assert_eq!(checked(&|_| {}, 1500), Ok(()));
        assert_eq!(checked(&|c| c["aud"] = json!(["pitcrew"]), 1500), Ok(()));
        assert!(checked(&|c| c["aud"] = json!(["pitcrew", "other"]), 1500).unwrap_err().contains("another client"));
        assert_eq!(checked(&|c| (c["aud"], c["azp"]) = (json!(["pitcrew", "b"]), json!("pitcrew")), 1500), Ok(()));
        assert!(checked(&|c| c["aud"] = json!("other"), 1500).unwrap_err().contains("another client"));
        assert!(checked(&|c| c["iss"] = json!("https://evil.example"), 1500).unwrap_err().contains("issuer"));
        assert!(checked(&|c| c["nonce"] = json!("other"), 1500).unwrap_err().contains("another login"));
        assert!(checked(&|c| drop(c.as_object_mut().unwrap().remove("nonce")), 1500).unwrap_err().contains("login"));
        assert!(checked(&|c| c["sub"] = json!(""), 1500).unwrap_err().contains("nobody"));
        assert!(checked(&|_| {}, 2060).unwrap_err().contains("expired"));
        assert_eq!(checked(&|_| {}, 2059), Ok(()));
        assert!(checked(&|c| c["exp"] = json!("never"), 1500).unwrap_err().contains("expired"));
        assert!(checked(&|_| {}, 900).unwrap_err().contains("future"));
    }
}
