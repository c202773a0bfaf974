//! Reads `sandbox` of `pitcrew.yaml`: what names of images stand for on this machine.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::Path;

use pitcrew_exec::sandbox::{ImageRule, Settings, Shell};
use pitcrew_lang::yaml::Node;

use crate::config::file::absolute;
use crate::config::section::{Reader, Section};

const SANDBOX: [&str; 2] = ["images", "hide"];
const IMAGE: [&str; 11] =
    ["match", "shell", "entrypoint", "cmd", "path", "env", "bind", "user", "users", "workdir", "root"];
const SHELLS: [(&str, Shell); 4] =
    [("host", Shell::Host), ("busybox", Shell::Busybox), ("dash", Shell::Dash), ("bash", Shell::Bash)];

/// The section, and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxSettings {
    pub settings: Settings,
    /// In the file.
    pub line: u32,
}

impl Deref for SandboxSettings {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl fmt::Display for SandboxSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.images.iter().map(|image| image.pattern.as_str()).collect();
        f.write_str(if names.is_empty() { "no images" } else { "images " })?;
        f.write_str(&names.join(", "))
    }
}

/// The section; `None` where it cannot be read. `base`: where relative paths start.
pub fn sandbox(r: &mut Reader<'_>, base: &Path, node: &Node) -> Option<SandboxSettings> {
    let section = r.section(node, "`sandbox`", &SANDBOX)?;
    let images = section.get("images").map(|node| node.as_list().unwrap_or(std::slice::from_ref(node)));
    let images = images.unwrap_or_default().iter().filter_map(|node| image(r, base, node)).collect();
    let hide = r.texts(section, "hide").into_iter().map(|(path, _)| absolute(base, &path).display().to_string());
    Some(SandboxSettings { settings: Settings { images, hide: hide.collect() }, line: node.at.line })
}

fn image(r: &mut Reader<'_>, base: &Path, node: &Node) -> Option<ImageRule> {
    let section = r.section(node, "an image", &IMAGE)?;
    r.require(section, "the image", "match", "add `match:`, its name without tag; `*` stands for any text");
    let texts = |r: &mut Reader<'_>, key| r.texts(section, key).into_iter().map(|(text, _)| text).collect();
    let mut bind = pairs(r, section, "bind");
    for (at, from) in &mut bind {
        if !at.starts_with('/') || at.split('/').any(|part| part == "..") {
            let message = format!("`bind` mounts at `{at}`, which is no absolute path of the container");
            r.problem(section.get("bind")?.at, message, None);
        }
        *from = absolute(base, from).display().to_string();
    }
    let root = r.text(section, "root").map(|path| absolute(base, &path));
    let user = r.whole(section, "user", 0, i64::from(u32::MAX)).and_then(|id| u32::try_from(id).ok());
    Some(ImageRule {
        shell: r.choice(section, "shell", &SHELLS).unwrap_or_default(),
        entrypoint: texts(r, "entrypoint"),
        cmd: texts(r, "cmd"),
        path: texts(r, "path"),
        env: pairs(r, section, "env"),
        bind,
        user,
        users: users(r, section),
        workdir: r.text(section, "workdir"),
        root,
        pattern: r.text(section, "match")?,
    })
}

/// A mapping of names to texts.
fn pairs(r: &mut Reader<'_>, section: Section<'_>, key: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Some(node) = section.get(key) else { return all };
    for entry in r.mapping(node, &format!("`{key}`")).unwrap_or_default() {
        match entry.value.as_scalar() {
            Some(scalar) => drop(all.insert(entry.key.text.to_string(), scalar.text.to_string())),
            None => r.mismatch(&entry.value, &entry.key.text, "a text"),
        }
    }
    all
}

fn users(r: &mut Reader<'_>, section: Section<'_>) -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    let Some(node) = section.get("users") else { return all };
    for entry in r.mapping(node, "`users`").unwrap_or_default() {
        let name = entry.key.text.to_string();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(fits) || name.starts_with(['-', '.']) {
            r.problem(entry.key.at, format!("`{name}` is no name of a user"), None);
            continue;
        }
        match entry.value.as_scalar().and_then(|scalar| scalar.text.parse().ok()) {
            Some(id) => drop(all.insert(name, id)),
            None => r.mismatch(&entry.value, &name, "the number of the user, which its group has too"),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use pitcrew_lang::yaml;

    use super::*;

    fn read(text: &str) -> Result<SandboxSettings, Vec<String>> {
        let root = yaml::read(text, "pitcrew.yaml").unwrap().unwrap();
        let mut r = Reader::new("pitcrew.yaml", text);
        let found = root.get("sandbox").and_then(|node| sandbox(&mut r, Path::new("/etc/pitcrew"), node));
        let problems: Vec<String> =
            r.finish().into_iter().map(|p| format!("{}:{}: {}", p.line, p.column, p.message)).collect();
        if problems.is_empty() { Ok(found.unwrap()) } else { Err(problems) }
    }

    #[test]
    fn an_image_is_what_its_rule_says_and_paths_start_at_the_file() {
        let found = read(
            "sandbox:\n  hide: [/data, private]\n  images:\n    - match: '*/notebooks'\n      shell: bash\n      bind: {/opt/conda: env}\n      \
             path: [/opt/conda/bin]\n      env: {GIT_CONFIG_COUNT: 1}\n      user: 1001\n      users: {rapids: 1001}\n      \
             workdir: /home/rapids\n",
        )
        .unwrap();
        let image = &found.images[0];
        assert_eq!((image.pattern.as_str(), image.shell, image.user), ("*/notebooks", Shell::Bash, Some(1001)));
        assert_eq!(image.bind["/opt/conda"], "/etc/pitcrew/env");
        assert_eq!((image.env["GIT_CONFIG_COUNT"].as_str(), image.users["rapids"]), ("1", 1001));
        assert_eq!(image.workdir.as_deref(), Some("/home/rapids"));
        assert_eq!(found.hide, ["/data", "/etc/pitcrew/private"]);
        assert_eq!(found.to_string(), "images */notebooks");
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        let text =
            "sandbox:\n  images:\n    - shell: zsh\n      bind: {opt: x}\n      users: {a: b, 'c:d': 1}\n  image: x\n";
        let problems = read(text).unwrap_err();
        for (at, said) in problems.iter().zip([
            "3:7: the image has no `match`",
            "3:14: ",
            "4:13: `bind` mounts at `opt`",
            "5:18: `a` must be the number of the user",
            "5:21: `c:d` is no name of a user",
            "6:3: unknown key `image`",
        ]) {
            assert!(at.starts_with(said), "{at} is not {said}");
        }
        assert_eq!(problems.len(), 6, "{problems:#?}");
    }
}
