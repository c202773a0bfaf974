//! The text of a path to its steps.

/// A path, read.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Path(pub(super) Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Field(String),
    /// All items of a list, or all values of an object.
    All,
    /// The value, and everything below it.
    Descend,
    Index(i64),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        step: Option<i64>,
    },
    Union(Vec<Step>),
    Filter(Operand, Option<(Comparison, Operand)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// From the item on.
    Path(Vec<Step>),
    Constant(serde_json::Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Longer paths say nothing.
const LONGEST: usize = 4_096;
/// Filters in filters, which are read one in another.
const FILTERS: usize = 16;

impl Path {
    /// `a.b`, `.a.b`, `{a.b}` or `{.a.b}`.
    pub fn parse(text: &str) -> Result<Path, String> {
        let inner = match text.strip_prefix('{') {
            Some(inner) => inner.strip_suffix('}').ok_or_else(|| format!("`{text}` is not closed by `}}`"))?,
            None => text,
        };
        let filters = inner.matches("?(").count();
        if inner.contains(['{', '}']) || text.len() > LONGEST || filters > FILTERS {
            return Err(format!("`{}` is no path such as `body.a.b`", text.chars().take(60).collect::<String>()));
        }
        let inner = inner.strip_prefix('.').filter(|rest| !rest.starts_with('.')).unwrap_or(inner);
        // A name at the beginning stands there as if it followed a dot.
        let dotted = if inner.starts_with(['[', '.']) { inner.to_owned() } else { format!(".{inner}") };
        let steps = if inner.is_empty() { Vec::new() } else { steps(&dotted)? };
        match steps.first() {
            Some(Step::Field(name)) if ["body", "header", "extensions", "context"].contains(&name.as_str()) => {}
            _ => {
                let message = "a path begins with `body`, `header`, `extensions` or `context`";
                return Err(format!("{message}, not as `{text}`"));
            }
        }
        Ok(Path(steps))
    }
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Descend);
            rest = after;
            if !rest.starts_with(['[', '.']) && !rest.is_empty() {
                rest = field(rest, &mut steps)?;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = field(after, &mut steps)?;
        } else if rest.starts_with('[') {
            let end = closing(rest).ok_or_else(|| format!("`{rest}` is not closed by `]`"))?;
            steps.push(bracket(rest[1..end].trim())?);
            rest = &rest[end + 1..];
        } else {
            return Err(format!("`{rest}` follows neither a dot nor a bracket"));
        }
    }
    Ok(steps)
}

/// A name up to the next dot or bracket; a backslash takes what follows it as it is.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' | ']' | ',' | '$' | '@' | ' ' | '\t' | '\n' => {
                end = at;
                break;
            }
            other => name.push(other),
        }
    }
    if name.is_empty() {
        return Err("a name is missing after a dot".into());
    }
    steps.push(if name == "*" { Step::All } else { Step::Field(name) });
    Ok(&text[end..])
}

/// Where the bracket closes that the text begins with; brackets in quotes aside.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            (None, _) => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<&str> {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote));
    inside('\'').or_else(|| inside('"'))
}

/// What stands in brackets.
fn bracket(text: &str) -> Result<Step, String> {
    if let Some(inner) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter(inner.trim());
    }
    if let Some(key) = quoted(text) {
        return Ok(Step::Field(key.to_owned()));
    }
    if text == "*" {
        return Ok(Step::All);
    }
    let parts = split(text, ',');
    if parts.len() > 1 {
        return Ok(Step::Union(parts.into_iter().map(|part| bracket(part.trim())).collect::<Result<_, _>>()?));
    }
    let wrong = || format!("`[{text}]` is neither an index, nor a range, nor a name in quotes");
    let number = |part: &str| match part.trim() {
        "" => Ok(None),
        digits => digits.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    match text.split(':').collect::<Vec<_>>()[..] {
        [index] => Ok(Step::Index(number(index)?.ok_or_else(wrong)?)),
        [from, to] => Ok(Step::Slice { from: number(from)?, to: number(to)?, step: None }),
        [from, to, step] => Ok(Step::Slice { from: number(from)?, to: number(to)?, step: number(step)? }),
        _ => Err(wrong()),
    }
}

/// At a character that stands in no quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut quote = None;
    text.split(|c| {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None => {}
        }
        quote.is_none() && c == at
    })
    .collect()
}

fn filter(text: &str) -> Result<Step, String> {
    let signs = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Unequal),
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::More),
    ];
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None => {
                if let Some((sign, comparison)) = signs.iter().find(|(sign, _)| text[at..].starts_with(sign)) {
                    let right = operand(text[at + sign.len()..].trim())?;
                    return Ok(Step::Filter(operand(text[..at].trim())?, Some((*comparison, right))));
                }
            }
        }
    }
    Ok(Step::Filter(operand(text)?, None))
}

fn operand(text: &str) -> Result<Operand, String> {
    let wrong = || format!("`{text}` is no filter such as `@.name == 'x'`");
    if let Some(rest) = text.strip_prefix('@') {
        return Ok(Operand::Path(steps(rest).map_err(|_| wrong())?));
    }
    if let Some(constant) = quoted(text) {
        return Ok(Operand::Constant(constant.into()));
    }
    match text {
        "true" => Ok(Operand::Constant(true.into())),
        "false" => Ok(Operand::Constant(false.into())),
        number => number.parse::<f64>().map(|number| Operand::Constant(number.into())).map_err(|_| wrong()),
    }
}
