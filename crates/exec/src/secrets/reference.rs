//! How a secret is named: `aws-sm:NAME`, an ARN of the AWS Secrets Manager, `env:NAME`, `file:PATH`, `store:NAME`,
//! `conn:ID`.
//!
//! After the name of one in AWS or in the store, `#field` takes a field of a value that is a JSON object; after that, in
//! AWS, `@stage` asks for another version than the current one. A name that holds an `@` itself is followed by
//! `@AWSCURRENT`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::SecretError;

/// A name of a secret. Is no secret itself: it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    pub source: Source,
    /// The field of a JSON object; `None` is the whole value.
    pub field: Option<String>,
    /// Which version: a stage such as `AWSPREVIOUS`.
    pub stage: Option<String>,
}

/// Where a secret is kept, and under which name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The AWS Secrets Manager. `id` is a name or a whole ARN; `region` is that of the ARN.
    AwsSm { id: String, region: Option<String> },
    /// A variable of the server's environment.
    Env(String),
    /// A file on the server's machine, absolute.
    File(PathBuf),
    /// Pitcrew's own store, sealed.
    Store(String),
    /// A stored connection: its password, or with a field, that of its extras.
    Conn(String),
}

/// What a name may be, in the store.
const LONGEST_NAME: usize = 250;
/// Longer texts are no references.
const LONGEST: usize = 4096;

impl FromStr for SecretRef {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let refused = |why: &str| {
            // It may be the secret itself, put where its name belongs.
            SecretError::malformed(format!("this is no name of a secret: {why}"))
        };
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(refused("it is too long, or has line breaks; name the secret, and do not put it here"));
        }
        if text.starts_with("arn:") {
            return of_arn(text);
        }
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| refused("write `aws-sm:NAME`, an ARN, `env:NAME`, `file:/PATH` or `store:NAME`"))?;
        if rest.is_empty() {
            return Err(refused(&format!("there is nothing after `{}:`", shown(scheme))));
        }
        match scheme {
            "aws-sm" if rest.starts_with("arn:") => of_arn(rest),
            "aws-sm" => {
                let (id, field, stage) = parts(rest)?;
                let fits = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
                if id.len() > 512 || !id.chars().all(fits) {
                    return Err(refused("a name in AWS has letters, digits and `/_+=.@-`"));
                }
                Ok(SecretRef { source: Source::AwsSm { id, region: None }, field, stage })
            }
            "env" => {
                let fits =
                    |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
                if !rest.char_indices().all(fits) {
                    return Err(refused("a variable has letters, digits and `_`"));
                }
                Ok(SecretRef { source: Source::Env(rest.to_owned()), field: None, stage: None })
            }
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(refused("a file is named by its whole path, beginning with `/`"));
                }
                Ok(SecretRef { source: Source::File(path.into()), field: None, stage: None })
            }
            "store" | "conn" => {
                let (name, field) = match rest.split_once('#') {
                    Some((name, field)) => (name, Some(field.to_owned())),
                    None => (rest, None),
                };
                if field.as_deref() == Some("") {
                    return Err(refused("there is nothing after `#`"));
                }
                let name = name.to_owned();
                let source = match scheme {
                    "conn" => Source::Conn(name),
                    _ => check_name(&name).map(|()| Source::Store(name))?,
                };
                Ok(SecretRef { source, field, stage: None })
            }
            other => Err(refused(&format!(
                "`{}` is none of: `aws-sm`, `env`, `file`, `store`, `conn`, or an ARN",
                shown(other)
            ))),
        }
    }
}

/// Is this a name that a secret of the store can have?
fn check_name(name: &str) -> Result<(), SecretError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_+=.-".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        return Err(SecretError::malformed(format!(
            "a secret of the store is named by 1 to {LONGEST_NAME} letters, digits and `/_+=.-`"
        )));
    }
    Ok(())
}

/// A word for a message; longer ones are perhaps secrets.
fn shown(word: &str) -> &str {
    if word.len() <= 20 && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) { word } else { "…" }
}

/// `ID[#field][@stage]`.
fn parts(text: &str) -> Result<(String, Option<String>, Option<String>), SecretError> {
    let empty =
        |sign: char| SecretError::malformed(format!("this is no name of a secret: there is nothing after `{sign}`"));
    let (text, stage) = match text.rsplit_once('@') {
        Some((_, "")) => return Err(empty('@')),
        Some((text, stage)) => (text, Some(stage.to_owned())),
        None => (text, None),
    };
    let (id, field) = match text.split_once('#') {
        Some((_, "")) => return Err(empty('#')),
        Some((id, field)) => (id, Some(field.to_owned())),
        None => (text, None),
    };
    Ok((id.to_owned(), field, stage))
}

/// `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME`.
fn of_arn(text: &str) -> Result<SecretRef, SecretError> {
    let (id, field, stage) = parts(text)?;
    let words: Vec<&str> = id.splitn(7, ':').collect();
    let (&["arn", partition, service, region, account, kind, name], true) = (words.as_slice(), id.is_ascii()) else {
        return Err(not_an_arn(text));
    };
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let is_right = partition.starts_with("aws")
        && service == "secretsmanager"
        && kind == "secret"
        && is_word(partition)
        && is_word(region)
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c));
    if !is_right {
        return Err(not_an_arn(text));
    }
    let region = Some(region.to_owned());
    Ok(SecretRef { source: Source::AwsSm { id, region }, field, stage })
}

fn not_an_arn(text: &str) -> SecretError {
    let text: String = text.chars().take(200).collect();
    SecretError::malformed(format!(
        "`{text}` is no ARN of a secret: write `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`"
    ))
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::AwsSm { id, region: Some(_) } => write!(f, "{id}")?,
            Source::AwsSm { id, region: None } => write!(f, "aws-sm:{id}")?,
            Source::Env(name) => write!(f, "env:{name}")?,
            Source::File(path) => write!(f, "file:{}", path.display())?,
            Source::Store(name) => write!(f, "store:{name}")?,
            Source::Conn(id) => write!(f, "conn:{id}")?,
        }
        if let Some(field) = &self.field {
            write!(f, "#{field}")?;
        }
        if let Some(stage) = &self.stage {
            write!(f, "@{stage}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:gpu/ssh-AbCdEf";
        for (text, written) in [
            ("aws-sm:gpu/ssh", "aws-sm:gpu/ssh"),
            ("aws-sm:gpu#private_key@AWSPREVIOUS", "aws-sm:gpu#private_key@AWSPREVIOUS"),
            (arn, arn),
            (&format!("aws-sm:{arn}#key"), &format!("{arn}#key")),
            ("env:GPU_KEY", "env:GPU_KEY"),
            ("file:///etc/key#1", "file:/etc/key#1"),
            ("store:gpu/ssh#private_key", "store:gpu/ssh#private_key"),
            ("conn:gpu #1", "conn:gpu #1"),
        ] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), written);
        }
        let read: SecretRef = arn.parse().unwrap();
        assert_eq!(read.source, Source::AwsSm { id: arn.into(), region: Some("eu-west-1".into()) });
    }

    #[test]
    fn what_is_no_name_of_a_secret_is_refused_and_not_repeated() {
        for (text, why) in [
            ("", "write `aws-sm:NAME`"),
            ("hunter2-hunter2", "write `aws-sm:NAME`"),
            ("-----BEGIN KEY-----\nabc", "do not put it here"),
            ("vault:x", "`vault` is none of"),
            ("hunter2!hunter2:x", "`…` is none of"),
            ("env:1A", "letters, digits"),
            ("file:etc/key", "whole path"),
            ("store:a b", "named by 1 to 250"),
            ("store:", "nothing after `store:`"),
            ("aws-sm:a#", "nothing after `#`"),
            ("aws-sm:a@", "nothing after `@`"),
            ("arn:aws:s3:::bucket", "is no ARN of a secret"),
            ("arn:aws:secretsmanager:eu-west-1:12:secret:x", "is no ARN of a secret"),
            ("arn:aws:secretsmanager:evil.com/:123456789012:secret:x", "is no ARN of a secret"),
        ] {
            let said = text.parse::<SecretRef>().unwrap_err().to_string();
            assert!(said.contains(why) && !said.contains("hunter2"), "{text}: {said}");
        }
    }
}
