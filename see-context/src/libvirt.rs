//! Any other driver of libvirt: machines of the user's own domain XML, as far as the driver's own answers go.
//!
//! Nothing is known of such a driver but what stands in the table of drivers, or nothing at all: it is asked for
//! everything, and what it says that it cannot do is told. libvirt's test driver is the one that the tests run.

use async_trait::async_trait;
use see_core::config::Configuration;
use see_core::{Allocation, Backend, Error, Preparation, Result};

use crate::driver::{Driver, driver_of};
use crate::hypervisor::written_type;
use crate::plain::{PlainConfiguration, PlainMachine};

/// The drivers that have a backend of their own.
const OTHERS: [&str; 4] = ["embedded", "lxc", "qemu", "vbox"];

/// The backend `libvirt`.
///
/// [`native`](see_core::Driver::native) gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Libvirt(PlainMachine);

fn is_other(scheme: &str) -> bool {
    !OTHERS.contains(&scheme)
}

#[async_trait]
impl Backend for Libvirt {
    const NAME: &'static str = "libvirt";
    const ALIASES: &'static [&'static str] = &[];
    type Configuration = PlainConfiguration;

    fn recognises(context: &Configuration) -> bool {
        let uri = context.get("hypervisor").and_then(Configuration::as_str);
        match uri.filter(|uri| uri.contains("://")) {
            // A slip of the pen is told by whoever knows the names of the others.
            Some(uri) => !Driver::of(uri).scheme.is_empty() && is_other(driver_of(uri)),
            None => {
                let kind = written_type(context);
                uri.is_none()
                    && kind.is_some_and(|kind| {
                        Driver::of(&kind).types == [kind.as_str()] && is_other(&kind)
                    })
            }
        }
    }

    async fn prepare(
        configuration: PlainConfiguration,
        preparation: &Preparation<'_>,
    ) -> Result<Self> {
        if configuration.hypervisor.is_none() {
            let place = configuration.domain.configuration.place().clone();
            return Err(
                Error::configuration(place, "the hypervisor of this domain is not named")
                    .advice("write its URI, such as \"hypervisor\": \"xen:///system\""),
            );
        }
        let uri = configuration.uri(Self::NAME, is_other, "xen:///system")?;
        let advice = "start libvirtd with the driver of this hypervisor";
        let machine = PlainMachine::prepare(configuration, preparation, uri, advice).await?;
        Ok(Self(machine))
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn see_core::Driver>> {
        self.0.allocate(allocation).await
    }
}
