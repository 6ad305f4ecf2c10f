//! The forms of python-see's files are read as they stand.

use see_core::config::{Configuration, RunFile};
use see_core::{Error, ErrorKind, RunPlan};

use super::standard;

/// Whether the files of the forms below are read, which stand in this folder.
fn read(context: &str, hooks: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("image.qcow2"), qcow2()).unwrap();
    std::fs::create_dir(at("pool")).unwrap();
    std::fs::create_dir(at("host")).unwrap();
    std::fs::create_dir(at("other")).unwrap();
    make_certificate(&at("pem"));
    std::fs::create_dir(at("root")).unwrap();
    std::fs::write(at("root/x"), "").unwrap();
    std::fs::write(
        at("network.xml"),
        "<network><name>n</name><bridge name='b'/><forward mode='nat'/></network>",
    )
    .unwrap();
    let domain = |kind: &str, os: &str, devices: &str| {
        format!(
            "<domain type='{kind}'><name>n</name><memory>262144</memory><os>{os}</os><devices>{devices}</devices></domain>"
        )
    };
    let interface = "<interface type='network'><source network='default'/></interface>";
    let disk = "<disk type='file' device='disk'><source file='/old'/><target dev='hda'/></disk>";
    let hvm = "<type>hvm</type>";
    std::fs::write(
        at("qemu.xml"),
        domain("qemu", hvm, &format!("{disk}{interface}")),
    )
    .unwrap();
    std::fs::write(at("vbox.xml"), domain("vbox", hvm, disk)).unwrap();
    let root = format!(
        "<filesystem type='mount'><source dir='{}'/><target dir='/'/></filesystem>{interface}",
        at("root")
    );
    std::fs::write(
        at("lxc.xml"),
        domain("lxc", "<type>exe</type><init>/bin/sh</init>", &root),
    )
    .unwrap();

    let text = format!(r#"{{ "version": 1, "context": {context}, "hooks": {hooks} }}"#);
    let text = text.replace("HERE", &folder.path().display().to_string());
    let configuration = Configuration::from_str("run.json", &text).unwrap();
    let registries = standard().unwrap();
    let checked = RunFile::read(&configuration).and_then(|run| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(registries.prepare(&run.context, &run.hooks))
            .map(drop)
    });
    match checked {
        // What this host lacks is no matter of the file's form.
        Err(error) if error.kind() == ErrorKind::Configuration && !is_the_hosts(&error) => {
            Err(format!("{context} {hooks}: {}", error.chain()))
        }
        _ => Ok(()),
    }
}

/// The header of an empty image.
fn qcow2() -> Vec<u8> {
    let mut header = vec![0; 3 * 65536];
    header[..4].copy_from_slice(b"QFI\xfb");
    for (at, value) in [
        (4, 2_u32),
        (20, 16),
        (28, 1 << 16),
        (36, 1),
        (44, 65536),
        (52, 131_072),
        (56, 1),
    ] {
        header[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    header
}

/// Whether it says that a hypervisor is not there, which no form of a file can help.
fn is_the_hosts(error: &Error) -> bool {
    error.message().contains("does not answer")
}

/// Makes an authority's certificate and its key, in one file.
fn make_certificate(path: &str) {
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj", "/CN=see", "-days", "2", "-keyout", "-", "-out", path,
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let certificate = std::fs::read(path).unwrap();
    std::fs::write(path, [certificate, made.stdout].concat()).unwrap();
}

const HOOKS: &str = r#"{ "hooks": [] }"#;

#[test]
fn each_documented_form_of_a_context_is_read_as_it_stands() {
    let image = r#""image": "HERE/image.qcow2""#;
    let qemu = r#""hypervisor": "qemu:///system", "domain": { "configuration": "HERE/qemu.xml" }"#;
    let forms = [
        format!(r#"{{ {qemu}, "disk": {{ {image} }} }}"#),
        format!(
            r#"{{ "name": "see.resources.qemu.QEMUResources", {qemu}, "disk": {{ {image} }} }}"#
        ),
        format!(
            r#"{{ {qemu}, "disk": {{ {image}, "clone": {{ "storage_pool_path": "HERE/pool", "copy_on_write": true }} }} }}"#
        ),
        format!(
            r#"{{ {qemu}, "disk": {{ {image}, "clone": {{ "storage_pool_path": "HERE/pool" }} }} }}"#
        ),
        format!(
            r#"{{ {qemu}, "disk": {{ {image} }}, "network": {{ "configuration": "HERE/network.xml" }} }}"#
        ),
        format!(
            r#"{{ {qemu}, "disk": {{ {image} }}, "network": {{ "dynamic_address": {{ "ipv4": "10.177.0.0", "prefix": 16, "subnet_prefix": 24 }} }} }}"#
        ),
        format!(
            r#"{{ {qemu}, "disk": {{ {image} }}, "network": {{ "configuration": "HERE/network.xml", "dynamic_address": {{ "ipv4": "10.177.0.0", "prefix": 16, "subnet_prefix": 24 }} }} }}"#
        ),
        String::from(
            r#"{ "hypervisor": "lxc:///", "domain": { "configuration": "HERE/lxc.xml" } }"#,
        ),
        String::from(
            r#"{ "name": "see.resources.lxc.LXCResources", "domain": { "configuration": "HERE/lxc.xml", "filesystem": { "source_path": "HERE/host", "target_path": "/mnt" } } }"#,
        ),
        String::from(
            r#"{ "hypervisor": "lxc:///", "domain": { "configuration": "HERE/lxc.xml", "filesystem": [{ "source_path": "HERE/host", "target_path": "/mnt" }, { "source_path": "HERE/other", "target_path": "/m2" }] } }"#,
        ),
        format!(
            r#"{{ "name": "see.resources.vbox.VBoxResources", "domain": {{ "configuration": "HERE/vbox.xml" }}, "disk": {{ {image} }} }}"#
        ),
        format!(
            r#"{{ "hypervisor": "vbox:///session", "domain": {{ "configuration": "HERE/vbox.xml" }}, "disk": {{ {image} }} }}"#
        ),
    ];
    let mistakes: Vec<String> = forms
        .iter()
        .filter_map(|form| read(form, HOOKS).err())
        .collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn each_documented_form_of_an_image_is_read_as_it_stands() {
    let os_auth = r#"{ "username": "u", "password": "p", "tenant_name": "t", "auth_url": "https://keystone.example:5000/v3" }"#;
    let forms = [
        r#"{ "provider": "see.image_providers.DummyProvider", "uri": "HERE/image.qcow2" }"#.to_owned(),
        r#"{ "provider": "see.image_providers.DummyProvider", "name": "image.qcow2", "provider_configuration": { "path": "HERE" } }"#.to_owned(),
        r#"{ "provider": "see.image_providers.DummyProvider", "provider_configuration": { "path": "HERE/image.qcow2" } }"#.to_owned(),
        r#"{ "provider": "see.image_providers.LibvirtPoolProvider", "name": "image.qcow2", "provider_configuration": { "hypervisor": "qemu:///system", "storage_pool_path": "HERE" } }"#.to_owned(),
        format!(r#"{{ "provider": "see.image_providers.GlanceProvider", "name": "i", "provider_configuration": {{ "path": "HERE/pool", "os_auth": {os_auth}, "session": {{ "cacert": "HERE/pem", "cert": "HERE/pem" }}, "libvirt_pool": {{ "hypervisor": "qemu:///system", "name": "p" }} }} }}"#),
        format!(r#"{{ "provider": "see.image_providers.GlanceProvider", "uri": "i", "provider_configuration": {{ "target_path": "HERE/pool", "glance_url": "https://glance.example:9292", "os_auth": {os_auth} }} }}"#),
        r#"{ "provider": "see.image_providers.S3Provider", "name": "i", "provider_configuration": { "bucket_name": "b", "path": "HERE/pool", "auth": { "aws_access_key_id": "a", "aws_secret_access_key": "s", "region_name": "eu-west-1", "endpoint_url": "https://s3.example" }, "libvirt_pool": { "hypervisor": "qemu:///system", "name": "p" } } }"#.to_owned(),
    ];
    let read = |image: &String| {
        read(
            &format!(r#"{{ "hypervisor": "qemu:///system", "disk": {{ "image": {image} }} }}"#),
            HOOKS,
        )
        .err()
    };
    let mistakes: Vec<String> = forms.iter().filter_map(read).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn each_documented_form_of_hooks_is_read_as_it_stands() {
    let known = r#"{ "configuration": { "results_folder": "r" }, "hooks": [
        { "name": "plugins.commands.CommandsHook", "configuration": { "agent-host": "192.0.2.1", "agent-port": 8080 } },
        { "name": "plugins.screen.ScreenHook", "configuration": { "screenshot_on_event": "snapshots_capture" } },
        { "name": "plugins.screen.ScreenHook", "configuration": { "screenshot_on_event": ["a", "b"], "results_folder": "s" } },
        { "name": "plugins.timers.TimersHook", "configuration": { "timers": { "a": 60, "b": 0.5 } } } ] }"#;
    // The tutorial's, whose other hooks are not there yet: they have to be marked.
    let tutorial = r#"{ "configuration": { "results_folder": "r", "start_processing_on_event": "start_analysis",
            "wait_processing_on_event": "wait_analysis" }, "hooks": [
        { "name": "plugins.commands.CommandsHook", "configuration": { "agent-port": 8080 } },
        { "name": "plugins.disk.DiskCheckPointHook", "required": false, "configuration": { "checkpoint_on_event": ["a"], "delete_checkpoints": false } },
        { "name": "plugins.disk.DiskStateAnalyser", "required": false },
        { "name": "plugins.memory.MemoryHook", "required": false },
        { "name": "plugins.memory.VolatilityHook", "required": false },
        { "name": "plugins.network.NetworkTracerHook", "required": false },
        { "name": "plugins.network.NetworkAnalysisHook", "required": false },
        { "name": "vnc.VNCHook", "required": false, "configuration": { "start_vnc": "ready" } } ] }"#;
    let context = r#"{ "disk": { "image": "HERE/image.qcow2" } }"#;
    for hooks in [known, tutorial] {
        assert_eq!(read(context, hooks), Ok(()));
        assert_eq!(read(context, &format!(r#"{{ "hooks": {hooks} }}"#)), Ok(()));
    }
    let required = tutorial
        .replace(r#""required": false, "#, "")
        .replace(r#", "required": false"#, "");
    let error = read(context, &required).unwrap_err();
    assert!(
        error
            .contains("python-see's hook `plugins.disk.DiskCheckPointHook` is not in this version"),
        "{error}"
    );
}

fn notes(text: &str) -> Vec<String> {
    let configuration = Configuration::from_str("run.json", text).unwrap();
    RunPlan::new(configuration).notes(&standard().unwrap())
}

#[test]
fn a_file_of_ours_has_no_notes() {
    let text = r#"{ "version": 1, "context": { "disk": { "image": "a.qcow2" } }, "hooks": { "hooks": [{ "name": "screen" }] } }"#;
    assert_eq!(notes(text), [""; 0]);
}

#[test]
fn what_python_see_did_otherwise_is_told_where_the_file_leaves_it_open() {
    let hooks = r#"{ "hooks": [{ "name": "plugins.commands.CommandsHook" }, { "name": "plugins.screen.ScreenHook" }] }"#;
    let run = |context: &str, more: &str| {
        notes(&format!(
            r#"{{ "version": 1, "context": {context}, "hooks": {hooks}{more} }}"#
        ))
    };
    let told = run(
        r#"{ "disk": { "image": "a", "clone": { "storage_pool_path": "/p" } } }"#,
        "",
    );
    for words in [
        "qemu:///system",
        "copy_on_write",
        "deadline",
        "PNG",
        "protocol",
    ] {
        let count = told.iter().filter(|note| note.contains(words)).count();
        assert_eq!(count, 1, "{words}: {told:?}");
    }
    let context = r#"{ "hypervisor": "qemu:///system", "disk": { "image": "a", "clone": { "copy_on_write": false } } }"#;
    let told = run(context, r#", "protocol": []"#);
    assert_eq!(told.len(), 2, "{told:?}");
    let told = run(
        r#"{ "name": "see.resources.lxc.LXCResources" }"#,
        r#", "protocol": []"#,
    );
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_hook_that_is_left_out_is_told_with_its_place() {
    let text = r#"{ "version": 1, "context": {}, "protocol": [], "hooks": { "hooks": [
        { "name": "comands", "required": false },
        { "name": "plugins.memory.VolatilityHook", "required": false } ] } }"#;
    let told = notes(text);
    assert!(told[0].starts_with("run.json:2:"), "{told:?}");
    assert!(told[0].contains("`comands`"), "{told:?}");
    let missing = "python-see's hook `plugins.memory.VolatilityHook` is not in this version";
    assert!(told[1].contains(missing), "{told:?}");
}
