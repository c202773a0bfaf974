//! The answers of the older services, as far as they are needed: the text of one element, or the tree of all.

use quick_xml::Reader;
use quick_xml::events::Event;

/// The text of the first element of that name, whatever is around it; `None` where the document has none or is broken
/// before it.
pub fn text(document: &str, name: &str) -> Option<String> {
    let mut reader = Reader::from_str(document);
    let mut found: Option<String> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if tag.local_name().as_ref() == name.as_bytes() => found = Some(String::new()),
            Event::End(tag) if tag.local_name().as_ref() == name.as_bytes() => return found,
            Event::Text(text) => {
                if let Some(found) = &mut found {
                    found.push_str(&text.decode().ok()?);
                }
            }
            Event::GeneralRef(reference) => {
                if let Some(found) = &mut found {
                    match reference.resolve_char_ref().ok()? {
                        Some(c) => found.push(c),
                        None => {
                            found.push_str(quick_xml::escape::resolve_predefined_entity(&reference.decode().ok()?)?)
                        }
                    }
                }
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// An element of a document: its name without what stands before a `:`, its own text, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

/// Elements in elements, beyond which a document is no answer of AWS.
const DEEPEST: usize = 64;

impl Element {
    /// The root of a document; `None` where it is broken.
    pub fn parse(document: &str) -> Option<Element> {
        let mut reader = Reader::from_str(document);
        let mut open = vec![Element::default()];
        loop {
            match reader.read_event().ok()? {
                Event::Start(tag) if open.len() < DEEPEST => open.push(named(tag.local_name().as_ref())),
                Event::Start(_) => return None,
                Event::Empty(tag) => open.last_mut()?.children.push(named(tag.local_name().as_ref())),
                Event::End(_) => {
                    let closed = open.pop()?;
                    open.last_mut()?.children.push(closed);
                }
                Event::Text(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
                Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                    Some(c) => open.last_mut()?.text.push(c),
                    None => {
                        let entity = reference.decode().ok()?;
                        open.last_mut()?.text.push_str(quick_xml::escape::resolve_predefined_entity(&entity)?);
                    }
                },
                Event::Eof => break,
                _ => {}
            }
        }
        // All that was opened is closed, and the document has one root.
        let [document] = &mut open[..] else { return None };
        document.children.pop()
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text at the end of a path of children; empty where there is none.
    pub fn at(&self, path: &[&str]) -> &str {
        match path {
            [] => self.text.trim(),
            [first, rest @ ..] => self.child(first).map_or("", |child| child.at(rest)),
        }
    }

    /// The items of a list: the children of the child of that name.
    pub fn list(&self, name: &str) -> &[Element] {
        self.child(name).map_or(&[], |child| &child.children)
    }
}

fn named(name: &[u8]) -> Element {
    Element { name: String::from_utf8_lossy(name).into_owned(), ..Element::default() }
}

#[cfg(test)]
mod tests {
    use super::{Element, text};

    #[test]
    fn a_document_is_read_as_a_tree() {
        let xml = r#"<?xml version="1.0"?><r xmlns="x"><set><item><id>i-1</id><s><name>a &amp; b</name></s></item><item><id>i-2</id><e/></item></set></r>"#;
        let root = Element::parse(xml).unwrap();
        assert_eq!(root.name, "r");
        let ids: Vec<&str> = root.list("set").iter().map(|item| item.at(&["id"])).collect();
        assert_eq!(ids, ["i-1", "i-2"]);
        assert_eq!(root.list("set")[0].at(&["s", "name"]), "a & b");
        assert_eq!((root.at(&["none", "x"]), root.list("none").len()), ("", 0));
        for broken in ["", "<a>", "<a></b>", "no", &"<a>".repeat(100_000)] {
            assert_eq!(Element::parse(broken), None, "{broken:.10}");
        }
    }

    #[test]
    fn the_text_of_an_element_is_read_unescaped() {
        let xml = r#"<a xmlns="x"><b>1</b><c>x &lt;y&gt; &#65;</c></a>"#;
        assert_eq!(text(xml, "c").as_deref(), Some("x <y> A"));
        assert_eq!((text(xml, "d"), text("<a><c>", "c"), text("no", "a")), (None, None, None));
    }
}
