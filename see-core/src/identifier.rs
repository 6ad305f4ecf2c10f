//! The name of an environment, and of everything that belongs to it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{Error, ErrorKind};

/// A random UUID (version 4) in its hyphenated, lower-case form.
///
/// Its 122 random bits make a name that contains it unique across processes, users and hosts.
///
/// ```
/// use see_core::Identifier;
///
/// let identifier = Identifier::random();
/// assert_eq!(identifier.to_string().parse::<Identifier>()?, identifier);
/// # Ok::<(), see_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(Uuid);

impl Identifier {
    /// A new one, from the operating system's random numbers.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The first eight hexadecimal digits: for people, never for telling environments apart.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }

    /// The sixteen bytes, most significant first.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for Identifier {
    type Err = Error;

    /// Reads the hyphenated form; upper case is accepted.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] when the text has another form, or is a UUID that is not random:
    /// such a one may have been made twice.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |message: String| {
            // The text may come from anywhere, so only its beginning is shown, escaped.
            let shown: String = text.chars().take(48).collect();
            Error::new(ErrorKind::Configuration, message)
                .subject(format!("{shown:?}"))
                .advice("such as 7f0c1a52-4a3e-4d0b-9f53-1f2f64c0a9de")
        };
        // The parser also takes braces, URNs and bare digits; one spelling is enough.
        if text.len() != 36 {
            return Err(wrong(format!(
                "an identifier has 36 characters, this has {}",
                text.chars().count()
            )));
        }
        let uuid =
            Uuid::try_parse(text).map_err(|error| wrong("not a UUID".into()).caused_by(error))?;
        if uuid.get_version_num() != 4 || uuid.get_variant() != uuid::Variant::RFC4122 {
            return Err(wrong("not a random (version 4) UUID".into()));
        }
        Ok(Self(uuid))
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Identifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Identifier;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a random UUID with hyphens")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Identifier, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_of_a_random_uuid_is_read() {
        let identifier = Identifier::random();
        let text = identifier.to_string();
        assert_eq!(
            text.to_uppercase().parse::<Identifier>().unwrap(),
            identifier
        );
        assert_eq!(identifier.short(), &text[..8]);
        for wrong in [
            "",
            "7f0c1a52",
            "7f0c1a524a3e4d0b9f531f2f64c0a9de",
            "{7f0c1a52-4a3e-4d0b-9f53-1f2f64c0a9de}",
            "7f0c1a52-4a3e-1d0b-9f53-1f2f64c0a9de",
            "00000000-0000-0000-0000-000000000000",
            "7f0c1a52-4a3e-4d0b-9f53-1f2f64c0a9d/",
        ] {
            let error = wrong.parse::<Identifier>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
        }
    }

    #[test]
    fn json_holds_it_as_a_string() {
        let identifier = Identifier::random();
        let json = serde_json::to_string(&identifier).unwrap();
        assert_eq!(json, format!("\"{identifier}\""));
        assert_eq!(
            serde_json::from_str::<Identifier>(&json).unwrap(),
            identifier
        );
        assert!(serde_json::from_str::<Identifier>("\"x\"").is_err());
    }
}
