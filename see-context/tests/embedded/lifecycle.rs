//! A sandbox from allocation to release.

use see_core::{ErrorKind, Identifier, SandboxChange, SandboxState};

use crate::support::{LIMIT, Lab, emulator_runs, told};

const PLAIN: &str =
    r#"{"acceleration": "tcg", "memory": "64MiB", "disk": {"image": "base.qcow2"}}"#;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_sandbox_lives_through_every_state_and_leaves_nothing() {
    runtime().block_on(async {
        let lab = Lab::new();
        let before = std::fs::read(lab.image()).unwrap();
        let identifier = Identifier::random();
        let mut environment = lab.allocate(PLAIN, identifier).await.unwrap();
        let machine = environment.machine().clone();
        assert_eq!(machine.identifier(), identifier);
        assert_eq!(machine.state().await.unwrap(), SandboxState::Shutoff);
        assert!(!machine.has_network());
        let mut changes = machine.watch();

        let mut turn = environment.turn().await.unwrap();
        turn.poweron().await.unwrap();
        assert_eq!(machine.state().await.unwrap(), SandboxState::Running);
        told(&mut changes, SandboxChange::State(SandboxState::Running)).await;
        assert!(emulator_runs(identifier));

        let picture = machine.screenshot().unwrap().take().await.unwrap();
        assert!(
            picture.bytes.starts_with(b"\x89PNG"),
            "{}",
            picture.mime_type
        );

        let channel = machine.guest_channel().unwrap();
        let open = channel.open().await.unwrap();
        let taken = channel.open().await.err().map(|error| error.kind());
        assert_eq!(taken, Some(ErrorKind::Unavailable));
        drop(open);
        channel.open().await.unwrap();

        turn.pause().await.unwrap();
        assert_eq!(machine.state().await.unwrap(), SandboxState::Paused);
        told(&mut changes, SandboxChange::State(SandboxState::Paused)).await;
        turn.resume().await.unwrap();
        told(&mut changes, SandboxChange::State(SandboxState::Running)).await;
        turn.poweroff().await.unwrap();
        told(&mut changes, SandboxChange::State(SandboxState::Shutoff)).await;
        assert_eq!(machine.state().await.unwrap(), SandboxState::Shutoff);

        turn.poweron().await.unwrap();
        drop(turn);
        let ended = environment.deallocate().await;
        assert!(ended.errors.is_empty(), "{:?}", ended.errors);
        lab.assert_nothing_left(identifier);
        assert_eq!(std::fs::read(lab.image()).unwrap(), before);
        lab.host.finish(LIMIT).await.unwrap();
    });
}

#[test]
fn several_sandboxes_of_one_process_are_independent_and_the_root_goes_with_the_last() {
    runtime().block_on(async {
        let lab = Lab::new();
        let identifiers = [(); 3].map(|()| Identifier::random());
        let [first, second, third] = identifiers;
        let allocated = tokio::join!(
            lab.allocate(PLAIN, first),
            lab.allocate(PLAIN, second),
            lab.allocate(PLAIN, third),
        );
        let mut first_one = allocated.0.unwrap();
        let mut second_one = allocated.1.unwrap();
        let third_one = allocated.2.unwrap();
        let root = root_of(&first_one);
        first_one.turn().await.unwrap().poweron().await.unwrap();
        second_one.turn().await.unwrap().poweron().await.unwrap();
        assert!(first_one.deallocate().await.errors.is_empty());
        assert!(!emulator_runs(first));
        assert!(emulator_runs(second), "another sandbox was ended");
        let state = second_one.machine().state().await.unwrap();
        assert_eq!(state, SandboxState::Running);
        assert!(root.join("users").join(second.to_string()).exists());
        assert!(third_one.deallocate().await.errors.is_empty());
        assert!(second_one.deallocate().await.errors.is_empty());
        for identifier in identifiers {
            lab.assert_nothing_left(identifier);
        }

        // libvirt's driver stays open in this process; a later sandbox gets the root anew.
        let again = Identifier::random();
        let mut environment = lab.allocate(PLAIN, again).await.unwrap();
        environment.turn().await.unwrap().poweron().await.unwrap();
        assert_eq!(root_of(&environment), root);
        assert!(environment.deallocate().await.errors.is_empty());
        lab.assert_nothing_left(again);
        lab.host.finish(LIMIT).await.unwrap();
    });
}

fn root_of(environment: &see_core::Environment) -> std::path::PathBuf {
    let native = environment.machine().native().unwrap();
    let native: &see_context::Native = native.downcast_ref().unwrap();
    let uri = native.connection.uri().to_owned();
    uri.split_once("root=").unwrap().1.into()
}

#[test]
fn a_full_copy_starts_without_the_base_image() {
    runtime().block_on(async {
        let lab = Lab::new();
        let pool = lab.folder.path().join("pool");
        std::fs::create_dir(&pool).unwrap();
        let identifier = Identifier::random();
        let json = r#"{"acceleration": "tcg", "disk": {"image": "base.qcow2",
            "clone": {"storage_pool_path": "pool", "copy_on_write": false}}}"#;
        let mut environment = lab.allocate(json, identifier).await.unwrap();
        assert!(pool.join(identifier.to_string()).is_dir());
        std::fs::remove_file(lab.image()).unwrap();
        environment.turn().await.unwrap().poweron().await.unwrap();
        assert!(environment.deallocate().await.errors.is_empty());
        assert_eq!(std::fs::read_dir(&pool).unwrap().count(), 0);
        lab.assert_nothing_left(identifier);
        lab.host.finish(LIMIT).await.unwrap();
    });
}

#[test]
fn an_allocation_that_fails_or_is_stopped_leaves_nothing() {
    runtime().block_on(async {
        let lab = Lab::new();
        // libvirt itself refuses a machine type that it does not know, behind everything else.
        let xml = "<domain type='qemu'><memory>65536</memory>\
            <os><type machine='no-such'>hvm</type></os>\
            <devices><disk device='disk'><target dev='vda'/></disk></devices></domain>";
        std::fs::write(lab.folder.path().join("domain.xml"), xml).unwrap();
        let identifier = Identifier::random();
        let json =
            r#"{"domain": {"configuration": "domain.xml"}, "disk": {"image": "base.qcow2"}}"#;
        let error = lab.allocate(json, identifier).await.unwrap_err();
        assert_eq!(error.operation(), Some("define the domain"), "{error}");
        lab.assert_nothing_left(identifier);

        let prepared = lab.prepare(PLAIN).await.unwrap();
        let stop = see_core::Stop::new();
        let identifier = Identifier::random();
        let options = see_core::AllocateOptions {
            identifier: Some(identifier),
            ..Default::default()
        };
        let allocating = lab.host.allocate(prepared, options, stop.clone());
        let stopping = async {
            let name = format!("see-{identifier}");
            let made = std::path::Path::new("/var/tmp").join(name);
            crate::support::until("the disk's folder", || async { made.exists() }).await;
            stop.stop();
        };
        let (allocated, ()) = tokio::join!(allocating, stopping);
        match allocated {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Stopped, "{error}"),
            // It was done before it looked.
            Ok(environment) => assert!(environment.deallocate().await.errors.is_empty()),
        }
        lab.assert_nothing_left(identifier);
        lab.host.finish(LIMIT).await.unwrap();
    });
}

#[test]
fn the_users_xml_keeps_what_it_says_and_kvm_becomes_emulation_when_asked() {
    runtime().block_on(async {
        let lab = Lab::new();
        let xml = "<domain type='kvm'>\n<title>mine &amp; yours</title>\n\
            <metadata><lab:room xmlns:lab='https://lab.example/1'>4</lab:room></metadata>\n\
            <memory unit='MiB'>64</memory><cpu mode='host-passthrough'/>\n\
            <os><type arch='x86_64'>hvm</type></os>\n<devices>\n\
            <disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>\n\
            <disk type='file'><target dev='vda' bus='virtio'/></disk>\n</devices></domain>";
        std::fs::write(lab.folder.path().join("domain.xml"), xml).unwrap();
        let identifier = Identifier::random();
        let json = r#"{"acceleration": "tcg", "domain": {"configuration": "domain.xml"},
            "disk": {"image": "base.qcow2"}}"#;
        let mut environment = lab.allocate(json, identifier).await.unwrap();
        environment.turn().await.unwrap().poweron().await.unwrap();
        let native = environment.machine().native().unwrap();
        let native: &see_context::Native = native.downcast_ref().unwrap();
        let text = native.domain.xml().await.unwrap();
        for part in [
            "<domain type='qemu'",
            "<title>mine &amp; yours</title>",
            "<lab:room xmlns:lab=\"https://lab.example/1\">4</lab:room>",
            &format!("id=\"{identifier}\""),
            "<cpu mode='maximum'",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let domain = see_libvirt::xml::DomainXml::parse(&text).unwrap();
        assert_eq!(domain.label(), Some(identifier.to_string()));
        let disks = domain.disks();
        assert_eq!(disks[0].source, None, "the cdrom got an image");
        assert!(disks[1].source.is_some());
        assert!(environment.deallocate().await.errors.is_empty());
        lab.assert_nothing_left(identifier);
        lab.host.finish(LIMIT).await.unwrap();
    });
}
