//! Any program: it signs the body as GitHub does, or sends the secret itself as a bearer's token.

use super::super::model::SecretRef;
use super::super::replay::Proof;
use super::super::signature;
use super::{Request, Stop};

const SIGNATURE: &str = "X-Hub-Signature-256";

pub(super) fn proof(secret: &SecretRef, request: &Request<'_>) -> Result<Proof, Stop> {
    let header = request.headers.get(SIGNATURE);
    if !header.is_empty() {
        signature::check(header, request.body.raw(), request.secret(secret)?)
            .map_err(|error| Stop::refused(format!("{SIGNATURE}: {error}")))?;
        return Ok(Proof::Signature);
    }
    let token = request.headers.get("Authorization").strip_prefix("Bearer ").unwrap_or_default();
    if token.is_empty() {
        let message = format!("it has neither the header {SIGNATURE} nor `Authorization: Bearer …`");
        return Err(Stop::refused(message));
    }
    match signature::same(token.as_bytes(), request.secret(secret)?) {
        true => Ok(Proof::Token),
        false => Err(Stop::refused("the token is not the secret")),
    }
}
