//! Names whose values are secrets: by Airflow's words and a few more, so that what it hides is hidden here too.

use serde_json::Value;

/// A name that holds one of these, whatever its case, names a secret.
const WORDS: [&str; 14] = [
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "credential",
    "keyfile_dict",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "secret",
    "service_account",
    "token",
];

/// What is shown in place of a secret.
pub const HIDDEN: &str = "***";

/// Is the value of something with this name a secret?
pub fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    WORDS.iter().any(|word| name.contains(word))
}

/// A value as it may be shown under a name. A text that is a JSON object or list is looked through, so that only its
/// secret parts are masked.
pub fn shown(name: &str, value: &str) -> String {
    if is_sensitive(name) {
        return HIDDEN.to_owned();
    }
    match serde_json::from_str::<Value>(value) {
        Ok(mut document) => {
            if hide(&mut document) {
                document.to_string()
            } else {
                value.to_owned()
            }
        }
        Err(_) => value.to_owned(),
    }
}

/// Masks the secret parts of a document; says whether there were any.
pub fn hide(document: &mut Value) -> bool {
    match document {
        Value::Object(map) => map.iter_mut().fold(false, |hidden, (key, value)| {
            if is_sensitive(key) && !value.is_null() {
                *value = Value::String(HIDDEN.to_owned());
                return true;
            }
            hide(value) || hidden
        }),
        Value::Array(list) => {
            let mut hidden = false;
            for value in list {
                hidden |= hide(value);
            }
            hidden
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in ["DB_PASSWORD", "slack_token", "my-secret", "aws_secret_access_key", "x_Api_Key"] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["bucket", "pass_rate", "key", "keyboard", ""] {
            assert!(!is_sensitive(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_masked_and_nothing_else() {
        assert_eq!(shown("DB_PASSWORD", "x"), HIDDEN);
        assert_eq!(shown("greeting", "hello"), "hello");
        assert_eq!(
            shown("conf", r#"{"user":"a","auth":{"Api_Key":"k"},"list":[{"token":1}]}"#),
            r#"{"user":"a","auth":{"Api_Key":"***"},"list":[{"token":"***"}]}"#
        );
        assert_eq!(shown("conf", r#"{ "user": "a" }"#), r#"{ "user": "a" }"#, "left as it was written");
    }
}
