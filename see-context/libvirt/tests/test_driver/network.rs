//! Networks on libvirt's test driver.

use uuid::Uuid;

use crate::support::test_connection;

fn xml(name: &str, uuid: Uuid) -> String {
    format!(
        "<network><name>{name}</name><uuid>{uuid}</uuid><bridge name='see9' stp='off' delay='0'/>\
         <ip address='192.0.2.1' netmask='255.255.255.0'/></network>"
    )
}

#[tokio::test]
async fn a_transient_network_is_gone_after_it_stops() {
    let connection = test_connection().await;
    let uuid = Uuid::new_v4();
    let network = connection
        .create_network(&xml("see-t", uuid))
        .await
        .unwrap();
    assert_eq!((network.name(), network.uuid()), ("see-t", uuid));
    assert!(network.is_active().await.unwrap());
    assert_eq!(network.bridge().await.unwrap(), "see9");
    assert!(network.xml().await.unwrap().contains("192.0.2.1"));
    let names: Vec<_> = connection.networks().await.unwrap();
    assert!(names.iter().any(|found| found.uuid() == uuid));

    network.destroy().await.unwrap();
    assert!(network.is_active().await.unwrap_err().is_no_network());
    assert!(
        connection
            .network("see-t")
            .await
            .unwrap_err()
            .is_no_network()
    );
}

#[tokio::test]
async fn leases_of_a_driver_without_dhcp_are_unsupported() {
    let connection = test_connection().await;
    let network = connection.network("default").await.unwrap();
    let error = network.dhcp_leases(None).await.unwrap_err();
    assert!(error.is_unsupported(), "{error}");
}
