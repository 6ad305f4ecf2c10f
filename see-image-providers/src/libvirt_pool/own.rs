//! A pool that is made for the moment, and stands in the ledger while it may be there.

use see_core::ledger::{Details, Entry, Resource};
use see_core::{ImageRequest, Result};
use see_libvirt::xml::{Document, Element};
use see_libvirt::{Connection, StoragePool};
use uuid::Uuid;

use super::{is_gone, libvirt};

/// Making a pool, as an error names it.
pub(super) const CREATION: &str = "create the storage pool";
/// The ledger's kind of a storage pool, and the details that tell which one it is: as the collector of
/// libvirt's pools in see-context knows them.
const KIND: &str = "libvirt.pool";
const PATH: &str = "path";
const UUID: &str = "uuid";

/// The pool that is made for the moment, from the time that it is written down.
pub(super) struct Own {
    entry: Entry,
    uuid: String,
    /// Whether something of this name may be there.
    may_exist: bool,
}

impl Own {
    /// Writes down that a pool over this folder will be made.
    pub(super) async fn plan(
        hypervisor: &str,
        path: &str,
        request: &ImageRequest<'_>,
    ) -> Result<Self> {
        let uuid = Uuid::new_v4().to_string();
        let pool = Resource::new(KIND, name_of(&uuid), hypervisor)
            .detail(PATH, path)
            .detail(UUID, uuid.as_str());
        Ok(Self {
            entry: request.record().intend_one(pool).await?,
            uuid,
            may_exist: false,
        })
    }

    /// Makes it, and records that it is there; `None` where somebody else made one meanwhile.
    pub(super) async fn make(
        &mut self,
        connection: &Connection,
        path: &str,
    ) -> Result<Option<StoragePool>> {
        let xml = Element::new("pool")
            .with("type", "dir")
            .with_child(Element::new("name").with_text(name_of(&self.uuid)))
            .with_child(Element::new("uuid").with_text(&self.uuid))
            .with_child(Element::new("target").with_child(Element::new("path").with_text(path)));
        self.may_exist = true;
        let made = connection
            .create_storage_pool(&Document::of(xml).to_string())
            .await;
        let pool = match made {
            Ok(pool) => pool,
            // libvirt refuses a second pool over one folder.
            Err(error) => match connection.storage_pool_at(path).await {
                // Its answer came too late, but it is there.
                Ok(pool) if self.is(&pool) => pool,
                Ok(_) => {
                    self.may_exist = false;
                    return Ok(None);
                }
                Err(_) => {
                    self.may_exist = error.is_connection_lost() || error.is_timed_out();
                    return Err(libvirt(error).during(CREATION));
                }
            },
        };
        let mut identity = Details::new();
        identity.insert(UUID.to_owned(), self.uuid.as_str().into());
        match self.entry.created(identity).await {
            Ok(()) => Ok(Some(pool)),
            Err(error) => {
                self.remove(&pool).await;
                Err(error)
            }
        }
    }

    /// Takes it away; what cannot be taken away stays in the ledger.
    pub(super) async fn remove(&mut self, pool: &StoragePool) {
        match pool.destroy().await {
            Err(error) if !is_gone(&error) => {
                tracing::warn!(%error, "a storage pool is left for collection");
            }
            _ => self.may_exist = false,
        }
    }

    /// Whether this pool is it.
    pub(super) fn is(&self, pool: &StoragePool) -> bool {
        pool.uuid().to_string() == self.uuid
    }

    /// Strikes it off the ledger, unless it may still be there.
    pub(super) async fn end(self) -> Result<()> {
        if self.may_exist {
            return Ok(());
        }
        self.entry.gone().await
    }
}

/// The name of a pool that was made here says its own UUID.
pub(super) fn name_of(uuid: &str) -> String {
    format!("see-images-{uuid}")
}
