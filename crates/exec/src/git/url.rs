//! Where a repository is: which ways of reaching one are allowed, and credentials kept apart from the address.
//!
//! Invariant: a [`Location`]'s URL holds no secret, cannot be taken for an option, and names no transport that
//! runs a program.

use std::borrow::Cow;

use super::{Credentials, GitError};

const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

#[derive(Debug)]
pub(super) struct Location {
    /// Without a password; a local path is absolute.
    pub url: String,
    /// `https://host:port/`, for web addresses: credentials are for this only.
    pub origin: Option<String>,
    /// A path on this machine.
    pub local: bool,
    /// Those that stood in the URL.
    pub credentials: Option<Credentials>,
}

pub(super) fn locate(url: &str) -> Result<Location, GitError> {
    let refuse = |why: &str| Err(GitError::Request(format!("the repository `{}` {why}", without_credentials(url))));
    if url.is_empty() {
        return Err(GitError::Request("the address of the repository is empty".into()));
    }
    if url.starts_with('-') || url.chars().any(char::is_control) {
        return refuse("has a name that git could take for something else");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        if url.split('/').next().is_some_and(|first| first.contains("::")) {
            return refuse("names a transport that is not allowed; use https, http, ssh, git, file or a local path");
        }
        return Ok(without_scheme(url));
    };
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        return refuse("names a transport that is not allowed; use https, http, ssh, git, file or a local path");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.starts_with('-') || user.is_some_and(|user| user.starts_with('-')) {
        return refuse("has a host that git could take for an option");
    }
    let is_web = matches!(scheme.as_str(), "http" | "https");
    let credentials = user.filter(|_| is_web).map(|user| {
        let (name, password) = user.split_once(':').unwrap_or(("x-access-token", user));
        Credentials { username: percent_decoded(name), password: percent_decoded(password) }
    });
    Ok(Location {
        url: if is_web { format!("{scheme}://{host}{path}") } else { url.to_owned() },
        origin: is_web.then(|| format!("{scheme}://{host}/")),
        local: scheme == "file",
        credentials,
    })
}

/// `user@host:path`, or a path.
fn without_scheme(url: &str) -> Location {
    // A colon before any slash makes it remote, as git sees it.
    let remote = url.find(':').is_some_and(|colon| !url[..colon].contains('/'));
    let url = match remote {
        true => url.to_owned(),
        false => std::path::absolute(url).map_or_else(|_| url.to_owned(), |path| path.display().to_string()),
    };
    Location { url, origin: None, local: !remote, credentials: None }
}

/// `%2F` is `/`; what is no code stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten().and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text with `***` for what stands between `://` and `@` in a URL.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (head, tail) = rest.split_at(start + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c == '/' || c.is_whitespace() || "'\"`<>".contains(c)).unwrap_or(tail.len());
        rest = match tail[..end].rfind('@') {
            Some(at) => {
                out.push_str("***");
                &tail[at..]
            }
            None => tail,
        };
    }
    if out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_that_run_programs_and_names_like_options_are_refused() {
        for bad in [
            "ext::sh -c id",
            "fd::17",
            "ftp://host/x",
            "--upload-pack=id",
            "-oProxyCommand=id",
            "",
            "http+ext://x",
            "ssh://-oProxyCommand=id/x",
            "ssh://-l@host/x",
            "a\nb",
            "transport::https://host/x",
        ] {
            assert!(locate(bad).is_err(), "{bad:?}");
        }
        for good in
            ["https://h/x", "ssh://git@h:22/x", "git@h:x/y.git", "file:///x", "/x/y", "../x", "./a:b", "git://h/x"]
        {
            assert!(locate(good).is_ok(), "{good:?}");
        }
        assert!(locate("/x").unwrap().local && locate("file:///x").unwrap().local && !locate("git@h:x").unwrap().local);
    }

    #[test]
    fn credentials_leave_the_url_and_never_reach_a_text() {
        let location = locate("https://me:p%40ss@host:8443/x.git").unwrap();
        assert_eq!(location.url, "https://host:8443/x.git");
        assert_eq!(location.origin.as_deref(), Some("https://host:8443/"));
        let credentials = location.credentials.as_ref().unwrap();
        assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("me", "p@ss"));
        assert!(!format!("{location:?}").contains("p@ss"));

        let text = "cannot reach 'https://me:secret@host/x' or http://token@h, but ssh://h/a@b";
        assert_eq!(without_credentials(text), "cannot reach 'https://***@host/x' or http://***@h, but ssh://h/a@b");
    }
}
