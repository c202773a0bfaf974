//! Reads `signatures` of `pitcrew.yaml`, which says whose signatures images need, and asks for them before a pod is started.
//!
//! What is asked of registries is [`pitcrew_exec::signed`]'s.

use std::path::{Path, PathBuf};

use pitcrew_core::pod::{Pod, PodFailure};
use pitcrew_exec::signed::policy::{Identity, Pattern, PublicKey};
use pitcrew_exec::signed::{Gate, Login, Policy, Refusal, Registry, Rule, Signers};
use pitcrew_lang::yaml::Node;

use crate::config::file::absolute;
use crate::config::section::{Reader, Section};

const SIGNATURES: [&str; 4] = ["images", "roots", "logs", "logins"];
const RULE: [&str; 4] = ["match", "keys", "identities", "unsigned"];
const IDENTITY: [&str; 2] = ["issuer", "subject"];
/// What a text begins with that is no path.
const PEM: &str = "-----BEGIN ";

/// The section.
#[derive(Debug, Clone)]
pub struct SignatureSettings {
    pub policy: Policy,
    /// Passwords for registries, as `docker login` writes them.
    pub logins: Option<PathBuf>,
    /// In the file.
    pub line: u32,
}

impl std::fmt::Display for SignatureSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = self.policy.rules.len();
        write!(f, "{rules} {}", if rules == 1 { "rule" } else { "rules" })
    }
}

/// The section; `None` where it cannot be read. `base`: where relative paths start.
pub fn signatures(r: &mut Reader<'_>, base: &Path, node: &Node) -> Option<SignatureSettings> {
    let section = r.section(node, "`signatures`", &SIGNATURES)?;
    let mut policy = Policy::default();
    for (text, at) in texts(r, base, section, "roots") {
        if let Err(why) = policy.trust.add_roots(&text) {
            r.problem(at, format!("`roots`: {why}"), None);
        }
    }
    for (text, at) in texts(r, base, section, "logs") {
        match PublicKey::all_from_pem(&text) {
            Ok(keys) => policy.trust.logs.extend(keys),
            Err(why) => r.problem(at, format!("`logs`: {why}"), None),
        }
    }
    r.require(
        section,
        "`signatures`",
        "images",
        "add `images:`, a list of rules; an image that none is about is refused",
    );
    let has = (!policy.trust.roots.is_empty(), !policy.trust.logs.is_empty());
    for node in
        section.get("images").map(|node| node.as_list().unwrap_or(std::slice::from_ref(node))).unwrap_or_default()
    {
        policy.rules.extend(rule(r, base, node, has));
    }
    let logins = r.text(section, "logins").map(|path| absolute(base, &path));
    Some(SignatureSettings { policy, logins, line: node.at.line })
}

fn rule(r: &mut Reader<'_>, base: &Path, node: &Node, (has_roots, has_logs): (bool, bool)) -> Option<Rule> {
    let section = r.section(node, "a rule", &RULE)?;
    r.require(
        section,
        "the rule",
        "match",
        "add `match:`, the images that it is about, such as `registry.example.com/ml/*`",
    );
    let pattern = Pattern::new(&r.text(section, "match")?);
    let said: Vec<&str> = RULE[1..].iter().copied().filter(|key| section.get(key).is_some()).collect();
    let [said] = said[..] else {
        let message = "a rule has one of `keys`, `identities` and `unsigned: true`";
        r.problem(node.at, message, None);
        return None;
    };
    let signers = match said {
        "keys" => {
            let mut keys = Vec::new();
            for (text, at) in texts(r, base, section, "keys") {
                match PublicKey::all_from_pem(&text) {
                    Ok(found) => keys.extend(found),
                    Err(why) => r.problem(at, format!("`keys`: {why}"), None),
                }
            }
            Signers::Keys(keys)
        }
        "identities" => {
            let node = section.get("identities")?;
            for (has, key) in [(has_roots, "roots"), (has_logs, "logs")] {
                if !has {
                    let hint = "`roots` are certificates of authorities, and `logs` public keys of logs, in files or as they are";
                    r.problem(
                        node.at,
                        format!("`identities` are believed by nobody without `{key}`"),
                        Some(hint.to_owned()),
                    );
                }
            }
            let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
            Signers::Identities(nodes.iter().filter_map(|node| identity(r, node)).collect())
        }
        _ => match r.flag(section, "unsigned")? {
            true => Signers::Anybody,
            false => {
                r.problem(node.at, "`unsigned: false` says nothing: name `keys` or `identities`", None);
                return None;
            }
        },
    };
    Some(Rule { pattern, signers })
}

fn identity(r: &mut Reader<'_>, node: &Node) -> Option<Identity> {
    let section = r.section(node, "an identity", &IDENTITY)?;
    r.require(
        section,
        "the identity",
        "issuer",
        "add `issuer:`, the address of the provider, such as `https://accounts.example.com`",
    );
    r.require(
        section,
        "the identity",
        "subject",
        "add `subject:`, an address of mail or of a workflow; `*` is anything",
    );
    Some(Identity { issuer: r.text(section, "issuer")?, subject: r.text(section, "subject")? })
}

/// PEM, or what the file of that name has.
fn texts(
    r: &mut Reader<'_>,
    base: &Path,
    section: Section<'_>,
    key: &str,
) -> Vec<(String, pitcrew_lang::diagnostic::Place)> {
    let mut found = Vec::new();
    for (text, at) in r.texts(section, key) {
        if text.contains(PEM) {
            found.push((text, at));
            continue;
        }
        let path = absolute(base, &text);
        match std::fs::read_to_string(&path) {
            Ok(text) => found.push((text, at)),
            Err(error) => r.problem(at, format!("`{key}`: cannot read `{}`: {error}", path.display()), None),
        }
    }
    found
}

/// What images come through; `None`: nothing is asked of them.
pub fn gate(settings: Option<&SignatureSettings>) -> Result<Option<Gate>, String> {
    let Some(settings) = settings else { return Ok(None) };
    let logins = settings.logins.as_deref().map(Login::of_docker).transpose()?.unwrap_or_default();
    Ok(Some(Gate::new(settings.policy.clone(), Registry::new(logins)?)))
}

/// Asks for every image of a pod, before anything of it is made. Afterwards each stands there with the digest that was signed.
pub async fn admit(gate: &Gate, pod: &mut Pod) -> Result<(), Admission> {
    for container in pod.steps.iter_mut().chain(&mut pod.sidecars) {
        match gate.admit(&container.image).await {
            Ok(admitted) => container.image = admitted.image,
            Err(Refusal::Refused(message)) => {
                let (container, image) = (container.name.clone(), container.image.clone());
                return Err(Admission::Refused(PodFailure::ImagePull { container, image, message }));
            }
            Err(Refusal::Unknown(why)) => return Err(Admission::Unknown(why)),
        }
    }
    Ok(())
}

/// Why a pod does not begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    Refused(PodFailure),
    /// It cannot be found out now.
    Unknown(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    /// A point of the curve; whose key it is nobody knows.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\\n-----END PUBLIC KEY-----\\n";

    #[test]
    fn rules_are_read_in_their_order_and_keys_from_the_text_or_from_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ml.pub"), KEY.replace("\\n", "\n")).unwrap();
        let source = format!(
            "signatures:\n  images:\n  - {{match: 'r.example/ml/*', keys: [ml.pub, \"{KEY}\"]}}\n  - {{match: busybox, unsigned: true}}\n"
        );
        let found = file::read(&source, &dir.path().join("pitcrew.yaml"), None).unwrap().signatures.unwrap();
        assert_eq!((found.to_string().as_str(), found.line), ("2 rules", 2));
        let of = |image: &str| found.policy.rule(&image.parse().unwrap()).map(|rule| rule.signers.clone());
        assert!(matches!(of("r.example/ml/a:1"), Some(Signers::Keys(keys)) if keys.len() == 2));
        assert_eq!((of("busybox:1"), of("r.example/other")), (Some(Signers::Anybody), None));
        assert!(gate(Some(&found)).unwrap().is_some() && gate(None).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_pod_with_an_image_that_is_refused_does_not_begin() {
        let source = "signatures:\n  images: [{match: busybox, unsigned: true}]\n";
        let settings = file::read(source, Path::new("p.yaml"), None).unwrap().signatures.unwrap();
        let gate = gate(Some(&settings)).unwrap().unwrap();
        let pod = |sidecar: &str| -> Pod {
            let container = |name: &str, image: &str| serde_json::json!({ "name": name, "image": image });
            let pod = serde_json::json!({
                "name": "run-pod", "hostname": "h", "namespace": "ci", "labels": {}, "shape": "tekton",
                "steps": [container("step-a", "busybox:1")], "sidecars": [container("sidecar-b", sidecar)] });
            serde_json::from_value(pod).unwrap()
        };
        assert_eq!(admit(&gate, &mut pod("busybox")).await, Ok(()));
        let Err(Admission::Refused(failure)) = admit(&gate, &mut pod("team/tool:2")).await else { panic!("it begins") };
        let told = crate::tekton::launch::words(&failure);
        assert!(told.starts_with("the image `team/tool:2` of the container `sidecar-b` cannot be had: "), "{told}");
        assert!(told.contains("no rule of `signatures` is about it"), "{told}");
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let source = "signatures:\n  images:\n  - {match: a, keys: [none.pub]}\n  - {match: b}\n  - {keys: x}\n  \
                      - {match: c, identities: [{issuer: 'https://i.example', subjekt: x}]}\n  - {match: d, unsigned: false}\n  \
                      - {match: e, unsigned: true, keys: ['-----BEGIN x']}\n  logs: ['-----BEGIN nothing']\n";
        let problems = file::read(source, Path::new("p.yaml"), None).unwrap_err();
        let told: Vec<String> =
            problems.iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect();
        for wanted in [
            "3: `keys`: cannot read `none.pub`",
            "4: a rule has one of `keys`, `identities` and `unsigned: true`",
            "5: the rule has no `match`",
            "6: unknown key `subjekt` in an identity",
            "6: the identity has no `subject`",
            "6: `identities` are believed by nobody without `roots`",
            "6: `identities` are believed by nobody without `logs`",
            "7: `unsigned: false` says nothing",
            "8: a rule has one of `keys`, `identities` and `unsigned: true`",
            "9: `logs`: it ",
        ] {
            assert!(told.iter().any(|told| told.starts_with(wanted)), "{wanted}: {told:#?}");
        }
        assert_eq!(told.len(), 10, "{told:#?}");
    }
}
