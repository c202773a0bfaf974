//! Images that are admitted: only those that somebody signed whom the policy names.
//!
//! [`policy`] says whose signature an image needs. [`registry`] asks the registry which bytes a name means now, and who signed
//! them. [`check`] holds one against the other, and neither reads a clock nor asks anybody. What comes out is the name with the
//! digest that was signed: that is what a container is made of then, whatever the name means a moment later.
//!
//! Signatures are those of sigstore's `cosign`, as it keeps them beside the image under the tag `sha256-….sig`: with a key, or
//! with a certificate of ten minutes' life for whom a provider vouched, written down in a public log while it lived.
//!
//! Invariant: an image that no rule names is refused, and one whose signatures cannot be had is not admitted either.

pub mod certificate;
pub mod check;
pub mod name;
pub mod policy;
pub mod registry;

use std::fmt;

pub use check::Signer;
pub use name::ImageName;
pub use policy::{Policy, Rule, Signers, Trust};
pub use registry::{Login, Registry};

/// What an image comes through.
pub struct Gate {
    policy: Policy,
    registry: Registry,
}

/// An image that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What is to be used: with its digest, where its signature was asked for.
    pub image: String,
    /// `None`: its rule says that it needs no signature.
    pub signer: Option<Signer>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may not be used, now and later.
    #[error("{0}")]
    Refused(String),
    /// Whether it may be used cannot be found out now.
    #[error("{0}")]
    Unknown(String),
}

impl Gate {
    pub fn new(policy: Policy, registry: Registry) -> Gate {
        Gate { policy, registry }
    }

    /// Whether this image may be used, and by which name. To be asked before a container is made of it.
    pub async fn admit(&self, image: &str) -> Result<Admitted, Refusal> {
        let refused = |why: String| Refusal::Refused(format!("the image `{image}` is not admitted: {why}"));
        let name: ImageName = image.parse().map_err(refused)?;
        let Some(rule) = self.policy.rule(&name) else {
            return Err(refused(
                "no rule of `signatures` is about it; one with `unsigned: true` admits it as it is".into(),
            ));
        };
        if rule.signers == Signers::Anybody {
            return Ok(Admitted { image: image.to_owned(), signer: None });
        }
        let digest = self.registry.digest(&name).await.map_err(|fault| fault.refusal(image))?;
        let signatures = self.registry.signatures(&name, &digest).await.map_err(|fault| fault.refusal(image))?;
        let mut reasons: Vec<String> = Vec::new();
        for signature in &signatures {
            match check::check(signature, &digest, &rule.signers, &self.policy.trust) {
                Ok(signer) => return Ok(Admitted { image: name.at(&digest), signer: Some(signer) }),
                Err(why) if reasons.contains(&why) => {}
                Err(why) => reasons.push(why),
            }
        }
        Err(refused(match signatures.len() {
            0 => format!("nobody has signed {digest}; `cosign sign {}` does", name.at(&digest)),
            1 => format!("its signature does not count: {}", reasons.join("; ")),
            count => format!("none of its {count} signatures counts: {}", reasons.join("; ")),
        }))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("policy", &self.policy).finish_non_exhaustive()
    }
}
