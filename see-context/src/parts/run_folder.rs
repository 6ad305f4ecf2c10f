//! The folder of the agent's socket and the console's log. Its path is short, and nobody but this
//! user and the hypervisor gets in.

use async_trait::async_trait;
use see_core::Result;
use see_core::ledger::Resource;

use crate::allocation::{Entries, Making, Part, Site};
use crate::host::short_folder;

/// The folder for small things of one sandbox.
#[derive(Debug)]
pub(crate) struct RunFolder;

#[async_trait]
impl Part for RunFolder {
    fn intents(&self, site: &Site) -> Result<Vec<Resource>> {
        let folder = Resource::folder(short_folder()?, format!("see-{}", site.identifier))?;
        Ok(vec![folder])
    }

    async fn make(&self, mut entries: Entries, making: &mut Making<'_>) -> Result<()> {
        let folder = making.make_folder(entries.next()?).await?;
        making.runs_in(folder);
        Ok(())
    }
}
