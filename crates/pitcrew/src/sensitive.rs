//! Names whose values are secrets: by the same words as Airflow, so that what it hides is hidden here too.

/// A name that holds one of these, whatever its case, names a secret.
const WORDS: [&str; 12] = [
    "access_token",
    "api_key",
    "apikey",
    "authorization",
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
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
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
}
