//! Where people find the server: its own address, or the one that a proxy in front of it has.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use axum::http::Uri;

/// `https://pitcrew.example.com`: scheme, host and port, and nothing after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    https: bool,
    authority: String,
}

impl BaseUrl {
    /// That of a server that listens there. An address of all interfaces is shown as the loopback one.
    pub fn of(listen: SocketAddr) -> BaseUrl {
        let mut shown = listen;
        if listen.ip().is_unspecified() {
            let loopback = if listen.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
            shown.set_ip(loopback);
        }
        BaseUrl { https: false, authority: shown.to_string() }
    }

    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Its own, or that of its scheme.
    pub fn port(&self) -> u16 {
        let own = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        own.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// `pitcrew.example.com`, with its port if it has one of its own.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("must be an address such as `https://pitcrew.example.com`, found `{text}`");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("" | "/")) {
            return Err(format!("cannot have a path, found `{text}`: give pitcrew a host name of its own"));
        }
        Ok(BaseUrl { https, authority: authority.as_str().to_ascii_lowercase() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_a_host_and_no_path() {
        let shown = |text: &str| text.parse::<BaseUrl>().map(|url| url.to_string());
        assert_eq!(shown("https://CI.example.com/"), Ok("https://ci.example.com".into()));
        assert_eq!(shown("http://10.0.0.1:8793"), Ok("http://10.0.0.1:8793".into()));
        for wrong in ["ci.example.com", "ftp://a", "https://", "https://u:p@a", "https://a/b", "https://a/?q", ""] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        assert_eq!(BaseUrl::of("0.0.0.0:80".parse().unwrap()).to_string(), "http://127.0.0.1:80");
    }
}
