//! Text to tree, with bounds: hostile or mistaken input costs a bounded amount of work.
//!
//! The reader is quick-xml's, which passes over some mistakes, such as a missing space before an attribute. They do
//! no harm: what libvirt gets is the tree, written anew.

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::attributes::AttrError;
use quick_xml::events::{BytesStart, Event};

use super::error::{Position, XmlError};
use super::tree::{Attribute, Document, Element, is_allowed};

/// The longest text that is read, in bytes. libvirt itself refuses more than 10 MiB.
pub const MAX_SIZE: usize = 4 << 20;
/// The deepest nesting that is read. libvirt's own formats stay below 20.
pub const MAX_DEPTH: usize = 64;
/// The most attributes that one element may have.
pub const MAX_ATTRIBUTES: usize = 256;

impl Document {
    /// Reads a document from bytes, which must be UTF-8.
    ///
    /// # Errors
    /// As for [`Document::parse`], and for bytes in another encoding.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, XmlError> {
        check_size(bytes.len())?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(error) => {
                let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                Err(XmlError::Encoding {
                    position: Position::of(&valid, valid.len()),
                    found: "another encoding".to_owned(),
                })
            }
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When the text is not well-formed, has a document type, names an encoding other than
    /// UTF-8, or passes [`MAX_SIZE`], [`MAX_DEPTH`] or [`MAX_ATTRIBUTES`].
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        check_size(text.len())?;
        Parser::new(text).document()
    }
}

fn check_size(size: usize) -> Result<(), XmlError> {
    if size > MAX_SIZE {
        return Err(XmlError::TooLarge {
            size,
            limit: MAX_SIZE,
        });
    }
    Ok(())
}

struct Parser<'a> {
    /// Without its byte order mark, which the reader does not count.
    text: &'a str,
    reader: Reader<&'a [u8]>,
    root: Option<Element>,
    open: Vec<Element>,
    /// The last position that was counted, and its offset: tags come in order.
    counted: (usize, Position),
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader::from_str(text);
        reader.config_mut().enable_all_checks(true);
        Self {
            text,
            reader,
            root: None,
            open: Vec::new(),
            counted: (0, Position { line: 1, column: 1 }),
        }
    }

    fn document(mut self) -> Result<Document, XmlError> {
        // The reader takes one mark away without counting it, so that none of its places would be true.
        if self.text.starts_with('\u{feff}') {
            return Err(self.syntax(0, "a second byte order mark"));
        }
        if let Some((offset, character)) = self.text.char_indices().find(|it| !is_allowed(it.1)) {
            return Err(self.syntax(offset, not_allowed(character)));
        }
        loop {
            let start = offset(self.reader.buffer_position());
            let event = self.reader.read_event().map_err(|error| {
                self.syntax(offset(self.reader.error_position()), error.to_string())
            })?;
            match event {
                Event::Start(tag) => {
                    let element = self.element(start, &tag)?;
                    self.open.push(element);
                }
                Event::Empty(tag) => {
                    let element = self.element(start, &tag)?;
                    self.add(element);
                }
                Event::End(_) => {
                    // The reader refuses an end tag without its start tag.
                    if let Some(element) = self.open.pop() {
                        self.add(element);
                    }
                }
                Event::Text(text) => self.add_text(start, &text.xml10_content())?,
                Event::CData(text) => self.add_text(start, &text.xml10_content())?,
                Event::GeneralRef(reference) => {
                    let mut utf8 = [0; 4];
                    let character = reference.resolve_char_ref().ok().flatten();
                    let text = match character.filter(|character| is_allowed(*character)) {
                        Some(character) => Some(&*character.encode_utf8(&mut utf8)),
                        None => resolve_predefined_entity(&reference),
                    };
                    let text = text.ok_or_else(|| {
                        let name = reference.escape_debug();
                        self.syntax(
                            start,
                            format!("&{name}; is not one of XML's own references"),
                        )
                    })?;
                    self.add_text(start, text)?;
                }
                Event::Comment(_) | Event::PI(_) => {}
                Event::Decl(declaration) => {
                    if let Some(Ok(encoding)) = declaration.encoding()
                        && !["utf-8", "utf8", "us-ascii", "ascii"]
                            .contains(&encoding.to_ascii_lowercase().as_str())
                    {
                        return Err(XmlError::Encoding {
                            position: Position::of(self.text, start),
                            found: encoding.escape_debug().to_string(),
                        });
                    }
                }
                Event::DocType(_) => {
                    return Err(XmlError::DocumentType {
                        position: Position::of(self.text, start),
                    });
                }
                Event::Eof => break,
            }
        }
        if let Some(element) = self.open.last() {
            let problem = format!(
                "the text ends inside of <{}>, opened at {}",
                element.name, element.position
            );
            return Err(self.syntax(self.text.len(), problem));
        }
        match self.root.take() {
            Some(root) => Ok(Document { root }),
            None => Err(self.syntax(self.text.len(), "there is no root element")),
        }
    }

    /// The position of a tag, counted from the last one: one pass over the text in all.
    fn position(&mut self, offset: usize) -> Position {
        let (
            from,
            Position {
                mut line,
                mut column,
            },
        ) = self.counted;
        for character in self.text[from..offset].chars() {
            if character == '\n' {
                line = line.saturating_add(1);
                column = 1;
            } else {
                column = column.saturating_add(1);
            }
        }
        let position = Position { line, column };
        self.counted = (offset, position);
        position
    }

    fn syntax(&self, offset: usize, problem: impl Into<String>) -> XmlError {
        XmlError::Syntax {
            position: Position::of(self.text, offset),
            problem: problem.into(),
        }
    }

    fn add_text(&mut self, start: usize, text: &str) -> Result<(), XmlError> {
        match self.open.last_mut() {
            Some(parent) => parent.append_text(text),
            None if text.trim_start().is_empty() => {}
            None => {
                let blank = text.len() - text.trim_start().len();
                return Err(self.syntax(start + blank, "text outside the root element"));
            }
        }
        Ok(())
    }

    /// The element of a start tag.
    fn element(&mut self, start: usize, tag: &BytesStart<'_>) -> Result<Element, XmlError> {
        let position = self.position(start);
        if self.open.is_empty() && self.root.is_some() {
            return Err(self.syntax(start, "a second root element"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(XmlError::TooDeep {
                position,
                limit: MAX_DEPTH,
            });
        }
        let mut element = Element::read(self.name(start, tag.name().as_ref())?, position);
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| {
                let (at, problem) = match error {
                    AttrError::ExpectedEq(at) => (at, "an attribute has no value"),
                    AttrError::ExpectedValue(at) | AttrError::UnquotedValue(at) => {
                        (at, "the value of an attribute is not in quotes")
                    }
                    AttrError::ExpectedQuote(at, _) => (at, "the value of an attribute has no end"),
                    AttrError::Duplicated(at, _) => (at, "an attribute stands there twice"),
                };
                // The place is counted from behind the `<`.
                self.syntax(start + 1 + at, problem)
            })?;
            if element.attributes.len() == MAX_ATTRIBUTES {
                return Err(self.syntax(start, format!("more than {MAX_ATTRIBUTES} attributes")));
            }
            let name = self.name(start, attribute.key.as_ref())?.to_owned();
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| error.to_string());
            let value = value.and_then(|value| match value.chars().find(|it| !is_allowed(*it)) {
                Some(character) => Err(not_allowed(character)),
                None => Ok(value.into_owned()),
            });
            let value = value.map_err(|problem| {
                self.syntax(start, format!("the attribute {name}: {problem}"))
            })?;
            element.attributes.push(Attribute { name, value });
        }
        Ok(element)
    }

    /// Checks a name of an element or attribute, by XML's rules as far as ASCII goes; beyond it everything is taken.
    fn name<'n>(&self, start: usize, name: &'n str) -> Result<&'n str, XmlError> {
        let starts =
            |it: char| it.is_ascii_alphabetic() || matches!(it, '_' | ':') || !it.is_ascii();
        let goes_on = |it: char| starts(it) || it.is_ascii_digit() || matches!(it, '-' | '.');
        if name.starts_with(starts) && name.chars().all(goes_on) {
            return Ok(name);
        }
        Err(self.syntax(start, format!("{name:?} is not a name in XML")))
    }

    /// Adds an element that is complete.
    fn add(&mut self, element: Element) {
        match self.open.last_mut() {
            Some(parent) => parent.append(element),
            None => self.root = Some(element),
        }
    }
}

fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

fn not_allowed(character: char) -> String {
    format!(
        "the character U+{:04X} is not allowed",
        u32::from(character)
    )
}
