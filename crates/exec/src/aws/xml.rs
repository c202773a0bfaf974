//! The answers of the older services, as far as they are needed: the text of one element.

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

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn the_text_of_an_element_is_read_unescaped() {
        let xml = r#"<a xmlns="x"><b>1</b><c>x &lt;y&gt; &#65;</c></a>"#;
        assert_eq!(text(xml, "c").as_deref(), Some("x <y> A"));
        assert_eq!((text(xml, "d"), text("<a><c>", "c"), text("no", "a")), (None, None, None));
    }
}
