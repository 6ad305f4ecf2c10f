//! Checks and changes of a tree: known keys, shared keys, tags.

use super::failure::Failure;
use super::tree::Value;
use super::{Configuration, Located};
use crate::Result;

impl Configuration {
    /// Checks that this object has no other keys than these; values that are no objects have none.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) at the first unknown key, with the
    /// nearest known one.
    pub fn check_keys(&self, known: &[&str]) -> Result<()> {
        let Value::Object(entries) = self.value() else {
            return Ok(());
        };
        match entries.iter().find(|entry| !known.contains(&&*entry.key)) {
            None => Ok(()),
            Some(entry) => {
                let failure = Failure::unknown_key(&entry.key, known);
                Err(failure.or_at(|| entry.place()).0)
            }
        }
    }

    /// This object with those shared keys that are known and that it lacks: its own win.
    ///
    /// The keys and values keep the places they were written at. Anything but objects is left alone,
    /// for the deserializer to refuse.
    #[must_use]
    pub fn merge_shared(&self, shared: &Self, known: &[&str]) -> Self {
        let (Value::Object(own), Value::Object(shared)) = (self.value(), shared.value()) else {
            return self.clone();
        };
        let mut entries = own.clone();
        entries.extend(
            shared
                .iter()
                .filter(|entry| known.contains(&&*entry.key) && self.get(&entry.key).is_none())
                .cloned(),
        );
        self.with_value(Value::Object(entries))
    }

    /// This object without a key; the same where it has none of that name.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        let Value::Object(entries) = self.value() else {
            return self.clone();
        };
        let rest = entries.iter().filter(|entry| *entry.key != *key);
        self.with_value(Value::Object(rest.cloned().collect()))
    }

    /// The word under `key`, and this object without it: for enums whose variant a key names, such as
    /// `{"step": "wait", "timeout": "5s"}`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) where this is no object, or lacks
    /// the key, or has something else than a string there.
    pub fn split_tag(&self, key: &str) -> Result<(Located<String>, Self)> {
        let place = || self.place();
        if !self.is_object() {
            let expected = format!("an object with the key `{key}`");
            return Err(Failure::expected(expected, self.kind()).or_at(place).0);
        }
        let Some(tag) = self.get(key) else {
            let message = format!("the key `{key}` is missing");
            return Err(crate::Error::configuration(place(), message));
        };
        Ok((tag.deserialize()?, self.without(key)))
    }
}
