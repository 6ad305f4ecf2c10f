//! What runs the guest's instructions: KVM where the connection that will run the machine offers it, else emulation.
//!
//! libvirt says whether the hypervisor can run this very machine with KVM: this process may have other rights than the
//! daemon, and the daemon may be on another host. Whether KVM is fast enough libvirt does not know. On this host it is
//! tried, since some hosts have a KVM that crawls.

use std::path::Path;

use see_core::{Error, ErrorKind, Result};
use see_libvirt::xml::{DomainXml, Element};
use see_libvirt::{Connection, MachineKind};

use super::configuration::{Acceleration, QemuConfiguration};
use crate::error::{blocking, libvirt};
use crate::host::{self, Kvm};
use crate::hypervisor::Hypervisor;

/// Where the log says what is taken out of a domain's XML: for all such, admission's name.
const TAKEN_OUT: &str = "see_context::admission";

/// The target of the warning that guests are emulated: `seectl` says it in a run's first line.
const NO_KVM: &str = "see_context::qemu::acceleration::no_kvm";

/// Sets the type: what the user asks for, else the XML's, but KVM only where it is usable; and the processor of the
/// built-in machine.
pub(super) async fn choose(
    domain: &mut DomainXml,
    configuration: &QemuConfiguration,
    hypervisor: &Hypervisor,
    connection: Option<&Connection>,
) -> Result<()> {
    let asked = configuration
        .acceleration
        .as_ref()
        .map_or(Acceleration::Auto, |asked| **asked);
    let is_own = configuration.domain.is_some();
    let is_emulated = is_own && domain.hypervisor_type().as_deref() == Some("qemu");
    let kvm = match asked {
        Acceleration::Tcg => false,
        Acceleration::Auto if is_emulated => false,
        Acceleration::Auto | Acceleration::Kvm => {
            match usable(domain, hypervisor, connection).await? {
                Ok(reason) => {
                    tracing::info!(%reason, "guests run with KVM");
                    true
                }
                Err(reason) => {
                    if let Some(place) = &configuration.acceleration
                        && asked == Acceleration::Kvm
                    {
                        return Err(Error::configuration(
                            place.place().clone(),
                            format!("KVM is not usable: {reason}"),
                        )
                        .advice("`auto` and `tcg` emulate"));
                    }
                    tracing::warn!(target: NO_KVM, %reason, "KVM is not usable, guests are emulated");
                    false
                }
            }
        }
    };
    domain.set_hypervisor_type(if kvm { "kvm" } else { "qemu" });
    match (is_own, kvm) {
        (false, kvm) => set_processor(domain, kvm),
        (true, false) => adapt(domain),
        (true, true) => {}
    }
    Ok(())
}

/// Whether KVM is usable for this machine, and why, or why not.
async fn usable(
    domain: &DomainXml,
    hypervisor: &Hypervisor,
    connection: Option<&Connection>,
) -> Result<Result<String, String>> {
    let Some(connection) = connection else {
        let architecture = architecture(domain);
        if !runs_here(&architecture) {
            return Ok(Err(format!(
                "the machine's architecture is {architecture}, and this host's is {}",
                std::env::consts::ARCH
            )));
        }
        return Ok(match tried().await? {
            Kvm::Usable(reason) | Kvm::Untried(reason) => Ok(reason),
            Kvm::TooSlow(reason) | Kvm::Unavailable(reason) => Err(reason),
        });
    };
    match connection.domain_capabilities(&kind(domain, "kvm")).await {
        Ok(_) => {}
        Err(error) if error.is_timed_out() || error.is_connection_lost() => {
            return Err(libvirt(error).during("ask whether KVM is offered"));
        }
        Err(error) => return Ok(Err(error.to_string())),
    }
    let offered = format!("{} offers it", connection.uri());
    if hypervisor.is_remote() {
        return Ok(Ok(offered));
    }
    // What this process may not open its daemon may.
    Ok(match tried().await? {
        Kvm::TooSlow(reason) => Err(reason),
        Kvm::Usable(reason) => Ok(reason),
        Kvm::Untried(_) | Kvm::Unavailable(_) => Ok(offered),
    })
}

async fn tried() -> Result<Kvm> {
    blocking("probe KVM", || Ok(host::kvm())).await
}

/// What libvirt is asked about: this machine, run so (`kvm`, `qemu`).
pub(super) fn kind(domain: &DomainXml, virtualisation: &str) -> MachineKind {
    let of_type = |attribute: &str| {
        let os = domain.root().child("os")?;
        let value = os.attribute_of("type", attribute)?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    MachineKind {
        emulator: emulator(domain),
        architecture: of_type("arch"),
        machine: of_type("machine"),
        virtualisation: Some(virtualisation.to_owned()),
    }
}

/// The emulator that the XML names.
fn emulator(domain: &DomainXml) -> Option<String> {
    let named = domain.root().child("devices")?.child("emulator")?.text();
    let named = named.trim();
    (!named.is_empty()).then(|| named.to_owned())
}

/// The architecture of a machine, in libvirt's words; the host's where the XML says none.
fn architecture(domain: &DomainXml) -> String {
    kind(domain, "")
        .architecture
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Whether this host's processor runs the instructions of such a machine.
fn runs_here(architecture: &str) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => matches!(architecture, "x86_64" | "i686"),
        "aarch64" => matches!(architecture, "aarch64" | "armv7l"),
        "powerpc64" => architecture.starts_with("ppc64"),
        host => architecture == host,
    }
}

/// Refuses to go on without the emulator that libvirt starts in this process.
pub(super) fn require_emulator(domain: &DomainXml) -> Result<()> {
    if let Some(named) = emulator(domain) {
        return match Path::new(&named).is_file() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                "the emulator that the domain's XML names is not there",
            )
            .subject(named.escape_debug())
            .advice(
                "leave `<emulator>` out, and libvirt takes the one of the machine's architecture",
            )),
        };
    }
    let architecture = architecture(domain);
    let (program, package) = match architecture.as_str() {
        "i686" => ("qemu-system-i386", "qemu-system-x86"),
        "x86_64" => ("qemu-system-x86_64", "qemu-system-x86"),
        "aarch64" => ("qemu-system-aarch64", "qemu-system-arm"),
        "armv6l" | "armv7l" => ("qemu-system-arm", "qemu-system-arm"),
        "ppc64" | "ppc64le" => ("qemu-system-ppc64", "qemu-system-ppc"),
        "s390x" => ("qemu-system-s390x", "qemu-system-misc"),
        "riscv64" => ("qemu-system-riscv64", "qemu-system-misc"),
        // libvirt knows what such a machine needs.
        _ => return Ok(()),
    };
    // Of the families of Red Hat there is one for the host's own architecture, outside of everybody's path.
    let is_hosts = runs_here(&architecture) && Path::new("/usr/libexec/qemu-kvm").is_file();
    if is_hosts {
        return Ok(());
    }
    host::require_program(program, package)
}

/// The processor of the built-in machine: all that there is, since today's distributions need more than QEMU's oldest.
fn set_processor(domain: &mut DomainXml, kvm: bool) {
    let mode = if kvm { "host-passthrough" } else { "maximum" };
    let root = domain.root_mut();
    root.remove_children(|child| child.name() == "cpu");
    root.append(Element::new("cpu").with("mode", mode).with("check", "none"));
}

/// Replaces what only KVM has. The host's processor cannot be passed through by emulation; the most that it has
/// serves. What Windows and Linux use to notice Hyper-V and KVM they do without.
fn adapt(domain: &mut DomainXml) {
    let root = domain.root_mut();
    if let Some(cpu) = root.child_mut("cpu")
        && cpu.attribute("mode") == Some("host-passthrough")
    {
        tracing::warn!(target: TAKEN_OUT, "the host's processor cannot be emulated: `maximum` replaces it");
        cpu.set_attribute("mode", "maximum");
        cpu.remove_attribute("migratable");
    }
    let features = root.child_mut("features").map_or(0, |features| {
        features.remove_children(|child| matches!(child.name(), "hyperv" | "kvm"))
    });
    let timers = root.child_mut("clock").map_or(0, |clock| {
        clock.remove_children(|timer| {
            let name = timer.attribute("name");
            matches!(name, Some("hypervclock" | "kvmclock"))
        })
    });
    if features + timers > 0 {
        tracing::warn!(
            target: TAKEN_OUT,
            "an emulated machine has no features of Hyper-V and KVM: they are taken out"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(inside: &str) -> DomainXml {
        DomainXml::parse(&format!("<domain type='kvm'>{inside}</domain>")).unwrap()
    }

    #[test]
    fn libvirt_is_asked_about_the_very_machine() {
        let foreign = domain(
            "<os><type arch='aarch64' machine='virt'>hvm</type></os>\
             <devices><emulator> /opt/qemu </emulator></devices>",
        );
        let asked = kind(&foreign, "kvm");
        assert_eq!(asked.emulator.as_deref(), Some("/opt/qemu"));
        assert_eq!(asked.architecture.as_deref(), Some("aarch64"));
        assert_eq!(asked.machine.as_deref(), Some("virt"));
        assert_eq!(asked.virtualisation.as_deref(), Some("kvm"));
        let bare = domain("<os><type>hvm</type></os><devices/>");
        let bare_kind = kind(&bare, "kvm");
        let (emulator, machine) = (bare_kind.emulator, bare_kind.machine);
        assert_eq!((emulator, machine), (None, None));
        assert_eq!(architecture(&bare), std::env::consts::ARCH);
    }

    #[test]
    fn the_emulator_that_the_xml_names_is_the_one_that_is_needed() {
        let with = |path: &Path| {
            let path = path.display();
            domain(&format!("<devices><emulator>{path}</emulator></devices>"))
        };
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        let missing = require_emulator(&with(&program)).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Unavailable, "{missing}");
        std::fs::write(&program, "").unwrap();
        require_emulator(&with(&program)).unwrap();
    }

    #[test]
    fn the_built_in_machine_has_a_processor_that_todays_distributions_boot_on() {
        for (kvm, mode) in [(true, "host-passthrough"), (false, "maximum")] {
            let mut domain = domain("<devices/>");
            set_processor(&mut domain, kvm);
            let text = domain.to_string();
            assert!(text.contains(&format!("<cpu mode='{mode}'")), "{text}");
        }
    }

    #[test]
    fn a_processor_that_is_passed_through_is_emulated_as_far_as_it_goes() {
        let mut passed = domain("<cpu mode='host-passthrough'/><devices/>");
        adapt(&mut passed);
        assert!(passed.to_string().contains("mode='maximum'"));
        let mut windows = domain(
            "<features><acpi/><hyperv><relaxed state='on'/></hyperv><kvm><hidden state='on'/></kvm></features>\
             <clock offset='localtime'><timer name='rtc'/><timer name='hypervclock' present='yes'/></clock><devices/>",
        );
        adapt(&mut windows);
        assert_eq!(
            windows.to_string(),
            "<domain type='kvm'><features><acpi/></features>\
             <clock offset='localtime'><timer name='rtc'/></clock><devices/></domain>"
        );
        let mut model = domain("<cpu mode='custom'><model>Haswell</model></cpu><devices/>");
        adapt(&mut model);
        assert!(model.to_string().contains("mode='custom'"));
    }
}
