//! The tree: nodes that keep the bytes they were read from.

use std::borrow::Cow;
use std::fmt;

use super::error::Position;
use super::escape;

/// One XML document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The declaration, comments and white space before the root element.
    pub(super) prolog: String,
    pub(super) root: Element,
    /// Comments and white space behind the root element.
    pub(super) epilog: String,
}

/// What stands inside an element. Everything but elements is kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// An element with everything in it.
    Element(Element),
    /// Character data, still escaped.
    Text(String),
    /// A section from `<![CDATA[` to `]]>`, both included.
    CData(String),
    /// A comment or a processing instruction with its delimiters.
    Other(String),
}

/// One attribute of a start tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The white space before the name.
    pub(super) before: String,
    pub(super) name: String,
    /// The equals sign, with any white space around it.
    pub(super) equals: String,
    pub(super) quote: char,
    /// The value, still escaped.
    pub(super) value: String,
}

/// An element: its start tag, its content and its end tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
    /// The white space behind the last attribute of the start tag.
    pub(super) after: String,
    pub(super) content: Option<Content>,
    pub(super) position: Position,
}

/// The inside of an element that is not written as `<element/>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Content {
    pub(super) nodes: Vec<Node>,
    /// The white space behind the name in the end tag.
    pub(super) end_space: String,
}

impl Document {
    /// A document of this element alone; for building.
    pub fn of(root: Element) -> Self {
        Self {
            prolog: String::new(),
            root,
            epilog: String::new(),
        }
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
    pub fn value(&self) -> Cow<'_, str> {
        escape::unescape(&self.value)
    }
}

impl Element {
    /// An element without attributes and content. The name is the program's own, never input.
    pub fn new(name: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            attributes: Vec::new(),
            after: String::new(),
            content: None,
            position: Position { line: 1, column: 1 },
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
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(Attribute::value)
    }

    /// Sets an attribute: in place, in its own quotes, where it exists; else behind the others.
    /// One that has this value already is left as it is written.
    pub fn set_attribute(&mut self, name: &'static str, value: impl AsRef<str>) {
        let value = value.as_ref();
        match self
            .attributes
            .iter_mut()
            .find(|attribute| attribute.name == name)
        {
            Some(attribute) if attribute.value() == value => {}
            Some(attribute) => attribute.value = escape::attribute(value, attribute.quote),
            None => self.attributes.push(Attribute {
                before: " ".to_owned(),
                name: name.to_owned(),
                equals: "=".to_owned(),
                quote: '\'',
                value: escape::attribute(value, '\''),
            }),
        }
    }

    /// Removes an attribute; whether it was there.
    pub fn remove_attribute(&mut self, name: &str) -> bool {
        let before = self.attributes.len();
        self.attributes.retain(|attribute| attribute.name != name);
        self.attributes.len() < before
    }

    /// Everything inside, in order.
    pub fn nodes(&self) -> &[Node] {
        self.content.as_ref().map_or(&[], |content| &content.nodes)
    }

    /// The child elements, in order.
    pub fn children(&self) -> impl Iterator<Item = &Element> {
        self.nodes().iter().filter_map(Node::element)
    }

    /// The child elements, to edit.
    pub fn children_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.content
            .iter_mut()
            .flat_map(|content| content.nodes.iter_mut())
            .filter_map(|node| match node {
                Node::Element(element) => Some(element),
                _ => None,
            })
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
        let index = match self.index_of(name) {
            Some(index) => index,
            None => self.append(Element::new(name)),
        };
        match &mut self.nodes_mut()[index] {
            Node::Element(element) => element,
            // `index_of` and `append` give the index of an element.
            _ => unreachable!("the index of an element leads to an element"),
        }
    }

    /// The text directly inside, references resolved and CDATA opened.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            match node {
                Node::Text(raw) => text.push_str(&escape::unescape(raw)),
                Node::CData(raw) => text.push_str(
                    raw.trim_start_matches("<![CDATA[")
                        .strip_suffix("]]>")
                        .unwrap_or_default(),
                ),
                Node::Element(_) | Node::Other(_) => {}
            }
        }
        text
    }

    /// Replaces the whole content by this text. An element that says this already is left alone.
    pub fn set_text(&mut self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if self.content.is_some() && self.children().next().is_none() && self.text() == text {
            return;
        }
        *self.nodes_mut() = vec![Node::Text(escape::text(text))];
    }

    /// Adds a child behind the last one, on a line of its own where the others have theirs.
    /// The index of its node.
    pub fn append(&mut self, child: Element) -> usize {
        let indent = self.indent();
        let nodes = self.nodes_mut();
        let last = nodes
            .iter()
            .rposition(|node| matches!(node, Node::Element(_) | Node::Other(_)));
        let mut index = last.map_or(0, |last| last + 1);
        if let Some(indent) = indent {
            nodes.insert(index, Node::Text(indent));
            index += 1;
        }
        nodes.insert(index, Node::Element(child));
        index
    }

    /// Adds a child before all others, on a line of its own where the others have theirs.
    pub fn prepend(&mut self, child: Element) {
        let indent = self.indent();
        let nodes = self.nodes_mut();
        nodes.insert(0, Node::Element(child));
        if let Some(indent) = indent {
            nodes.insert(0, Node::Text(indent));
        }
    }

    /// Removes the children that `unwanted` names, each with the white space before it.
    /// How many there were.
    pub fn remove_children(&mut self, mut unwanted: impl FnMut(&Element) -> bool) -> usize {
        let Some(content) = &mut self.content else {
            return 0;
        };
        let mut removed = 0;
        let mut kept: Vec<Node> = Vec::with_capacity(content.nodes.len());
        for node in content.nodes.drain(..) {
            if node.element().is_some_and(&mut unwanted) {
                removed += 1;
                if matches!(kept.last(), Some(Node::Text(text)) if is_blank(text)) {
                    kept.pop();
                }
            } else {
                kept.push(node);
            }
        }
        content.nodes = kept;
        removed
    }

    /// The name and attributes without the content.
    pub(super) fn clone_start_tag(&self) -> Self {
        Self {
            content: None,
            name: self.name.clone(),
            attributes: self.attributes.clone(),
            after: self.after.clone(),
            position: self.position,
        }
    }

    fn nodes_mut(&mut self) -> &mut Vec<Node> {
        &mut self.content.get_or_insert_with(Content::default).nodes
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.nodes()
            .iter()
            .position(|node| node.element().is_some_and(|child| child.name == name))
    }

    /// The white space that stands before the first child.
    fn indent(&self) -> Option<String> {
        let nodes = self.nodes();
        let first = nodes.iter().position(|node| node.element().is_some())?;
        match nodes.get(first.checked_sub(1)?)? {
            // Blank lines between groups are not repeated.
            Node::Text(text) if is_blank(text) => {
                Some(text[text.rfind('\n').unwrap_or(0)..].to_owned())
            }
            _ => None,
        }
    }
}

fn is_blank(text: &str) -> bool {
    text.chars()
        .all(|character| matches!(character, ' ' | '\t' | '\r' | '\n'))
}

impl Node {
    /// The element, where it is one.
    pub fn element(&self) -> Option<&Element> {
        match self {
            Self::Element(element) => Some(element),
            _ => None,
        }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.prolog, self.root, self.epilog)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for attribute in &self.attributes {
            write!(f, "{attribute}")?;
        }
        f.write_str(&self.after)?;
        let Some(content) = &self.content else {
            return f.write_str("/>");
        };
        f.write_str(">")?;
        for node in &content.nodes {
            match node {
                Node::Element(element) => write!(f, "{element}")?,
                Node::Text(raw) | Node::CData(raw) | Node::Other(raw) => f.write_str(raw)?,
            }
        }
        write!(f, "</{}{}>", self.name, content.end_space)
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            before,
            name,
            equals,
            quote,
            value,
        } = self;
        write!(f, "{before}{name}{equals}{quote}{value}{quote}")
    }
}
