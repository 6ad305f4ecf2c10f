//! XML edited as a tree, and the typed edits of domain and network XML on top of it.
//!
//! libvirt's users write their XML by hand and keep it for years: comments, unknown elements,
//! foreign namespaces, order and quoting carry meaning for them. A [`Document`] therefore keeps
//! every byte it was read from and writes it back unchanged, but for the nodes that were edited.
//!
//! ```
//! use see_libvirt::xml::Document;
//!
//! let text = "<domain type='kvm'><!-- mine --><name>old</name></domain>";
//! let mut document = Document::parse(text)?;
//! assert_eq!(document.to_string(), text);
//! document.root_mut().child_or_insert("name").set_text("a & b");
//! assert_eq!(
//!     document.to_string(),
//!     "<domain type='kvm'><!-- mine --><name>a &amp; b</name></domain>"
//! );
//! # Ok::<(), see_libvirt::xml::XmlError>(())
//! ```

mod domain;
mod domain_boot;
mod domain_device;
mod domain_disk;
mod domain_firmware;
#[cfg(test)]
mod domain_storage_tests;
#[cfg(test)]
mod domain_tests;
mod error;
mod escape;
mod label;
mod network;
mod network_carrier;
mod parse;
#[cfg(test)]
mod tests;
mod tree;

pub use domain::{AGENT_CHANNEL, DomainXml, NetworkPort};
pub use domain_boot::BootFile;
pub use domain_device::{Backing, Disk, DiskSource, Interface};
pub use domain_disk::FurtherDisk;
pub use domain_firmware::NvramFiles;
pub use error::{Position, XmlError};
pub use label::{LABEL_NAMESPACE, label_in};
pub use network::{DhcpNetwork, Lent, NetworkXml};
pub use network_carrier::Carrier;
pub use parse::{MAX_ATTRIBUTES, MAX_DEPTH, MAX_SIZE};
pub use tree::{Attribute, Document, Element, Node};
