//! Secrets in the texts of an attempt: named while they are rendered, looked up when it starts.
//!
//! A template that says `secret('…')` is rendered to a mark. Marks have a random part that is made for each start, so no
//! text from elsewhere can be one. They become values in the environment of a step only, after everything else about the
//! attempt is settled; what is stored, shown and planned has marks, or the names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use pitcrew_exec::AttemptSpec;
use pitcrew_exec::secrets::{SecretError, SecretRef, Secrets};
use serde_json::Value;

use crate::actions::{self, SECRET, SECRETS};
use crate::sensitive::is_sensitive;
use crate::vault::random;

/// What stands for the secrets of one start.
#[derive(Clone)]
pub(super) struct Marks {
    prefix: String,
    /// In the order of their numbers.
    used: Arc<Mutex<Vec<SecretRef>>>,
}

impl Marks {
    pub fn new() -> anyhow::Result<Marks> {
        let random: [u8; 16] = random()?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Marks { prefix: format!("secret-{hex}-"), used: Arc::default() })
    }

    /// The mark for a secret, by its name.
    pub fn mark(&self, name: &str) -> Result<String, String> {
        let reference: SecretRef = name.parse().map_err(|error: SecretError| error.to_string())?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let number = used.iter().position(|known| *known == reference).unwrap_or_else(|| {
            used.push(reference);
            used.len() - 1
        });
        Ok(format!("{}{number};", self.prefix))
    }

    /// Does the value hold a mark?
    pub fn are_in(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains(&self.prefix),
            Value::Array(items) => items.iter().any(|item| self.are_in(item)),
            Value::Object(map) => map.values().any(|item| self.are_in(item)),
            _ => false,
        }
    }

    fn used(&self) -> Vec<SecretRef> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts the values in place of the marks, and adds them to what is masked.
    pub async fn resolve(&self, spec: &mut AttemptSpec, secrets: &Secrets) -> Result<(), SecretError> {
        let used = self.used();
        if used.is_empty() {
            return Ok(());
        }
        let fetched = futures::future::join_all(used.iter().map(|reference| secrets.get(reference))).await;
        let mut values = BTreeMap::new();
        for (number, (fetched, reference)) in fetched.into_iter().zip(&used).enumerate() {
            let value = fetched?.value;
            let text = value.expose_text().filter(|text| !text.contains('\0')).ok_or_else(|| {
                SecretError::malformed(format!("the secret `{reference}` is no text: an environment cannot hold it"))
            })?;
            spec.masks.push(text.to_owned());
            values.insert(format!("{}{number};", self.prefix), text.to_owned());
        }
        let fill = |text: &mut String| {
            if text.contains(&self.prefix) {
                *text = values.iter().fold(std::mem::take(text), |text, (mark, value)| text.replace(mark, value));
            }
        };
        spec.env.values_mut().for_each(fill);
        for step in &mut spec.steps {
            // An action puts the values in place itself: its input lies in a file, and in JSON.
            let input = actions::input(step).is_some_and(|input| input.contains(&self.prefix));
            let secret = step.env.get(SECRET).is_some_and(|text| text.contains(&self.prefix));
            let own = step.env.iter_mut().filter(|(name, _)| *name != SECRET);
            own.for_each(|(_, text)| fill(text));
            step.secret.iter_mut().for_each(fill);
            if let Some(lent) = &mut step.key {
                fill(&mut lent.key);
                lent.passphrase.iter_mut().for_each(fill);
            }
            if input || secret {
                let values = serde_json::to_string(&values).unwrap_or_default();
                step.env.insert(SECRETS.to_owned(), values);
            }
        }
        Ok(())
    }
}

/// Adds to what is masked: what the environment holds under the name of a secret, and those of `known` (the server's own
/// secrets) that stand in the attempt's texts.
pub(super) fn mask_known(spec: &mut AttemptSpec, known: &[String]) {
    let mut masks: BTreeSet<String> = BTreeSet::new();
    for (name, text) in spec.env.iter().chain(spec.steps.iter().flat_map(|step| &step.env)) {
        if name == SECRET {
            let document: Value = serde_json::from_str(text).unwrap_or_default();
            sensitive_texts(&document, false, &mut masks);
        } else if is_sensitive(name) && name != SECRETS {
            masks.insert(text.clone());
        }
    }
    // A name that everybody may know, then the token.
    let handed = spec.steps.iter().filter_map(|step| step.secret.as_ref());
    masks.extend(handed.flat_map(|secret| secret.lines().skip(1)).map(str::to_owned));
    let lent = spec.steps.iter().filter_map(|step| step.key.as_ref());
    masks.extend(lent.flat_map(|lent| std::iter::once(&lent.key).chain(&lent.passphrase)).cloned());
    let texts = || {
        let steps = spec.steps.iter().flat_map(|step| step.env.values().chain(actions::text(step)));
        spec.env.values().chain(steps)
    };
    masks.extend(known.iter().filter(|value| texts().any(|text| text.contains(value.as_str()))).cloned());
    spec.masks.extend(masks);
}

/// The texts of a document that stand under the name of a secret.
fn sensitive_texts(value: &Value, is_secret: bool, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if is_secret => drop(found.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| sensitive_texts(item, is_secret, found)),
        Value::Object(map) => {
            map.iter().for_each(|(name, item)| sensitive_texts(item, is_secret || is_sensitive(name), found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use pitcrew_core::AttemptId;
    use pitcrew_exec::secrets::{Fetched, Provider, Secret, Source};
    use pitcrew_exec::{Command, StepSpec};
    use serde_json::json;

    use super::*;

    struct Fixed;

    #[async_trait]
    impl Provider for Fixed {
        fn has(&self, source: &Source) -> bool {
            matches!(source, Source::Store(_))
        }

        async fn get(&self, _: &SecretRef) -> Result<Fetched, SecretError> {
            Ok(Fetched { value: Secret::new("s3cret\"value"), version: "1".to_owned() })
        }
    }

    fn spec(steps: Vec<StepSpec>) -> AttemptSpec {
        let id: AttemptId =
            serde_json::from_value(json!({"run": 1, "task": "t", "map_index": -1, "number": 1})).unwrap();
        let mut spec = AttemptSpec::new(id, "/nowhere", "/nowhere");
        spec.steps = steps;
        spec
    }

    #[tokio::test]
    async fn marks_become_values_in_the_environment_and_nowhere_else() {
        let marks = Marks::new().unwrap();
        let (a, b) = (marks.mark("store:a").unwrap(), marks.mark("store:b").unwrap());
        assert_eq!(marks.mark("store:a").unwrap(), a);
        assert!(marks.mark("hunter2").unwrap_err().contains("no name of a secret"));
        let mut step = StepSpec::new("s", Command::shell(format!("echo {b}")));
        step.env = [("TOKEN".to_owned(), format!("x {b}")), ("FORGED".to_owned(), "secret-0000-0;".to_owned())].into();
        step.secret = Some(format!("me\n{a}\n"));
        let mut spec = spec(vec![step]);
        spec.env = [("KEY".to_owned(), a.clone())].into();
        let secrets = Secrets::new(vec![Arc::new(Fixed)], Duration::from_secs(1));
        marks.resolve(&mut spec, &secrets).await.unwrap();
        let step = &spec.steps[0];
        assert_eq!((spec.env["KEY"].as_str(), step.env["TOKEN"].as_str()), ("s3cret\"value", "x s3cret\"value"));
        assert_eq!(step.env["FORGED"], "secret-0000-0;");
        assert_eq!(step.secret.as_deref(), Some("me\ns3cret\"value\n"));
        assert!(step.command == Command::shell(format!("echo {b}")), "a script lies on a disk");
        assert_eq!(spec.masks, ["s3cret\"value", "s3cret\"value"]);
    }

    #[test]
    fn what_goes_by_the_name_of_a_secret_is_masked() {
        let mut step = StepSpec::new("s", Command::shell("login var-secret"));
        step.env = [
            ("DB_PASSWORD".to_owned(), "in the file".to_owned()),
            ("PLAIN".to_owned(), "shown".to_owned()),
            (
                SECRET.to_owned(),
                json!({"username": "somebody", "headers": {"Authorization": ["Bearer x"]}}).to_string(),
            ),
        ]
        .into();
        let mut spec = spec(vec![step]);
        mask_known(&mut spec, &["var-secret".to_owned(), "not here".to_owned()]);
        assert_eq!(spec.masks, ["Bearer x", "in the file", "var-secret"]);
    }
}
