//! What VirtualBox's driver lacks is refused before anybody is asked, and the rest works.

use see_libvirt::{Ability, Cause, Connection, MachineKind, ShutdownMode};
use uuid::Uuid;

use crate::support::{LIMIT, tiny_domain};

#[tokio::test]
async fn what_virtualbox_lacks_is_refused_by_name_though_another_driver_stands_behind() {
    let connection = Connection::open("vbox+test:///default", LIMIT)
        .await
        .unwrap();
    let uuid = Uuid::new_v4();
    let domain = connection
        .define_domain(&tiny_domain("vbox", uuid, ""))
        .await
        .unwrap();
    let refused = [
        connection.domain_events(uuid).await.err(),
        domain.metadata("urn:see:test").await.err(),
        domain.shutdown(ShutdownMode::Acpi).await.err(),
        domain.reboot(ShutdownMode::Acpi).await.err(),
        domain.qmp("{}").await.err(),
        domain.interface_addresses().await.err(),
        domain.resident_memory().await.err(),
        domain.open_channel("agent").await.err(),
        connection
            .domain_capabilities(&MachineKind::default())
            .await
            .err(),
        connection.networks().await.err(),
        connection.network("default").await.err(),
        connection.storage_pool("default-pool").await.err(),
    ];
    for (index, error) in refused.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("call {index} was let through"));
        assert!(error.is_unsupported(), "{error}");
        assert!(
            matches!(error.cause(), Cause::Lacking { driver: "vbox", .. }),
            "{error}"
        );
    }
    assert!(!connection.may(Ability::Metadata));

    domain.start().await.unwrap();
    domain.suspend().await.unwrap();
    domain.resume().await.unwrap();
    domain.screenshot(0, 16 << 20).await.unwrap();
    domain.destroy().await.unwrap();
    domain.undefine().await.unwrap();
    assert!(connection.domain(uuid).await.unwrap_err().is_no_domain());
}

#[tokio::test]
async fn other_drivers_are_asked_for_everything() {
    let connection = Connection::open("test:///default", LIMIT).await.unwrap();
    assert!(connection.may(Ability::Metadata));
    connection.domain_events(Uuid::new_v4()).await.unwrap();
}
