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
pub(super) struct Keys {
    keys: BTreeMap<String, String>,
    regions: Vec<Region>,
}

/// An entry of a cloud's `regions`: its name, and what is different there.
#[derive(Clone)]
struct Region {
    name: String,
    values: Keys,
}

impl Keys {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    pub(super) fn put(&mut self, key: &str, value: String) {
        self.keys.insert(key.to_owned(), value);
    }

    /// Takes the other's keys; where both have one, the other's value.
    pub(super) fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
        if !other.regions.is_empty() {
            self.regions = other.regions;
        }
    }

    /// Takes what the cloud says of one of its regions: that of the name, else of its own `region_name`, else its
    /// first. `Err` has the names that it has, where that one is none of them.
    pub(super) fn enter_region(&mut self, name: Option<&str>) -> Result<(), Vec<String>> {
        let name = name.or_else(|| self.get("region_name"));
        let wanted = |region: &&Region| name.is_none_or(|name| name == region.name);
        let Some(region) = self.regions.iter().find(wanted).cloned() else {
            let names = self.regions.iter().map(|region| region.name.clone());
            return match self.regions.is_empty() {
                true => Ok(()),
                false => Err(names.collect()),
            };
        };
        self.extend(region.values);
        self.put("region_name", region.name);
        Ok(())
    }

    /// Takes a key under its new name, unless that is there itself.
    fn take(&mut self, key: String, value: String) {
        match RENAMED.iter().find(|(old, _)| *old == key) {
            Some((_, new)) => {
                self.keys.entry((*new).to_owned()).or_insert(value);
            }
            None => {
                self.keys.insert(key, value);
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
        self.keys.into_iter()
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
                    } else if key == "regions" {
                        keys.regions = map.next_value::<Option<Vec<Region>>>()?.unwrap_or_default();
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

/// A name, or an object with `name` and `values`.
impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;

        impl<'de> Visitor<'de> for Reading {
            type Value = Region;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a region, or an object with its `name` and `values`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Region, E> {
                Ok(Region {
                    name: name.to_owned(),
                    values: Keys::default(),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Region, A::Error> {
                let (mut name, mut values) = (None, Keys::default());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => name = Some(map.next_value::<String>()?),
                        "values" => {
                            values = map.next_value::<Option<Keys>>()?.unwrap_or_default();
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let name = name.ok_or_else(|| serde::de::Error::missing_field("name"))?;
                Ok(Region { name, values })
            }
        }

        deserializer.deserialize_any(Reading)
    }
}
