//! The little of XML that S3 answers with: elements with texts, no attributes that matter.

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use quick_xml::{Reader, XmlVersion};

/// As deep as elements may lie in each other: S3's do four deep.
const DEEPEST: usize = 16;
/// As long as the text of an element may be. A key has 1024 bytes at most.
const WIDEST: usize = 8192;

/// Calls `ended` with every element as it ends: the names down to it, and the text in it.
///
/// No entities but XML's own are known, so that a document cannot grow by them.
///
/// # Errors
/// What is wrong with the document; what came before was given already.
pub(super) fn walk(document: &str, mut ended: impl FnMut(&[&str], &str)) -> Result<(), String> {
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                if path.len() == DEEPEST {
                    return Err(format!("elements lie more than {DEEPEST} deep"));
                }
                path.push(start.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(piece) => text.push_str(&piece.xml_content(XmlVersion::Explicit1_0)),
            Event::CData(piece) => text.push_str(&piece),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(character)) => text.push(character),
                Err(error) => return Err(error.to_string()),
                Ok(None) => match resolve_predefined_entity(&name) {
                    Some(known) => text.push_str(known),
                    None => return Err("an entity that XML does not know".to_owned()),
                },
            },
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                ended(&names, &text);
                path.pop();
                text.clear();
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err("it breaks off".to_owned()),
            Event::Empty(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_) => {}
        }
        if text.len() > WIDEST {
            return Err(format!("a text of more than {WIDEST} bytes"));
        }
    }
}
