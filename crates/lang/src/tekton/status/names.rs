//! Names of what a run makes: as long as Kubernetes allows, and each time the same.

use sha2::{Digest, Sha256};

/// The longest name of an object, in bytes.
const LONGEST: usize = 63;
/// Of the digest in a name that was cut.
const DIGEST: usize = 32;

/// The name of a child: the parent's and a suffix; cut, with a digest in it, where that is too long.
pub fn child_name(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= LONGEST {
        return format!("{parent}{suffix}");
    }
    let room = LONGEST - DIGEST;
    if suffix.len() >= room {
        let digest = digest(&format!("{parent}{suffix}"));
        let name = format!("{}{digest}", head(parent, room));
        let left = LONGEST.saturating_sub(name.len());
        return valid(format!("{name}{}", head(suffix, left)));
    }
    valid(format!("{}{}{suffix}", head(parent, room - suffix.len()), digest(parent)))
}

/// A stable id in the form of a UUID, made of what it belongs to.
pub fn uid_of(parts: &[&str]) -> String {
    let hex = hex(&parts.join("\n"));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

/// The name of the claim that a run makes for a workspace.
pub fn claim_name(workspace: &str, uid: &str) -> String {
    format!("pvc-{}", &hex(&format!("{workspace}\n{uid}"))[..10])
}

fn digest(text: &str) -> String {
    hex(text)[..DIGEST].to_owned()
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(text: &str, length: usize) -> &str {
    let mut end = length.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A name ends with a letter or a digit.
fn valid(name: String) -> String {
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_too_long_and_stay_apart() {
        assert_eq!(child_name("run", "-task"), "run-task");
        let long = "a".repeat(70);
        let exact = child_name(&"p".repeat(58), "-task");
        assert_eq!(exact, format!("{}-task", "p".repeat(58)));
        for (parent, suffix) in [(long.as_str(), "-task"), ("run", long.as_str()), (long.as_str(), long.as_str())] {
            let name = child_name(parent, suffix);
            assert!(name.len() <= LONGEST, "{name}");
            assert_ne!(name, child_name(&format!("{parent}b"), suffix), "{name}");
            assert_eq!(name, child_name(parent, suffix));
        }
        assert!(child_name(&long, "-task").ends_with("-task"));
    }

    #[test]
    fn ids_have_the_form_of_a_uuid() {
        let uid = uid_of(&["a", "b"]);
        let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_ne!(uid, uid_of(&["ab", ""]));
        assert_eq!(claim_name("w", "u").len(), 14);
    }
}
