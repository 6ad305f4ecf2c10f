//! XML edited as a tree, and the typed edits of domain and network XML on top of it.
//!
//! A [`Document`] keeps every element, attribute, namespace and text, whether this crate knows it or not, and writes
//! them anew. Comments, quotes and layout of the tags go, as they do in libvirt. What libvirt gets is thus what was
//! read and checked here, never bytes that it could read otherwise.
//!
//! ```
//! use see_libvirt::xml::Document;
//!
//! let mut document = Document::parse("<domain type=\"kvm\"><!-- mine --><name>old</name></domain>")?;
//! document.root_mut().child_or_insert("name").set_text("a & b");
//! assert_eq!(
//!     document.to_string(),
//!     "<domain type='kvm'><name>a &amp; b</name></domain>"
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
mod label;
mod network;
mod network_carrier;
mod parse;
#[cfg(test)]
mod properties;
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
pub use tree::{Attribute, Document, Element};
