//! Whether a signature counts: pure, so that every way in which it may not can be tried.
//!
//! With a key it is enough that one of the keys made it over a payload that names this digest. With a certificate, which is good
//! for ten minutes only, a log that is believed must have written down that this certificate made this signature over this
//! payload, and when: then the certificate has to have been good, and to be for somebody who is named.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::certificate;
use super::policy::{Signers, Trust, hex};

/// What a payload calls itself.
const KIND: &str = "cosign container image signature";

/// A signature as it lies beside an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// What was signed.
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// PEM.
    pub certificate: Option<String>,
    /// PEM: what stands between the certificate and a root.
    pub chain: Option<String>,
    /// JSON: what a log said of it.
    pub bundle: Option<String>,
}

/// Who it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signer {
    /// The digest of the key.
    Key(String),
    Identity {
        issuer: String,
        subject: String,
    },
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signer::Key(id) => write!(f, "the key {}", &id[..id.len().min(16)]),
            Signer::Identity { issuer, subject } => write!(f, "{subject} ({issuer})"),
        }
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    r#type: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// What a log said.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bundle {
    signed_entry_timestamp: String,
    payload: Entry,
}

/// In the order of its keys, without spaces: that is what the log signs.
#[derive(Deserialize, Serialize)]
struct Entry {
    body: String,
    #[serde(rename = "integratedTime")]
    at: u64,
    #[serde(rename = "logID")]
    log: String,
    #[serde(rename = "logIndex")]
    index: u64,
}

/// Who made this signature of the image with this digest, if it is one of those who may; else why it does not count.
pub fn check(signature: &Signature, digest: &str, signers: &Signers, trust: &Trust) -> Result<Signer, String> {
    let payload: Payload =
        serde_json::from_slice(&signature.payload).map_err(|_| "its payload is none of `cosign`".to_owned())?;
    if payload.critical.r#type != KIND {
        return Err("its payload is none of `cosign`".to_owned());
    }
    if payload.critical.image.digest != digest {
        return Err("it is of another image".to_owned());
    }
    match signers {
        Signers::Keys(keys) => keys
            .iter()
            .find(|key| key.signed(&signature.payload, &signature.signature))
            .map(|key| Signer::Key(key.id.clone()))
            .ok_or_else(|| "it was made by none of the keys of the rule".to_owned()),
        Signers::Identities(identities) => {
            let pem = signature.certificate.as_deref().ok_or("it has no certificate, so it was made with a key")?;
            let at = logged(signature, pem, trust)?;
            let leaf = CertificateDer::from_pem_slice(pem.as_bytes());
            let leaf = leaf.map_err(|_| "its certificate cannot be read".to_owned())?;
            let between = signature.chain.as_deref().unwrap_or_default();
            let between: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(between.as_bytes()).collect();
            let between = between.map_err(|_| "the chain of its certificate cannot be read".to_owned())?;
            let whose = certificate::verify(&leaf, &between, trust, at, &signature.payload, &signature.signature)?;
            if !identities.iter().any(|one| one.is(&whose.issuer, &whose.subject)) {
                return Err(format!(
                    "it was made by {} ({}), whom the rule does not name",
                    whose.subject, whose.issuer
                ));
            }
            Ok(Signer::Identity { issuer: whose.issuer, subject: whose.subject })
        }
        Signers::Anybody => Err("its rule asks for none".to_owned()),
    }
}

/// When a log that is believed wrote it down, in seconds since 1970.
fn logged(signature: &Signature, certificate: &str, trust: &Trust) -> Result<u64, String> {
    let bundle = signature.bundle.as_deref().ok_or("no log says when it was made")?;
    let bundle: Bundle =
        serde_json::from_str(bundle).map_err(|_| "what the log says of it cannot be read".to_owned())?;
    let entry = &bundle.payload;
    let log = trust.logs.iter().find(|log| log.id == entry.log);
    let log = log.ok_or_else(|| format!("the log {} is not believed", shortened(&entry.log)))?;
    let told = serde_json::to_vec(entry).map_err(|error| error.to_string())?;
    let by_log = STANDARD.decode(&bundle.signed_entry_timestamp).unwrap_or_default();
    if !log.signed(&told, &by_log) {
        return Err("the log did not sign what it is said to have written down".to_owned());
    }
    let body = STANDARD.decode(&entry.body).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let of = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let decoded = |path: &str| STANDARD.decode(of(path)).unwrap_or_default();
    let is_this = of("/kind") == "hashedrekord"
        && of("/spec/data/hash/algorithm") == "sha256"
        && of("/spec/data/hash/value") == hex(&Sha256::digest(&signature.payload))
        && decoded("/spec/signature/content") == signature.signature
        && same_certificate(&decoded("/spec/signature/publicKey/content"), certificate.as_bytes());
    if is_this { Ok(entry.at) } else { Err("what the log has written down is another signature".to_owned()) }
}

/// Their texts may differ in line ends.
fn same_certificate(one: &[u8], other: &[u8]) -> bool {
    match (CertificateDer::from_pem_slice(one), CertificateDer::from_pem_slice(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// What somebody else wrote, in an error.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_hexdigit()).take(16).collect()
}
