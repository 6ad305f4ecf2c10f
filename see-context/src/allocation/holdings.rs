//! What was made for a sandbox, and how it goes.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use see_core::ledger::{Collectors, Entry};
use see_core::{Error, Result};

/// The time for removing one file, folder or process.
const REMOVAL: Duration = Duration::from_secs(30);

/// The way to remove something that was made.
#[async_trait]
pub(crate) trait Holding: fmt::Debug + Send + Sync {
    /// Removes it. What is gone already is no error; after an error it is called again.
    async fn remove(&mut self) -> Result<()>;

    /// Whether what was made before it has to stay while it stands, as a machine's disk does.
    fn rests_on_others(&self) -> bool {
        false
    }
}

/// What was made and is written down, in the order of making.
#[derive(Debug, Default)]
pub(crate) struct Holdings(Vec<Held>);

#[derive(Debug)]
struct Held {
    entry: Entry,
    /// Left out where the collector of the core removes it.
    holding: Option<Box<dyn Holding>>,
}

impl Holdings {
    pub(super) fn push(&mut self, entry: Entry, holding: Option<Box<dyn Holding>>) {
        self.0.push(Held { entry, holding });
    }

    /// Whether something is left that rests on the others.
    pub(crate) fn rest_on_each_other(&self) -> bool {
        self.0.iter().any(Held::rests_on_others)
    }

    /// Removes all of it in reverse. What cannot be removed stays, for another call and in the ledger; the rest
    /// goes nevertheless, unless it is needed by what stays.
    pub(crate) async fn remove(&mut self) -> Result<()> {
        let mut first = None;
        let mut kept = Vec::new();
        while let Some(mut held) = self.0.pop() {
            match held.remove().await {
                // The core's collector strikes it off by itself.
                Ok(()) if held.holding.is_none() => {}
                Ok(()) => {
                    // Removed it is; a collection finds that out, too.
                    if let Err(error) = held.entry.gone().await {
                        note(&mut first, error);
                    }
                }
                Err(error) => {
                    note(&mut first, error);
                    let needed = held.rests_on_others();
                    kept.push(held);
                    if needed {
                        break;
                    }
                }
            }
        }
        kept.reverse();
        self.0.append(&mut kept);
        first.map_or(Ok(()), Err)
    }
}

impl Held {
    fn rests_on_others(&self) -> bool {
        self.holding
            .as_ref()
            .is_some_and(|holding| holding.rests_on_others())
    }

    async fn remove(&mut self) -> Result<()> {
        match &mut self.holding {
            Some(holding) => holding.remove().await,
            None => self.entry.remove(&Collectors::core(), REMOVAL).await,
        }
    }
}

/// Keeps the first error; later ones are often its consequences.
fn note(first: &mut Option<Error>, error: Error) {
    match first {
        None => *first = Some(error),
        Some(_) => tracing::warn!(%error, "something else could not be removed either"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use see_core::ledger::{Ledger, Resource};
    use see_core::{ErrorKind, Identifier};

    use super::*;

    type Removed = Arc<Mutex<Vec<&'static str>>>;

    #[derive(Debug)]
    struct Thing {
        name: &'static str,
        fails: bool,
        rests: bool,
        removed: Removed,
    }

    #[async_trait]
    impl Holding for Thing {
        async fn remove(&mut self) -> Result<()> {
            if std::mem::take(&mut self.fails) {
                return Err(Error::new(ErrorKind::Hypervisor, self.name));
            }
            self.removed.lock().unwrap().push(self.name);
            Ok(())
        }

        fn rests_on_others(&self) -> bool {
            self.rests
        }
    }

    /// A pool, a network and a domain, of which these two fail once.
    async fn made(
        failing: [bool; 2],
        folder: &std::path::Path,
    ) -> (Holdings, see_core::ledger::Record, Removed) {
        let ledger = Ledger::open_blocking(folder.join("state")).unwrap();
        let record = ledger.begin(Identifier::random(), "test").await.unwrap();
        let removed = Removed::default();
        let mut holdings = Holdings::default();
        let things = [
            ("pool", false),
            ("network", failing[0]),
            ("domain", failing[1]),
        ];
        for (name, fails) in things {
            let resource = Resource::new("test.thing", name, "here");
            let thing = Thing {
                name,
                fails,
                rests: name == "domain",
                removed: Arc::clone(&removed),
            };
            let entry = record.intend_one(resource).await.unwrap();
            holdings.push(entry, Some(Box::new(thing)));
        }
        (holdings, record, removed)
    }

    #[tokio::test]
    async fn what_cannot_be_removed_stays_and_another_release_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut holdings, record, removed) = made([true, false], folder.path()).await;
        let error = holdings.remove().await.unwrap_err();
        assert_eq!(error.message(), "network");
        assert_eq!(*removed.lock().unwrap(), ["domain", "pool"]);
        assert_eq!(record.holdings().len(), 1);
        holdings.remove().await.unwrap();
        assert_eq!(*removed.lock().unwrap(), ["domain", "pool", "network"]);
        assert_eq!(record.holdings().len(), 0);
        holdings.remove().await.unwrap();
    }

    #[tokio::test]
    async fn what_a_standing_machine_uses_stays_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut holdings, _record, removed) = made([false, true], folder.path()).await;
        holdings.remove().await.unwrap_err();
        assert!(removed.lock().unwrap().is_empty());
        assert!(holdings.rest_on_each_other());
        holdings.remove().await.unwrap();
        assert_eq!(*removed.lock().unwrap(), ["domain", "network", "pool"]);
    }
}
