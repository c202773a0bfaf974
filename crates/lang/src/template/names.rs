//! Lets users write `tasks.per-server.outputs.x` and `params.learning-rate` as they named them.
//!
//! To Jinja a `-` is a minus. Inside a path that begins with `tasks.` or `params.`, a `-` without spaces around it
//! belongs to the name, and the name is turned into a subscript: `tasks['per-server'].outputs.x`.

use std::ops::Range;

use minijinja::machinery::{Span, Token, tokenize};

/// A source with its dashed names rewritten.
#[derive(Debug, Clone, Default)]
pub struct Rewritten {
    pub text: String,
    /// Offsets in `text` behind which everything is shifted, and by how much in total.
    shifts: Vec<(usize, usize)>,
}

impl Rewritten {
    /// The stretch of the original source that a stretch of the new one comes from.
    pub fn original(&self, range: Range<usize>) -> Range<usize> {
        let back = |at: usize| at - self.shifts.iter().rev().find(|(from, _)| at >= *from).map_or(0, |(_, by)| *by);
        let start = back(range.start);
        start..back(range.end).max(start)
    }
}

pub fn rewrite(source: &str) -> Rewritten {
    let dashed = source.contains('-') && (source.contains("tasks") || source.contains("params"));
    let tokens: Vec<(Token<'_>, Span)> = if dashed {
        // A text that cannot be read is left as it is; the parser says why.
        tokenize(source, false, super::environment::syntax()).map_while(Result::ok).collect()
    } else {
        Vec::new()
    };
    let mut out = Rewritten::default();
    let mut copied = 0;
    let mut at = 0;
    while at < tokens.len() {
        let starts_path = match &tokens[at].0 {
            Token::Ident(root @ ("tasks" | "params")) if at == 0 || !matches!(tokens[at - 1].0, Token::Dot) => {
                Some(*root)
            }
            _ => None,
        };
        at += 1;
        let Some(root) = starts_path else { continue };
        let mut in_outputs = false;
        let mut segments = 0;
        while let Some((name, next)) = segment(source, &tokens, at, root == "tasks" && !in_outputs) {
            if name.contains('-') {
                let dot = tokens[at].1.start_offset as usize;
                out.text.push_str(&source[copied..dot]);
                out.text.push_str("['");
                out.text.push_str(name);
                out.text.push_str("']");
                copied = end(&tokens[next - 1].1);
                // `['` and `']` stand where one `.` stood.
                let total = out.shifts.last().map_or(0, |(_, by)| *by) + 3;
                out.shifts.push((out.text.len(), total));
            }
            in_outputs |= name == "outputs" || name == "state";
            segments += 1;
            at = next;
            if root == "params" && segments == 1 {
                break;
            }
        }
    }
    out.text.push_str(&source[copied..]);
    out
}

/// The name after the dot at `at`, and the token behind it. With `digits`, a dash before a digit is part of it too.
fn segment<'s>(source: &'s str, tokens: &[(Token<'_>, Span)], at: usize, digits: bool) -> Option<(&'s str, usize)> {
    let (Token::Dot, dot) = tokens.get(at)? else { return None };
    let (Token::Ident(_), first) = tokens.get(at + 1)? else { return None };
    if end(dot) != first.start_offset as usize {
        return None;
    }
    let mut next = at + 2;
    let mut stop = end(first);
    loop {
        let adjoining = |number: usize| {
            tokens.get(number).filter(|(_, span)| span.start_offset as usize == stop_of(tokens, number))
        };
        match (adjoining(next), adjoining(next + 1)) {
            (Some((Token::Minus, _)), Some((Token::Ident(_), span))) => {
                stop = end(span);
                next += 2;
            }
            (Some((Token::Minus, _)), Some((Token::Int(_), span))) if digits => {
                stop = end(span);
                next += 2;
            }
            // `1b` in `shard-1b` comes as a number and a name.
            (Some((Token::Ident(_), span)), _) if digits && next > at + 2 => {
                stop = end(span);
                next += 1;
            }
            _ => break,
        }
    }
    Some((&source[first.start_offset as usize..stop], next))
}

fn stop_of(tokens: &[(Token<'_>, Span)], number: usize) -> usize {
    end(&tokens[number - 1].1)
}

fn end(span: &Span) -> usize {
    span.end_offset as usize
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn a_dash_inside_a_name_is_no_minus() {
        let table = [
            ("{{ tasks.per-server.outputs.x }}", "{{ tasks['per-server'].outputs.x }}"),
            ("{{ tasks.a.b-c.outputs.d-e }}", "{{ tasks.a['b-c'].outputs['d-e'] }}"),
            ("{{ tasks.shard-1.state }}", "{{ tasks['shard-1'].state }}"),
            ("{{ tasks.shard-1b-x.state }}", "{{ tasks['shard-1b-x'].state }}"),
            ("{{ tasks.a.outputs.n-1 }}", "{{ tasks.a.outputs.n-1 }}"),
            ("{{ params.learning-rate * 2 }}", "{{ params['learning-rate'] * 2 }}"),
            ("{{ params.n-1 }} {{ params.a - params.b }}", "{{ params.n-1 }} {{ params.a - params.b }}"),
            ("{{ 'tasks.a-b' }} tasks.a-b {{ x.tasks.a-b }}", "{{ 'tasks.a-b' }} tasks.a-b {{ x.tasks.a-b }}"),
            ("{% if tasks.a-b.state %}{% endif %}", "{% if tasks['a-b'].state %}{% endif %}"),
            ("{{- params.a-}}", "{{- params.a-}}"),
        ];
        for (source, expected) in table {
            assert_eq!(rewrite(source).text, expected);
        }
        let new = rewrite("{{ tasks.a-b.state + nope }}");
        let at = new.text.find("nope").unwrap();
        assert_eq!(new.original(at..at + 4), 21..25);
    }
}
