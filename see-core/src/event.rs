//! What happened: a name, who said so, when, and attributes.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A short text that is free to make from a literal and cheap to clone.
#[derive(Clone)]
pub struct Text(Inner);

/// A thin pointer beside a wide one: together they need no room for a tag, and events stay small.
#[derive(Clone)]
enum Inner {
    Static(&'static str),
    Shared(Arc<Box<str>>),
}

impl Text {
    /// A text from a literal; allocates nothing.
    pub const fn literal(text: &'static str) -> Self {
        Self(Inner::Static(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Inner::Static(text) => text,
            Inner::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::literal(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Inner::Shared(Arc::new(text.into_boxed_str())))
    }
}

impl From<Cow<'static, str>> for Text {
    fn from(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::literal(text),
            Cow::Owned(text) => text.into(),
        }
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text. A path is one, too: see [`path_to_text`](crate::path_to_text).
    Text(Text),
    /// Anything with structure.
    Json(Arc<serde_json::Value>),
}

impl Value {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text.as_str()),
            Self::Json(json) => json.serialize(serializer),
        }
    }
}

macro_rules! value_from {
    ($($type:ty => |$x:ident| $value:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($x: $type) -> Self {
                $value
            }
        })*
    };
}

value_from! {
    bool => |x| Self::Bool(x);
    i32 => |x| Self::Integer(x.into());
    u32 => |x| Self::Integer(x.into());
    i64 => |x| Self::Integer(x);
    u64 => |x| i64::try_from(x).map_or(Self::Float(x as f64), Self::Integer);
    f64 => |x| Self::Float(x);
    &'static str => |x| Self::Text(x.into());
    String => |x| Self::Text(x.into());
    Text => |x| Self::Text(x);
    &Path => |x| Self::Text(crate::path_to_text(x).into());
    PathBuf => |x| x.as_path().into();
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(truth),
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Self::Integer(number),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            structured => Self::Json(structured.into()),
        }
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Named values; the first two cost no allocation.
#[derive(Debug, Clone, Default)]
enum Attributes {
    #[default]
    None,
    One([(Text, Value); 1]),
    Two([(Text, Value); 2]),
    Many(Arc<[(Text, Value)]>),
}

impl Attributes {
    fn as_slice(&self) -> &[(Text, Value)] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Two(two) => two,
            Self::Many(many) => many,
        }
    }

    fn push(self, pair: (Text, Value)) -> Self {
        match self {
            Self::None => Self::One([pair]),
            Self::One([first]) => Self::Two([first, pair]),
            Self::Two(two) => Self::Many(two.into_iter().chain([pair]).collect()),
            Self::Many(many) => Self::Many(many.iter().cloned().chain([pair]).collect()),
        }
    }
}

/// Something that happened.
///
/// It does not change once it is triggered: what one handler sees, every handler sees.
/// Cloning is cheap, and up to two attributes are kept without allocation.
///
/// ```
/// use see_core::Event;
///
/// let event = Event::new("ip_address").with("address", "10.0.0.2");
/// assert_eq!(event.get("address").and_then(|value| value.as_str()), Some("10.0.0.2"));
/// ```
#[derive(Debug, Clone)]
pub struct Event {
    name: Text,
    source: Text,
    timestamp: SystemTime,
    attributes: Attributes,
}

impl Event {
    /// An event of this name, without attributes. Its timestamp is set when it is triggered or posted.
    pub fn new(name: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            source: Text::literal(""),
            timestamp: SystemTime::UNIX_EPOCH,
            attributes: Attributes::None,
        }
    }

    /// Names who says so: a hook, the environment, the protocol.
    #[must_use]
    pub fn source(mut self, source: impl Into<Text>) -> Self {
        self.source = source.into();
        self
    }

    /// Adds an attribute; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<Text>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        let taken = self
            .attributes
            .as_slice()
            .iter()
            .any(|(key, _)| *key == name);
        if taken {
            let mut rebuilt = Attributes::None;
            for (key, old) in self.attributes.as_slice() {
                let kept = if *key == name {
                    value.clone()
                } else {
                    old.clone()
                };
                rebuilt = rebuilt.push((key.clone(), kept));
            }
            self.attributes = rebuilt;
        } else {
            self.attributes = self.attributes.push((name, value));
        }
        self
    }

    /// Adds several attributes.
    #[must_use]
    pub fn with_all(self, attributes: impl IntoIterator<Item = (Text, Value)>) -> Self {
        attributes
            .into_iter()
            .fold(self, |event, (name, value)| event.with(name, value))
    }

    pub(crate) fn stamp(&mut self) {
        self.timestamp = SystemTime::now();
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Who said so; empty where nobody was named.
    pub fn said_by(&self) -> &str {
        self.source.as_str()
    }

    /// When it was triggered or posted.
    pub fn timestamp(&self) -> SystemTime {
        self.timestamp
    }

    /// The attribute of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.attributes()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The attributes, in the order in which they were added.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.attributes
            .as_slice()
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }
}

impl From<&'static str> for Event {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Event {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

const _: () = assert!(size_of::<Text>() == 16, "a text has no tag");

/// As JSON: `event`, `source`, `timestamp` (seconds since 1970), `attributes`.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Pairs<'a>(&'a [(Text, Value)]);
        impl Serialize for Pairs<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(name, value)| (name.as_str(), value)))
            }
        }
        let since = self.timestamp.duration_since(SystemTime::UNIX_EPOCH);
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("event", self.name())?;
        map.serialize_entry("source", self.said_by())?;
        map.serialize_entry("timestamp", &since.unwrap_or_default().as_secs_f64())?;
        map.serialize_entry("attributes", &Pairs(self.attributes.as_slice()))?;
        map.end()
    }
}
