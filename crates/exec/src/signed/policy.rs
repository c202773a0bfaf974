//! Whose signature an image needs.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use sha2::{Digest as _, Sha256};

use super::name::{ImageName, split_registry};

/// What stands in front of the point of a P-256 key in its usual form: what kind of key it is.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The first rule that is about an image counts.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pub rules: Vec<Rule>,
    pub trust: Trust,
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub pattern: Pattern,
    pub signers: Signers,
}

/// Who may have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signers {
    /// Whoever has one of these keys.
    Keys(Vec<PublicKey>),
    /// One of those, as a certificate says.
    Identities(Vec<Identity>),
    /// Not even anybody.
    Anybody,
}

/// Somebody for whom a provider vouches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The address of the provider, exactly.
    pub issuer: String,
    /// An address of mail or of a workflow; `*` is anything.
    pub subject: String,
}

/// Whom certificates and logs are believed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Authorities that give certificates to who signs.
    pub roots: Vec<CertificateDer<'static>>,
    /// Logs that write down when something was signed.
    pub logs: Vec<PublicKey>,
}

/// A key for ECDSA on P-256, as `cosign generate-key-pair` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    point: Vec<u8>,
    /// The digest of its usual form, as logs call themselves.
    pub id: String,
}

/// Which images a rule is about: `*` is anything. Without a tag it is about all tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    with_tag: bool,
}

impl Policy {
    pub fn rule(&self, image: &ImageName) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.pattern.is_about(image))
    }
}

impl PublicKey {
    /// `-----BEGIN PUBLIC KEY-----` and so on.
    pub fn from_pem(text: &str) -> Result<PublicKey, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "it is no public key: it begins with `-----BEGIN PUBLIC KEY-----`".to_owned())?;
        PublicKey::from_der(&der)
    }

    pub fn from_der(der: &[u8]) -> Result<PublicKey, String> {
        let point = der.strip_prefix(&P256).filter(|point| point.len() == 65 && point[0] == 4);
        let point = point.ok_or("it is no key for ECDSA on P-256, as `cosign generate-key-pair` makes it")?;
        Ok(PublicKey { point: point.to_vec(), id: hex(&Sha256::digest(der)) })
    }

    /// Every key of a text.
    pub fn all_from_pem(text: &str) -> Result<Vec<PublicKey>, String> {
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
            keys.push(PublicKey::from_der(&der.map_err(|error| format!("it cannot be read: {error}"))?)?);
        }
        if keys.is_empty() { Err("it has no `-----BEGIN PUBLIC KEY-----`".to_owned()) } else { Ok(keys) }
    }

    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, &self.point);
        key.verify(message, signature).is_ok()
    }
}

impl Trust {
    pub fn add_roots(&mut self, pem: &str) -> Result<(), String> {
        let before = self.roots.len();
        for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let der = der.map_err(|error| format!("it cannot be read: {error}"))?;
            webpki::anchor_from_trusted_cert(&der).map_err(|error| format!("a certificate is none: {error}"))?;
            self.roots.push(der.into_owned());
        }
        if self.roots.len() == before { Err("it has no `-----BEGIN CERTIFICATE-----`".to_owned()) } else { Ok(()) }
    }
}

impl Identity {
    pub fn is(&self, issuer: &str, subject: &str) -> bool {
        self.issuer == issuer && fits(&self.subject, subject)
    }
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        let with_tag = text.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
        let text = match split_registry(text) {
            (_, Some(_)) => text.to_owned(),
            _ if text.starts_with('*') => text.to_owned(),
            (usual, None) if text.contains('/') => format!("{usual}/{text}"),
            (usual, None) => format!("{usual}/library/{text}"),
        };
        Pattern { text, with_tag }
    }

    /// A rule for a tag is not about an image by its digest: nothing says that this is, or ever was, that tag's.
    pub fn is_about(&self, image: &ImageName) -> bool {
        if !self.with_tag {
            return fits(&self.text, &image.bare());
        }
        image.digest.is_none() && fits(&self.text, &format!("{}:{}", image.bare(), image.reference()))
    }
}

/// `*` is any number of any letters.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_about_whole_names() {
        for (pattern, image, is) in [
            ("registry.example.com/ml/*", "registry.example.com/ml/train:1", true),
            ("registry.example.com/ml/*", "registry.example.com/mlx/train", false),
            ("registry.example.com/ml/*", "registry.example.com.evil.example/ml/train", false),
            ("registry.example.com/*", "other.example.com/registry.example.com/x", false),
            ("*", "busybox", true),
            ("*/train", "a.example/x/train:2", true),
            ("*/train", "a.example/x/retrain", false),
            ("busybox", "busybox:9", true),
            ("busybox", "a.example/busybox", false),
            ("team/*", "docker.io/team/a", true),
            ("busybox:local", "busybox:local", true),
            ("busybox:local", "busybox:other", false),
            ("a.example/b:1.*", "a.example/b:1.2", true),
            ("a.example:5000/b", "a.example:5000/b:7", true),
            ("a*b*c", "docker.io/library/abc", true),
            ("a*b*c", "docker.io/team/abc", false),
        ] {
            assert_eq!(Pattern::new(pattern).is_about(&image.parse().unwrap()), is, "{pattern} {image}");
        }
        let by_digest = format!("busybox:local@sha256:{}", "0".repeat(64));
        assert!(!Pattern::new("busybox:local").is_about(&by_digest.parse().unwrap()));
        assert!(fits("a*b*c", "a-b-b-c") && !fits("a*b*c", "a-c") && !fits("ab*ba", "aba") && fits("", ""));
    }

    #[test]
    fn what_is_no_key_is_said() {
        assert!(PublicKey::from_pem("x").unwrap_err().contains("BEGIN PUBLIC KEY"));
        assert!(PublicKey::from_der(&[0x30, 0x59]).unwrap_err().contains("P-256"));
        assert!(Trust::default().add_roots("x").unwrap_err().contains("BEGIN CERTIFICATE"));
    }
}
