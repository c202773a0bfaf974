//! Images of the sandbox: names that stand for a few differences to the machine itself.
//!
//! No image is fetched. A task that says `alpine` gets the machine's own programs, with `/bin/sh` as alpine has it, because that is what
//! most scripts depend on; whoever needs more says in the settings which directories make the image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::program;

/// Where programs of a container are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image is, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageRule {
    /// The name without tag and digest; `*` stands for any text.
    #[serde(rename = "match")]
    pub pattern: String,
    pub shell: Shell,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Directories before the usual ones.
    pub path: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Directories of the machine, by where the container sees them, read-only.
    pub bind: BTreeMap<String, String>,
    /// Who runs where a container does not say.
    pub user: Option<u32>,
    /// Users that it has besides those of the machine, each with a group of the same number and a home of its own.
    pub users: BTreeMap<String, u32>,
    pub workdir: Option<String>,
    /// A directory that is its whole root instead of the machine's.
    pub root: Option<PathBuf>,
}

/// Which program is `/bin/sh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shell {
    /// That of the machine.
    #[default]
    Host,
    Busybox,
    Dash,
    Bash,
}

/// What a name means on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// With a digest: the one that was asked for, or else one of what was used.
    pub id: String,
    /// What `/bin/sh` is, if not what it is on the machine.
    pub shell: Option<PathBuf>,
    /// Programs under other names: link and target.
    pub links: Vec<(String, PathBuf)>,
    /// A program that is the entry point where it is not a command: of images whose entry point is a script.
    pub wrapped: Option<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub path: String,
    pub env: BTreeMap<String, String>,
    pub bind: BTreeMap<String, String>,
    pub user: Option<u32>,
    /// Its user as it says it, where that is known; empty: root.
    pub user_name: String,
    pub users: BTreeMap<String, u32>,
    pub workdir: Option<String>,
    pub root: Option<PathBuf>,
}

impl Image {
    /// What runs where `command` and `args` were said.
    pub fn argv(&self, command: &[String], args: &[String]) -> Vec<String> {
        let entry = if self.entrypoint.is_empty() && !args.is_empty() { &self.cmd } else { &self.entrypoint };
        let (head, tail) = match (command.is_empty(), args.is_empty()) {
            (false, _) => (command, args),
            (true, false) => (entry.as_slice(), args),
            (true, true) => (self.entrypoint.as_slice(), self.cmd.as_slice()),
        };
        head.iter().chain(tail).cloned().collect()
    }
}

/// Where the entry point lies of images that have a script as such.
pub const WRAPPER: &str = "/usr/local/bin/docker-entrypoint.sh";

/// Finds out what an image is here; the error says what to do.
pub fn find(image: &str, rules: &[ImageRule]) -> Result<Image, String> {
    let (name, tag, digest) = parts(image);
    let known;
    let (rule, wrapped) = match rules.iter().find(|rule| matches(&rule.pattern, name)) {
        Some(rule) => (rule, None),
        None => {
            known = built_in(name, tag).ok_or_else(|| unknown(image))?;
            (&known.0, known.1)
        }
    };
    let machine = |program: &str| program::find(program, PATH, Path::new("/"));
    let needed = |program: &str| {
        machine(program).ok_or_else(|| {
            format!("the image `{image}` needs the program `{program}`, which this machine does not have")
        })
    };
    let shell = match rule.shell {
        _ if rule.root.is_some() => None,
        Shell::Host => None,
        Shell::Busybox => Some(needed("busybox")?),
        Shell::Dash => Some(needed("dash")?),
        Shell::Bash => Some(needed("bash")?),
    };
    let mut links = Vec::new();
    if let (Some(shell), Shell::Busybox) = (&shell, rule.shell) {
        links.push(("/bin/ash".to_owned(), shell.clone()));
    }
    for (link, program) in
        [("bash", "bash"), ("node", "node"), ("perl", "perl"), ("python3", "python3"), ("python", "python3")]
    {
        let wanted = name.rsplit('/').next().is_some_and(|last| last.starts_with(program.trim_end_matches('3')));
        if wanted && rule.root.is_none() && rule.bind.is_empty() {
            links.push((format!("/usr/local/bin/{link}"), needed(program)?));
        }
    }
    let path = rule.path.iter().map(String::as_str).chain([PATH]).collect::<Vec<_>>().join(":");
    let id = match digest {
        Some(_) => image.to_owned(),
        None => format!("pitcrew.local/{name}@sha256:{}", fingerprint(rule)),
    };
    Ok(Image {
        id,
        shell,
        links,
        wrapped: wrapped.map(str::to_owned),
        entrypoint: rule.entrypoint.clone(),
        cmd: rule.cmd.clone(),
        path,
        env: rule.env.clone(),
        bind: rule.bind.clone(),
        user: rule.user,
        user_name: String::new(),
        users: rule.users.clone(),
        workdir: rule.workdir.clone(),
        root: rule.root.clone(),
    })
}

fn unknown(image: &str) -> String {
    format!(
        "the sandbox of this machine has no image `{image}`: it knows alpine, alpine/git, bash, busybox, debian, node, perl, python and \
         ubuntu; use one of these, or say in `sandbox: {{images: […]}}` of `pitcrew.yaml` what it is here"
    )
}

/// What a rule is, as 64 characters.
fn fingerprint(rule: &ImageRule) -> String {
    // Maps with texts: nothing that JSON cannot hold.
    let text = serde_json::to_vec(rule).unwrap_or_default();
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name, tag and digest.
fn parts(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    // A colon before a slash is that of a port.
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag), digest),
        _ => (rest, None, digest),
    }
}

/// Places where the well-known images are found under their own names.
const REGISTRIES: [&str; 6] = [
    "docker.io/",
    "index.docker.io/",
    "registry-1.docker.io/",
    "mirror.gcr.io/",
    "cgr.dev/chainguard/",
    "public.ecr.aws/docker/",
];

/// What Pitcrew knows of images that many use, and the program of those whose entry point is a script.
fn built_in(name: &str, tag: Option<&str>) -> Option<(ImageRule, Option<&'static str>)> {
    if name.starts_with("ghcr.io/tektoncd/pipeline/nop-") {
        let rule = ImageRule { pattern: name.to_owned(), entrypoint: words(&["/bin/true"]), ..ImageRule::default() };
        return Some((rule, None));
    }
    let short = REGISTRIES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let wrapper = words(&[WRAPPER]);
    let (shell, entrypoint, cmd, wrapped) = match short {
        "alpine" => (Shell::Busybox, Vec::new(), words(&["/bin/sh"]), None),
        "busybox" => (Shell::Busybox, Vec::new(), words(&["sh"]), None),
        "bash" => (Shell::Busybox, wrapper, words(&["bash"]), Some("bash")),
        "ubuntu" => (Shell::Dash, Vec::new(), words(&["/bin/bash"]), None),
        "debian" => (Shell::Dash, Vec::new(), words(&["bash"]), None),
        "python" => (Shell::Dash, Vec::new(), words(&["python3"]), None),
        "node" => (Shell::Dash, wrapper, words(&["node"]), Some("node")),
        "perl" => (Shell::Dash, Vec::new(), words(&["perl", "-de0"]), None),
        "alpine/git" => (Shell::Busybox, words(&["git"]), words(&["--help"]), None),
        _ => return None,
    };
    let is_alpine = tag.is_some_and(|tag| tag.contains("alpine"));
    let shell = if is_alpine { Shell::Busybox } else { shell };
    let workdir = (short == "alpine/git").then(|| "/git".to_owned());
    Some((ImageRule { pattern: short.to_owned(), shell, entrypoint, cmd, workdir, ..ImageRule::default() }, wrapped))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Is the text what the pattern says, where `*` is any text?
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_tags_digests_and_ports() {
        assert_eq!(parts("a/b:1@sha256:c"), ("a/b", Some("1"), Some("sha256:c")));
        assert_eq!(parts("localhost:5000/a"), ("localhost:5000/a", None, None));
        assert_eq!(parts("localhost:5000/a:x"), ("localhost:5000/a", Some("x"), None));
    }

    #[test]
    fn a_rule_of_the_user_comes_first_and_an_unknown_image_says_what_to_write() {
        let rule = ImageRule { pattern: "*/tools/*".into(), cmd: words(&["x"]), ..ImageRule::default() };
        let rules = [rule];
        assert_eq!(find("reg:1/tools/a:2", &rules).unwrap().cmd, ["x"]);
        let error = find("reg/tool", &rules).unwrap_err();
        assert!(error.contains("`reg/tool`"), "{error}");
        assert!(find("corp.example/python", &[]).is_err());
    }

    #[test]
    fn the_id_has_the_digest_that_was_asked_for_or_one_of_the_rule() {
        let find = |image: &str| find(image, &[ImageRule { pattern: "a*".into(), ..ImageRule::default() }]).unwrap().id;
        assert_eq!(find("a:1@sha256:00"), "a:1@sha256:00");
        assert!(find("ab:1").starts_with("pitcrew.local/ab@sha256:"));
    }

    #[test]
    fn the_entry_point_is_the_images_where_nothing_is_said() {
        let rule = |entrypoint: &[&str], cmd: &[&str]| ImageRule {
            pattern: "i".into(),
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            ..ImageRule::default()
        };
        let argv = |rule: ImageRule, command: &[&str], args: &[&str]| {
            find("i", &[rule]).unwrap().argv(&words(command), &words(args)).join(" ")
        };
        assert_eq!(argv(rule(&["e"], &["c"]), &[], &[]), "e c");
        assert_eq!(argv(rule(&["e"], &["c"]), &[], &["a"]), "e a");
        assert_eq!(argv(rule(&[], &["c"]), &[], &["a"]), "c a");
        assert_eq!(argv(rule(&["e"], &["c"]), &["x"], &[]), "x");
        assert_eq!(argv(rule(&["e"], &["c"]), &["x"], &["a"]), "x a");
    }
}
