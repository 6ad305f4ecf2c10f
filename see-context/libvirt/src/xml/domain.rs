//! Domain XML: the user's, with what SEE fills in.

use std::fmt;
use std::path::{Path, PathBuf};

use super::domain_device::{Disk, Interface, keep_owner};
use super::error::XmlError;
use super::label;
use super::tree::{Document, Element};

/// The name of the virtio-serial port that the guest agent listens on.
pub const AGENT_CHANNEL: &str = "org.see.agent.0";

/// The way in which a guest is connected to a libvirt network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkPort {
    /// The network's name.
    pub network: String,
    /// The guest's hardware address; left out, that of the XML, or one that libvirt chooses.
    pub mac: Option<String>,
    /// The name of the host's device; left out, one that libvirt chooses.
    pub device: Option<String>,
    /// Whether the port reaches the gateway but no other isolated port of that network.
    pub isolated: bool,
}

/// A domain's XML: unchanged but for the edits that were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainXml {
    document: Document,
}

impl DomainXml {
    /// Reads a domain's XML.
    ///
    /// # Errors
    /// When it is not XML, the root is not `<domain>`, or it has no `<devices>`.
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        Self::new(Document::parse(text)?)
    }

    /// Reads a domain's XML from a file's bytes.
    ///
    /// # Errors
    /// As for [`Self::parse`], and when it is not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, XmlError> {
        Self::new(Document::parse_bytes(bytes)?)
    }

    fn new(document: Document) -> Result<Self, XmlError> {
        let root = document.root();
        if root.name() != "domain" {
            return Err(XmlError::Root {
                position: root.position(),
                found: root.name().to_owned(),
                expected: "domain",
            });
        }
        if root.child("devices").is_none() {
            return Err(XmlError::Missing {
                position: root.position(),
                parent: "domain",
                missing: "devices",
            });
        }
        Ok(Self { document })
    }

    /// The tree beneath, for what has no method here.
    pub fn root(&self) -> &Element {
        self.document.root()
    }

    /// The tree beneath, to edit.
    pub fn root_mut(&mut self) -> &mut Element {
        self.document.root_mut()
    }

    /// The type of the domain: `qemu`, `kvm`, `lxc`, `vbox`, …
    pub fn hypervisor_type(&self) -> Option<String> {
        self.root()
            .attribute("type")
            .map(|value| value.into_owned())
    }

    /// The name, where there is one.
    pub fn name(&self) -> Option<String> {
        self.root().child("name").map(Element::text)
    }

    /// The UUID as it is written, where there is one.
    pub fn uuid(&self) -> Option<String> {
        self.root().child("uuid").map(Element::text)
    }

    /// The environment that it is labelled with, where it is.
    pub fn label(&self) -> Option<String> {
        label::label_in(self.root())
    }

    /// All disks, cdroms and floppies.
    pub fn disks(&self) -> Vec<Disk> {
        self.devices("disk").map(Disk::read).collect()
    }

    /// All network interfaces.
    pub fn interfaces(&self) -> Vec<Interface> {
        self.devices("interface").map(Interface::read).collect()
    }

    /// Whether there is a device of this element name, such as `video`, in the XML.
    pub fn has_device(&self, element: &str) -> bool {
        self.devices(element).next().is_some()
    }

    /// The host's socket of the agent's channel, where there is one with a path.
    pub fn agent_socket(&self) -> Option<PathBuf> {
        self.devices("channel")
            .find(|channel| is_agent_channel(channel))
            .and_then(|channel| channel.child("source")?.attribute("path"))
            .map(|path| PathBuf::from(path.as_ref()))
    }

    /// Sets the type, such as `qemu` for emulation.
    pub fn set_hypervisor_type(&mut self, kind: &str) {
        self.root_mut().set_attribute("type", kind);
    }

    /// Sets name and UUID.
    pub fn set_identity(&mut self, name: &str, uuid: &str) {
        self.set_first("uuid", uuid);
        self.set_first("name", name);
    }

    /// Sets a text element of the domain, before all others where it is missing.
    fn set_first(&mut self, element: &'static str, text: &str) {
        let root = self.root_mut();
        match root.child_mut(element) {
            Some(existing) => existing.set_text(text),
            None => root.prepend(Element::new(element).with_text(text)),
        }
    }

    /// Labels the domain as belonging to an environment.
    pub fn set_label(&mut self, environment: &str) {
        label::set_label(self.root_mut(), environment);
    }

    /// Connects the first interface on a libvirt network to `network`, as python-see did; where
    /// none is on a network, a virtio interface is added.
    pub fn connect_network(&mut self, port: &NetworkPort) {
        let devices = self.devices_element();
        let existing = devices.children_mut().find(|child| {
            child.name() == "interface" && child.attribute("type").as_deref() == Some("network")
        });
        let interface = match existing {
            Some(interface) => interface,
            None => {
                devices.append(
                    Element::new("interface")
                        .with("type", "network")
                        .with_child(Element::new("source"))
                        .with_child(Element::new("model").with("type", "virtio")),
                );
                match devices
                    .children_mut()
                    .filter(|child| child.name() == "interface")
                    .last()
                {
                    Some(interface) => interface,
                    None => return,
                }
            }
        };
        let source = interface.child_or_insert("source");
        source.set_attribute("network", &port.network);
        // They name a port of another network.
        source.remove_attribute("portid");
        source.remove_attribute("bridge");
        if let Some(mac) = &port.mac {
            interface
                .child_or_insert("mac")
                .set_attribute("address", mac);
        }
        if let Some(device) = &port.device {
            interface
                .child_or_insert("target")
                .set_attribute("dev", device);
        }
        if port.isolated {
            interface
                .child_or_insert("port")
                .set_attribute("isolated", "yes");
        }
    }

    /// Removes every network interface; how many there were.
    pub fn remove_interfaces(&mut self) -> usize {
        self.devices_element()
            .remove_children(|child| child.name() == "interface")
    }

    /// Refuses an XML with network interfaces, for a mode that promises none.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] with the place of the first one.
    pub fn refuse_interfaces(&self, reason: &str) -> Result<(), XmlError> {
        match self.devices("interface").next() {
            None => Ok(()),
            Some(interface) => Err(XmlError::Conflict {
                position: interface.position(),
                problem: format!(
                    "the domain has an interface of type {:?}, and {reason}",
                    interface.attribute("type").unwrap_or_default()
                ),
            }),
        }
    }

    /// Refuses an XML whose guest may have a way out that is no interface: a device of the host's, which may be a
    /// network card; a socket to the host; what is handed to the hypervisor unseen; the host's namespaces.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] with the place of the first one.
    pub fn refuse_hidden_ways(&self, reason: &str) -> Result<(), XmlError> {
        let hidden = |name| self.devices(name).find(|device| !is_storage(device));
        let device = ["hostdev", "vsock", "redirdev"]
            .into_iter()
            .find_map(hidden);
        // The namespace of XML, which tells the hypervisor, may be the default one.
        let mut children = self.document.root().children();
        let passed =
            || children.find(|child| matches!(child.local_name(), "commandline" | "namespace"));
        match device.or_else(passed) {
            None => Ok(()),
            Some(element) => Err(XmlError::Conflict {
                position: element.position(),
                problem: format!("the domain has a <{}>, and {reason}", element.name()),
            }),
        }
    }

    /// Refuses an XML whose guest would have another way out than one interface on a libvirt
    /// network, for a mode that promises to close that one.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] with the place of the first other interface, or as for [`Self::refuse_hidden_ways`].
    pub fn refuse_other_ways(&self, reason: &str) -> Result<(), XmlError> {
        self.refuse_hidden_ways(reason)?;
        let mut networks = 0;
        let other = self.devices("interface").find(|interface| {
            let is_network = interface.attribute("type").as_deref() == Some("network");
            networks += 1;
            !is_network || networks > 1
        });
        match other {
            None => Ok(()),
            Some(interface) => Err(XmlError::Conflict {
                position: interface.position(),
                problem: format!(
                    "the domain has another interface, of type {:?}, and {reason}",
                    interface.attribute("type").unwrap_or_default()
                ),
            }),
        }
    }

    /// Gives the guest a virtio-serial port [`AGENT_CHANNEL`] with its host side at `socket`.
    /// A channel of that name is pointed there instead.
    /// Without a socket libvirt chooses one, on the hypervisor's host.
    pub fn set_agent_channel(&mut self, socket: Option<&Path>) {
        let devices = self.devices_element();
        devices.remove_children(is_agent_channel);
        let mut source = Element::new("source").with("mode", "bind");
        if let Some(socket) = socket {
            source.set_attribute("path", &*socket.to_string_lossy());
        }
        devices.append(
            Element::new("channel")
                .with("type", "unix")
                .with_child(source)
                .with_child(
                    Element::new("target")
                        .with("type", "virtio")
                        .with("name", AGENT_CHANNEL),
                ),
        );
    }

    /// Writes what the guest says on its first serial port to a file. Where the XML has a serial
    /// port or console already that is left alone, and the answer is `false`.
    ///
    /// `relabel` as in [`DiskSource::relabel`].
    pub fn set_console_file(&mut self, file: &Path, relabel: bool) -> bool {
        let devices = self.devices_element();
        let console = |child: &Element| matches!(child.name(), "serial" | "console");
        if devices.children().any(console) {
            return false;
        }
        let mut source = Element::new("source").with("path", file.to_string_lossy());
        if !relabel {
            source.append(keep_owner());
        }
        devices.append(
            Element::new("serial")
                .with("type", "file")
                .with_child(source)
                .with_child(Element::new("target").with("port", "0")),
        );
        true
    }

    /// The file that the console is written to, where it is one.
    pub fn console_file(&self) -> Option<PathBuf> {
        ["serial", "console"]
            .into_iter()
            .flat_map(|name| self.devices(name))
            .find(|device| device.attribute("type").as_deref() == Some("file"))
            .and_then(|device| device.child("source")?.attribute("path"))
            .map(|path| PathBuf::from(path.as_ref()))
    }

    /// Adds a device at the end of the list.
    pub fn add_device(&mut self, device: Element) {
        self.devices_element().append(device);
    }

    /// All devices of this element name.
    pub fn devices(&self, name: &str) -> impl Iterator<Item = &Element> {
        self.root()
            .child("devices")
            .into_iter()
            .flat_map(|devices| devices.children())
            .filter(move |child| child.name() == name)
    }

    pub(super) fn devices_element(&mut self) -> &mut Element {
        self.root_mut().child_or_insert("devices")
    }
}

/// Whether a host's device is a disk.
fn is_storage(device: &Element) -> bool {
    matches!(
        device.attribute("type").as_deref(),
        Some("scsi" | "scsi_host" | "storage")
    )
}

fn is_agent_channel(device: &Element) -> bool {
    device.name() == "channel"
        && device
            .child("target")
            .is_some_and(|target| target.attribute("name").as_deref() == Some(AGENT_CHANNEL))
}

impl fmt::Display for DomainXml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}
