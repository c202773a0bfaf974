//! Builds the tree from the parser's events, within budgets.
//!
//! Every budget is checked before the memory is used: a file that names itself a million times over is refused as
//! soon as its aliases ask for more nodes than allowed, not when they have been copied.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Entry, Key, Node, Scalar, Style, Yaml, errors};
use crate::diagnostic::{Place, Reporter};

/// The longest source, in bytes.
pub const MAX_BYTES: usize = 32 << 20;
/// The most nodes that one file may write.
pub const MAX_NODES: usize = 4_000_000;
/// The most nodes that the aliases of one file may stand for.
pub const MAX_ALIASED: usize = 1_000_000;
/// The most documents in one file.
pub const MAX_DOCUMENTS: usize = 1_000;
/// The deepest nesting.
pub const MAX_DEPTH: usize = 64;

/// One document of a file.
#[derive(Debug)]
pub struct Document<'s> {
    pub root: Node,
    /// Its part of the source, its `---` included.
    pub text: &'s str,
}

/// Reads all documents that hold something. Problems go to the reporter; the first one ends the reading.
pub(crate) fn load<'s>(source: &'s str, reporter: &mut Reporter<'s>) -> Vec<Document<'s>> {
    if source.len() > MAX_BYTES {
        reporter.error_hint(
            Place::default(),
            format!("the file is too large: {} MiB, at most {} are read", source.len() >> 20, MAX_BYTES >> 20),
            "split the workflow, or map over a list with `foreach`",
        );
        return Vec::new();
    }
    if let Some(at) = source.find('\0') {
        let line = source[..at].matches('\n').count() as u32 + 1;
        reporter.error(Place { line, column: 1, length: 1 }, "the file holds a zero byte; it is not a text");
        return Vec::new();
    }
    let mut loader = Loader { source, ..Loader::default() };
    let mut parser = Parser::new_from_str(source);
    let mut starts = Vec::new();
    let mut roots = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(found) => found,
            Err(error) => {
                let mut at = place(Span::empty(*error.marker()));
                // The parser stops at the end of the file; the line before it is what a reader can look at.
                at.line = at.line.max(1);
                let (message, hint) = errors::explain(error.info(), reporter.line(at.line));
                reporter.error_maybe(at, message, hint);
                return Vec::new();
            }
        };
        match event {
            Event::DocumentStart(_) if starts.len() >= MAX_DOCUMENTS => {
                let message = format!("the file has more than {MAX_DOCUMENTS} documents");
                reporter.error_hint(place(span), message, "put the workflows into several files");
                return Vec::new();
            }
            Event::DocumentStart(_) => starts.push(span.start.line()),
            Event::DocumentEnd => {
                loader.anchors.clear();
                if let Some(root) = loader.root.take() {
                    roots.push((starts.len() - 1, root));
                }
            }
            event => {
                if let Err((at, message, hint)) = loader.on(event, span) {
                    reporter.error_maybe(at, message, hint);
                    return Vec::new();
                }
            }
        }
    }
    let texts = split(source, &starts);
    let documents = roots.into_iter().filter(|(_, root)| !root.is_null());
    documents.map(|(number, root)| Document { root, text: texts[number] }).collect()
}

/// The source cut at the lines where documents begin; what stands before the first belongs to it.
fn split<'s>(source: &'s str, starts: &[usize]) -> Vec<&'s str> {
    if starts.len() <= 1 {
        return vec![source; starts.len()];
    }
    let lines: Vec<usize> = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let offset = |line: usize| lines.get(line - 1).copied().unwrap_or(source.len());
    let mut cuts: Vec<usize> = starts.iter().map(|line| offset((*line).max(1))).collect();
    cuts[0] = 0;
    cuts.push(source.len());
    cuts.windows(2).map(|pair| &source[pair[0]..pair[1].max(pair[0])]).collect()
}

type Refusal = (Place, String, Option<String>);

#[derive(Default)]
struct Loader<'s> {
    source: &'s str,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    aliased: usize,
}

/// A collection that is not closed yet.
struct Frame {
    at: Place,
    anchor: usize,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<Key>),
}

impl Loader<'_> {
    fn on(&mut self, event: Event<'_>, span: Span) -> Result<(), Refusal> {
        let at = place(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(at)?;
                let style = style_of(style, tag.as_deref(), at)?;
                if let Some(Frame { open: Open::Map(_, key @ None), .. }) = self.stack.last_mut() {
                    *key = Some(Key { text: text.as_ref().into(), at });
                    return Ok(());
                }
                let scalar = Scalar { text: text.as_ref().into(), style };
                // Nothing was written: the key is what a reader can look at.
                let at = match self.stack.last() {
                    Some(Frame { open: Open::Map(_, Some(key)), .. }) if scalar.is_null() => key.at,
                    _ => at,
                };
                self.put(Node { at, yaml: Yaml::Scalar(scalar) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(at, anchor, tag.as_deref(), Open::List(Vec::new())),
            Event::MappingStart(anchor, tag) => self.open(at, anchor, tag.as_deref(), Open::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else { return Ok(()) };
                let yaml = match frame.open {
                    Open::List(items) => Yaml::List(items),
                    Open::Map(entries, _) => Yaml::Map(close_map(entries)?),
                };
                self.put(Node { at: frame.at, yaml }, frame.anchor)
            }
            Event::Alias(anchor) => {
                if self.wants_key() {
                    return Err((at, "an alias cannot be a key".into(), None));
                }
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    let hint = "an alias can only stand for a value that is complete above it";
                    return Err((
                        at,
                        "this alias stands for a value that it is itself part of".into(),
                        Some(hint.into()),
                    ));
                };
                self.aliased += size;
                if self.aliased > MAX_ALIASED {
                    let message = format!("the aliases of this file stand for more than {MAX_ALIASED} values");
                    return Err((
                        at,
                        message,
                        Some("an alias of aliases grows fast; write the values out, or use `foreach`".into()),
                    ));
                }
                let node = node.clone();
                self.put(node, 0)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { open: Open::Map(_, None), .. }))
    }

    fn open(&mut self, at: Place, anchor: usize, tag: Option<&Tag>, open: Open) -> Result<(), Refusal> {
        self.count(at)?;
        let expected = if matches!(open, Open::List(_)) { "seq" } else { "map" };
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == expected)
        {
            return Err((at, unknown_tag(tag), Some("leave it out".into())));
        }
        if self.wants_key() {
            let line = self.source.lines().nth(at.line as usize - 1).unwrap_or("");
            let hint = if line.contains("{{") {
                "put a value that begins with `{{` in quotes: `key: \"{{ … }}\"`"
            } else {
                "a text that begins with a bracket needs quotes"
            };
            return Err((at, "a key must be a text".into(), Some(hint.into())));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err((at, format!("values are nested more than {MAX_DEPTH} deep"), None));
        }
        self.stack.push(Frame { at, anchor, open });
        Ok(())
    }

    fn count(&mut self, at: Place) -> Result<(), Refusal> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            return Err((at, message, Some("map over a list with `foreach`".into())));
        }
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Refusal> {
        if anchor > 0 {
            let size = node.size();
            self.aliased += size;
            if self.aliased > MAX_ALIASED {
                let message = format!("the anchors of this file hold more than {MAX_ALIASED} values");
                return Err((node.at, message, Some("write the values out, or use `foreach`".into())));
            }
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame { open: Open::List(items), .. }) => items.push(node),
            Some(Frame { open: Open::Map(entries, key), .. }) => match key.take() {
                Some(key) => entries.push(Entry { key, value: node }),
                None => return Err((node.at, "a key must be a text".into(), None)),
            },
        }
        Ok(())
    }
}

/// Refuses duplicate keys and resolves `<<`: what the mapping says itself wins over what it merges.
fn close_map(mut entries: Vec<Entry>) -> Result<Vec<Entry>, Refusal> {
    if let Some((first, second)) = duplicate(&entries) {
        let (first, second) = (&entries[first].key, &entries[second].key);
        let message = format!("the key `{}` is there twice", second.text);
        return Err((second.at, message, Some(format!("it is first given in line {}", first.at.line))));
    }
    let Some(merge) = entries.iter().position(|entry| &*entry.key.text == "<<") else { return Ok(entries) };
    let merge = entries.remove(merge);
    let sources = match merge.value.yaml {
        Yaml::Map(_) => vec![merge.value],
        Yaml::List(items) => items,
        Yaml::Scalar(_) => return Err(not_mergeable(merge.value.at)),
    };
    for source in sources {
        let at = source.at;
        let Yaml::Map(merged) = source.yaml else { return Err(not_mergeable(at)) };
        for entry in merged {
            if !entries.iter().any(|own| own.key.text == entry.key.text) {
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

fn not_mergeable(at: Place) -> Refusal {
    (at, "`<<` merges a mapping, or a list of mappings".into(), Some("give it an alias: `<<: *name`".into()))
}

fn duplicate(entries: &[Entry]) -> Option<(usize, usize)> {
    let text = |at: usize| &*entries[at].key.text;
    if entries.len() <= 16 {
        return (1..entries.len()).find_map(|b| (0..b).find(|a| text(*a) == text(b)).map(|a| (a, b)));
    }
    let mut seen = HashSet::with_capacity(entries.len());
    let second = (0..entries.len()).find(|at| !seen.insert(text(*at)))?;
    Some(((0..second).find(|at| text(*at) == text(second))?, second))
}

fn unknown_tag(tag: &Tag) -> String {
    let written = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
    format!("the tag `{written}` is not known here")
}

fn style_of(style: ScalarStyle, tag: Option<&Tag>, at: Place) -> Result<Style, Refusal> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Style::Quoted),
        Some(tag) if tag.is_yaml_core_schema() && matches!(&*tag.suffix, "int" | "float" | "bool" | "null") => {
            Ok(Style::Plain)
        }
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(Style::Quoted),
        Some(tag) => Err((at, unknown_tag(tag), Some("leave it out, or quote a text that begins with `!`".into()))),
        None => Ok(match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        }),
    }
}

fn place(span: Span) -> Place {
    let length = if span.start.line() == span.end.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    Place { line: span.start.line() as u32, column: span.start.col() as u32 + 1, length: length.max(1) as u32 }
}
