//! Domain XML: the user's, with what SEE fills in.

use std::fmt;
use std::path::Path;

use super::domain_device::{Disk, Interface, keep_owner};
use super::error::XmlError;
use super::label;
use super::tree::{Document, Element};

/// The name of the virtio-serial port that the guest agent listens on.
pub const AGENT_CHANNEL: &str = "org.see.agent.0";

/// What is in an interface that is the card's own, wherever it is plugged in.
const CARDS_OWN: [&str; 11] = [
    "acpi", "address", "alias", "boot", "coalesce", "driver", "guest", "mac", "model", "mtu", "rom",
];

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

/// A domain's XML: what was read, with the edits that were made.
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
        self.root().attribute("type").map(str::to_owned)
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

    /// Sets the type, such as `qemu` for emulation.
    pub fn set_hypervisor_type(&mut self, kind: &str) {
        self.root_mut().set_attribute("type", kind);
    }

    /// Sets name and UUID, also where the firmware shows them to the guest.
    pub fn set_identity(&mut self, name: &str, uuid: &str) {
        self.set_first("uuid", uuid);
        self.set_first("name", name);
        let entries = self
            .root_mut()
            .children_mut()
            .filter(|child| child.name() == "sysinfo")
            .flat_map(Element::children_mut)
            .filter(|table| table.name() == "system")
            .flat_map(Element::children_mut);
        for entry in entries {
            if entry.attribute("name") == Some("uuid") {
                entry.set_text(uuid);
            }
        }
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

    /// Connects the guest to `port` and to nothing else. The interface is the first one on a libvirt network, as
    /// python-see had it, else the first one; without any, a virtio interface is added. What is the card's own
    /// stays: its model, address, driver and order; what says where it was plugged in goes.
    ///
    /// How many further interfaces were removed.
    pub fn connect_network(&mut self, port: &NetworkPort) -> usize {
        let removed = self.keep_one_interface();
        let devices = self.devices_element();
        if !devices.children().any(is_interface) {
            devices.append(
                Element::new("interface")
                    .with("type", "network")
                    .with_child(Element::new("source"))
                    .with_child(Element::new("model").with("type", "virtio")),
            );
        }
        let Some(interface) = devices.children_mut().find(|child| is_interface(child)) else {
            return removed;
        };
        interface.set_attribute("type", "network");
        interface.remove_children(|child| !CARDS_OWN.contains(&child.name()));
        interface
            .child_or_insert("source")
            .set_attribute("network", &port.network);
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
        removed
    }

    /// Removes all network interfaces but the one that [`Self::connect_network`] takes, and what says where that
    /// one was plugged in; how many it removed.
    pub fn keep_one_interface(&mut self) -> usize {
        let devices = self.devices_element();
        let on_network = |child: &Element| child.attribute("type") == Some("network");
        let interfaces = || devices.children().filter(|child| is_interface(child));
        let kept = interfaces()
            .position(on_network)
            .or_else(|| interfaces().next().map(|_| 0));
        let mut index = 0;
        let removed = devices.remove_children(|child| {
            let is_other = is_interface(child) && Some(index) != kept;
            index += usize::from(is_interface(child));
            is_other
        });
        if let Some(interface) = devices.children_mut().find(|child| is_interface(child)) {
            // What drives a device that is passed through drives no card.
            let kind = interface.attribute("type");
            if matches!(kind, Some("hostdev" | "vdpa" | "vhostuser")) {
                interface.remove_children(|child| child.name() == "driver");
            }
            interface.set_attribute("type", "network");
            interface.remove_attribute("managed");
            interface.remove_children(|child| !CARDS_OWN.contains(&child.name()));
        }
        removed
    }

    /// Gives each interface whose hardware address is written a machine's own: the maker's half stays, as the
    /// guest's software may look at it, and `machine` and the interface's place give the rest.
    pub fn set_hardware_addresses(&mut self, machine: [u8; 3]) {
        let [first, second, third] = machine;
        let interfaces = self.devices_element().children_mut();
        for (index, interface) in interfaces.filter(|child| is_interface(child)).enumerate() {
            let Some(mac) = interface.child_mut("mac") else {
                continue;
            };
            let Some([one, two, three, ..]) = mac.attribute("address").and_then(hardware_address)
            else {
                continue;
            };
            let third = third.wrapping_add(u8::try_from(index).unwrap_or(u8::MAX));
            let own =
                format!("{one:02x}:{two:02x}:{three:02x}:{first:02x}:{second:02x}:{third:02x}");
            mac.set_attribute("address", own);
        }
    }

    /// Removes every network interface; how many there were.
    pub fn remove_interfaces(&mut self) -> usize {
        self.devices_element()
            .remove_children(|child| child.name() == "interface")
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

    /// Writes what the guest says on its first serial port, or else on its first console, to a file. Without
    /// either there is a serial port. One that leads elsewhere than to a terminal or nowhere is left alone, and the
    /// answer is `false`.
    ///
    /// `relabel` as in [`DiskSource::relabel`].
    ///
    /// [`DiskSource::relabel`]: super::DiskSource::relabel
    pub fn set_console_file(&mut self, file: &Path, relabel: bool) -> bool {
        let devices = self.devices_element();
        let first = ["serial", "console"]
            .into_iter()
            .find(|name| devices.child(name).is_some());
        let line = match first {
            Some(name) => devices.child_or_insert(name),
            None => {
                devices.append(
                    Element::new("serial").with_child(Element::new("target").with("port", "0")),
                );
                devices.child_or_insert("serial")
            }
        };
        let kind = line.attribute("type");
        if !matches!(kind, None | Some("pty" | "null" | "vc" | "file")) {
            return false;
        }
        line.set_attribute("type", "file");
        line.remove_attribute("tty");
        line.remove_children(|child| matches!(child.name(), "source" | "log"));
        let mut source = Element::new("source").with("path", file.to_string_lossy());
        if !relabel {
            source.append(keep_owner());
        }
        line.append(source);
        if first == Some("serial") {
            // libvirt shows a machine's first serial port once more, as a console.
            devices.remove_children(is_serial_console);
        }
        true
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

/// The six numbers of a hardware address, as libvirt reads them; `None` where libvirt refuses it.
fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let numbers = text
        .trim()
        .split(':')
        .map(|number| u8::from_str_radix(number, 16).ok());
    numbers.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// Whether a console is the first serial port under another name.
fn is_serial_console(device: &Element) -> bool {
    let of_target = |name| device.attribute_of("target", name);
    device.name() == "console"
        && of_target("type").is_none_or(|kind| kind == "serial")
        && of_target("port").is_none_or(|port| port == "0")
}

fn is_interface(device: &Element) -> bool {
    device.name() == "interface"
}

fn is_agent_channel(device: &Element) -> bool {
    device.name() == "channel" && device.attribute_of("target", "name") == Some(AGENT_CHANNEL)
}

impl fmt::Display for DomainXml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}
