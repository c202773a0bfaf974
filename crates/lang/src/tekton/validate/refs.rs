//! References in texts: `$(params.a)`, `$(tasks.t.results.r[*])`.

/// What stands behind the names of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    Nothing,
    /// `[*]`
    All,
    /// `[3]`
    Index(usize),
}

/// One reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// Without `$(` and `)`.
    pub text: String,
    /// `params`, `a`; a name in brackets is one part, whatever its points.
    pub parts: Vec<String>,
    pub tail: Tail,
}

impl Ref {
    pub fn part(&self, at: usize) -> &str {
        self.parts.get(at).map_or("", String::as_str)
    }

    /// The reference is all of the text.
    pub fn is_alone_in(&self, text: &str) -> bool {
        text.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')) == Some(&self.text)
    }
}

/// All references of a text. What is no reference, such as `$(date)` with its arguments, is none.
pub fn refs(text: &str) -> impl Iterator<Item = Ref> {
    text.match_indices("$(").filter_map(|(at, _)| {
        let inner = &text[at + 2..];
        parse(&inner[..inner.find(')')?])
    })
}

fn parse(text: &str) -> Option<Ref> {
    let name_end =
        |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
    let mut parts = Vec::new();
    let mut tail = Tail::Nothing;
    let mut rest = text;
    loop {
        let end = name_end(rest);
        if end > 0 {
            parts.push(rest[..end].to_owned());
            rest = &rest[end..];
        } else if !rest.starts_with('[') || parts.is_empty() {
            return None;
        }
        while let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = inner.split_once(']')?;
            let quoted = |quote: char| index.strip_prefix(quote).and_then(|name| name.strip_suffix(quote));
            if let Some(name) = quoted('\'').or_else(|| quoted('"')) {
                parts.push(name.to_owned());
            } else if index == "*" {
                tail = Tail::All;
            } else {
                tail = Tail::Index(index.parse().ok()?);
            }
            rest = after;
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => break,
            None => return None,
        }
        if rest.is_empty() {
            return None;
        }
    }
    // An older spelling.
    if parts.len() > 1 && parts[0] == "inputs" && parts[1] == "params" {
        parts.remove(0);
    }
    Some(Ref { text: text.to_owned(), parts, tail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_what_a_shell_does() {
        let found = |text: &str| refs(text).map(|r| (r.parts.join("|"), r.tail)).collect::<Vec<_>>();
        let one = |parts: &str, tail| vec![(parts.to_owned(), tail)];
        assert_eq!(found("a $(params.b) c"), one("params|b", Tail::Nothing));
        assert_eq!(found("$(params['a.b'])"), one("params|a.b", Tail::Nothing));
        assert_eq!(found("$(params[\"a.b\"][*])"), one("params|a.b", Tail::All));
        assert_eq!(found("$(tasks.t.results.r[2])"), one("tasks|t|results|r", Tail::Index(2)));
        assert_eq!(found("$(tasks.t.results.o.key)"), one("tasks|t|results|o|key", Tail::Nothing));
        assert_eq!(found("$(inputs.params.x)"), one("params|x", Tail::Nothing));
        assert_eq!(found("$(date)"), one("date", Tail::Nothing));
        for text in ["$(date +%s)", "$(results.digest-${i}.path)", "$()", "$(a", "$(.a)", "$(a.)", "${a}", "$([*])"] {
            assert_eq!(found(text), vec![], "{text}");
        }
        assert_eq!(found("$(params.a)$(params.b)").len(), 2);
    }
}
