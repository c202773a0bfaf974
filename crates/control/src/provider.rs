//! How people log in at a provider of identities (OpenID Connect), as the settings say it.

use std::fmt;

use anyhow::{Context as _, bail};
use pitcrew_store::Role;
use reqwest::Url;

/// How to log in at a provider.
#[derive(Clone, Default)]
pub struct OidcConfig {
    /// As the provider calls itself.
    pub issuer: String,
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<String>,
    /// Separated by spaces; `openid` is among them.
    pub scopes: String,
    /// What stands on the button.
    pub name: String,
    /// The claim that holds groups or roles.
    pub role_claim: String,
    /// Which of its values gives which role; the highest counts.
    pub roles: Vec<(String, Role)>,
    /// The role of whoever no value gives one; `None`: they do not come in.
    pub default_role: Option<Role>,
    /// Only addresses of mail in these come in; none: all.
    pub domains: Vec<String>,
}

impl fmt::Debug for OidcConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OidcConfig({} at {})", self.client_id, self.issuer)
    }
}

/// Which groups give which role, as a setting says it: `devs=user, admins=admin`.
pub fn roles(text: &str) -> Option<Vec<(String, Role)>> {
    let pair = |part: &str| {
        let (group, role) = part.rsplit_once('=')?;
        let group = group.trim();
        (!group.is_empty()).then_some((group.to_owned(), role.trim().parse().ok()?))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect()
}

/// An address over TLS, or on this machine.
pub fn address_of(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).with_context(|| format!("`{text}` is not an address"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        _ => bail!("`{text}` must begin with `https://`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_roles_are_read_as_they_are_written() {
        let read = roles("CN=devs=user, /admins = Admin,").unwrap();
        assert_eq!(read, [("CN=devs".to_owned(), Role::User), ("/admins".to_owned(), Role::Admin)]);
        for wrong in ["devs", "=user", "devs=root", "devs:user"] {
            assert_eq!(roles(wrong), None, "{wrong}");
        }
    }
}
