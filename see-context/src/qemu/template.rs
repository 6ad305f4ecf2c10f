//! The domain that serves where the user gives none.

use see_libvirt::xml::{DomainXml, XmlError};

/// What the template leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// The memory, in bytes.
    pub(super) memory: u64,
    /// The processors.
    pub(super) cpus: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            cpus: 1,
        }
    }
}

/// A plain PC with one virtio disk and a screen, without a network.
///
/// The power button is there for orderly shutdowns, the random numbers so that a guest does not
/// wait for them while it boots, the screen so that pictures of it show something. The balloon
/// and USB are left out: they are ways into the emulator that nobody uses.
const TEMPLATE: &str = "\
<domain type='qemu'>
  <name>template</name>
  <memory unit='KiB'>0</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <input type='keyboard' bus='ps2'/>
    <video>
      <model type='vga'/>
    </video>
    <memballoon model='none'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>
";

/// The template in this shape.
pub(super) fn domain(shape: Shape) -> Result<DomainXml, XmlError> {
    let mut domain = DomainXml::parse(TEMPLATE)?;
    let root = domain.root_mut();
    root.child_or_insert("memory")
        .set_text((shape.memory >> 10).to_string());
    root.child_or_insert("vcpu")
        .set_text(shape.cpus.to_string());
    Ok(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_takes_its_shape_and_has_a_disk_and_no_network() {
        let domain = domain(Shape {
            memory: 512 << 20,
            cpus: 2,
        })
        .unwrap();
        let text = domain.to_string();
        assert!(
            text.contains("<memory unit='KiB'>524288</memory>"),
            "{text}"
        );
        assert!(text.contains("<vcpu>2</vcpu>"), "{text}");
        assert_eq!(domain.disks().len(), 1);
        assert!(domain.interfaces().is_empty());
    }
}
