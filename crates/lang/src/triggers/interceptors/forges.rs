//! `gitlab` and `bitbucket`: the type of the event, and a token or a signature.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::super::model::SecretRef;
use super::super::replay::Proof;
use super::super::signature;
use super::{Request, Stop, Verdict, is_of, named, want};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Forge {
    pub secret_ref: Option<SecretRef>,
    event_types: Option<Vec<String>>,
}

impl Forge {
    pub fn read(forge: Forge) -> Result<Forge, (String, String)> {
        named(forge.secret_ref.as_ref(), "secretRef")?;
        Ok(forge)
    }

    pub fn secrets(&self, wanted: &mut BTreeSet<(String, String)>) {
        want(self.secret_ref.as_ref(), wanted);
    }

    /// GitLab sends the token itself.
    pub fn gitlab(&self, request: &Request<'_>) -> Result<Verdict, Stop> {
        is_of(self.event_types.as_ref(), request.headers.get("X-Gitlab-Event"))?;
        self.token(request)?;
        Ok(Verdict::go())
    }

    /// What GitLab proves.
    pub fn token(&self, request: &Request<'_>) -> Result<Proof, Stop> {
        let Some(reference) = &self.secret_ref else { return Ok(Proof::None) };
        let token = request.headers.get("X-Gitlab-Token");
        if token.is_empty() {
            return Err(Stop::refused("the header X-Gitlab-Token is missing"));
        }
        if !signature::same(token.as_bytes(), request.secret(reference)?) {
            return Err(Stop::refused("X-Gitlab-Token is not the token"));
        }
        Ok(Proof::Token)
    }

    pub fn bitbucket(&self, request: &Request<'_>) -> Result<Verdict, Stop> {
        is_of(self.event_types.as_ref(), request.headers.get("X-Event-Key"))?;
        self.signature(request)?;
        Ok(Verdict::go())
    }

    /// What Bitbucket proves.
    pub fn signature(&self, request: &Request<'_>) -> Result<Proof, Stop> {
        let Some(reference) = &self.secret_ref else { return Ok(Proof::None) };
        let header = request.headers.get("X-Hub-Signature");
        if header.is_empty() {
            return Err(Stop::refused("the header X-Hub-Signature is missing"));
        }
        signature::check(header, request.event.body.raw(), request.secret(reference)?)
            .map_err(|error| Stop::refused(format!("X-Hub-Signature: {error}")))?;
        Ok(Proof::Signature)
    }
}
