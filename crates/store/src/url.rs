//! The address of a store. A password in it is never printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Result, StoreError};

/// Where a store is.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// Nowhere: gone with the process. For tests and simulations.
    Memory,
    /// A file; made, with its folder, when it does not exist.
    Sqlite(PathBuf),
    /// A server, as a `postgres://…` address.
    Postgres(String),
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    /// `memory:`, `sqlite:PATH`, `postgres://…`, or a plain path.
    fn from_str(text: &str) -> Result<Self> {
        if text == "memory:" || text == "sqlite::memory:" {
            return Ok(StoreUrl::Memory);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(StoreUrl::Postgres(text.to_owned()));
        }
        let path = match text.strip_prefix("sqlite:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            // The scheme only: what follows it may hold a password.
            None => match text.split_once("://") {
                Some((scheme, _)) => {
                    return Err(StoreError::Invalid(format!(
                        "`{scheme}://` is no database that pitcrew knows: use a path, `sqlite:PATH` or `postgres://…`"
                    )));
                }
                None => text,
            },
        };
        if path.is_empty() {
            return Err(StoreError::Invalid(
                "the address of the database is empty: use a path, `sqlite:PATH` or `postgres://…`".to_owned(),
            ));
        }
        Ok(StoreUrl::Sqlite(PathBuf::from(path)))
    }
}

impl From<&Path> for StoreUrl {
    fn from(path: &Path) -> Self {
        StoreUrl::Sqlite(path.to_owned())
    }
}

/// As a user may see it: with `***` for a password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Memory => f.write_str("memory:"),
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            StoreUrl::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn without_password(url: &str) -> String {
    // A query may carry `password=`; nothing in it is worth showing.
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    let Some((scheme, rest)) = url.split_once("://") else { return "postgres://***".to_owned() };
    // A password may hold `@` or `/`: everything up to the last `@` is the login.
    match rest.rsplit_once('@') {
        None => url.to_owned(),
        Some((login, place)) => match login.split_once(':') {
            None => url.to_owned(),
            Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_a_known_scheme_and_shows_no_password() {
        for (text, shown) in [
            ("memory:", "memory:"),
            ("pitcrew.db", "sqlite:pitcrew.db"),
            ("sqlite:/var/lib/p.db", "sqlite:/var/lib/p.db"),
            ("sqlite:///var/lib/p.db", "sqlite:/var/lib/p.db"),
            ("postgres://u:p@ss:w@h:5432/db?password=x", "postgres://u:***@h:5432/db"),
            ("postgresql://h/db", "postgresql://h/db"),
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), shown);
        }
        let error = "mysql://u:secret@h/db".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(error.contains("`mysql://`") && !error.contains("secret"), "{error}");
        assert!("sqlite:".parse::<StoreUrl>().is_err());
    }
}
