//! The words of a login as OpenStack's files and environment variables have them, in one spelling.

use std::collections::BTreeMap;
use std::fmt;

use see_core::config::fields_of;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::login::OpenStackLogin;

/// What a cloud says beside its login.
const BESIDE: [&str; 9] = [
    "cacert",
    "cert",
    "image_endpoint_override",
    "insecure",
    "interface",
    "key",
    "profile",
    "region_name",
    "verify",
];

/// Words of earlier days, and those that they became.
const RENAMED: [(&str, &str); 8] = [
    ("auth_plugin", "auth_type"),
    ("auth_token", "token"),
    ("cloud", "profile"),
    ("default_domain", "default_domain_id"),
    ("endpoint_type", "interface"),
    ("tenant_id", "project_id"),
    ("tenant_name", "project_name"),
    ("user_name", "username"),
];

/// The known keys of a cloud, those of its section `auth` among them. They may be secrets: nothing prints them.
#[derive(Clone, Default)]
pub(super) struct Keys(BTreeMap<String, String>);

impl Keys {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(super) fn put(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }

    /// Takes the other's keys; where both have one, the other's value.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Takes a key under its new name, unless that is there itself.
    fn take(&mut self, key: String, value: String) {
        match RENAMED.iter().find(|(old, _)| *old == key) {
            Some((_, new)) => {
                self.0.entry((*new).to_owned()).or_insert(value);
            }
            None => {
                self.0.insert(key, value);
            }
        }
    }
}

impl FromIterator<(String, String)> for Keys {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        let mut keys = Self::default();
        // An old name comes before its new one here or there: `take` serves both.
        for (key, value) in pairs {
            if is_known(&key) {
                keys.take(key, value);
            }
        }
        keys
    }
}

impl IntoIterator for Keys {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

fn is_known(key: &str) -> bool {
    BESIDE.contains(&key)
        || RENAMED.iter().any(|(old, _)| *old == key)
        || fields_of::<OpenStackLogin>().contains(&key)
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the keys of a cloud")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Keys::default();
                let mut within = Keys::default();
                while let Some(key) = map.next_key::<String>()? {
                    let key = key.replace('-', "_");
                    if key == "auth" {
                        within = map.next_value::<Option<Keys>>()?.unwrap_or_default();
                    } else if is_known(&key) {
                        // As a string, so that a password of digits stays as it is written.
                        if let Some(value) = map.next_value::<Option<String>>()? {
                            keys.take(key, value);
                        }
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                keys.extend(within);
                Ok(keys)
            }
        }

        deserializer.deserialize_map(Reading)
    }
}
