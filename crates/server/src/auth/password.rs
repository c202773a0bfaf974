//! Passwords: argon2id hashes in PHC format.
//!
//! One hash takes 19 MiB and some ten milliseconds by design, so it runs beside the async threads and few run at a time.
//! A password is compared with something even when there is nothing to compare with, so that the time of an answer
//! does not tell which names exist.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use pitcrew_control::vault::random;
use tokio::sync::Semaphore;

/// Passwords have at least so many characters.
const MIN_CHARS: usize = 10;
/// Longer ones would only cost time.
pub const MAX_BYTES: usize = 512;

/// Hashes at the same moment.
static SLOTS: Semaphore = Semaphore::const_new(2);

/// Costs what a real one costs, and no password is known to fit.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Says what is wrong with a new password.
pub fn check_new(password: &str) -> Result<(), String> {
    match password {
        p if p.chars().count() < MIN_CHARS => Err(format!("a password has at least {MIN_CHARS} characters")),
        p if p.len() > MAX_BYTES => Err(format!("a password has at most {MAX_BYTES} bytes")),
        _ => Ok(()),
    }
}

/// The hash to store.
pub async fn hash(password: &str) -> anyhow::Result<String> {
    let password = password.to_owned();
    let salt = random::<16>()?;
    beside(move || {
        let hash: PasswordHash = Argon2::default()
            .hash_password_with_salt(password.as_bytes(), &salt)
            .map_err(|error| anyhow::anyhow!("the password cannot be hashed: {error}"))?;
        Ok(hash.to_string())
    })
    .await?
}

/// Whether a password fits a stored hash. Without a hash it never does, after the same time.
pub async fn fits(password: &str, hash: Option<&str>) -> bool {
    if password.len() > MAX_BYTES {
        return false;
    }
    let (password, hash) = (password.to_owned(), hash.unwrap_or(DECOY).to_owned());
    let compare = move || {
        let Ok(hash) = PasswordHash::new(&hash) else { return false };
        Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
    };
    beside(compare).await.unwrap_or(false)
}

/// 24 letters and digits that cannot be mistaken for each other: 120 random bits.
pub fn generate() -> anyhow::Result<String> {
    letters::<24>()
}

/// So many random letters and digits, five bits each.
pub fn letters<const N: usize>() -> anyhow::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    Ok(random::<N>()?.iter().map(|byte| LETTERS[(byte & 31) as usize] as char).collect())
}

async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let _slot = SLOTS.acquire().await?;
    Ok(tokio::task::spawn_blocking(work).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_fits_its_password_only() {
        let hash = hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(fits("correct horse", Some(&hash)).await);
        assert!(!fits("correct horse ", Some(&hash)).await);
        assert_ne!(hash, super::hash("correct horse").await.unwrap());
        for wrong in [None, Some(""), Some("$argon2id$"), Some("correct horse")] {
            assert!(!fits("correct horse", wrong).await, "{wrong:?}");
        }
        assert!(!fits(&"x".repeat(MAX_BYTES + 1), Some(&hash)).await);
    }

    #[test]
    fn the_decoy_costs_what_a_hash_costs() {
        let decoy = PasswordHash::new(DECOY).unwrap();
        let params = argon2::Params::try_from(&decoy).unwrap();
        let ours = argon2::Params::default();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), (ours.m_cost(), ours.t_cost(), ours.p_cost()));
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        assert!(check_new("correct ho").is_ok());
        assert!(check_new("correct h").unwrap_err().contains("at least 10"));
        assert!(check_new(&"x".repeat(MAX_BYTES + 1)).unwrap_err().contains("at most"));
    }
}
