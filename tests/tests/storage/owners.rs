//! The system's daemon gives files to its emulators' account: never the user's.

use std::path::PathBuf;

use see_core::Identifier;
use see_tests::{Footprint, Home, Lab, assert_nothing_remains};
use serde_json::json;

use crate::support::*;

/// What QEMU takes for a kernel: only the header that the boot protocol of x86 asks for.
fn kernel() -> Vec<u8> {
    let mut kernel = vec![0; 64 << 10];
    kernel[0x1f1] = 4;
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x020c_u16.to_le_bytes());
    // Loaded high, where an initial file system may lie anywhere below 2 GiB.
    kernel[0x211] = 1;
    kernel[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    kernel
}

#[test]
fn on_the_system_daemon_kernel_initrd_and_image_keep_owner_and_mode_before_during_and_after_a_run()
{
    runtime().block_on(async {
        let home = Home::passable();
        let write = |name: &str, content: &[u8]| -> PathBuf {
            home.write(&format!("users/{name}"), content)
        };
        std::fs::create_dir(home.path("users")).expect("the home is writable");
        let kernel = write("vmlinuz", &kernel());
        let initrd = write("initrd.img", &[0; 4096]);
        let image = write("base.img", &[0; 1 << 20]);
        home.write(
            "domain.xml",
            format!(
                "<domain type='qemu'><memory unit='MiB'>64</memory><os>\
                 <type arch='x86_64' machine='pc'>hvm</type><kernel>{}</kernel><initrd>{}</initrd></os>\
                 <devices><disk type='file'><target dev='vda' bus='virtio'/></disk></devices></domain>",
                kernel.display(),
                initrd.display()
            ),
        );
        let context = json!({
            "hypervisor": "qemu:///system",
            "domain": { "configuration": "domain.xml" },
            "disk": { "image": image },
            "agent": { "transport": "none" },
        });
        write_run(&home, &context, None);
        let users = home.path("users");
        let before = Footprint::of(&users);

        let lab = Lab::new(&home);
        let identifier = Identifier::random();
        let mut watched = lab
            .allocate_as(&home.path("run.json"), identifier)
            .await
            .expect("the machine can be made");
        before.assert_unchanged(&users);
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        before.assert_unchanged(&users);
        watched.end().await;
        before.assert_unchanged(&users);
        lab.finish().await;
        assert_nothing_remains(&identifier.to_string());
    });
}
