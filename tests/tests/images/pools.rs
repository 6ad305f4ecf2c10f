//! An image that comes into the folder of a storage pool is a volume of that pool at once.

use std::path::Path;

use see_core::{ErrorKind, Identifier};
use see_tests::services::{self, Glance, Swift};
use see_tests::{Home, virsh};
use serde_json::{Value, json};

use crate::support::Desk;

const SYSTEM: &str = "qemu:///system";

/// A running pool over a folder; libvirt looks into it when it is told to, and not by itself.
struct Pool {
    name: String,
    home: Home,
}

impl Pool {
    fn new() -> Self {
        let home = Home::passable();
        let name = format!("see-test-{}", Identifier::random());
        let pool = Self { name, home };
        std::fs::create_dir(pool.folder()).expect("the home is writable");
        let folder = pool.folder();
        let folder = folder.to_str().expect("a test's paths are UTF-8");
        let words = ["pool-create-as", &pool.name, "dir", "--target", folder];
        virsh(SYSTEM, words).expect("`cargo xtask setup --daemon` starts libvirtd");
        pool
    }

    fn folder(&self) -> std::path::PathBuf {
        self.home.path("images")
    }

    fn volumes(&self) -> String {
        virsh(SYSTEM, ["vol-list", &self.name]).expect("the pool runs")
    }

    /// Pulls what a section names into the pool, and looks for it there.
    async fn assert_found(&self, mut section: Value, content: &[u8]) {
        let settings = &mut section["provider_configuration"];
        settings["path"] = json!(self.folder());
        settings["libvirt_pool"] = json!({ "hypervisor": SYSTEM, "name": self.name });
        assert_eq!(self.volumes().trim(), "");
        let desk = Desk::new();
        let image = desk.pull(&section).await;
        let path = image.unwrap_or_else(|error| panic!("{error:?}")).path;
        assert_eq!(path.parent(), Some(self.folder().as_path()));
        assert!(std::fs::read(&path).expect("the image is there") == content);
        let listed = self.volumes();
        assert!(listed.contains(text(&path)), "{listed}");
        // The configuration names another one, which nobody made.
        section["provider_configuration"]["libvirt_pool"]["name"] = json!("see-test-of-nobody");
        let error = desk.pull(&section).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(error.to_string().contains("see-test-of-nobody"), "{error}");
        assert!(error.advice_text().is_some(), "{error:?}");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // What could not be made cannot be ended; a test that failed says why by itself.
        let _ = virsh(SYSTEM, ["pool-destroy", &self.name]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a test's paths are UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_glance_is_a_volume_of_its_pool_once_it_is_there() {
    let glance = services::glance().shared();
    let content = b"\xff\x00into a pool of libvirt";
    let id = glance.upload("into a pool", content);
    let user = Glance::USER;
    let section = json!({ "provider": "glance", "name": id, "provider_configuration": {
        "os_auth": { "auth_url": glance.identity_url(), "username": user.name,
            "password": user.password, "project_name": user.project,
            "user_domain_name": "Default", "project_domain_name": "Default" } } });
    Pool::new().assert_found(section, content).await;
    glance.delete(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_s3_is_a_volume_of_its_pool_once_it_is_there() {
    let swift = services::swift().shared();
    let content = b"\xff\x00into a pool of libvirt";
    swift.bucket("pools");
    swift.put("pools", "guest.img", content);
    let section = json!({ "provider": "s3", "name": "guest.img", "provider_configuration": {
        "bucket_name": "pools", "auth": { "endpoint_url": swift.endpoint(),
            "region_name": Swift::REGION, "aws_access_key_id": Swift::KEY,
            "aws_secret_access_key": Swift::SECRET } } });
    Pool::new().assert_found(section, content).await;
}
