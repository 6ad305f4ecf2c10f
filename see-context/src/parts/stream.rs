//! The agent's virtio-serial port of a machine whose sockets this process cannot use, since they are on another
//! host, or root's: its bytes come through libvirt.

use std::sync::Arc;

use async_trait::async_trait;
use see_core::ledger::Resource;
use see_core::{ChannelStream, GuestChannel, Result};
use see_libvirt::Connection;
use see_libvirt::xml::AGENT_CHANNEL;

use crate::allocation::{Entries, Making, Part, Site};
use crate::error::libvirt;

/// A virtio-serial port for the agent, whose socket libvirt chooses and connects us to.
#[derive(Debug)]
pub(crate) struct StreamPort;

#[async_trait]
impl Part for StreamPort {
    /// The socket goes with the domain.
    fn intents(&self, _site: &Site) -> Result<Vec<Resource>> {
        Ok(Vec::new())
    }

    async fn make(&self, _entries: Entries, making: &mut Making<'_>) -> Result<()> {
        making.domain.set_agent_channel(None);
        making.abilities.channel = Some(Arc::new(Channel {
            connection: making.connection()?.clone(),
            domain: making.identifier.to_string(),
        }));
        Ok(())
    }
}

/// The agent's channel of one machine.
#[derive(Debug)]
struct Channel {
    connection: Connection,
    domain: String,
}

#[async_trait]
impl GuestChannel for Channel {
    /// libvirt itself serves one connection, and refuses further ones.
    async fn open(&self) -> Result<Box<dyn ChannelStream>> {
        let failed = |error| {
            libvirt(error)
                .during("open the guest's channel")
                .advice("the machine must be running")
        };
        let domain = self.connection.domain_by_name(&self.domain).await;
        let stream = domain.map_err(failed)?.open_channel(AGENT_CHANNEL).await;
        Ok(Box::new(stream.map_err(failed)?))
    }
}
