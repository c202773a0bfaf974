//! Certificates for who signs: whether an authority gave one, and for whom.
//!
//! Invariant: a field is read only from a certificate whose chain was found good, so what is read was written by an authority
//! that is believed. A certificate that names nobody, or several, is nobody's.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::policy::Trust;

/// Signing code.
const CODE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// Other names of whom it is for.
const NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// The provider that vouched, as sigstore's authority writes it down: a text as it is, and, newer, one with its kind.
const ISSUER: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 1];
const ISSUER_TEXT: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 8];

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
const OCTETS: u8 = 0x04;
const UTF8: u8 = 0x0c;
const EXTENSIONS: u8 = 0xa3;
const MAIL: u8 = 0x81;
const ADDRESS: u8 = 0x86;

/// For whom a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    pub issuer: String,
    pub subject: String,
}

/// Whether this key of a certificate made a signature, where an authority that is believed had given the certificate, and it
/// was good `at`, in seconds since 1970.
pub fn verify(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    trust: &Trust,
    at: u64,
    message: &[u8],
    signature: &[u8],
) -> Result<Whose, String> {
    let bad = |error: webpki::Error| format!("its certificate cannot be believed: {error}");
    let anchors: Vec<_> = trust.roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    let cert = webpki::EndEntityCert::try_from(leaf).map_err(bad)?;
    let kinds = [
        webpki::ring::ECDSA_P256_SHA256,
        webpki::ring::ECDSA_P256_SHA384,
        webpki::ring::ECDSA_P384_SHA256,
        webpki::ring::ECDSA_P384_SHA384,
    ];
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    let usage = webpki::KeyUsage::required(CODE);
    cert.verify_for_usage(&kinds, &anchors, between, at, usage, None, None).map_err(bad)?;
    let by_it = cert.verify_signature(webpki::ring::ECDSA_P256_SHA256, message, signature);
    by_it.map_err(|_| "the key of its certificate did not make it".to_owned())?;
    whose(leaf).ok_or_else(|| "its certificate does not say for whom it is".to_owned())
}

fn whose(certificate: &[u8]) -> Option<Whose> {
    let mut issuer = None;
    let mut subject = None;
    for (kind, value) in extensions(certificate)? {
        match kind {
            ISSUER_TEXT => issuer = Some(text(Der(value).only(UTF8)?)?),
            // The newer one counts where both are there.
            ISSUER if issuer.is_none() => issuer = Some(text(value)?),
            NAMES => {
                let mut names = Der(Der(value).only(SEQUENCE)?);
                while let Some((tag, name)) = names.next()? {
                    let is_one = matches!(tag, MAIL | ADDRESS) && subject.is_none();
                    subject = Some(text(name).filter(|_| is_one)?);
                }
            }
            _ => {}
        }
    }
    Some(Whose { issuer: issuer?, subject: subject? })
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// By their kinds.
fn extensions(certificate: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut fields = Der(Der(Der(certificate).only(SEQUENCE)?).take(SEQUENCE)?);
    let mut found = Vec::new();
    while let Some((tag, field)) = fields.next()? {
        if tag != EXTENSIONS {
            continue;
        }
        let mut all = Der(Der(field).only(SEQUENCE)?);
        while let Some((tag, one)) = all.next()? {
            let mut one = Der((tag == SEQUENCE).then_some(one)?);
            let kind = one.take(OBJECT)?;
            // Whether it is critical may stand between.
            let (tag, value) = one.next()??;
            let value = if tag == OCTETS { value } else { one.take(OCTETS)? };
            found.push((kind, value));
        }
    }
    Some(found)
}

/// Values one after the other, each with its tag and its length. `None` wherever it is not what it should be.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// `Some(None)`: that was all.
    fn next(&mut self) -> Option<Option<(u8, &'a [u8])>> {
        let [tag, rest @ ..] = self.0 else { return Some(None) };
        let (length, rest) = match rest {
            [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
            [0x81, one, rest @ ..] => (usize::from(*one), rest),
            [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Some((*tag, value)))
    }

    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, value) = self.next()??;
        (tag == wanted).then_some(value)
    }

    /// The one value, and nothing after it.
    fn only(mut self, wanted: u8) -> Option<&'a [u8]> {
        let value = self.take(wanted)?;
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_or_goes_on_is_nothing() {
        assert_eq!(Der(&[0x30, 0x02, 1, 2]).only(SEQUENCE), Some([1, 2].as_slice()));
        for wrong in
            [&[0x30][..], &[0x30, 0x03, 1, 2], &[0x30, 0x02, 1, 2, 3], &[0x31, 0], &[0x30, 0x84, 0, 0, 0, 0], &[]]
        {
            assert_eq!(Der(wrong).only(SEQUENCE), None, "{wrong:?}");
        }
        assert_eq!(Der(&[]).next(), Some(None));
        assert_eq!(whose(&[0x30, 0x00]), None);
    }
}
