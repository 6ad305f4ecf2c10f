//! Text to tree, with bounds: hostile or mistaken input costs a bounded amount of work.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::error::{Position, XmlError};
use super::escape;
use super::tree::{Attribute, Content, Document, Element, Node};

/// The longest text that is read, in bytes. libvirt itself refuses more than 10 MiB.
pub const MAX_SIZE: usize = 4 << 20;
/// The deepest nesting that is read. libvirt's own formats stay below 20.
pub const MAX_DEPTH: usize = 64;
/// The most attributes that one element may have.
pub const MAX_ATTRIBUTES: usize = 256;

/// The white space of XML, which is not Unicode's.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

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
    text: &'a str,
    /// The length of a byte order mark, which the reader does not see.
    mark: usize,
    reader: Reader<&'a [u8]>,
    prolog: String,
    epilog: String,
    root: Option<Element>,
    open: Vec<Element>,
    /// The last position that was counted, and its offset: tags come in order.
    counted: (usize, Position),
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mark = text.len() - body.len();
        let mut reader = Reader::from_str(body);
        let config = reader.config_mut();
        config.check_comments = true;
        config.check_end_names = true;
        config.expand_empty_elements = false;
        config.trim_text(false);
        // References are checked here, with a better message.
        config.allow_dangling_amp = true;
        Self {
            text,
            mark,
            reader,
            prolog: text[..mark].to_owned(),
            epilog: String::new(),
            root: None,
            open: Vec::new(),
            counted: (0, Position { line: 1, column: 1 }),
        }
    }

    fn document(mut self) -> Result<Document, XmlError> {
        // The reader takes one mark away without counting it, so that none of its places would be true.
        if self.text[self.mark..].starts_with('\u{feff}') {
            return Err(self.syntax(self.mark, "a second byte order mark"));
        }
        loop {
            let start = self.offset(self.reader.buffer_position());
            let event = match self.reader.read_event() {
                Ok(event) => event,
                Err(error) => {
                    let offset = self.offset(self.reader.error_position());
                    return Err(self.syntax(offset, error.to_string()));
                }
            };
            let end = self.offset(self.reader.buffer_position());
            let raw = &self.text[start..end];
            match event {
                Event::Start(_) => self.open(start, raw)?,
                Event::Empty(_) => {
                    self.open(start, raw)?;
                    self.close(None)?;
                }
                Event::End(_) => {
                    let name = raw
                        .strip_prefix("</")
                        .and_then(|rest| rest.strip_suffix('>'));
                    let space = name.map_or("", |name| &name[name.trim_end_matches(SPACE).len()..]);
                    self.close(Some(space.to_owned()))?;
                }
                Event::Text(_) | Event::GeneralRef(_) => self.text(start, raw)?,
                Event::CData(_) => {
                    self.check_characters(start, raw)?;
                    match self.open.last_mut() {
                        Some(parent) => push(parent, Node::CData(raw.to_owned())),
                        None => {
                            return Err(self.syntax(start, "text outside the root element"));
                        }
                    }
                }
                Event::Comment(_) | Event::PI(_) => {
                    self.check_characters(start, raw)?;
                    self.other(raw);
                }
                Event::Decl(declaration) => {
                    if start != self.mark {
                        return Err(self.syntax(start, "a declaration that is not the first thing"));
                    }
                    if let Some(Ok(encoding)) = declaration.encoding()
                        && !["utf-8", "utf8", "us-ascii", "ascii"]
                            .contains(&encoding.to_ascii_lowercase().as_str())
                    {
                        return Err(XmlError::Encoding {
                            position: Position::of(self.text, start),
                            found: encoding.escape_debug().to_string(),
                        });
                    }
                    self.other(raw);
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
            return Err(self.syntax(
                self.text.len(),
                format!(
                    "the text ends inside of <{}>, opened at {}",
                    element.name, element.position
                ),
            ));
        }
        match self.root.take() {
            Some(root) => Ok(Document {
                prolog: self.prolog,
                root,
                epilog: self.epilog,
            }),
            None => Err(self.syntax(self.text.len(), "there is no root element")),
        }
    }

    /// The reader counts from behind the byte order mark.
    fn offset(&self, position: u64) -> usize {
        usize::try_from(position)
            .map_or(self.text.len(), |position| position + self.mark)
            .min(self.text.len())
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

    fn text(&mut self, start: usize, raw: &str) -> Result<(), XmlError> {
        if let Err((offset, problem)) = escape::check(raw) {
            return Err(self.syntax(start + offset, problem));
        }
        if let Some(offset) = raw.find("]]>") {
            return Err(self.syntax(start + offset, "]]> outside of CDATA is written ]]&gt;"));
        }
        match self.open.last_mut() {
            Some(parent) => {
                let nodes = &mut parent.content.get_or_insert_with(Content::default).nodes;
                // The reader splits text at references.
                if let Some(Node::Text(text)) = nodes.last_mut() {
                    text.push_str(raw);
                } else {
                    nodes.push(Node::Text(raw.to_owned()));
                }
            }
            None => {
                let outside = |character: char| !SPACE.contains(&character);
                if let Some(offset) = raw.find(outside) {
                    return Err(self.syntax(start + offset, "text outside the root element"));
                }
                self.other(raw);
            }
        }
        Ok(())
    }

    fn other(&mut self, raw: &str) {
        match (self.open.last_mut(), &self.root) {
            (Some(parent), _) => push(parent, Node::Other(raw.to_owned())),
            (None, None) => self.prolog.push_str(raw),
            (None, Some(_)) => self.epilog.push_str(raw),
        }
    }

    fn check_characters(&self, start: usize, raw: &str) -> Result<(), XmlError> {
        match raw
            .char_indices()
            .find(|(_, character)| !escape::is_allowed(*character))
        {
            Some((offset, character)) => Err(self.syntax(
                start + offset,
                format!(
                    "the character U+{:04X} is not allowed",
                    u32::from(character)
                ),
            )),
            None => Ok(()),
        }
    }

    fn open(&mut self, start: usize, raw: &str) -> Result<(), XmlError> {
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
        // The reader has seen a whole tag: `<name … >` or `<name … />`.
        let inside = raw.strip_prefix('<').unwrap_or(raw);
        let inside = inside.strip_suffix('>').unwrap_or(inside);
        let inside = inside.strip_suffix('/').unwrap_or(inside);
        let name_length = inside.find(SPACE).unwrap_or(inside.len());
        let (name, mut rest) = inside.split_at(name_length);
        if !is_name(name) {
            return Err(self.syntax(start, format!("{:?} is not a name for an element", name)));
        }
        let mut attributes: Vec<Attribute> = Vec::new();
        let after = loop {
            let offset = start + 1 + (inside.len() - rest.len());
            let trimmed = rest.trim_start_matches(SPACE);
            if trimmed.is_empty() {
                break rest.to_owned();
            }
            let (attribute, length) =
                attribute(rest).map_err(|problem| self.syntax(offset, problem))?;
            if let Err((at, problem)) = escape::check(&attribute.value) {
                let value = offset + length - 1 - attribute.value.len();
                return Err(self.syntax(value + at, problem));
            }
            if attributes.iter().any(|other| other.name == attribute.name) {
                return Err(self.syntax(
                    offset,
                    format!("the attribute {} stands there twice", attribute.name),
                ));
            }
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(self.syntax(offset, format!("more than {MAX_ATTRIBUTES} attributes")));
            }
            attributes.push(attribute);
            rest = &rest[length..];
        };
        self.open.push(Element {
            name: name.to_owned(),
            attributes,
            after,
            content: None,
            position,
        });
        Ok(())
    }

    /// Ends the innermost element; with the space in its end tag, where it has one.
    fn close(&mut self, end_space: Option<String>) -> Result<(), XmlError> {
        let Some(mut element) = self.open.pop() else {
            let offset = self.offset(self.reader.buffer_position());
            return Err(self.syntax(offset, "an end tag without its start tag"));
        };
        if let Some(end_space) = end_space {
            element
                .content
                .get_or_insert_with(Content::default)
                .end_space = end_space;
        }
        match self.open.last_mut() {
            Some(parent) => push(parent, Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }
}

fn push(parent: &mut Element, node: Node) {
    parent
        .content
        .get_or_insert_with(Content::default)
        .nodes
        .push(node);
}

/// Whether this is a name by XML's rules, as far as ASCII goes; beyond it everything is taken.
fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|first| {
        first.is_ascii_alphabetic() || matches!(first, '_' | ':') || !first.is_ascii()
    });
    first
        && characters.all(|rest| {
            rest.is_ascii_alphanumeric()
                || matches!(rest, '_' | ':' | '-' | '.')
                || !rest.is_ascii()
        })
}

/// Takes ` name = "value"` from the start of `rest`: the attribute and its length in bytes.
fn attribute(rest: &str) -> Result<(Attribute, usize), String> {
    let name_start = rest.len() - rest.trim_start_matches(SPACE).len();
    if name_start == 0 {
        return Err("there is no space before an attribute".to_owned());
    }
    let from_name = &rest[name_start..];
    let name_length = from_name
        .find(|character| character == '=' || SPACE.contains(&character))
        .unwrap_or(from_name.len());
    let name = &from_name[..name_length];
    if !is_name(name) {
        return Err(format!("{name:?} is not a name for an attribute"));
    }
    let from_equals = &from_name[name_length..];
    let value = from_equals
        .trim_start_matches(SPACE)
        .strip_prefix('=')
        .ok_or_else(|| format!("the attribute {name} has no value"))?
        .trim_start_matches(SPACE);
    let equals = &from_equals[..from_equals.len() - value.len()];
    let quote = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => quote,
        _ => {
            return Err(format!(
                "the value of the attribute {name} is not in quotes"
            ));
        }
    };
    let value = &value[1..];
    let end = value
        .find(quote)
        .ok_or_else(|| format!("the value of the attribute {name} does not end"))?;
    let value = &value[..end];
    if value.contains('<') {
        return Err(format!(
            "a < in the value of the attribute {name} is written &lt;"
        ));
    }
    let length = name_start + name_length + equals.len() + value.len() + 2;
    Ok((
        Attribute {
            before: rest[..name_start].to_owned(),
            name: name.to_owned(),
            equals: equals.to_owned(),
            quote,
            value: value.to_owned(),
        },
        length,
    ))
}
