//! `$(NAME)` in command, arguments and environment of a container, as Kubernetes replaces it.
//!
//! A name that nobody defined stays as it is written, and `$$` is one `$`: so `$$(NAME)` is `$(NAME)` in the end.

/// The text with what `value` knows of put in.
pub fn expand<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let named = rest.strip_prefix('(').and_then(|inside| Some((inside, inside.find(')')?)));
        match named.map(|(inside, end)| (&inside[..end], &inside[end + 1..])) {
            Some((name, after)) if value(name).is_some() => {
                out.push_str(value(name).unwrap_or_default());
                rest = after;
            }
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn known_names_are_replaced_once_and_the_rest_stays() {
        let value = |name: &str| match name {
            "A" => Some("1"),
            "B" => Some("$(A)"),
            "" => Some("never"),
            _ => None,
        };
        for (text, wanted) in [
            ("$(A)-$(B)", "1-$(A)"),
            ("$$(A) $(C) $A ${A} $", "$(A) $(C) $A ${A} $"),
            ("$$$(A)$$$$", "$1$$"),
            ("$(A", "$(A"),
            ("$(date +%s) $(A)", "$(date +%s) 1"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(expand(text, value), wanted, "{text}");
        }
    }
}
