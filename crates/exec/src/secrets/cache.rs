//! [`Secrets`]: asks the right provider, once for all who ask at the same time, and remembers the answer for a while.
//!
//! Invariant: at most one request for a reference is under way, and a value is never older than its lifetime. That there
//! is none, or that it is denied, is remembered too, but only for seconds: somebody may be mending it. What is kept on
//! this machine ([`Provider::is_near`]) is asked for each time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::SecretError;
use super::{Fetched, Provider, SecretRef};
use crate::clock;

/// How long a value is used without asking again, unless configured otherwise.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// How long a failure stands.
const SOON: Duration = Duration::from_secs(10);
/// How soon after one fetch a refresh fetches anew.
const ANEW: Duration = Duration::from_secs(1);
/// More are forgotten, the oldest first.
const MOST: usize = 1000;

/// All secrets that can be reached. Cheap to clone; clones share what they remember.
#[derive(Clone)]
pub struct Secrets(Arc<Inner>);

struct Inner {
    providers: Vec<Arc<dyn Provider>>,
    lifetime: Duration,
    soon: Duration,
    anew: Duration,
    slots: Mutex<HashMap<SecretRef, Arc<Slot>>>,
}

/// One reference. Whoever holds the lock asks for it; others wait for the answer.
type Slot = tokio::sync::Mutex<Option<Answer>>;

struct Answer {
    at: Instant,
    result: Result<Fetched, SecretError>,
}

impl Answer {
    fn age(&self) -> Duration {
        clock::instant().saturating_duration_since(self.at)
    }
}

impl Secrets {
    /// `lifetime` zero remembers nothing.
    pub fn new(providers: Vec<Arc<dyn Provider>>, lifetime: Duration) -> Secrets {
        Secrets::timed(providers, lifetime, SOON.min(lifetime), ANEW.min(lifetime))
    }

    fn timed(providers: Vec<Arc<dyn Provider>>, lifetime: Duration, soon: Duration, anew: Duration) -> Secrets {
        Secrets(Arc::new(Inner { providers, lifetime, soon, anew, slots: Mutex::default() }))
    }

    /// The value that the reference names.
    pub async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError> {
        let Inner { lifetime, soon, .. } = *self.0;
        let is_good = |answer: &Answer| match &answer.result {
            Ok(_) => answer.age() < lifetime,
            Err(error) => error.lasting() && answer.age() < soon,
        };
        self.ask(reference, is_good).await
    }

    /// The value, asked for anew because that of version `seen` was refused. Many who were refused at the same time ask
    /// once; an answer with the same version says that there is no newer one.
    pub async fn refresh(&self, reference: &SecretRef, seen: Option<&str>) -> Result<Fetched, SecretError> {
        let Inner { soon, anew, .. } = *self.0;
        let is_good = |answer: &Answer| match &answer.result {
            Ok(fetched) => seen.is_some_and(|seen| fetched.version != seen) || answer.age() < anew,
            Err(error) => error.lasting() && answer.age() < soon,
        };
        self.ask(reference, is_good).await
    }

    /// Makes a secret, or gives it a new value; returns the version.
    pub async fn put(&self, reference: &SecretRef, value: &super::Secret, token: &str) -> Result<String, SecretError> {
        if value.expose().is_empty() || value.expose().len() > super::LARGEST {
            let size = value.expose().len();
            return Err(SecretError::malformed(format!(
                "a secret has 1 to {} bytes; this one has {size}",
                super::LARGEST
            )));
        }
        if reference.field.is_some() || reference.stage.is_some() {
            return Err(SecretError::malformed("write a secret as a whole: leave out `#…` and `@…`"));
        }
        let version = self.provider(reference)?.put(reference, value, token).await?;
        self.forget(reference);
        Ok(version)
    }

    /// Asks anew next time.
    pub fn forget(&self, reference: &SecretRef) {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|known, _| known.source != reference.source);
    }

    fn provider(&self, reference: &SecretRef) -> Result<&Arc<dyn Provider>, SecretError> {
        self.0.providers.iter().find(|p| p.has(&reference.source)).ok_or_else(|| not_mine(reference))
    }

    async fn ask(&self, reference: &SecretRef, is_good: impl Fn(&Answer) -> bool) -> Result<Fetched, SecretError> {
        let slot = self.slot(reference);
        let mut slot = slot.lock().await;
        let provider = self.provider(reference)?;
        if let Some(answer) = slot.as_ref().filter(|answer| !provider.is_near() && is_good(answer)) {
            return answer.result.clone();
        }
        let result = provider.get(reference).await.and_then(|fetched| field(reference, fetched));
        *slot = Some(Answer { at: clock::instant(), result: result.clone() });
        result
    }

    fn slot(&self, reference: &SecretRef) -> Arc<Slot> {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST && !slots.contains_key(reference) {
            // Those that somebody waits for stay; the rest is asked for again.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(reference.clone()).or_default().clone()
    }
}

/// The part of the value that the reference names.
fn field(reference: &SecretRef, fetched: Fetched) -> Result<Fetched, SecretError> {
    let Some(name) = &reference.field else { return Ok(fetched) };
    match fetched.value.field(&[name]) {
        Some(value) => Ok(Fetched { value, version: fetched.version }),
        None => Err(SecretError::malformed(match fetched.value.field_names() {
            Some(names) => format!("the secret `{reference}` has no text `{name}`; it has: {}", names.join(", ")),
            None => format!("the secret `{reference}` is no JSON object, so it has no field `{name}`"),
        })),
    }
}

pub(super) fn not_mine(reference: &SecretRef) -> SecretError {
    SecretError::malformed(format!("nobody here can look up the secret `{reference}`"))
}

/// Tells values apart, within this process only: its key is made when the process starts.
pub fn version(value: &[u8]) -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("{:016x}", KEY.hash_one(value))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::secrets::{Secret, SecretErrorKind, Source};

    /// Counts how often it is asked; knows `store:key` in versions that follow one another.
    #[derive(Default)]
    struct Counting {
        asked: AtomicUsize,
        version: AtomicUsize,
    }

    #[async_trait]
    impl Provider for Counting {
        fn has(&self, source: &Source) -> bool {
            matches!(source, Source::Store(_))
        }

        async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if reference.source != Source::Store("key".into()) {
                return Err(SecretError::missing("none"));
            }
            let version = self.version.load(Ordering::Relaxed).to_string();
            Ok(Fetched { value: Secret::new(format!("{{\"a\":\"value {version}\"}}")), version })
        }
    }

    fn world(lifetime: Duration, soon: Duration) -> (Arc<Counting>, Secrets) {
        let counting = Arc::new(Counting::default());
        (counting.clone(), Secrets::timed(vec![counting], lifetime, soon, soon))
    }

    fn named(text: &str) -> SecretRef {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_value_is_asked_for_once_by_all_and_again_when_it_is_old() {
        for (lifetime, times) in [(LIFETIME, 1), (Duration::ZERO, 101)] {
            let (asked, secrets) = world(lifetime, Duration::ZERO);
            let key = named("store:key");
            let all = (0..100).map(|_| secrets.get(&key));
            assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
            secrets.get(&key).await.unwrap();
            assert_eq!(asked.asked.load(Ordering::Relaxed), times);
        }
    }

    #[tokio::test]
    async fn a_failure_stands_for_seconds() {
        for (soon, times) in [(SOON, 1), (Duration::ZERO, 3)] {
            let (asked, secrets) = world(LIFETIME, soon);
            for _ in 0..3 {
                assert_eq!(secrets.get(&named("store:none")).await.unwrap_err().kind, SecretErrorKind::Missing);
            }
            assert_eq!(asked.asked.load(Ordering::Relaxed), times);
        }
    }

    #[tokio::test]
    async fn a_refused_value_is_asked_for_anew_once_by_all() {
        let (asked, secrets) = world(LIFETIME, Duration::ZERO);
        let key = named("store:key");
        let old = secrets.get(&key).await.unwrap();
        asked.version.store(1, Ordering::Relaxed);
        let all = (0..50).map(|_| secrets.refresh(&key, Some(&old.version)));
        for answer in futures::future::join_all(all).await {
            assert_eq!(answer.unwrap().version, "1");
        }
        assert_eq!(asked.asked.load(Ordering::Relaxed), 2);
        assert_eq!(secrets.get(&key).await.unwrap().version, "1");
        // Nothing newer: the same version comes back, without a storm of requests.
        let (asked, secrets) = world(LIFETIME, SOON);
        for _ in 0..5 {
            assert_eq!(secrets.refresh(&key, Some("0")).await.unwrap().version, "0");
        }
        assert_eq!(asked.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_field_is_taken_out_and_one_that_is_missing_is_told_without_a_value() {
        let (_, secrets) = world(LIFETIME, SOON);
        let value = secrets.get(&named("store:key#a")).await.unwrap().value;
        assert_eq!(value.expose(), b"value 0");
        let said = secrets.get(&named("store:key#b")).await.unwrap_err().to_string();
        assert_eq!(said, "the secret `store:key#b` has no text `b`; it has: a");
        assert!(secrets.get(&named("env:X")).await.unwrap_err().lasting());
    }
}
