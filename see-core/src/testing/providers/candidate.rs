//! What the suite has to be told of a provider.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::{Identifier, Registries, Result};

/// A provider together with a source of images that the suite may fill, change and break.
///
/// What a source cannot be made to do returns `None`, and is reported as not applicable. Several checks run
/// over one candidate, one after the other, each with image names of its own.
#[async_trait]
pub trait ImageCandidate: fmt::Debug + Send + Sync {
    /// Registries that know the provider, and the collectors of what it makes on the host.
    ///
    /// # Errors
    /// Where they cannot be made.
    fn registries(&self) -> Result<Registries>;

    /// An image section, as in a run file, that asks for the newest image of this name.
    fn section(&self, name: &str) -> Value;

    /// Gives the source an image of this name with this content; one that is there is replaced.
    ///
    /// # Errors
    /// When the source refuses.
    async fn put(&self, name: &str, content: &[u8]) -> Result<()>;

    /// Takes the image of this name from the source.
    ///
    /// # Errors
    /// When the source refuses.
    async fn remove(&self, name: &str) -> Result<()>;

    /// From now on the source sends other bytes for this image than those that it promises.
    async fn spoil(&self, name: &str) -> Option<Result<()>> {
        let _ = name;
        None
    }

    /// From now on the source begins to send this image, and then nothing more, without an end.
    async fn stall(&self, name: &str) -> Option<Result<()>> {
        let _ = name;
        None
    }

    /// From now on the source does not answer.
    async fn unplug(&self) -> Option<Result<()>> {
        None
    }

    /// The source is as good as ever again, and has what it had.
    ///
    /// # Errors
    /// When it is not.
    async fn heal(&self) -> Result<()> {
        Ok(())
    }

    /// Sections that are malformed in ways of the provider's own, beside a key that nobody knows.
    fn malformed(&self) -> Vec<Value> {
        Vec::new()
    }

    /// The secrets in the sections: passwords, keys, tokens. Each must be one that nothing else contains.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// What is left on the host that carries this identifier, in words.
    async fn remains(&self, identifier: Identifier) -> Vec<String> {
        let _ = identifier;
        Vec::new()
    }

    /// How long one ask may take before it counts as hung. One minute.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}
