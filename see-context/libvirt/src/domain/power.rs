//! Changing a domain's power.

use virt_sys as sys;

use super::Domain;
use crate::ability::Ability;
use crate::error::{Cause, Error};

/// The way a guest is asked to shut down or reboot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ShutdownMode {
    /// The hypervisor's choice.
    #[default]
    Default,
    /// Pressing the power button.
    Acpi,
    /// Sending a signal to the container's init.
    Signal,
}

impl ShutdownMode {
    /// libvirt gives both operations the same numbers.
    fn flags(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::Acpi => sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
            Self::Signal => sys::VIR_DOMAIN_SHUTDOWN_SIGNAL,
        }
    }
}

impl Domain {
    /// Ends the domain at once, as pulling the plug does.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] or [`Error::is_no_domain`] when it does not run, whatever else
    /// libvirt reports, or the time limit.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.object
            .repeat("destroy", |domain| Ok(domain.destroy()?))
            .await
    }

    /// Halts the CPUs; memory stays.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when it does not run, whatever else libvirt reports, or the
    /// time limit.
    pub async fn suspend(&self) -> Result<(), Error> {
        self.object
            .repeat("suspend", |domain| {
                domain.suspend()?;
                Ok(())
            })
            .await
    }

    /// Lets the CPUs run on.
    ///
    /// # Errors
    /// As [`Domain::suspend`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.object
            .repeat("resume", |domain| {
                domain.resume()?;
                Ok(())
            })
            .await
    }

    /// Asks the guest to shut down and returns at once; the guest may ignore it. Watch the
    /// domain's events for the end.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for a mode the driver does not have, whatever else libvirt
    /// reports, or the time limit.
    pub async fn shutdown(&self, mode: ShutdownMode) -> Result<(), Error> {
        self.require_mode(mode, "shut down")?;
        self.object
            .call("shut down", move |domain| {
                // The plain call serves drivers that do not know the one with flags.
                if mode == ShutdownMode::Default {
                    domain.shutdown()?;
                } else {
                    domain.shutdown_flags(mode.flags())?;
                }
                Ok(())
            })
            .await
    }

    /// Asks the guest to reboot and returns at once; the guest may ignore it.
    ///
    /// # Errors
    /// As [`Domain::shutdown`].
    pub async fn reboot(&self, mode: ShutdownMode) -> Result<(), Error> {
        self.require_mode(mode, "reboot")?;
        self.object
            .call("reboot", move |domain| {
                domain.reboot(mode.flags())?;
                Ok(())
            })
            .await
    }

    /// Asks whether libvirt knows the first process of a container, by the signal 0, which nobody receives.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] while it does not know it and when the container does not run,
    /// [`Error::is_unsupported`] for other drivers, whatever else libvirt reports, or the time limit.
    pub async fn check_first_process(&self) -> Result<(), Error> {
        self.object
            .call("ask for the first process of", |domain| {
                let nothing = sys::VIR_DOMAIN_PROCESS_SIGNAL_NOP;
                // SAFETY: the domain is valid.
                let sent =
                    unsafe { sys::virDomainSendProcessSignal(domain.as_ptr(), 1, nothing, 0) };
                if sent < 0 {
                    return Err(Cause::last());
                }
                Ok(())
            })
            .await
    }

    fn require_mode(&self, mode: ShutdownMode, operation: &'static str) -> Result<(), Error> {
        if mode == ShutdownMode::Default {
            return Ok(());
        }
        self.object.require(Ability::PowerModes, operation)
    }
}
