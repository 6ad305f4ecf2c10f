//! The tree: elements with their attributes and the text between them.

use std::fmt;

use super::error::Position;

/// One XML document: its root element, since comments and processing instructions are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub(super) root: Element,
}

/// One attribute of a start tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub(super) name: String,
    /// The value that is meant, references resolved.
    pub(super) value: String,
}

/// An element, and the text that stands behind its end tag.
#[derive(Debug, Clone)]
pub struct Element {
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
    /// The text before the first child.
    pub(super) text: String,
    pub(super) children: Vec<Element>,
    /// The text from here to the next sibling, or to the end of the parent.
    pub(super) tail: String,
    pub(super) position: Position,
}

impl Document {
    /// A document of this element; for building.
    pub fn of(root: Element) -> Self {
        Self { root }
    }

    /// The root element.
    pub fn root(&self) -> &Element {
        &self.root
    }

    /// The root element, to edit.
    pub fn root_mut(&mut self) -> &mut Element {
        &mut self.root
    }
}

impl Attribute {
    /// The name, with its prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value that is meant, references resolved.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl Element {
    /// An element without attributes and content. The name is the program's own, never input.
    pub fn new(name: &'static str) -> Self {
        Self::read(name, Position { line: 1, column: 1 })
    }

    /// An element whose start tag was read at this position.
    pub(super) fn read(name: &str, position: Position) -> Self {
        Self {
            name: name.to_owned(),
            attributes: Vec::new(),
            text: String::new(),
            children: Vec::new(),
            tail: String::new(),
            position,
        }
    }

    /// The same with an attribute; for building.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.set_attribute(name, value);
        self
    }

    /// The same with one more child at the end; for building.
    #[must_use]
    pub fn with_child(mut self, child: Element) -> Self {
        self.append(child);
        self
    }

    /// The same with this text as its content; for building.
    #[must_use]
    pub fn with_text(mut self, text: impl AsRef<str>) -> Self {
        self.set_text(text);
        self
    }

    /// The name, with its prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name behind the prefix.
    pub fn local_name(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or(&self.name)
    }

    /// The prefix of the name; empty where there is none.
    pub fn prefix(&self) -> &str {
        self.name.split_once(':').map_or("", |(prefix, _)| prefix)
    }

    /// Where the start tag was read. Elements that were built stand at 1, 1.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The attributes in their order.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// The value of an attribute, references resolved.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(Attribute::value)
    }

    /// The value of an attribute of the first child of this name.
    pub fn attribute_of(&self, child: &str, name: &str) -> Option<&str> {
        self.child(child)?.attribute(name)
    }

    /// Sets an attribute: in place where it exists, else behind the others.
    pub fn set_attribute(&mut self, name: &'static str, value: impl AsRef<str>) {
        let value = value.as_ref().to_owned();
        match self.attributes.iter_mut().find(|it| it.name == name) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute {
                name: name.to_owned(),
                value,
            }),
        }
    }

    /// Removes an attribute; whether it was there.
    pub fn remove_attribute(&mut self, name: &str) -> bool {
        let before = self.attributes.len();
        self.attributes.retain(|attribute| attribute.name != name);
        self.attributes.len() < before
    }

    /// The child elements, in order.
    pub fn children(&self) -> impl Iterator<Item = &Element> {
        self.children.iter()
    }

    /// The child elements, to edit.
    pub fn children_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.children.iter_mut()
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children().find(|child| child.name == name)
    }

    /// The first child of this name, to edit.
    pub fn child_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.children_mut().find(|child| child.name == name)
    }

    /// The first descendant by this way of names.
    pub fn at(&self, way: &[&str]) -> Option<&Element> {
        way.iter()
            .try_fold(self, |element, name| element.child(name))
    }

    /// The first child of this name; a new, empty one behind the last child where there is none.
    pub fn child_or_insert(&mut self, name: &'static str) -> &mut Element {
        let existing = self.children().position(|child| child.name == name);
        let index = existing.unwrap_or_else(|| {
            self.append(Element::new(name));
            self.children.len() - 1
        });
        &mut self.children[index]
    }

    /// The text directly inside, also between the children.
    pub fn text(&self) -> String {
        let tails = self.children().map(|child| child.tail.as_str());
        std::iter::once(self.text.as_str()).chain(tails).collect()
    }

    /// Replaces the whole content by this text.
    pub fn set_text(&mut self, text: impl AsRef<str>) {
        self.children.clear();
        self.text = text.as_ref().to_owned();
    }

    /// Adds text at the end.
    pub(super) fn append_text(&mut self, text: &str) {
        match self.children.last_mut() {
            Some(last) => last.tail.push_str(text),
            None => self.text.push_str(text),
        }
    }

    /// Adds a child behind the last one.
    pub fn append(&mut self, child: Element) {
        self.children.push(child);
    }

    /// Adds a child before all others.
    pub fn prepend(&mut self, child: Element) {
        self.children.insert(0, child);
    }

    /// Removes the children that `unwanted` names, each with the text behind it; how many there were.
    pub fn remove_children(&mut self, mut unwanted: impl FnMut(&Element) -> bool) -> usize {
        let before = self.children.len();
        self.children.retain(|child| !unwanted(child));
        before - self.children.len()
    }
}

impl Eq for Element {}

/// Where they were read makes no difference between elements.
impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.attributes == other.attributes
            && self.text == other.text
            && self.children == other.children
            && self.tail == other.tail
    }
}

/// Writes the document without a declaration: it is UTF-8.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

/// Writes the element, in which a reader finds the same tree again.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for Attribute { name, value } in &self.attributes {
            write!(f, " {name}='")?;
            escape(f, value, true)?;
            f.write_str("'")?;
        }
        if self.text.is_empty() && self.children.is_empty() {
            return f.write_str("/>");
        }
        f.write_str(">")?;
        escape(f, &self.text, false)?;
        for child in &self.children {
            child.fmt(f)?;
            escape(f, &child.tail, false)?;
        }
        write!(f, "</{}>", self.name)
    }
}

/// Writes text. Characters that XML does not have become U+FFFD.
fn escape(f: &mut fmt::Formatter<'_>, text: &str, is_attribute: bool) -> fmt::Result {
    use fmt::Write as _;
    for character in text.chars() {
        match character {
            '&' => f.write_str("&amp;")?,
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '\'' if is_attribute => f.write_str("&apos;")?,
            // A reader turns these into spaces or newlines unless they are written as numbers.
            '\r' => f.write_str("&#13;")?,
            '\n' if is_attribute => f.write_str("&#10;")?,
            '\t' if is_attribute => f.write_str("&#9;")?,
            other if is_allowed(other) => f.write_char(other)?,
            _ => f.write_char(char::REPLACEMENT_CHARACTER)?,
        }
    }
    Ok(())
}

/// Whether XML 1.0 allows this character at all.
pub(super) fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
