//! Profiles: `~/.aws/credentials` and `~/.aws/config`, as far as they lead to credentials without a browser or another
//! program.

use std::collections::BTreeMap;
use std::path::PathBuf;

use object_store::aws::AwsCredential;

use super::{AwsError, Env};

/// What a profile leads to.
pub(super) enum Found {
    Keys(AwsCredential),
    /// A role to assume with what `base` leads to.
    Role {
        role: Role,
        base: Box<Found>,
    },
    /// The machine's or the container's own role.
    Machine,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub arn: String,
    pub session_name: Option<String>,
    pub external_id: Option<String>,
}

/// A role may be assumed by means of another, and so on; not for ever.
const DEEPEST: u32 = 5;
/// A larger file is none of AWS's.
const LARGEST: u64 = 1 << 20;

type Section = BTreeMap<String, String>;

/// Both files, by the name of the profile.
#[derive(Default)]
struct Files(BTreeMap<String, Section>);

/// The credentials that the environment's profile leads to; `None` without a profile that holds any.
pub(super) fn find(env: &Env) -> Result<Option<Found>, AwsError> {
    let files = Files::read(env)?;
    let wanted = env("AWS_PROFILE").filter(|name| !name.is_empty());
    match &wanted {
        Some(name) if !files.0.contains_key(name) => Err(AwsError::local(format!(
            "there is no profile `{name}` in `{}` and beside it",
            path(env, false).display()
        ))),
        Some(name) => files.follow(name, 0).map(Some),
        None if files.0.get("default").is_some_and(leads_somewhere) => files.follow("default", 0).map(Some),
        None => Ok(None),
    }
}

/// The region of the profile.
pub(super) fn region(env: &Env) -> Option<String> {
    let name = env("AWS_PROFILE").filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
    Files::read(env).ok()?.0.get(&name)?.get("region").cloned()
}

fn leads_somewhere(section: &Section) -> bool {
    ["aws_access_key_id", "role_arn", "credential_process", "sso_session", "sso_start_url"]
        .iter()
        .any(|key| section.contains_key(*key))
}

fn path(env: &Env, is_config: bool) -> PathBuf {
    let (name, file) =
        if is_config { ("AWS_CONFIG_FILE", "config") } else { ("AWS_SHARED_CREDENTIALS_FILE", "credentials") };
    let home = || PathBuf::from(env("HOME").unwrap_or_default()).join(".aws").join(file);
    env(name).filter(|path| !path.is_empty()).map_or_else(home, PathBuf::from)
}

impl Files {
    fn read(env: &Env) -> Result<Files, AwsError> {
        let mut files = Files::default();
        // The file of credentials wins, as with the AWS tools.
        for is_config in [true, false] {
            let path = path(env, is_config);
            if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LARGEST || !meta.is_file()) {
                return Err(AwsError::local(format!("`{}` is no file of AWS's", path.display())));
            }
            match std::fs::read_to_string(&path) {
                Ok(text) => files.add(&text, is_config),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(AwsError::local(format!("cannot read `{}`: {error}", path.display()))),
            }
        }
        Ok(files)
    }

    fn add(&mut self, text: &str, is_config: bool) {
        let mut current: Option<String> = None;
        for line in text.lines() {
            let bare = line.trim();
            if bare.is_empty() || bare.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) =
                bare.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name.trim())
            {
                current = match (is_config, name.strip_prefix("profile")) {
                    (true, Some(rest)) if rest.starts_with([' ', '\t']) => Some(rest.trim().to_owned()),
                    (true, _) if name != "default" => None,
                    _ => Some(name.to_owned()),
                };
                continue;
            }
            // What is indented belongs to the setting above it.
            let (Some(profile), false) = (&current, line.starts_with([' ', '\t'])) else { continue };
            if let Some((key, value)) = bare.split_once('=') {
                let section = self.0.entry(profile.clone()).or_default();
                section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }

    fn follow(&self, name: &str, depth: u32) -> Result<Found, AwsError> {
        let refused = |why: String| AwsError::local(format!("the profile `{name}` {why}"));
        let section = self.0.get(name).ok_or_else(|| refused("is not there".to_owned()))?;
        let get = |key: &str| section.get(key).filter(|value| !value.is_empty()).cloned();
        if let Some(arn) = get("role_arn") {
            if depth == DEEPEST {
                return Err(refused("leads through too many profiles".to_owned()));
            }
            let base = match (get("source_profile"), get("credential_source").as_deref()) {
                // A profile may name itself, for the keys that it holds as well.
                (Some(source), _) if source == name => {
                    Found::Keys(keys(section).ok_or_else(|| refused("has no keys".to_owned()))?)
                }
                (Some(source), _) => self.follow(&source, depth + 1)?,
                (None, Some("Ec2InstanceMetadata" | "EcsContainer")) => Found::Machine,
                _ => return Err(refused("has a `role_arn` and no `source_profile` or `credential_source`".to_owned())),
            };
            let role = Role { arn, session_name: get("role_session_name"), external_id: get("external_id") };
            return Ok(Found::Role { role, base: Box::new(base) });
        }
        if let Some(keys) = keys(section) {
            return Ok(Found::Keys(keys));
        }
        let other = ["sso_session", "sso_start_url", "credential_process"].into_iter().find(|key| get(key).is_some());
        Err(match other {
            Some(key) => refused(format!(
                "uses `{key}`, which Pitcrew does not follow: `aws configure export-credentials --profile {name} --format env` \
                 shows keys that it can use"
            )),
            None => refused("has no `aws_access_key_id` and no `role_arn`".to_owned()),
        })
    }
}

fn keys(section: &Section) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: section.get("aws_access_key_id")?.clone(),
        secret_key: section.get("aws_secret_access_key")?.clone(),
        token: section.get("aws_session_token").cloned(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn env(dir: &tempfile::TempDir, profile: &'static str) -> Env {
        let home = dir.path().display().to_string();
        Arc::new(move |name| match name {
            "HOME" => Some(home.clone()),
            "AWS_PROFILE" => Some(profile.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn profiles_lead_to_keys_and_to_roles() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        let config = "[default]\nregion = eu-west-1\n[profile ci]\nrole_arn=arn:aws:iam::1:role/ci\nsource_profile = base\n\
             external_id = x\ns3 =\n  region = wrong\n[profile loop]\nrole_arn = r\nsource_profile = loop2\n\
             [profile loop2]\nrole_arn = r\nsource_profile = loop\n[profile sso]\nsso_session = s\n[sso-session s]\nregion = no\n";
        std::fs::write(dir.path().join(".aws/config"), config).unwrap();
        let keys = "# keys\n[base]\naws_access_key_id = AKIA1\naws_secret_access_key = hush=hush\n";
        std::fs::write(dir.path().join(".aws/credentials"), keys).unwrap();
        assert!(find(&env(&dir, "")).unwrap().is_none(), "the default profile holds no credentials");
        assert_eq!(region(&env(&dir, "")).as_deref(), Some("eu-west-1"));
        let Some(Found::Role { role, base }) = find(&env(&dir, "ci")).unwrap() else { panic!("no role") };
        assert_eq!((role.arn.as_str(), role.external_id.as_deref()), ("arn:aws:iam::1:role/ci", Some("x")));
        let Found::Keys(keys) = *base else { panic!("no keys") };
        assert_eq!((keys.key_id.as_str(), keys.secret_key.as_str(), keys.token), ("AKIA1", "hush=hush", None));
        let said = |profile| find(&env(&dir, profile)).err().unwrap().to_string();
        assert!(said("loop").contains("too many profiles"));
        assert!(said("sso").contains("export-credentials"));
        assert!(said("none").contains("there is no profile `none`"));
    }
}
