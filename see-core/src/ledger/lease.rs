//! The end of leases: last of all, when nothing is left that could use what they hold.

use std::time::Duration;

use super::collect::Outcome;
use super::collectors::Collectors;
use super::record::Record;
use super::resource::Resource;
use crate::{Error, ErrorKind, Result};

/// How long the removal of leases may take: of each an empty file.
const LIMIT: Duration = Duration::from_secs(10);

impl Record {
    /// Removes the environment's leases, unless something else is left that may still use what they hold.
    ///
    /// # Errors
    /// Where one cannot be removed; it stays in the record.
    pub(crate) async fn end_leases(&self) -> Result<()> {
        let holdings = self.holdings();
        if !holdings.iter().all(|held| held.kind == Resource::LEASE) {
            return Ok(());
        }
        let outcomes = self.collect(&Collectors::core(), LIMIT).await?;
        for (lease, outcome) in outcomes {
            let failed = |why: String| {
                Err(Error::new(ErrorKind::Io, why)
                    .subject(lease.path().unwrap_or_default().display())
                    .during("end the lease"))
            };
            match outcome {
                Outcome::Failed(error) => return Err(error),
                Outcome::Refused(why) => return failed(why),
                _ => {}
            }
        }
        Ok(())
    }
}
