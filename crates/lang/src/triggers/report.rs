//! Where the result of what an event started is written back to: a commit status, or a check run, at its forge.
//!
//! Annotations say it: of the run in a template, of the Trigger, of the EventListener; for each of them the first of these
//! that has it counts. What is here names a secret and never holds one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sample;

/// Which forge, and how.
pub const REPORT: &str = "pitcrew.dev/report";
/// The name of the status: `ci/test`.
pub const CONTEXT: &str = "pitcrew.dev/report-context";
/// `SECRET/KEY`, of the trigger's namespace.
pub const TOKEN: &str = "pitcrew.dev/report-token";
/// The address of the API, of a forge of one's own.
pub const URL: &str = "pitcrew.dev/report-url";
pub const ALL: [&str; 4] = [REPORT, CONTEXT, TOKEN, URL];
/// What no event may say.
pub const IS_FIXED: [&str; 3] = [REPORT, TOKEN, URL];
/// On an EventListener before the name of a trigger that is written in it: the share of events that it takes.
pub const SAMPLE_OF: &str = "sample.pitcrew.dev/";

/// Longer names of a status are not taken by all forges.
const LONGEST_CONTEXT: usize = 100;

/// The way that a forge takes results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forge {
    /// Commit statuses of GitHub.
    Github,
    /// Check runs of GitHub, which the token of an app may write.
    GithubChecks,
    /// Statuses of GitLab's pipelines.
    Gitlab,
    /// Build statuses of Bitbucket Cloud.
    Bitbucket,
}

impl Forge {
    pub const ALL: [(&str, Forge); 4] = [
        ("github", Forge::Github),
        ("github-checks", Forge::GithubChecks),
        ("gitlab", Forge::Gitlab),
        ("bitbucket", Forge::Bitbucket),
    ];

    /// Where its API is, unless it is somebody's own.
    pub fn public_api(self) -> &'static str {
        match self {
            Forge::Github | Forge::GithubChecks => "https://api.github.com",
            Forge::Gitlab => "https://gitlab.com/api/v4",
            Forge::Bitbucket => "https://api.bitbucket.org/2.0",
        }
    }
}

/// What is reported, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub forge: Forge,
    /// The address of its API, without a slash at the end.
    pub api: String,
    /// `None`: named after the trigger.
    pub context: Option<String>,
    pub token: Token,
}

/// Where the token is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Token {
    /// A key of a Secret.
    Key { namespace: String, name: String, key: String },
    /// A reference, as native workflows name secrets.
    Reference(String),
}

/// What the annotations say; the first that has one counts. `Ok(None)`: nothing is to be reported.
pub fn read(layers: &[&BTreeMap<String, String>], namespace: &str) -> Result<Option<Report>, String> {
    let found = |key: &str| layers.iter().find_map(|layer| layer.get(key)).map(String::as_str);
    let Some(forge) = found(REPORT) else { return Ok(None) };
    let Some(forge) = forge_of(forge).map_err(|why| format!("`{REPORT}`: {why}"))? else { return Ok(None) };
    let token = found(TOKEN).ok_or_else(|| format!("`{TOKEN}` is missing: write `SECRET/KEY`"))?;
    let (name, key) = token_of(token).map_err(|why| format!("`{TOKEN}`: {why}"))?;
    let api = found(URL).unwrap_or(forge.public_api());
    Ok(Some(Report {
        forge,
        api: api_of(api).map_err(|why| format!("`{URL}`: {why}"))?,
        context: found(CONTEXT).map(context_of).transpose().map_err(|why| format!("`{CONTEXT}`: {why}"))?,
        token: Token::Key { namespace: namespace.to_owned(), name, key },
    }))
}

/// The annotations that cannot be: the key, and a sentence.
pub fn wrong(annotations: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (key, value) in annotations {
        let said = match key.as_str() {
            REPORT => forge_of(value).err(),
            CONTEXT => context_of(value).err(),
            TOKEN => token_of(value).err(),
            URL => api_of(value).err(),
            sample::ANNOTATION => sample::Share::parse(value).err(),
            key if key.starts_with(SAMPLE_OF) => sample::Share::parse(value).err(),
            _ => None,
        };
        wrong.extend(said.map(|why| (key.clone(), why)));
    }
    wrong
}

fn forge_of(text: &str) -> Result<Option<Forge>, String> {
    if text == "none" {
        return Ok(None);
    }
    match Forge::ALL.into_iter().find(|(name, _)| *name == text) {
        Some((_, forge)) => Ok(Some(forge)),
        None => Err(format!("it is github, github-checks, gitlab, bitbucket or none, not `{text}`")),
    }
}

fn token_of(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(name, key)| !name.is_empty() && !key.is_empty() && !key.contains('/'));
    // What it is instead may be the token, so it is not shown.
    let (name, key) = parts.ok_or("it names a key of a Secret: `SECRET/KEY`; the token itself does not belong here")?;
    Ok((name.to_owned(), key.to_owned()))
}

/// The address of an API, without a slash at the end.
pub fn api_of(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or("it is an address that begins with `https://` or `http://`")?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || text.contains(['?', '#', '@']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it is the address of an API, with neither a login nor a query in it".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The name of a status.
pub fn context_of(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > LONGEST_CONTEXT || text.chars().any(char::is_control) {
        return Err(format!("it is a name of 1 to {LONGEST_CONTEXT} characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_nearer_to_the_run_counts_and_nothing_is_reported_unasked() {
        let listener = map(&[(REPORT, "github"), (TOKEN, "forge/token"), (URL, "https://ghe.example.com/api/v3/")]);
        let trigger = map(&[(REPORT, "github-checks"), (CONTEXT, "ci/test")]);
        let report = read(&[&map(&[]), &trigger, &listener], "ci").unwrap().unwrap();
        assert_eq!(report.forge, Forge::GithubChecks);
        assert_eq!(
            (report.api.as_str(), report.context.as_deref()),
            ("https://ghe.example.com/api/v3", Some("ci/test"))
        );
        assert_eq!(report.token, Token::Key { namespace: "ci".into(), name: "forge".into(), key: "token".into() });
        assert_eq!(read(&[&map(&[])], "ci"), Ok(None));
        assert_eq!(read(&[&map(&[(REPORT, "none")]), &listener], "ci"), Ok(None));
        let public = read(&[&map(&[(REPORT, "gitlab"), (TOKEN, "a/b")])], "ci").unwrap().unwrap();
        assert_eq!(public.api, "https://gitlab.com/api/v4");
        assert!(read(&[&map(&[(REPORT, "gitlab")])], "ci").unwrap_err().contains("report-token"));
    }

    #[test]
    fn what_cannot_be_is_told_and_a_token_is_not_repeated() {
        for (key, value, why) in [
            (REPORT, "gihub", "github, github-checks"),
            (TOKEN, "ghp_hunter2", "SECRET/KEY"),
            (URL, "ghe.example.com", "begins with"),
            (URL, "https://token@ghe.example.com", "neither a login"),
            (CONTEXT, "", "1 to 100"),
            (sample::ANNOTATION, "ten", "%"),
            ("sample.pitcrew.dev/push", "200%", "%"),
        ] {
            let found = wrong(&map(&[(key, value)]));
            assert_eq!(found.len(), 1, "{key}");
            assert!(found[0].1.contains(why), "{key}: {}", found[0].1);
            assert!(!found[0].1.contains("hunter2"));
        }
        let fine = map(&[(sample::ANNOTATION, "2.5%"), (REPORT, "bitbucket"), (TOKEN, "a/b"), ("other.dev/x", "y")]);
        assert!(wrong(&fine).is_empty());
    }
}
