//! Whose name requests carry: keys of the environment, a web identity, a profile, the container's or the machine's role;
//! and a role that is assumed by means of these.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::{CredentialProvider, RetryConfig};
use tokio::sync::Mutex;

use super::profile::{self, Found, Role};
use super::{Aws, AwsError, Call, Service, xml};
use crate::clock;

/// Longer than this nobody waits for a machine to say that it has no role.
const PATIENCE: Duration = Duration::from_secs(5);
/// Credentials of a role are renewed so long before they end.
const MARGIN: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

const NONE: &str = "no AWS credentials were found: set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, name a profile by \
                    `AWS_PROFILE`, or give this machine a role";

/// What the library's own providers read.
const OF_THE_LIBRARY: [&str; 7] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// The credentials of one name. Keeps what has to be fetched for as long as it is good.
pub(super) struct Credentials {
    /// The role that is to be assumed, beyond what the environment says.
    role: Option<String>,
    /// The library's provider, which keeps tokens itself.
    machine: Mutex<Option<AwsCredentialProvider>>,
    assumed: Mutex<Vec<Assumed>>,
}

struct Assumed {
    /// What was assumed, and with which key: another profile is another role.
    of: (Role, String),
    credential: Arc<AwsCredential>,
    until: Timestamp,
}

impl Credentials {
    pub fn new(role: Option<String>) -> Self {
        Credentials { role, machine: Mutex::default(), assumed: Mutex::default() }
    }

    /// The credentials to sign with now.
    pub async fn get(&self, aws: &Aws, region: &str) -> Result<Arc<AwsCredential>, AwsError> {
        let found = match self.of_environment(aws)? {
            Some(found) => found,
            None => Found::Machine,
        };
        let found = match &self.role {
            Some(arn) => {
                let role = Role { arn: arn.clone(), session_name: None, external_id: None };
                Found::Role { role, base: Box::new(found) }
            }
            None => found,
        };
        self.resolve(aws, region, found).await
    }

    /// Fetches anew next time: what was given is not good any more.
    pub async fn forget(&self) {
        self.assumed.lock().await.clear();
    }

    /// What the environment and the files say, without asking anybody.
    fn of_environment(&self, aws: &Aws) -> Result<Option<Found>, AwsError> {
        match (aws.env("AWS_ACCESS_KEY_ID"), aws.env("AWS_SECRET_ACCESS_KEY")) {
            (Some(key_id), Some(secret_key)) => {
                let token = aws.env("AWS_SESSION_TOKEN");
                return Ok(Some(Found::Keys(AwsCredential { key_id, secret_key, token })));
            }
            (Some(_), None) => {
                return Err(AwsError::local("`AWS_ACCESS_KEY_ID` is set, and `AWS_SECRET_ACCESS_KEY` is not"));
            }
            (None, Some(_)) => {
                return Err(AwsError::local("`AWS_SECRET_ACCESS_KEY` is set, and `AWS_ACCESS_KEY_ID` is not"));
            }
            (None, None) => {}
        }
        if aws.env("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() && aws.env("AWS_PROFILE").is_none() {
            return Ok(None);
        }
        profile::find(&aws.0.env)
    }

    async fn resolve(&self, aws: &Aws, region: &str, found: Found) -> Result<Arc<AwsCredential>, AwsError> {
        match found {
            Found::Keys(keys) => checked(keys),
            Found::Machine => self.of_machine(aws, region).await,
            Found::Role { role, base } => {
                let base = Box::pin(self.resolve(aws, region, *base)).await?;
                self.assume(aws, region, role, &base).await
            }
        }
    }

    async fn of_machine(&self, aws: &Aws, region: &str) -> Result<Arc<AwsCredential>, AwsError> {
        let provider = {
            let mut machine = self.machine.lock().await;
            match &*machine {
                Some(provider) => provider.clone(),
                None => machine.insert(library(aws, region)?).clone(),
            }
        };
        match tokio::time::timeout(PATIENCE, provider.get_credential()).await {
            Ok(Ok(credential)) => Ok(credential),
            Ok(Err(error)) if aws.env("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() => Err(AwsError {
                passing: true,
                ..AwsError::local(format!("the web identity gives no credentials: {error}"))
            }),
            Ok(Err(_)) | Err(_) => Err(AwsError::local(NONE)),
        }
    }

    async fn assume(
        &self,
        aws: &Aws,
        region: &str,
        role: Role,
        base: &AwsCredential,
    ) -> Result<Arc<AwsCredential>, AwsError> {
        // Held while STS is asked, so that many who ask at the same time ask once.
        let mut assumed = self.assumed.lock().await;
        let of = (role, base.key_id.clone());
        assumed.retain(|known| clock::now() < known.until);
        if let Some(known) = assumed.iter().find(|known| known.of == of) {
            return Ok(known.credential.clone());
        }
        let role = &of.0;
        let session = role.session_name.as_deref().unwrap_or("pitcrew");
        let mut fields = vec![("RoleArn", role.arn.as_str()), ("RoleSessionName", session)];
        if let Some(id) = &role.external_id {
            fields.push(("ExternalId", id));
        }
        let call = Call::form(Service::Sts, region, "AssumeRole", "2011-06-15", &fields);
        let answer = aws.send_as(&call, base).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let field = |name| xml::text(&text, name);
        let read = || {
            let until: Timestamp = field("Expiration")?.parse().ok()?;
            let credential = AwsCredential {
                key_id: field("AccessKeyId")?,
                secret_key: field("SecretAccessKey")?,
                token: Some(field("SessionToken")?),
            };
            Some((credential, until))
        };
        let (credential, until) =
            read().ok_or_else(|| AwsError::local("the answer of `sts` to `AssumeRole` is not as expected"))?;
        let until = until.saturating_sub(MARGIN).unwrap_or(until);
        let credential = checked(credential)?;
        assumed.push(Assumed { credential: credential.clone(), until, of });
        Ok(credential)
    }
}

/// Keys become headers; what cannot be in one is no key.
fn checked(keys: AwsCredential) -> Result<Arc<AwsCredential>, AwsError> {
    let fits = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    let all = [
        ("access key", keys.key_id.as_str()),
        ("secret key", &keys.secret_key),
        ("session token", keys.token.as_deref().unwrap_or("")),
    ];
    let wrong = all.iter().find(|(_, text)| !fits(text)).map(|(what, _)| *what);
    match wrong {
        Some(what) => Err(AwsError::local(format!("the {what} of AWS has blanks or strange characters in it"))),
        None => Ok(Arc::new(keys)),
    }
}

/// The builder of the storage client is the public door to the library's providers; no bucket is ever asked.
fn library(aws: &Aws, region: &str) -> Result<AwsCredentialProvider, AwsError> {
    let is_local = |name: &str| aws.env(name).is_some();
    let asks_machine = !is_local("AWS_WEB_IDENTITY_TOKEN_FILE")
        && !is_local("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        && !is_local("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if asks_machine && aws.env("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Err(AwsError::local(NONE));
    }
    let retry = RetryConfig { max_retries: 1, retry_timeout: PATIENCE, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name("none").with_region(region).with_retry(retry);
    for name in OF_THE_LIBRARY {
        if let (Some(value), Ok(key)) = (aws.env(name), name.to_ascii_lowercase().parse()) {
            builder = builder.with_config(key, value);
        }
    }
    // Of any part of AWS, and where the environment says; the library insists on HTTPS for a token.
    builder = builder.with_config(AmazonS3ConfigKey::StsEndpoint, aws.endpoint(Service::Sts, region)?);
    let client = builder.build().map_err(|error| AwsError::local(format!("{NONE} ({error})")))?;
    Ok(client.credentials().clone())
}

/// For `object_store`.
pub(super) struct Provider {
    pub aws: Aws,
    pub role: Option<String>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider(…)")
    }
}

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credentials = self.aws.credentials(self.role.as_deref());
        let region = self.aws.region();
        credentials
            .get(&self.aws, &region)
            .await
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })
    }
}
