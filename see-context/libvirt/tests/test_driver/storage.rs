//! Storage pools and volumes on libvirt's test driver, which makes no files.

use see_libvirt::VolumeInfo;

use crate::support::test_connection;

/// The driver's pools are shared by all connections of the process, so each test has its own.
fn pool_xml(name: &str) -> String {
    format!("<pool type='dir'><name>{name}</name><target><path>/see/{name}</path></target></pool>")
}

fn volume(name: &str) -> String {
    format!("<volume><name>{name}</name><capacity unit='MiB'>3</capacity></volume>")
}

#[tokio::test]
async fn a_pool_holds_volumes_until_they_are_deleted() {
    let connection = test_connection().await;
    let pool = connection
        .create_storage_pool(&pool_xml("kept"))
        .await
        .unwrap();
    assert!(pool.is_active().await.unwrap());
    assert!(!pool.is_persistent().await.unwrap());
    let by_name = connection.storage_pool("kept").await.unwrap();
    assert_eq!(by_name.uuid(), pool.uuid());

    let first = pool.create_volume(&volume("one.img")).await.unwrap();
    assert_eq!(first.name(), "one.img");
    assert_eq!(
        first.path().await.unwrap(),
        std::path::Path::new("/see/kept/one.img")
    );
    let VolumeInfo { capacity, .. } = first.info().await.unwrap();
    assert_eq!(capacity, 3 << 20);
    let second = pool.create_volume(&volume("two.img")).await.unwrap();
    assert!(second.xml().await.unwrap().contains("two.img"));
    let error = pool.create_volume(&volume("one.img")).await.unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");

    pool.refresh().await.unwrap();
    assert_eq!(pool.volumes().await.unwrap().len(), 2);
    first.delete().await.unwrap();
    assert!(first.delete().await.unwrap_err().is_no_volume());
    assert!(pool.volume("one.img").await.unwrap_err().is_no_volume());
    assert_eq!(pool.volume("two.img").await.unwrap().name(), "two.img");
    assert!(pool.xml().await.unwrap().contains("kept"));
}

#[tokio::test]
async fn a_transient_pool_is_forgotten_once_it_stops() {
    let connection = test_connection().await;
    let pool = connection
        .create_storage_pool(&pool_xml("gone"))
        .await
        .unwrap();
    pool.destroy().await.unwrap();
    assert!(
        connection
            .storage_pool("gone")
            .await
            .unwrap_err()
            .is_no_storage_pool()
    );
}

#[tokio::test]
async fn a_lookup_by_path_that_the_driver_lacks_is_unsupported() {
    let connection = test_connection().await;
    let error = connection.storage_pool_at("/see/kept").await.unwrap_err();
    assert!(error.is_unsupported(), "{error}");
}
