//! The agent's virtio-serial port of a machine whose sockets this process cannot use, since they are on another
//! host, or root's: its bytes come through libvirt.

use std::sync::Arc;

use async_trait::async_trait;
use see_core::{ChannelStream, GuestChannel, Identifier, Result};
use see_libvirt::Connection;
use see_libvirt::xml::{AGENT_CHANNEL, DomainXml};

use crate::error::libvirt;

/// Gives the domain a virtio-serial port for the agent, whose socket libvirt chooses and connects us to. The socket
/// goes with the domain.
pub(crate) fn stream(
    domain: &mut DomainXml,
    connection: &Connection,
    identifier: Identifier,
) -> Arc<dyn GuestChannel> {
    domain.set_agent_channel(None);
    Arc::new(Channel {
        connection: connection.clone(),
        domain: identifier.to_string(),
    })
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
