//! The value of a secret.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use zeroize::Zeroizing;

/// Bytes that are shown nowhere: no `Display`, no `Serialize`, and a `Debug` without them. Cheap to clone; wiped when the
/// last clone goes.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// The value itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as text; `None` if it is none.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The first of these fields that the value has, if it is a JSON object and the field holds a text or a number.
    pub fn field(&self, names: &[&str]) -> Option<Secret> {
        let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(&self.0) else { return None };
        names.iter().find_map(|name| match map.get(*name)? {
            Value::String(text) => Some(Secret::new(text.as_bytes())),
            number @ Value::Number(_) => Some(Secret::new(number.to_string())),
            _ => None,
        })
    }

    /// Names of the fields, if the value is a JSON object: for messages about one that is missing.
    pub fn field_names(&self) -> Option<Vec<String>> {
        match serde_json::from_slice::<Value>(&self.0) {
            Ok(Value::Object(map)) => Some(map.into_iter().map(|(name, _)| name).collect()),
            _ => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    /// In a time that says nothing about where they differ.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.expose(), other.expose());
        a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_taken_by_the_first_name_that_fits() {
        let secret = Secret::new(r#"{"user":"ci","port":22,"private_key":"PEM","list":[1]}"#);
        assert_eq!(secret.field(&["key", "private_key"]), Some(Secret::new("PEM")));
        assert_eq!(secret.field(&["port"]), Some(Secret::new("22")));
        assert_eq!((secret.field(&["list"]), secret.field(&["nothing"])), (None, None));
        assert_eq!(Secret::new("-----BEGIN").field(&["key"]), None);
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
