//! Where an engine is: the forms of `DOCKER_HOST`, and the certificates of a remote one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::Fault;
use super::keeper::EnginePlace;

/// Where Docker's own engine of a machine listens.
pub const USUAL: &str = "unix:///var/run/docker.sock";

/// Where an engine is, as the variables of the `docker` command say it (`DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`).
pub fn place_of(variable: &dyn Fn(&str) -> Option<String>) -> EnginePlace {
    let given = |name: &str| variable(name).filter(|text| !text.is_empty());
    let home = || given("HOME").map(|home| Path::new(&home).join(".docker"));
    let is_safe = given("DOCKER_TLS_VERIFY").is_some() && given("DOCKER_HOST").is_some();
    EnginePlace {
        host: given("DOCKER_HOST").unwrap_or_else(|| USUAL.to_owned()),
        certificates: is_safe.then(|| given("DOCKER_CERT_PATH").map(PathBuf::from).or_else(home)).flatten(),
    }
}

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A machine as `ssh` names it, and the socket there.
    Ssh { authority: String, socket: PathBuf },
    /// `host:port`. Without certificates anybody on the way can read it, and whoever reaches the port is root there.
    Tcp { authority: String, tls: Option<Tls> },
}

/// How both sides of a connection over TCP know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// A folder with `ca.pem`, `cert.pem` and `key.pem`, as the `docker` command has it.
    pub folder: PathBuf,
}

impl Address {
    /// Reads the forms of `DOCKER_HOST`: `unix:///path`, `ssh://user@host:port`, which may have the path of a socket behind it, and
    /// `tcp://host:port`, the latter with the certificates in `folder`.
    ///
    /// # Errors
    /// A sentence that says what was wrong and what is possible.
    pub fn parse(text: &str, folder: Option<&Path>) -> Result<Address, String> {
        let tls = folder.map(|folder| Tls { folder: folder.to_owned() });
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Address::Unix(path.into())),
            Some(("unix", path)) => {
                Err(format!("`unix://{path}` is no absolute path of a socket: write `unix:///{path}`"))
            }
            Some(("tcp" | "https", rest)) => {
                let authority = rest.trim_end_matches('/');
                if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
                    return Err(format!("`{text}` is not `tcp://host:port`"));
                }
                let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let port = if tls.is_some() { 2376 } else { 2375 };
                let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
                Ok(Address::Tcp { authority, tls })
            }
            Some(("ssh", rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let (_, usual) = USUAL.split_once("://").unwrap_or_default();
                let socket = if path.is_empty() { usual.into() } else { PathBuf::from(format!("/{path}")) };
                match crate::ssh::address(authority) {
                    Ok(_) => Ok(Address::Ssh { authority: authority.to_owned(), socket }),
                    Err(_) => Err(format!("`{text}` is not `ssh://user@host:port`")),
                }
            }
            Some((scheme, _)) => Err(format!(
                "an engine is not reached by `{scheme}://`: write `unix:///path`, `ssh://user@host` or `tcp://host:port`"
            )),
            None => Err(format!(
                "`{text}` is no address of an engine: write `unix:///path`, `ssh://user@host` or `tcp://host:port`"
            )),
        }
    }

    /// What the variables of the `docker` command say (`DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`), else the usual socket.
    ///
    /// # Errors
    /// As [`Address::parse`], with the name of the variable.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Address, String> {
        let place = place_of(&variable);
        Address::parse(&place.host, place.certificates.as_deref()).map_err(|words| format!("`DOCKER_HOST`: {words}"))
    }

    pub(super) fn client(&self, connect: Duration) -> Result<(reqwest::Client, String), Fault> {
        let http = reqwest::Client::builder().connect_timeout(connect).no_proxy().http1_only();
        let (http, base) = match self {
            Address::Unix(path) => (http.unix_socket(path.as_path()), "http://engine".to_owned()),
            Address::Ssh { .. } => return Err(Fault::invalid(format!("{self} is not connected to directly"))),
            Address::Tcp { authority, tls: None } => (http, format!("http://{authority}")),
            Address::Tcp { authority, tls: Some(tls) } => (tls.apply(http)?, format!("https://{authority}")),
        };
        let cannot = |error| Fault::invalid(format!("cannot prepare a connection to {self}: {error}"));
        Ok((http.build().map_err(cannot)?, base))
    }
}

impl Tls {
    fn apply(&self, http: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, Fault> {
        let read = |name: &str| {
            let path = self.folder.join(name);
            std::fs::read(&path).map_err(|error| Fault::invalid(format!("cannot read `{}`: {error}", path.display())))
        };
        let authority = reqwest::Certificate::from_pem_bundle(&read("ca.pem")?).ok().filter(|all| !all.is_empty());
        let authority = authority.ok_or_else(|| Fault::invalid("`ca.pem` holds no certificate"))?;
        let mut pem = read("cert.pem")?;
        pem.push(b'\n');
        pem.extend(read("key.pem")?);
        // The error might show the key.
        let identity = reqwest::Identity::from_pem(&pem)
            .map_err(|_| Fault::invalid("`cert.pem` and `key.pem` are no certificate and key that can be read"))?;
        Ok(http.tls_certs_only(authority).identity(identity).https_only(true))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "the engine at `unix://{}`", path.display()),
            Address::Ssh { authority, .. } => write!(f, "the engine at `ssh://{authority}`"),
            Address::Tcp { authority, .. } => write!(f, "the engine at `tcp://{authority}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_docker() {
        let parsed = |text: &str| Address::parse(text, None);
        assert_eq!(parsed("unix:///run/d.sock"), Ok(Address::Unix("/run/d.sock".into())));
        let tcp = |authority: &str| Ok(Address::Tcp { authority: authority.to_owned(), tls: None });
        assert_eq!(parsed("tcp://gpu-1:2375"), tcp("gpu-1:2375"));
        assert_eq!(parsed("tcp://gpu-1/"), tcp("gpu-1:2375"));
        assert_eq!(parsed("tcp://[::1]"), tcp("[::1]:2375"));
        let ssh =
            |authority: &str, socket: &str| Ok(Address::Ssh { authority: authority.to_owned(), socket: socket.into() });
        assert_eq!(parsed("ssh://me@gpu-1:2222"), ssh("me@gpu-1:2222", "/var/run/docker.sock"));
        assert_eq!(parsed("ssh://gpu-1/run/podman.sock"), ssh("gpu-1", "/run/podman.sock"));
        for wrong in [
            "",
            "/run/d.sock",
            "unix://run/d.sock",
            "ssh://",
            "ssh://a b",
            "fd://3",
            "tcp://",
            "tcp://a@b:1",
            "tcp://a/b",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_variables_of_docker_count() {
        let of = |set: &[(&str, &str)]| {
            let set = set.to_vec();
            Address::of_environment(move |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), Address::parse(USUAL, None));
        let tls = Some(Tls { folder: "/home/me/.docker".into() });
        assert_eq!(
            of(&[("DOCKER_HOST", "tcp://gpu-1"), ("DOCKER_TLS_VERIFY", "1"), ("HOME", "/home/me")]),
            Ok(Address::Tcp { authority: "gpu-1:2376".to_owned(), tls })
        );
        let words = of(&[("DOCKER_HOST", "gpu-1")]).unwrap_err();
        assert!(words.starts_with("`DOCKER_HOST`: `gpu-1` is no address"), "{words}");
    }
}
