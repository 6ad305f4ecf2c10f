//! Virtual networks.

mod lease;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::connection::{Connection, Inner};
use crate::error::{Cause, Error};
use crate::handle::Handle;

pub use self::lease::DhcpLease;

/// A reference to a virtual network; cloning shares it. It stays usable as a name for a network
/// that is gone: its calls then fail with [`Error::is_no_network`].
///
/// Calls obey the time limit of the connection the network came from, or [`Network::within`].
#[derive(Clone)]
pub struct Network {
    native: Arc<Native>,
    connection: Connection,
}

struct Native {
    // Before the connection, so that it is released first.
    handle: Handle<virt::network::Network>,
    _connection: Arc<Inner>,
    name: String,
    uuid: Uuid,
}

impl Connection {
    /// Creates and starts a transient network: it is gone once it stops.
    ///
    /// When this runs out of time, the network may still come into being.
    ///
    /// # Errors
    /// [`Error::is_bad_xml`], whatever else libvirt reports (a name, bridge or subnet in use),
    /// or the time limit.
    pub async fn create_network(&self, xml: &str) -> Result<Network, Error> {
        let (xml, limit) = (xml.to_owned(), self.limit);
        self.call("create a network on", move |inner| {
            Network::adopt(inner.connect().create_network_xml(&xml)?, inner, limit)
        })
        .await
    }

    /// Defines a persistent network without starting it.
    ///
    /// # Errors
    /// As [`Connection::create_network`].
    pub async fn define_network(&self, xml: &str) -> Result<Network, Error> {
        let (xml, limit) = (xml.to_owned(), self.limit);
        self.call("define a network on", move |inner| {
            Network::adopt(inner.connect().define_network_xml(&xml)?, inner, limit)
        })
        .await
    }

    /// Finds a network by its name.
    ///
    /// # Errors
    /// [`Error::is_no_network`], whatever else libvirt reports, or the time limit.
    pub async fn network(&self, name: &str) -> Result<Network, Error> {
        let (name, limit) = (name.to_owned(), self.limit);
        self.call_on("look up", format!("network {name}"), move |inner| {
            Network::adopt(inner.connect().lookup_network_by_name(&name)?, inner, limit)
        })
        .await
    }

    /// Finds a network by its UUID.
    ///
    /// # Errors
    /// As [`Connection::network`].
    pub async fn network_by_uuid(&self, uuid: Uuid) -> Result<Network, Error> {
        let (subject, limit) = (format!("network {uuid}"), self.limit);
        self.call_on("look up", subject, move |inner| {
            Network::adopt(inner.connect().lookup_network_by_uuid(uuid)?, inner, limit)
        })
        .await
    }

    /// All networks of the driver, running or only defined.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for a driver without networks, whatever else libvirt reports,
    /// or the time limit.
    pub async fn networks(&self) -> Result<Vec<Network>, Error> {
        let limit = self.limit;
        self.call("list the networks of", move |inner| {
            let mut found = Vec::new();
            for network in inner.connect().list_all_networks(0)? {
                found.push(Network::adopt(network, inner, limit)?);
            }
            Ok(found)
        })
        .await
    }
}

impl Network {
    fn adopt(
        network: virt::network::Network,
        connection: &Arc<Inner>,
        limit: Duration,
    ) -> Result<Self, Cause> {
        let handle = Handle::new(network);
        let (name, uuid) = (handle.name()?, handle.uuid()?);
        Ok(Self {
            native: Arc::new(Native {
                handle,
                _connection: Arc::clone(connection),
                name,
                uuid,
            }),
            connection: Connection {
                inner: Arc::clone(connection),
                limit,
            },
        })
    }

    /// The same network with another time limit a call.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            native: Arc::clone(&self.native),
            connection: self.connection.within(limit),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.native.name
    }

    /// Its UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.native.uuid
    }

    /// Starts a defined network.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when it runs already, whatever else libvirt reports, or the
    /// time limit.
    pub async fn start(&self) -> Result<(), Error> {
        self.call("start", |network| {
            network.create()?;
            Ok(())
        })
        .await
    }

    /// Stops the network; a transient one is gone then.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] or [`Error::is_no_network`] when it does not run, whatever
    /// else libvirt reports, or the time limit.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.call("destroy", |network| Ok(network.destroy()?)).await
    }

    /// Removes the definition; a running network becomes transient.
    ///
    /// # Errors
    /// [`Error::is_no_network`], whatever else libvirt reports, or the time limit.
    pub async fn undefine(&self) -> Result<(), Error> {
        self.call("undefine", |network| Ok(network.undefine()?))
            .await
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_active(&self) -> Result<bool, Error> {
        self.call("ask for activity of", |network| Ok(network.is_active()?))
            .await
    }

    /// Whether it has a definition that outlives its run.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_persistent(&self) -> Result<bool, Error> {
        self.call("ask for persistence of", |network| {
            Ok(network.is_persistent()?)
        })
        .await
    }

    /// The network's XML: of the run, or of the definition when it does not run.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.call("read the XML of", |network| Ok(network.xml_desc(0)?))
            .await
    }

    /// The name of the host's bridge that carries it.
    ///
    /// # Errors
    /// A network without a bridge, whatever else libvirt reports, or the time limit.
    pub async fn bridge(&self) -> Result<String, Error> {
        self.call("read the bridge of", |network| Ok(network.bridge_name()?))
            .await
    }

    /// The leases that its DHCP server has given: of all clients, or of one hardware address.
    /// A lease stays listed until it expires, also after its client is gone.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for drivers without DHCP, whatever else libvirt reports, or the
    /// time limit.
    pub async fn dhcp_leases(&self, mac: Option<&str>) -> Result<Vec<DhcpLease>, Error> {
        let mac = mac.map(ToOwned::to_owned);
        self.call("read the leases of", move |network| {
            lease::read(network, mac.as_deref())
        })
        .await
    }

    async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&virt::network::Network) -> Result<T, Cause> + Send + 'static,
    {
        let native = Arc::clone(&self.native);
        let subject = format!("network {}", self.native.name);
        self.connection
            .call_on(operation, subject, move |_| work(&native.handle))
            .await
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("name", &self.native.name)
            .field("uuid", &self.native.uuid)
            .finish_non_exhaustive()
    }
}
