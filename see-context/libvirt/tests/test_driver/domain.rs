//! Domains on libvirt's test driver.

use crate::support::{LIMIT, collect_until, started, test_connection, tiny_domain};
use see_libvirt::{Cause, Connection, DomainEvent, DomainState, ShutdownMode, StopCause};
use uuid::Uuid;

#[tokio::test]
async fn a_domain_runs_through_its_states_and_tells_them_in_order() {
    let connection = test_connection().await;
    let uuid = Uuid::new_v4();
    let mut events = connection.domain_events(uuid).await.unwrap();

    let domain = started(&connection, &tiny_domain("test", uuid, "")).await;
    assert_eq!(domain.uuid(), uuid);
    assert_eq!(domain.status().await.unwrap().state, DomainState::Running);
    domain.suspend().await.unwrap();
    assert_eq!(domain.status().await.unwrap().state, DomainState::Paused);
    domain.resume().await.unwrap();
    domain.destroy().await.unwrap();

    let seen = collect_until(&mut events, &DomainEvent::Stopped(StopCause::Destroyed)).await;
    assert_eq!(
        seen,
        [
            DomainEvent::Defined,
            DomainEvent::Started,
            DomainEvent::Suspended,
            DomainEvent::Resumed,
            DomainEvent::Stopped(StopCause::Destroyed),
        ]
    );
}

#[tokio::test]
async fn the_state_of_a_domain_that_is_gone_is_an_error() {
    let connection = test_connection().await;
    let domain = started(&connection, &tiny_domain("test", Uuid::new_v4(), "")).await;
    domain.destroy().await.unwrap();
    domain.undefine().await.unwrap();
    let error = domain.status().await.unwrap_err();
    assert!(error.is_no_domain(), "{error}");
    assert!(
        connection
            .domain(domain.uuid())
            .await
            .unwrap_err()
            .is_no_domain()
    );
}

#[tokio::test]
async fn events_of_other_domains_are_not_delivered() {
    let connection = test_connection().await;
    let watched = Uuid::new_v4();
    let mut events = connection.domain_events(watched).await.unwrap();
    for uuid in [Uuid::new_v4(), watched] {
        let xml = tiny_domain("test", uuid, "");
        let domain = connection.define_domain(&xml).await.unwrap();
        domain.undefine().await.unwrap();
    }
    let seen = collect_until(&mut events, &DomainEvent::Undefined).await;
    assert_eq!(seen, [DomainEvent::Defined, DomainEvent::Undefined]);
}

#[tokio::test]
async fn a_defined_domain_starts_and_shuts_down() {
    let connection = test_connection().await;
    let uuid = Uuid::new_v4();
    let domain = connection
        .define_domain(&tiny_domain("test", uuid, ""))
        .await
        .unwrap();
    assert!(!domain.is_active().await.unwrap());
    assert_eq!(domain.id(), None);
    domain.start().await.unwrap();
    assert_eq!(domain.status().await.unwrap().state, DomainState::Running);
    assert!(domain.is_active().await.unwrap());
    domain.shutdown(ShutdownMode::Default).await.unwrap();
    assert_eq!(domain.status().await.unwrap().state, DomainState::Shutoff);
    domain.undefine().await.unwrap();
    assert!(domain.undefine().await.unwrap_err().is_no_domain());
}

#[tokio::test]
async fn a_known_uuid_under_another_name_is_refused_as_existing_or_failed() {
    let connection = test_connection().await;
    let uuid = Uuid::new_v4();
    let xml = tiny_domain("test", uuid, "");
    connection.define_domain(&xml).await.unwrap();
    let renamed = xml.replace("<name>see-", "<name>other-");
    let error = connection.define_domain(&renamed).await.unwrap_err();
    assert!(error.code().is_some(), "{error}");
    assert_eq!(
        connection.domain(uuid).await.unwrap().name(),
        format!("see-{uuid}")
    );
}

#[tokio::test]
async fn the_label_in_the_metadata_comes_back() {
    let connection = test_connection().await;
    let label = "<metadata><l:run xmlns:l='urn:see:test'>a &amp; b</l:run></metadata>";
    let domain = connection
        .define_domain(&tiny_domain("test", Uuid::new_v4(), label))
        .await
        .unwrap();
    let found = domain.metadata("urn:see:test").await.unwrap().unwrap();
    assert!(found.contains("a &amp; b"), "{found}");
    assert_eq!(domain.metadata("urn:see:other").await.unwrap(), None);
    let error = domain.metadata("urn:\0").await.unwrap_err();
    assert!(matches!(error.cause(), Cause::NulByte { at: 4 }), "{error}");
}

#[tokio::test]
async fn a_screenshot_is_a_png_and_bounded() {
    let connection = test_connection().await;
    let domain = connection.domain_by_name("test").await.unwrap();
    let picture = domain.screenshot(0, 16 << 20).await.unwrap();
    assert_eq!(picture.mime_type, "image/png");
    assert!(picture.bytes.starts_with(b"\x89PNG"));
    let error = domain
        .screenshot(0, picture.bytes.len() - 1)
        .await
        .unwrap_err();
    assert!(matches!(error.cause(), Cause::TooLarge { .. }), "{error}");
    let exact = domain.screenshot(0, picture.bytes.len()).await.unwrap();
    assert_eq!(exact.bytes, picture.bytes);
}

#[tokio::test]
async fn the_resources_are_in_bytes() {
    let connection = test_connection().await;
    let domain = started(&connection, &tiny_domain("test", Uuid::new_v4(), "")).await;
    let info = domain.info().await.unwrap();
    assert_eq!((info.max_memory, info.cpus), (32 << 20, 1));
}

#[tokio::test]
async fn the_addresses_of_the_test_drivers_interface_are_read() {
    let connection = test_connection().await;
    let domain = connection.domain_by_name("test").await.unwrap();
    let xml = domain.xml().await.unwrap();
    let interfaces = xml.matches("<interface ").count();
    let found = domain.interface_addresses().await.unwrap();
    assert_eq!(found.len(), interfaces);
    for interface in found {
        assert_eq!(interface.addresses.len(), 1, "{interface:?}");
    }
}

#[tokio::test]
async fn what_a_driver_cannot_do_is_unsupported() {
    let connection = test_connection().await;
    let domain = connection.domain_by_name("test").await.unwrap();
    let error = domain
        .qmp("{\"execute\": \"query-status\"}")
        .await
        .unwrap_err();
    assert!(error.is_unsupported(), "{error}");
}

#[tokio::test]
async fn bad_xml_is_named_as_such() {
    let connection = test_connection().await;
    for xml in ["<domain", "<domain type='test'/>", "", "<network/>"] {
        let error = connection.define_domain(xml).await.unwrap_err();
        assert!(error.is_bad_xml(), "{xml}: {error:?}");
    }
}

#[tokio::test]
async fn dropping_the_runtime_with_objects_alive_is_harmless() {
    let kept = std::thread::spawn(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let connection = Connection::open("test:///default", LIMIT).await.unwrap();
            let domain = connection.domain_by_name("test").await.unwrap();
            let events = connection.domain_events(domain.uuid()).await.unwrap();
            (connection, domain, events)
        })
    })
    .join()
    .unwrap();
    drop(kept);
    // The driver still serves a newcomer.
    let connection = test_connection().await;
    connection.domains().await.unwrap();
}

#[tokio::test]
async fn a_managed_save_image_and_snapshots_do_not_keep_a_definition() {
    let connection = test_connection().await;
    let disk = "<devices><disk type='file' device='disk'><source file='/see/none.img'/>\
                <target dev='vda' bus='virtio'/></disk></devices>";
    let uuid = Uuid::new_v4();
    let xml = tiny_domain("test", uuid, "").replace("</domain>", &format!("{disk}</domain>"));
    let domain = connection.define_domain(&xml).await.unwrap();
    domain.start().await.unwrap();
    // Another program's doing, on a connection of its own to the same driver.
    let keeper = virt::connect::Connect::open(Some("test:///default")).unwrap();
    let kept = keeper.lookup_domain_by_uuid(uuid).unwrap();
    let snapshot = "<domainsnapshot><name>clean</name></domainsnapshot>";
    kept.create_snapshot_xml(snapshot, 0).unwrap();
    kept.managed_save(0).unwrap();
    assert!(kept.has_managed_save(0).unwrap());
    assert!(
        kept.undefine().is_err(),
        "libvirt lets the definition go by itself"
    );

    domain.undefine().await.unwrap();
    assert!(connection.domain(uuid).await.unwrap_err().is_no_domain());
}
