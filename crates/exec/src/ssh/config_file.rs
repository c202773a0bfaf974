//! `~/.ssh/config`: what it says about a host, for whoever signs in from here.
//!
//! As OpenSSH reads it: the first value of a keyword wins, `Host` and `Match host|all` begin a block, `Include` reads
//! other files. Keywords that concern nothing that is done here are passed over. Invariant: nothing in it runs a
//! program, and nothing in it turns the check of host keys off; a host for which it asks for either is refused in words.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::Fault;
use super::known_hosts;

/// Includes within includes.
const DEEPEST: usize = 8;
/// Lines of all files together.
const MOST_LINES: usize = 100_000;

/// The lines of the file and of those that it includes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigFile {
    lines: Vec<Line>,
    home: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
struct Line {
    /// Every one of them must hold: that of the file, and those of the blocks around an `Include`.
    blocks: Vec<Block>,
    keyword: String,
    values: Vec<String>,
    place: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Block {
    /// Patterns for the name that was given.
    Host(Vec<String>),
    /// Patterns for the name after `HostName`.
    MatchHost(Vec<String>),
    MatchOriginal(Vec<String>),
    /// Asks for something that is not looked at here.
    Never,
}

/// What the file says about one host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostSettings {
    pub host_name: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identity_files: Vec<PathBuf>,
    pub identities_only: bool,
    /// `Some(None)`: no agent.
    pub identity_agent: Option<Option<PathBuf>>,
    /// `user@host:port`, separated by commas.
    pub proxy_jump: Option<String>,
    /// Empty: the usual files.
    pub known_hosts: Vec<PathBuf>,
    pub host_key_alias: Option<String>,
    /// `yes`: only known keys. `accept-new`: `Some(false)`.
    pub strict: Option<bool>,
    pub connect_timeout_s: Option<u32>,
    pub keep_alive_s: Option<u64>,
    pub keep_alive_times: Option<usize>,
}

impl ConfigFile {
    /// Reads `home/.ssh/config`; if it is missing, it says nothing.
    pub fn load(home: &Path) -> Result<ConfigFile, Fault> {
        let mut file = ConfigFile { lines: Vec::new(), home: home.to_owned() };
        let path = home.join(".ssh/config");
        file.read(&path, &[], 0)?;
        Ok(file)
    }

    fn read(&mut self, path: &Path, around: &[Block], depth: usize) -> Result<(), Fault> {
        let wrong = |why: String| Fault::Config(format!("`{}`: {why}", path.display()));
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mode = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.permissions().mode();
        if mode & 0o022 != 0 {
            return Err(wrong(format!("others can write to it ({:04o}): `chmod go-w` it", mode & 0o777)));
        }
        let mut block: Option<Block> = None;
        for (at, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), at + 1);
            let Some((keyword, values)) = words(line) else { continue };
            match keyword.as_str() {
                "host" => block = Some(Block::Host(values)),
                "match" => block = Some(match_block(&values)),
                "include" => {
                    if depth == DEEPEST {
                        return Err(Fault::Config(format!("`{place}`: files include each other too deeply")));
                    }
                    let blocks: Vec<Block> = around.iter().cloned().chain(block.clone()).collect();
                    for pattern in &values {
                        for included in self.included(pattern) {
                            self.read(&included, &blocks, depth + 1)?;
                        }
                    }
                }
                _ => {
                    let blocks = around.iter().cloned().chain(block.clone()).collect();
                    self.lines.push(Line { blocks, keyword, values, place });
                }
            }
            if self.lines.len() > MOST_LINES {
                return Err(wrong("it is too long".into()));
            }
        }
        Ok(())
    }

    /// Files that a pattern means, in order; only its last part may hold `*` and `?`.
    fn included(&self, pattern: &str) -> Vec<PathBuf> {
        let path = match self.expand_home(pattern) {
            path if path.is_absolute() => path,
            path => self.home.join(".ssh").join(path),
        };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !name.contains(['*', '?']) {
            return vec![path];
        }
        let Some(entries) = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()) else { return Vec::new() };
        let fits = |entry: &std::fs::DirEntry| {
            let found = entry.file_name();
            let found = found.to_string_lossy();
            // As a shell has it: hidden files only when asked for.
            (!found.starts_with('.') || name.starts_with('.'))
                && known_hosts::list_matches([name.as_str()].into_iter(), &found)
        };
        let mut found: Vec<PathBuf> = entries.flatten().filter(fits).map(|entry| entry.path()).collect();
        found.sort();
        found
    }

    fn expand_home(&self, text: &str) -> PathBuf {
        match text.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => PathBuf::from(text),
        }
    }

    /// What it says about `host`, which is the name as it was given; `user` and `port` are those that are set already.
    pub fn settings(&self, host: &str, user: Option<&str>, port: Option<u16>) -> Result<HostSettings, Fault> {
        let mut found = HostSettings::default();
        let mut files: Option<Vec<String>> = None;
        let mut identities: Vec<String> = Vec::new();
        let mut jump: Option<&Line> = None;
        let mut host_name: Option<String> = None;
        for line in &self.lines {
            let real = host_name.as_deref().unwrap_or(host);
            if !line.blocks.iter().all(|block| block.holds(host, real)) {
                continue;
            }
            let Some(value) = line.values.first() else { continue };
            let wrong = |what: &str| Fault::Config(format!("`{}`: {what}", line.place));
            match line.keyword.as_str() {
                "hostname" if host_name.is_none() => host_name = Some(value.replace("%h", host).replace("%%", "%")),
                "user" => found.user = found.user.take().or(Some(value.clone())),
                "port" if found.port.is_none() => {
                    found.port = Some(value.parse().map_err(|_| wrong("a port is a number from 1 to 65535"))?);
                }
                "identityfile" => identities.push(value.clone()),
                "identitiesonly" => found.identities_only |= is_yes(value),
                "identityagent" if found.identity_agent.is_none() => {
                    found.identity_agent = match value.as_str() {
                        "none" => Some(None),
                        "SSH_AUTH_SOCK" => None,
                        other if other.starts_with('$') => {
                            let name = other.trim_start_matches('$').trim_matches(['{', '}']);
                            Some(std::env::var_os(name).map(PathBuf::from))
                        }
                        path => Some(Some(self.expand_home(path))),
                    }
                }
                // Whichever comes first rules out the other.
                "proxyjump" | "proxycommand" => jump = jump.or(Some(line)),
                "userknownhostsfile" => files = files.or_else(|| Some(line.values.clone())),
                "hostkeyalias" => found.host_key_alias = found.host_key_alias.take().or(Some(value.clone())),
                "stricthostkeychecking" if found.strict.is_none() => {
                    found.strict = match value.to_ascii_lowercase().as_str() {
                        "yes" => Some(true),
                        // Nobody is there to be asked.
                        "ask" | "accept-new" => Some(false),
                        _ => {
                            return Err(wrong(
                                "host keys are always checked: write `StrictHostKeyChecking accept-new`",
                            ));
                        }
                    }
                }
                "connecttimeout" if found.connect_timeout_s.is_none() => found.connect_timeout_s = value.parse().ok(),
                "serveraliveinterval" if found.keep_alive_s.is_none() => found.keep_alive_s = value.parse().ok(),
                "serveralivecountmax" if found.keep_alive_times.is_none() => {
                    found.keep_alive_times = value.parse().ok()
                }
                _ => {}
            }
        }
        if let Some(line) = jump.filter(|line| line.values.first().is_none_or(|value| value != "none")) {
            if line.keyword == "proxycommand" {
                return Err(Fault::Config(format!(
                    "`{}`: `ProxyCommand` runs a program, which pitcrew does not do: use `ProxyJump`",
                    line.place
                )));
            }
            found.proxy_jump = line.values.first().cloned();
        }
        let real = host_name.as_deref().unwrap_or(host);
        let tokens = Tokens {
            host: real,
            name: host,
            port: port.or(found.port).unwrap_or(crate::place::SSH_PORT),
            user: user.or(found.user.as_deref()).unwrap_or_default(),
            home: &self.home,
        };
        let path = |text: &String| self.expand_home(&tokens.expand(text));
        found.identity_files = identities.iter().filter(|text| *text != "none").map(path).collect();
        found.known_hosts = files.unwrap_or_default().iter().filter(|text| *text != "none").map(path).collect();
        found.host_key_alias = found.host_key_alias.map(|alias| tokens.expand(&alias));
        found.host_name = host_name;
        Ok(found)
    }
}

impl Block {
    fn holds(&self, given: &str, real: &str) -> bool {
        let fits = |patterns: &[String], name| known_hosts::list_matches(patterns.iter().map(String::as_str), name);
        match self {
            Block::Host(patterns) | Block::MatchOriginal(patterns) => fits(patterns, given),
            Block::MatchHost(patterns) => fits(patterns, real),
            Block::Never => false,
        }
    }
}

fn match_block(values: &[String]) -> Block {
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    let words: Vec<&str> = values.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["all"] => Block::Host(vec!["*".into()]),
        ["host", patterns] => Block::MatchHost(list(patterns)),
        ["originalhost", patterns] => Block::MatchOriginal(list(patterns)),
        _ => Block::Never,
    }
}

struct Tokens<'a> {
    host: &'a str,
    name: &'a str,
    port: u16,
    user: &'a str,
    home: &'a Path,
}

impl Tokens<'_> {
    fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('h') => out.push_str(self.host),
                Some('n') => out.push_str(self.name),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('d') => out.push_str(&self.home.to_string_lossy()),
                Some('u') => out.push_str(&std::env::var("USER").unwrap_or_default()),
                Some('%') => out.push('%'),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}

fn is_yes(value: &str) -> bool {
    value.eq_ignore_ascii_case("yes") || value.eq_ignore_ascii_case("true")
}

/// `Keyword value…` or `Keyword=value`, where values may be in double quotes; `None` is a line that says nothing.
fn words(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let (mut values, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in rest.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if std::mem::take(&mut begun) {
                    values.push(std::mem::take(&mut word));
                }
            }
            '#' if !quoted && !begun => break,
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        values.push(word);
    }
    Some((keyword.to_ascii_lowercase(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, more: &[(&str, &str)]) -> (tempfile::TempDir, Result<ConfigFile, Fault>) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".ssh/conf.d")).unwrap();
        for (name, text) in more.iter().chain([&("config", text)]) {
            let path = home.path().join(".ssh").join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let read = ConfigFile::load(home.path());
        (home, read)
    }

    #[test]
    fn the_first_value_wins_and_blocks_includes_and_tokens_are_read() {
        let text = r#"
            Include conf.d/*.conf
            Host gpu-? !gpu-9   # machines
                HostName = %h.internal
                Port 2222
                IdentityFile "~/.ssh/%r key"
                IdentityFile /k/%n-%p
                StrictHostKeyChecking yes
                UserKnownHostsFile ~/.ssh/a /b
            Match host *.internal
                ServerAliveInterval 5
            Match exec "touch /tmp/x"
                Port 1
            Host *
                User nobody
                Port 3
                ProxyJump none
                ProxyCommand nc %h %p
        "#;
        let (home, read) = file(text, &[("conf.d/b.conf", "Host gpu-1\nUser me\n"), ("conf.d/.x.conf", "User bad")]);
        let read = read.unwrap();
        let found = read.settings("gpu-1", None, None).unwrap();
        assert_eq!(found.host_name.as_deref(), Some("gpu-1.internal"));
        assert_eq!((found.user.as_deref(), found.port), (Some("me"), Some(2222)));
        let ssh = home.path().join(".ssh");
        assert_eq!(found.identity_files, [ssh.join("me key"), "/k/gpu-1-2222".into()]);
        assert_eq!(found.known_hosts, [ssh.join("a"), "/b".into()]);
        assert_eq!((found.strict, found.keep_alive_s, found.proxy_jump), (Some(true), Some(5), None));
        let other = read.settings("gpu-9", None, None).unwrap();
        assert_eq!((other.user.as_deref(), other.port), (Some("nobody"), Some(3)));
    }

    #[test]
    fn what_is_not_done_is_refused_in_words() {
        for (text, part) in [
            ("ProxyCommand nc %h %p", "config:1`: `ProxyCommand` runs a program"),
            ("\nStrictHostKeyChecking no", "config:2`: host keys are always checked"),
            ("Port many", "a port is a number"),
        ] {
            let said = file(text, &[]).1.unwrap().settings("h", None, None).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
        let (_home, read) = file("Include config", &[]);
        assert!(read.unwrap_err().to_string().contains("too deeply"));
        let (home, _) = file("User me", &[]);
        let path = home.path().join(".ssh/config");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(ConfigFile::load(home.path()).unwrap_err().to_string().contains("others can write to it (0666)"));
        let (_home, read) = file("Host \"\n=\n \u{1f4a5} \nUser", &[]);
        assert_eq!(read.unwrap().settings("h", None, None).unwrap(), HostSettings::default());
    }
}
