//! The guest's console, written to a file.

use async_trait::async_trait;
use see_core::Result;
use see_core::ledger::Resource;

use crate::allocation::{Entries, Making, Part, Site};
use crate::storage::Owners;

/// A serial port whose output goes to a file in the run folder, unless the domain has one of its own.
#[derive(Debug)]
pub(crate) struct ConsoleFile {
    /// What the hypervisor does to the file's owner.
    pub(crate) owners: Owners,
}

#[async_trait]
impl Part for ConsoleFile {
    /// The file lies in the run folder, and goes with it.
    fn intents(&self, _site: &Site) -> Result<Vec<Resource>> {
        Ok(Vec::new())
    }

    async fn make(&self, _entries: Entries, making: &mut Making<'_>) -> Result<()> {
        let file = making.run_folder()?.join("console.log");
        let relabel = self.owners == Owners::Kept;
        if making.domain.set_console_file(&file, relabel) {
            making.abilities.console = Some(file);
        }
        Ok(())
    }
}
