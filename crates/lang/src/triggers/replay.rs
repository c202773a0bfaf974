//! By what a delivery that comes twice is told.
//!
//! Where a signature covers the body, it is the body: the name that a forge gives a delivery is in a header that is not
//! signed, so whoever sends an old body again could choose another. Where only a token is sent, it is that header. What
//! is not signed at all may be the same each time and mean something new each time.

use sha2::{Digest, Sha256};

use super::event::Event;

/// What a listener asks of who posts to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// Nothing.
    None,
    /// A token, which is the same each time.
    Token,
    /// A signature of the body.
    Signature,
}

/// The digest by which a second delivery is known, in hexadecimal; `None` if it cannot be known.
pub fn digest(namespace: &str, listener: &str, proof: Proof, event: &Event) -> Option<String> {
    let what: &[u8] = match proof {
        Proof::None => return None,
        Proof::Signature => event.body.raw(),
        Proof::Token => {
            // GitLab's names of a delivery; the newer one is the same when it is sent again.
            let names = ["Idempotency-Key", "X-Gitlab-Event-Uuid"].map(|name| event.headers.get(name));
            names.into_iter().find(|name| !name.is_empty())?.as_bytes()
        }
    };
    let mut hash = Sha256::new();
    for part in [namespace.as_bytes(), listener.as_bytes(), &[proof as u8][..], what] {
        // Lengths keep the parts apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::super::event::{Body, Headers};
    use super::*;

    fn event(headers: &[(&str, &str)], body: &str) -> Event {
        let headers = Headers::new(headers.iter().copied());
        Event { id: "e".into(), url: "/".into(), headers, body: Body::new(body), received: jiff::Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_signed_body_is_known_again_whatever_its_headers_say() {
        let first = event(&[("X-GitHub-Delivery", "1")], "{\"a\":1}");
        let again = event(&[("X-GitHub-Delivery", "2")], "{\"a\":1}");
        let known = digest("ci", "el", Proof::Signature, &first);
        assert!(known.is_some());
        assert_eq!(known, digest("ci", "el", Proof::Signature, &again));
        assert_ne!(known, digest("ci", "el", Proof::Signature, &event(&[], "{\"a\":2}")));
        assert_ne!(known, digest("ci", "other", Proof::Signature, &first));
        assert_ne!(digest("a", "bc", Proof::Signature, &first), digest("ab", "c", Proof::Signature, &first));
    }

    #[test]
    fn a_token_needs_the_name_of_the_delivery_and_nothing_knows_what_is_not_proved() {
        let named = event(&[("X-Gitlab-Event-UUID", "u-1")], "{}");
        assert!(digest("ci", "el", Proof::Token, &named).is_some());
        assert_ne!(
            digest("ci", "el", Proof::Token, &named),
            digest("ci", "el", Proof::Token, &event(&[("X-Gitlab-Event-UUID", "u-2")], "{}"))
        );
        assert_eq!(digest("ci", "el", Proof::Token, &event(&[], "{}")), None);
        assert_eq!(digest("ci", "el", Proof::None, &named), None);
    }
}
