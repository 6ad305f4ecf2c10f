//! VirtualBox: whole machines of the user's own domain XML, over libvirt's driver for it.
//!
//! That driver tells no events, so machines are asked for their state; it keeps no metadata, so what belongs
//! to an environment is told by the UUID in the ledger; and it gives networks names of VirtualBox's own, so
//! that none can be made for a sandbox. Disks are full copies in VirtualBox's own format, each with a medium
//! UUID of its own: VirtualBox refuses a second medium with the same one.

use async_trait::async_trait;
use see_core::config::Configuration;
use see_core::{Allocation, Backend, Preparation, Result};

use crate::driver::driver_of;
use crate::hypervisor::written_type;
use crate::plain::{PlainConfiguration, PlainMachine};

/// The driver's scheme, and the type of its domains.
const VBOX: &str = "vbox";

/// The backend `vbox`.
///
/// [`native`](see_core::Driver::native) gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Vbox(PlainMachine);

#[async_trait]
impl Backend for Vbox {
    const NAME: &'static str = VBOX;
    const ALIASES: &'static [&'static str] = &[
        "see.resources.vbox.VBoxResources",
        "see.context.resources.vbox.VBoxResources",
    ];
    type Configuration = PlainConfiguration;

    fn recognises(context: &Configuration) -> bool {
        match context.get("hypervisor").and_then(Configuration::as_str) {
            Some(uri) => driver_of(uri) == VBOX,
            None => written_type(context).as_deref() == Some(VBOX),
        }
    }

    async fn prepare(
        configuration: PlainConfiguration,
        preparation: &Preparation<'_>,
    ) -> Result<Self> {
        let uri = configuration.uri(VBOX, |scheme| scheme == VBOX, "vbox:///session")?;
        let advice = "install VirtualBox and libvirt's driver for it (on Debian and Ubuntu: \
                      libvirt-daemon-driver-vbox)";
        let machine = PlainMachine::prepare(configuration, preparation, uri, advice).await?;
        Ok(Self(machine))
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn see_core::Driver>> {
        self.0.allocate(allocation).await
    }
}
