//! The HTTP clients of notifications, and what they refuse to talk to.
//!
//! Invariant: a request goes to the address that the configuration names and to no other. Redirects are not followed,
//! and link-local addresses, where clouds keep the credentials of a machine, are refused after the name was looked
//! up; so neither an answer nor a name server can lead a request there. A proxy of the environment is used, and then
//! looks names up itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::send::Failed;
use super::text;

/// How much of a refusal is read for the error.
const ERROR_BODY: usize = 300;
/// A server that asks for more patience than this is asked again all the same.
const MOST_PATIENCE: u64 = 3600;

/// One client that refuses link-local addresses, and one that does not.
#[derive(Clone)]
pub struct Clients {
    guarded: Client,
    open: Client,
}

impl Clients {
    pub fn new() -> anyhow::Result<Clients> {
        let builder = || {
            Client::builder()
                .redirect(Policy::none())
                .connect_timeout(Duration::from_secs(10))
                .user_agent(concat!("pitcrew/", env!("CARGO_PKG_VERSION")))
        };
        let guarded = builder().dns_resolver(Arc::new(Guard)).build().context("cannot make an HTTP client")?;
        Ok(Clients { guarded, open: builder().build().context("cannot make an HTTP client")? })
    }

    /// The client for an address. The error is a sentence.
    pub fn client_for(&self, url: &Url, allow_link_local: bool) -> Result<&Client, Failed> {
        if allow_link_local {
            return Ok(&self.open);
        }
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        match literal.filter(|ip| is_link_local(*ip)) {
            Some(ip) => Err(Failed::lasting(refusal(ip))),
            None => Ok(&self.guarded),
        }
    }
}

fn refusal(ip: IpAddr) -> String {
    format!("{ip} is a link-local address, where machines keep their credentials; `allow_link_local: true` allows it")
}

/// Looks names up, and drops the addresses that must not be asked.
struct Guard;

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match found.iter().find(|address| is_link_local(address.ip())) {
                Some(address) => Err(refusal(address.ip()).into()),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// Addresses of the machine's own network link, among them those of the clouds' metadata services.
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || v4 == Ipv4Addr::new(100, 100, 100, 200),
        IpAddr::V6(v6) => {
            let aws = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            let v4 = v6.to_ipv4_mapped().or_else(|| embedded(v6));
            v6.is_unicast_link_local()
                || v6 == aws
                || v6.is_unspecified()
                || v4.is_some_and(|v4| is_link_local(v4.into()))
        }
    }
}

/// The IPv4 address inside an address of a NAT64 gateway or a 6to4 one.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let v4 = |a: u16, b: u16| Ipv4Addr::from(u32::from(a) << 16 | u32::from(b));
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => Some(v4(a, b)),
        [0x2002, a, b, ..] => Some(v4(a, b)),
        _ => None,
    }
}

/// Reads an address that may be posted to. The error is the end of a sentence, without the address.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("is not an address: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "http" | "https" => Err("has no host".to_owned()),
        other => Err(format!("must begin with `https://` or `http://`, found `{}:`", text::cut(other, 20))),
    }
}

/// The address without path, query and login, for people.
pub fn host(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or("?"))
        }
        Err(_) => "the address".to_owned(),
    }
}

/// Why a request got no answer. The address is left out: its path may be a secret.
pub fn unanswered(error: reqwest::Error, host: &str) -> Failed {
    let passing = !error.is_builder();
    let timed_out = error.is_timeout();
    let error = anyhow::Error::new(error.without_url());
    let link_local = error.chain().map(ToString::to_string).find(|why| why.contains("link-local address"));
    match link_local {
        Some(why) => Failed::lasting(why),
        None if timed_out => Failed::passing(format!("{host} did not answer in time")),
        None => Failed { passing, ..Failed::passing(format!("{host}: {}", causes(&error))) },
    }
}

/// The innermost causes say what happened; the outer ones only that a request failed.
fn causes(error: &anyhow::Error) -> String {
    let mut chain: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    chain.dedup();
    if chain.is_empty() { error.to_string() } else { chain.join(": ") }
}

/// What an answer means. Any 2xx is a success; what may pass is told apart from what will not.
pub async fn answered(response: Response, host: &str, now: Timestamp) -> Result<(), Failed> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    if status.is_redirection() {
        let to = response.headers().get("location").and_then(|to| to.to_str().ok()).map(self::host);
        let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
        return Err(Failed::lasting(format!(
            "{host} redirects{to} ({}); redirects are not followed: configure the final address",
            status.as_u16()
        )));
    }
    let wait = response.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?, now));
    let passing = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY);
    let body = read_start(response).await;
    let body = text::cut(&text::one_line(&body), ERROR_BODY);
    let colon = if body.is_empty() { "" } else { ": " };
    Err(Failed { error: format!("{host} answered {status}{colon}{body}"), passing, wait })
}

/// Seconds, or a date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let seconds = match value.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
            u64::try_from(at.duration_since(now).as_secs()).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds.min(MOST_PATIENCE)))
}

/// The beginning of a body, whatever its length.
async fn read_start(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > 4 * ERROR_BODY {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Refuses an address that came from a secret and cannot be used.
pub fn secret_address(text: &str, what: &str) -> Result<Url, Failed> {
    match address(text) {
        Ok(url) => Ok(url),
        Err(why) => Err(Failed::lasting(format!("{what} {why}"))),
    }
}

/// Reads `name: value` pairs into headers; the error names the header and not its value.
pub fn header(name: &str, value: &str) -> anyhow::Result<(reqwest::header::HeaderName, reqwest::header::HeaderValue)> {
    let name: reqwest::header::HeaderName = name.parse().with_context(|| format!("`{name}` is not a header"))?;
    let Ok(mut value) = reqwest::header::HeaderValue::from_str(value.trim()) else {
        bail!("the value of the header `{name}` has characters that a header cannot have");
    };
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_metadata_services_are_refused_in_every_spelling() {
        for ip in [
            "169.254.169.254",
            "0.0.0.0",
            "fe80::1",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "100.100.100.200",
        ] {
            assert!(is_link_local(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "::1", "2001:db8::1", "64:ff9b::808:808"] {
            assert!(!is_link_local(ip.parse().unwrap()), "{ip}");
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = Clients::new().unwrap();
        // Numbers are addresses too: the URL parser makes them dotted before we look.
        for url in ["http://169.254.169.254/", "http://2852039166/", "http://0xa9fea9fe/", "http://[::ffff:a9fe:a9fe]/"]
        {
            let url = address(url).unwrap();
            assert!(clients.client_for(&url, false).is_err(), "{url}");
            assert!(clients.client_for(&url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn addresses_and_waits_are_read() {
        assert!(address("ftp://x/").unwrap_err().contains("`ftp:`"));
        assert!(address("hello").is_err());
        assert_eq!(host("https://u:p@hooks.example.com:8443/T0/secret?x"), "https://hooks.example.com:8443");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("99999999", now), Some(Duration::from_secs(MOST_PATIENCE)));
        assert_eq!(retry_after("soon", now), None);
    }
}
