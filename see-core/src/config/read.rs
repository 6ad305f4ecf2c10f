//! The deserializer: typed configurations out of the tree, every mistake with its place.

mod members;

use serde::Deserializer;
use serde::de::{DeserializeOwned, Visitor};

use self::members::{List, Object, Variant};
use super::failure::Failure;
use super::nearest::alternatives;
use super::tree::Value;
use super::{Configuration, hand};
use crate::Result;

impl Configuration {
    /// Reads a typed configuration.
    ///
    /// A key that the type does not know is an error, with or without `deny_unknown_fields`. `null` is a
    /// value of options only. Enums are read from a string, or from an object whose one key names the
    /// variant. Serde's `flatten`, `untagged` and `tag` lose the place of a mistake: use
    /// [`OneOrMany`](super::OneOrMany) and [`Configuration::split_tag`] instead.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration), at the value or key that is wrong;
    /// a key that is missing is reported at the object that lacks it.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(Reader(self)).map_err(|failure| failure.or_at(|| self.place()).0)
    }

    fn mismatch(&self, expected: impl std::fmt::Display) -> Failure {
        Failure::expected(expected, self.kind()).or_at(|| self.place())
    }

    /// The result, its failure at this value unless something closer failed.
    pub(super) fn placed<V>(&self, result: Result<V, Failure>) -> Result<V, Failure> {
        result.map_err(|failure| failure.or_at(|| self.place()))
    }

    /// A whole number between these bounds.
    fn whole(&self, least: i128, most: i128) -> Result<i128, Failure> {
        let Value::Number(number) = self.value() else {
            let quoted = self
                .as_str()
                .is_some_and(|text| text.parse::<i128>().is_ok());
            return Err(self
                .mismatch("a whole number")
                .advise(quoted.then_some("leave out the quotes")));
        };
        match number.as_i128() {
            Some(whole) if (least..=most).contains(&whole) => Ok(whole),
            _ => Err(Failure::expected(
                format_args!("a whole number from {least} to {most}"),
                number,
            )
            .or_at(|| self.place())),
        }
    }

    fn text(&self, expected: &str) -> Result<&str, Failure> {
        self.as_str().ok_or_else(|| {
            let scalar = matches!(self.value(), Value::Number(_) | Value::Bool(_));
            self.mismatch(expected)
                .advise(scalar.then_some("put it in quotes"))
        })
    }

    fn visit_list<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Failure> {
        let Value::List(items) = self.value() else {
            let scalar = !self.is_object() && !self.is_null();
            return Err(self
                .mismatch("a list")
                .advise(scalar.then_some("put it in [brackets]")));
        };
        let mut list = List { left: items.iter() };
        let value = self.placed(visitor.visit_seq(&mut list))?;
        match list.left.next() {
            None => Ok(value),
            Some(item) => Err(Failure::expected(
                format_args!("a list of {} members", items.len() - list.left.len() - 1),
                items.len(),
            )
            .or_at(|| item.place())),
        }
    }

    fn visit_entries<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Failure> {
        let Value::Object(entries) = self.value() else {
            return Err(self.mismatch("an object"));
        };
        let mut object = Object {
            left: entries.iter(),
            current: None,
        };
        visitor.visit_map(&mut object).map_err(|failure| {
            // A key that was read but whose value was not asked for is itself the mistake.
            match object.current {
                Some(entry) => failure.or_at(|| entry.place()),
                None => failure.or_at(|| self.place()),
            }
        })
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            let whole = self.whole(<$type>::MIN.into(), <$type>::MAX.into())?;
            let number = <$type>::try_from(whole)
                .map_err(|_| self.mismatch("a whole number"))?;
            self.placed(visitor.$visit(number))
        }
    )*};
}

/// The tree as serde sees it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a Configuration);

impl std::ops::Deref for Reader<'_> {
    type Target = Configuration;

    fn deref(&self) -> &Configuration {
        self.0
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let result = match self.value() {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., Some(number)) => visitor.visit_f64(number),
                _ => Err(self.mismatch("a number of at most 64 bits")),
            },
            Value::List(_) => self.visit_list(visitor),
            Value::Object(_) => self.visit_entries(visitor),
        };
        self.placed(result)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value() {
            Value::Bool(value) => self.placed(visitor.visit_bool(*value)),
            _ => {
                let quoted = matches!(self.as_str(), Some("true" | "false"));
                Err(self
                    .mismatch("`true` or `false`")
                    .advise(quoted.then_some("leave out the quotes")))
            }
        }
    }

    whole_numbers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value() {
            Value::Number(number) => match number.as_f64() {
                Some(number) => self.placed(visitor.visit_f64(number)),
                None => Err(self.mismatch("a number of at most 64 bits")),
            },
            _ => {
                let quoted = self
                    .as_str()
                    .is_some_and(|text| text.parse::<f64>().is_ok());
                Err(self
                    .mismatch("a number")
                    .advise(quoted.then_some("leave out the quotes")))
            }
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let mut characters = self.text("one character")?.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => self.placed(visitor.visit_char(character)),
            _ => Err(self.mismatch("one character")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.placed(visitor.visit_str(self.text("a string")?))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.placed(visitor.visit_bytes(self.text("a string")?.as_bytes()))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_null() {
            self.placed(visitor.visit_none())
        } else {
            self.placed(visitor.visit_some(self))
        }
    }

    /// The unit type takes no configuration: an empty object says so as well as `null`.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.check_keys(&[]).map_err(Failure)?;
        match self.value() {
            Value::Null | Value::Object(_) => self.placed(visitor.visit_unit()),
            _ => Err(self.mismatch("null")),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name == hand::TREE || name == hand::LOCATED {
            hand::give(self.0.clone());
        }
        self.placed(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit_list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if self.is_list() && self.items().len() != length {
            return Err(Failure::expected(
                format_args!("a list of {length} members"),
                self.items().len(),
            )
            .or_at(|| self.place()));
        }
        self.visit_list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.visit_entries(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.check_keys(fields).map_err(Failure)?;
        self.visit_entries(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let variant = match self.value() {
            Value::String(word) if variants.contains(&&**word) => Variant {
                name: word,
                content: None,
                whole: self.0,
            },
            Value::String(word) => {
                return Err(Failure::unknown_word(word, variants).or_at(|| self.place()));
            }
            Value::Object(entries) if entries.len() == 1 => {
                self.check_keys(variants).map_err(Failure)?;
                Variant {
                    name: &entries[0].key,
                    content: Some(&entries[0].value),
                    whole: self.0,
                }
            }
            Value::Object(entries) if entries.len() > 1 => {
                return Err(Failure::expected(
                    format_args!("one of the keys {}", alternatives(variants)),
                    format_args!("an object with {} keys", entries.len()),
                )
                .or_at(|| self.place()));
            }
            _ => return Err(self.mismatch(alternatives(variants))),
        };
        self.placed(visitor.visit_enum(variant))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.placed(visitor.visit_unit())
    }
}
