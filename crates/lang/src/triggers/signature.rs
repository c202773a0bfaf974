//! Whether a body was sent by who knows the secret. All comparing takes the same time, whatever is equal.

use ring::hmac;

/// Why a signature is not good. None of them says more than the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the signature is not `sha256=` (or `sha1=`, `sha512=`) and hexadecimal digits")]
    Malformed,
    #[error("the signature does not fit the body and the secret")]
    Wrong,
}

/// Whether two texts are equal.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    // Their codes are compared instead of them, so neither lengths nor beginnings are told by the time it takes.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"pitcrew: is it the same?");
    hmac::verify(&key, one, hmac::sign(&key, other).as_ref()).is_ok()
}

/// Checks a header such as `sha256=…`, as GitHub and Bitbucket send it, against the body as it came.
pub fn check(header: &str, body: &[u8], secret: &[u8]) -> Result<(), SignatureError> {
    let (algorithm, digits) = match header.trim().split_once('=') {
        Some(("sha256", digits)) => (hmac::HMAC_SHA256, digits),
        Some(("sha512", digits)) => (hmac::HMAC_SHA512, digits),
        Some(("sha1", digits)) => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, digits),
        _ => return Err(SignatureError::Malformed),
    };
    let tag = from_hex(digits).ok_or(SignatureError::Malformed)?;
    hmac::verify(&hmac::Key::new(algorithm, secret), body, &tag).map_err(|_| SignatureError::Wrong)
}

/// Checks Slack's signature: of its version, the time of the request, and the body. Whether the time is near enough is
/// for who has a clock.
pub fn check_slack(header: &str, timestamp: &str, body: &[u8], secret: &[u8]) -> Result<(), SignatureError> {
    let tag = header.trim().strip_prefix("v0=").and_then(from_hex).ok_or(SignatureError::Malformed)?;
    let signed = [b"v0:", timestamp.as_bytes(), b":", body].concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), &signed, &tag).map_err(|_| SignatureError::Wrong)
}

/// The header that [`check`] takes, for a body that is sent.
pub fn sign(body: &[u8], secret: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body);
    let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 128 {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16);
    digits.chunks_exact(2).map(|pair| Some((value(pair[0])? * 16 + value(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 4231 (case 2), and what the same key gives by SHA-1 (RFC 2202, case 2).
    #[test]
    fn signatures_are_those_of_the_standards() {
        let (key, body) = (b"Jefe", b"what do ya want for nothing?");
        let sha256 = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(check(sha256, body, key), Ok(()));
        assert_eq!(sign(body, key), sha256);
        assert_eq!(check("sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79", body, key), Ok(()));
        assert_eq!(check(&sha256.to_uppercase().replace("SHA", "sha"), body, key), Ok(()));
    }

    #[test]
    fn whatever_does_not_fit_is_refused() {
        let good = sign(b"{}", b"secret");
        assert_eq!(check(&good, b"{}", b"secret"), Ok(()));
        assert_eq!(check(&good, b"{ }", b"secret"), Err(SignatureError::Wrong));
        assert_eq!(check(&good, b"{}", b"Secret"), Err(SignatureError::Wrong));
        assert_eq!(check(&good[..good.len() - 2], b"{}", b"secret"), Err(SignatureError::Wrong));
        for malformed in ["", "sha256=", "sha256", "md5=00", "sha256=0", "sha256=zz", "deadbeef"] {
            assert_eq!(check(malformed, b"{}", b"secret"), Err(SignatureError::Malformed), "{malformed}");
        }
    }

    #[test]
    fn slack_signs_the_time_with_the_body() {
        let body = b"command=%2Fdeploy&text=main";
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s"), &[&b"v0:1531420618:"[..], body].concat());
        let header = format!("v0={}", tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        assert_eq!(check_slack(&header, "1531420618", body, b"s"), Ok(()));
        assert_eq!(check_slack(&header, "1531420619", body, b"s"), Err(SignatureError::Wrong));
        assert_eq!(check_slack("v1=00", "1531420618", body, b"s"), Err(SignatureError::Malformed));
    }

    #[test]
    fn same_is_equality() {
        assert!(same(b"token", b"token") && same(b"", b""));
        assert!(!same(b"token", b"token ") && !same(b"", b"x"));
    }
}
