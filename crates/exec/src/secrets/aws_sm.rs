//! Secrets of the AWS Secrets Manager.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::error::{SecretError, SecretErrorKind};
use super::{Fetched, Provider, Secret, SecretRef, Source, cache};
use crate::aws::{Aws, AwsError, Service};

/// Asks AWS, in the region of the ARN, else in the usual one.
pub struct SecretsManager {
    aws: Aws,
}

impl SecretsManager {
    pub fn new(aws: Aws) -> Self {
        SecretsManager { aws }
    }

    /// The name or ARN, and the region to ask in.
    fn place(&self, reference: &SecretRef) -> Result<(String, String), SecretError> {
        match &reference.source {
            Source::AwsSm { id, region } => Ok((id.clone(), region.clone().unwrap_or_else(|| self.aws.region()))),
            _ => Err(cache::not_mine(reference)),
        }
    }
}

#[async_trait]
impl Provider for SecretsManager {
    fn has(&self, source: &Source) -> bool {
        matches!(source, Source::AwsSm { .. })
    }

    async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError> {
        let (id, region) = self.place(reference)?;
        let mut input = json!({ "SecretId": id });
        if let Some(stage) = &reference.stage {
            let key = if is_version(stage) { "VersionId" } else { "VersionStage" };
            input[key] = json!(stage);
        }
        let answer = self.aws.json(Service::SecretsManager, &region, "GetSecretValue", &input).await;
        let answer = answer.map_err(|error| told(&error, "GetSecretValue", reference, &region))?;
        let version = answer["VersionId"].as_str().unwrap_or_default().to_owned();
        let value = match (&answer["SecretString"], &answer["SecretBinary"]) {
            (Value::String(text), _) => Secret::new(text.as_bytes()),
            (_, Value::String(text)) => Secret::new(BASE64.decode(text).map_err(|_| {
                SecretError::malformed(format!("the secret `{reference}` came as bytes that are no base64"))
            })?),
            _ => return Err(SecretError::missing(format!("the secret `{reference}` has no value yet"))),
        };
        if value.expose().is_empty() {
            return Err(SecretError::missing(format!("the secret `{reference}` is empty")));
        }
        Ok(Fetched { value, version })
    }

    async fn put(&self, reference: &SecretRef, value: &Secret, token: &str) -> Result<String, SecretError> {
        let (id, region) = self.place(reference)?;
        let mut input = json!({ "ClientRequestToken": token });
        match value.expose_text() {
            Some(text) => input["SecretString"] = json!(text),
            None => input["SecretBinary"] = json!(BASE64.encode(value.expose())),
        }
        let mut put = input.clone();
        put["SecretId"] = json!(id);
        let mut operation = "PutSecretValue";
        let mut answer = self.aws.json(Service::SecretsManager, &region, operation, &put).await;
        let is_missing = answer.as_ref().is_err_and(|error| error.code == "ResourceNotFoundException");
        // An ARN names a secret that was there once; only a name can become one.
        if is_missing && !id.starts_with("arn:") {
            operation = "CreateSecret";
            input["Name"] = json!(id);
            answer = self.aws.json(Service::SecretsManager, &region, operation, &input).await;
        }
        let answer = answer.map_err(|error| told(&error, operation, reference, &region))?;
        Ok(answer["VersionId"].as_str().unwrap_or_default().to_owned())
    }
}

/// The id of a version, as AWS makes them, and not a stage.
fn is_version(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// What AWS said, about this secret.
fn told(error: &AwsError, operation: &str, reference: &SecretRef, region: &str) -> SecretError {
    let new = |kind, words: String| SecretError::new(kind, words);
    let code = error.code.as_str();
    if error.is_denied() {
        let (who, action) = match error.denial() {
            Some((who, action)) => (format!("`{who}`"), action.to_owned()),
            None => ("whoever this server is".to_owned(), format!("secretsmanager:{operation}")),
        };
        let words = format!("AWS denies `{action}` on `{reference}` to {who}: allow it in its policy ({error})");
        return new(SecretErrorKind::Denied, words);
    }
    if error.is_throttled() {
        return new(
            SecretErrorKind::Throttled,
            format!("AWS is asked for secrets too often, now for `{reference}`: {error}"),
        );
    }
    match code {
        "ResourceNotFoundException" if reference.stage.is_some() || error.message.contains("staging label") => {
            let stage = reference.stage.as_deref().unwrap_or("AWSCURRENT");
            let words =
                format!("there is no secret `{reference}` in {region}, or it has no version `{stage}` ({code})");
            new(SecretErrorKind::Missing, words)
        }
        "ResourceNotFoundException" => {
            let words = format!("there is no secret `{reference}` in {region} ({code}): check its name and the region");
            new(SecretErrorKind::Missing, words)
        }
        "InvalidRequestException" if error.message.contains("delet") => {
            let words = format!(
                "the secret `{reference}` is marked for deletion: `aws secretsmanager restore-secret --secret-id …` takes \
                 that back"
            );
            new(SecretErrorKind::Deleted, words)
        }
        "DecryptionFailure" | "EncryptionFailure" => {
            let words = format!("AWS cannot use the key of `{reference}`: allow `kms:Decrypt` on it ({error})");
            new(SecretErrorKind::Denied, words)
        }
        _ if error.passing => {
            new(SecretErrorKind::Unreachable, format!("the secret `{reference}` cannot be fetched now: {error}"))
        }
        "InvalidParameterException" | "ValidationException" => {
            new(SecretErrorKind::Malformed, format!("AWS takes `{reference}` for no secret: {error}"))
        }
        _ => new(SecretErrorKind::Other, format!("the secret `{reference}` cannot be had: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_told_apart() {
        let reference: SecretRef = "aws-sm:gpu/ssh".parse().unwrap();
        let of = |code: &str, message: &str, passing: bool| {
            let error = AwsError { code: code.into(), message: message.into(), passing, ..AwsError::local("") };
            let told = told(&error, "GetSecretValue", &reference, "eu-west-1");
            (told.kind, told.lasting(), told.words)
        };
        let (kind, lasting, words) = of(
            "AccessDeniedException",
            "User: arn:aws:iam::1:user/ci is not authorized to perform: secretsmanager:GetSecretValue on resource: x",
            false,
        );
        assert!(kind == SecretErrorKind::Denied && lasting);
        let start =
            "AWS denies `secretsmanager:GetSecretValue` on `aws-sm:gpu/ssh` to `arn:aws:iam::1:user/ci`: allow it";
        assert!(words.starts_with(start), "{words}");
        for (code, message, passing, kind) in [
            (
                "ResourceNotFoundException",
                "Secrets Manager can't find the specified secret.",
                false,
                SecretErrorKind::Missing,
            ),
            (
                "ResourceNotFoundException",
                "can't find the specified secret value for staging label: X",
                false,
                SecretErrorKind::Missing,
            ),
            ("InvalidRequestException", "because it was marked for deletion.", false, SecretErrorKind::Deleted),
            ("ThrottlingException", "Rate exceeded", true, SecretErrorKind::Throttled),
            ("InternalServiceError", "", true, SecretErrorKind::Unreachable),
            ("", "no answer from `x`", true, SecretErrorKind::Unreachable),
            ("DecryptionFailure", "", false, SecretErrorKind::Denied),
            ("InvalidParameterException", "", false, SecretErrorKind::Malformed),
            ("Odd", "", false, SecretErrorKind::Other),
        ] {
            let (found, lasting, words) = of(code, message, passing);
            assert_eq!((found, lasting), (kind, !passing), "{words}");
            assert!(words.contains("gpu/ssh"), "{words}");
        }
    }
}
