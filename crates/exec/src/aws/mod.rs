//! Amazon Web Services: signed requests, with the credentials, the region and the endpoints that the AWS tools would use.
//!
//! The signer and the providers of credentials that ask machines are those of `object_store`. What is ours is the rest:
//! profiles, assumed roles, endpoints, retries of what may pass, and errors that say what AWS said.
//!
//! Invariant: a request goes to the endpoint of its service and to no other (redirects are not followed), and what is
//! sent is exactly what was signed.

mod call;
mod credentials;
mod endpoint;
mod error;
mod profile;
pub mod s3;
mod xml;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AwsCredentialProvider;

pub use call::{Answer, Call, encode};
pub use endpoint::{Service, check_region};
pub use error::AwsError;
pub use xml::{Element, text as xml_text};

use credentials::Credentials;

/// The variable with the region where nothing of AWS's own names one.
pub const REGION: &str = "PITCREW_AWS_REGION";
/// The region, unless something says otherwise.
pub const DEFAULT_REGION: &str = "us-east-1";

/// Looks up a variable of the environment.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A door to AWS. Cheap to clone; clones share connections and credentials.
#[derive(Clone)]
pub struct Aws(Arc<Inner>);

struct Inner {
    env: Env,
    http: reqwest::Client,
    /// By what they are for: the role that is assumed, or none.
    credentials: Mutex<HashMap<Option<String>, Arc<Credentials>>>,
}

impl Aws {
    /// With the `AWS_*` variables of `env`. Asks nobody yet.
    pub fn new(env: Env) -> Result<Aws, AwsError> {
        // The library finds the process's provider of cryptography; whoever installed one first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("pitcrew/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| AwsError::local(format!("cannot make an HTTP client: {error}")))?;
        Ok(Aws(Arc::new(Inner { env, http, credentials: Mutex::default() })))
    }

    /// With the variables of this process.
    pub fn from_env() -> Result<Aws, AwsError> {
        Aws::new(Arc::new(|name| std::env::var(name).ok()))
    }

    /// The region where nothing names one: `AWS_REGION`, `AWS_DEFAULT_REGION`, that of the profile, [`REGION`],
    /// [`DEFAULT_REGION`].
    pub fn region(&self) -> String {
        let given = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().filter_map(|name| self.env(name)).next();
        given
            .or_else(|| profile::region(&self.0.env))
            .or_else(|| self.env(REGION))
            .unwrap_or_else(|| DEFAULT_REGION.to_owned())
    }

    /// Credentials for `object_store`.
    pub fn provider(&self, role: Option<&str>) -> AwsCredentialProvider {
        Arc::new(credentials::Provider { aws: self.clone(), role: role.map(str::to_owned) })
    }

    /// Where a service answers.
    pub fn endpoint(&self, service: Service, region: &str) -> Result<String, AwsError> {
        endpoint::of(service, region, &self.0.env)
    }

    fn env(&self, name: &str) -> Option<String> {
        (self.0.env)(name).filter(|value| !value.is_empty())
    }

    fn credentials(&self, role: Option<&str>) -> Arc<Credentials> {
        let mut known = self.0.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        let key = role.map(str::to_owned);
        known.entry(key).or_insert_with_key(|role| Arc::new(Credentials::new(role.clone()))).clone()
    }
}
