//! The members of lists, objects and enum variants, as the deserializer hands them out.

use serde::Deserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::Reader;
use crate::config::Configuration;
use crate::config::failure::Failure;
use crate::config::tree::Entry;

/// The members of a list that were not read yet.
pub(super) struct List<'a> {
    pub(super) left: std::slice::Iter<'a, Configuration>,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failure> {
        let Some(item) = self.left.next() else {
            return Ok(None);
        };
        item.placed(seed.deserialize(Reader(item))).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// The entries of an object that were not read yet.
pub(super) struct Object<'a> {
    pub(super) left: std::slice::Iter<'a, Entry>,
    /// The entry whose key was read and whose value was not.
    pub(super) current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Object<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        self.current = self.left.next();
        match self.current {
            None => Ok(None),
            Some(entry) => seed
                .deserialize((&*entry.key).into_deserializer())
                .map(Some)
                .map_err(|failure: Failure| failure.or_at(|| entry.place())),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        match self.current.take() {
            None => Err(serde::de::Error::custom(
                "a value was asked for without its key",
            )),
            Some(entry) => entry.value.placed(seed.deserialize(Reader(&entry.value))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// A variant of an enum: its name, and what stands under it.
pub(super) struct Variant<'a> {
    pub(super) name: &'a str,
    pub(super) content: Option<&'a Configuration>,
    pub(super) whole: &'a Configuration,
}

impl Variant<'_> {
    fn content(&self) -> Result<&Configuration, Failure> {
        self.content.ok_or_else(|| {
            Failure::expected(
                format_args!("an object with the key `{}`", self.name),
                "the name alone",
            )
            .or_at(|| self.whole.place())
        })
    }
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let name = self
            .whole
            .placed(seed.deserialize(self.name.into_deserializer()))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.content {
            None => Ok(()),
            Some(content) => serde::Deserialize::deserialize(Reader(content)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        let content = self.content()?;
        content.placed(seed.deserialize(Reader(content)))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        Reader(self.content()?).deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        Reader(self.content()?).deserialize_struct("", fields, visitor)
    }
}
