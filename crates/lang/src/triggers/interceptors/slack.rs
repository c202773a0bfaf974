//! `slack`: fields of a slash command's form become extensions.
//!
//! Tekton asks only whether there is a signature. With `secretRef`, which is ours, it is checked, and with it that the
//! request is not older than five minutes.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Map;

use super::super::model::SecretRef;
use super::super::replay::Proof;
use super::super::signature;
use super::{Request, Stop, Verdict, named, want};

/// What Slack itself recommends, in seconds.
const OLDEST: i64 = 300;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Slack {
    pub secret_ref: Option<SecretRef>,
    requested_fields: Option<Vec<String>>,
}

impl Slack {
    pub fn read(slack: Slack) -> Result<Slack, (String, String)> {
        named(slack.secret_ref.as_ref(), "secretRef")?;
        if slack.requested_fields.is_none() {
            return Err((
                "params".into(),
                "`requestedFields` is missing: the fields of the form that are wanted".into(),
            ));
        }
        Ok(slack)
    }

    pub fn secrets(&self, wanted: &mut BTreeSet<(String, String)>) {
        want(self.secret_ref.as_ref(), wanted);
    }

    pub fn proof(&self, request: &Request<'_>) -> Result<Proof, Stop> {
        let header = request.headers.get("X-Slack-Signature");
        if header.is_empty() {
            return Err(Stop::refused("the header X-Slack-Signature is missing"));
        }
        let Some(reference) = &self.secret_ref else { return Ok(Proof::None) };
        let sent = request.headers.get("X-Slack-Request-Timestamp");
        let secret = request.secret(reference)?;
        signature::check_slack(header, sent, request.event.body.raw(), secret)
            .map_err(|error| Stop::refused(format!("X-Slack-Signature: {error}")))?;
        let age = sent.parse::<i64>().ok().and_then(|sent| request.event.received.as_second().checked_sub(sent));
        if age.is_none_or(|age| age.abs() > OLDEST) {
            return Err(Stop::refused("X-Slack-Request-Timestamp is more than five minutes away"));
        }
        Ok(Proof::Signature)
    }

    pub fn process(&self, request: &Request<'_>) -> Result<Verdict, Stop> {
        if !request.headers.is_form() {
            return Err(Stop::refused("the Content-Type is not application/x-www-form-urlencoded"));
        }
        self.proof(request)?;
        let form = request.body.json().map_err(Stop::failed)?;
        let mut extensions = Map::new();
        for field in self.requested_fields.iter().flatten() {
            let value = form.get(field).ok_or_else(|| Stop::failed(format!("the form has no field `{field}`")))?;
            extensions.insert(field.clone(), value.clone());
        }
        Ok(Verdict::Go(extensions))
    }
}
