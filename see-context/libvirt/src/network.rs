//! Virtual networks.

mod lease;

use uuid::Uuid;

use crate::ability::Ability;
use crate::connection::Connection;
use crate::error::Error;
use crate::object::{Object, reference};

pub use self::lease::DhcpLease;

/// A reference to a virtual network; cloning shares it. It stays usable as a name for a network
/// that is gone: its calls then fail with [`Error::is_no_network`].
///
/// Calls obey the time limit of the connection the network came from, or [`Network::within`].
#[derive(Clone)]
pub struct Network {
    object: Object<virt::network::Network>,
}

reference!(Network, virt::network::Network);

impl Connection {
    /// Creates and starts a transient network: it is gone once it stops.
    ///
    /// When this runs out of time, the network may still come into being.
    ///
    /// # Errors
    /// [`Error::is_bad_xml`], whatever else libvirt reports (a name, bridge or subnet in use),
    /// or the time limit.
    pub async fn create_network(&self, xml: &str) -> Result<Network, Error> {
        self.require_networks()?;
        let xml = xml.to_owned();
        self.make("create a network on", move |session| {
            Ok(session.connect().create_network_xml(&xml)?)
        })
        .await
    }

    /// Finds a network by its name.
    ///
    /// # Errors
    /// [`Error::is_no_network`], whatever else libvirt reports, or the time limit.
    pub async fn network(&self, name: &str) -> Result<Network, Error> {
        self.require_networks()?;
        let name = name.to_owned();
        self.find(format!("network {name}"), move |connect| {
            connect.lookup_network_by_name(&name)
        })
        .await
    }

    /// All networks of the driver, running or only defined.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for a driver without networks, whatever else libvirt reports,
    /// or the time limit.
    pub async fn networks(&self) -> Result<Vec<Network>, Error> {
        self.require_networks()?;
        self.list("list the networks of", |connect| {
            connect.list_all_networks(0)
        })
        .await
    }

    fn require_networks(&self) -> Result<(), Error> {
        self.require(Ability::Networks, "use the networks of", self.uri())
    }
}

impl Network {
    /// Its UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        *self.object.id()
    }

    /// Stops the network; a transient one is gone then.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] or [`Error::is_no_network`] when it does not run, whatever
    /// else libvirt reports, or the time limit.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.object
            .repeat("destroy", |network| Ok(network.destroy()?))
            .await
    }

    /// Removes the definition; a running network becomes transient.
    ///
    /// # Errors
    /// [`Error::is_no_network`], whatever else libvirt reports, or the time limit.
    pub async fn undefine(&self) -> Result<(), Error> {
        self.object
            .repeat("undefine", |network| Ok(network.undefine()?))
            .await
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_active(&self) -> Result<bool, Error> {
        self.object
            .repeat("ask for activity of", |network| Ok(network.is_active()?))
            .await
    }

    /// The network's XML: of the run, or of the definition when it does not run.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.object
            .repeat("read the XML of", |network| Ok(network.xml_desc(0)?))
            .await
    }

    /// The name of the host's bridge that carries it.
    ///
    /// # Errors
    /// A network without a bridge, whatever else libvirt reports, or the time limit.
    pub async fn bridge(&self) -> Result<String, Error> {
        self.object
            .repeat("read the bridge of", |network| Ok(network.bridge_name()?))
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
        self.object
            .repeat("read the leases of", move |network| {
                lease::read(network, mac.as_deref())
            })
            .await
    }
}
