//! Things that a configuration names, with other names for the same.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::nearest;
use crate::{Error, ErrorKind, Result};

/// Names and their aliases.
pub(crate) struct Names<E> {
    pub(crate) entries: BTreeMap<&'static str, E>,
    aliases: BTreeMap<&'static str, &'static str>,
}

impl<E> Default for Names<E> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            aliases: BTreeMap::new(),
        }
    }
}

impl<E> fmt::Debug for Names<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl<E> Names<E> {
    pub(crate) fn add(
        &mut self,
        what: &str,
        name: &'static str,
        aliases: &[&'static str],
        entry: E,
    ) -> Result<()> {
        let taken = |name: &str| self.entries.contains_key(name) || self.aliases.contains_key(name);
        let clash = [name]
            .iter()
            .chain(aliases)
            .copied()
            .find(|name| taken(name));
        if let Some(clash) = clash {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("a {what} of this name is registered already"),
            )
            .subject(clash)
            .advice("names and aliases are given once"));
        }
        self.entries.insert(name, entry);
        self.aliases
            .extend(aliases.iter().map(|alias| (*alias, name)));
        Ok(())
    }

    pub(crate) fn find(&self, what: &str, name: &str) -> Result<&E> {
        let canonical = self.aliases.get(name).copied().unwrap_or(name);
        self.entries.get(canonical).ok_or_else(|| {
            let known: Vec<&str> = self.entries.keys().copied().collect();
            let error = Error::new(
                ErrorKind::Configuration,
                format!("found the {what} `{name}`, known are: {}", known.join(", ")),
            );
            let all = self.entries.keys().chain(self.aliases.keys()).copied();
            match nearest(name, all) {
                Some(near) => error.advice(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }
}
