//! Which names are names: Kubernetes' rules, and Tekton's for params and results.

/// Small letters, digits and `-`; what the name of a container and of a task is.
pub fn label(name: &str) -> Result<(), String> {
    if name.len() > 63 {
        return Err(format!("`{name}` is too long: a name has at most 63 characters"));
    }
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = name.bytes().all(|byte| fits(byte) || byte == b'-');
    let ends = name.bytes().next().is_some_and(fits) && name.bytes().next_back().is_some_and(fits);
    if inner && ends {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not a name: it may have small letters, digits and `-`, and begins and ends with a letter or digit"
    ))
}

/// Labels with points between them; the name of an object.
pub fn subdomain(name: &str, limit: usize) -> Result<(), String> {
    if name.len() > limit {
        return Err(format!("`{name}` is too long: the name has at most {limit} characters"));
    }
    if name.split('.').all(|part| label(part).is_ok()) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not the name of an object: it may have small letters, digits, `-` and `.`, and begins and ends with a letter or digit"
    ))
}

/// What the name of a run begins with; it may end with `-` or `.`.
pub fn generate_name(name: &str) -> Result<(), String> {
    subdomain(&format!("{name}x"), 253).map_err(|_| {
        format!("`{name}` cannot begin the name of an object: it may have small letters, digits, `-` and `.`, and begins with a letter or digit")
    })
}

/// The name of a text or array param.
pub fn param(name: &str) -> Result<(), String> {
    variable(name, true)
}

/// The name of an object param, and of its keys.
pub fn object(name: &str) -> Result<(), String> {
    variable(name, false)
}

fn variable(name: &str, dots: bool) -> Result<(), String> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest =
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (dots && byte == b'.'));
    if first && rest {
        return Ok(());
    }
    let allowed = if dots { "letters, digits, `-`, `_` and `.`" } else { "letters, digits, `-` and `_`" };
    Err(format!("`{name}` is not a name: it may have {allowed}, and begins with a letter or `_`"))
}

/// The name of a result.
pub fn result(name: &str) -> Result<(), String> {
    let ends = |byte: u8| byte.is_ascii_alphanumeric();
    let inner = name.bytes().all(|byte| ends(byte) || matches!(byte, b'_' | b'-' | b'.'));
    if inner && name.bytes().next().is_some_and(ends) && name.bytes().next_back().is_some_and(ends) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not a name of a result: it may have letters, digits, `-` and `_`, and begins and ends with a letter or digit"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for name in ["a", "a-b", "0a", "a0"] {
            assert!(label(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(label(name).is_err(), "{name}");
        }
        assert!(subdomain("a.b-c", 63).is_ok() && subdomain("a..b", 63).is_err() && subdomain("a.", 63).is_err());
        assert!(generate_name("a-").is_ok() && generate_name("a.").is_ok() && generate_name("A-").is_err());
        assert!(param("a.b").is_ok() && param("_a").is_ok() && param("1a").is_err() && object("a.b").is_err());
        assert!(result("a_b").is_ok() && result("A").is_ok() && result("a-").is_err() && result("").is_err());
    }
}
