//! Containers that SEE or libvirt refuses.

use see_tests::Footprint;

use super::*;

#[test]
fn a_container_that_libvirt_refuses_leaves_nothing() {
    let home = home();
    let domain = DOMAIN
        .replace("ROOT", &guest("container").to_string_lossy())
        .replace("<type>exe</type>", "<type arch='none'>hvm</type>");
    home.write("container.xml", domain);
    let outcome = run(
        &home,
        &run_file(&home, &context(&json!({})), &Value::Null),
        "true",
    );
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    assert!(outcome.stdout.contains("define the domain"), "{outcome:#?}");
    assert_clean(&home, &outcome);
}

#[test]
fn a_container_that_shares_what_is_the_hosts_is_refused_with_its_place() {
    let home = home();
    let file = run_file(&home, &context(&json!({})), &Value::Null);
    let root = guest("container");
    let root = root.to_string_lossy();
    let filesystem =
        "    <filesystem type='mount'><source dir='ROOT'/><target dir='/'/></filesystem>\n  ";
    let with = |more: &str| {
        let domain = DOMAIN.replace("ROOT", &root);
        domain.replace("<devices>", &format!("{more}<devices>"))
    };
    for (domain, part) in [
        (
            DOMAIN.replace(filesystem, ""),
            "container.xml:1:1: context.domain.configuration: the container has no root",
        ),
        (
            DOMAIN.replace("ROOT", "/"),
            "container.xml:5:5: context.domain.configuration: the container's root is the host's",
        ),
        (
            DOMAIN.replace("ROOT", "/none"),
            "there is no folder at /none",
        ),
        (
            with(
                "<idmap><uid start='0' target='0' count='9'/><gid start='0' target='0' count='9'/>\
                 </idmap>",
            ),
            "container.xml:4:10: context.domain.configuration: the <idmap> makes the container's uid 0 the host's root",
        ),
        (
            with(
                "<idmap><uid start='0' target='100000' count='9'/><gid start='0' target='100000' count='9'/>\
                 <uid start='9' target='0' count='9'/></idmap>",
            ),
            "makes the container's uid 9 the host's root",
        ),
        (
            with(
                "<idmap><uid start='0' target='100000' count='9'/><gid start='0' target='100000' count='9'/>\
                 <uid start='9' target='65535' count='9'/></idmap>",
            ),
            "makes the container's uid 9 the host's uid 65535, and those below 65536 belong to the host's own accounts",
        ),
        (
            with(
                "<idmap><uid start='0' target='100000' count='9'/><gid start='0' target='100000' count='9'/>\
                 </idmap><idmap><gid start='9' target='0' count='9'/></idmap>",
            ),
            "a second <idmap>",
        ),
        (
            with(
                "<idmap><uid start='0' target='100000' count='9'/><gid start='0' target=' 0' count='9'/>\
                 </idmap>",
            ),
            "are not all numbers",
        ),
        (
            with("<lxc:namespace><lxc:sharenet type='pid' value='1'/></lxc:namespace>").replace(
                "<domain ",
                "<domain xmlns:lxc='http://libvirt.org/schemas/domain/lxc/1.0' ",
            ),
            "container.xml:4:3: context.domain.configuration: <lxc:namespace> is refused",
        ),
    ] {
        home.write("container.xml", &domain);
        let outcome = run(&home, &file, "true");
        assert_eq!(outcome.code, Some(2), "{domain}: {outcome:#?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(home.recorded(), Vec::<String>::new());
    assert_eq!(listed(&home.path("shared")), Vec::<String>::new());
}

#[test]
fn a_container_with_a_further_folder_or_disk_of_the_host_is_refused_and_the_host_keeps_its_files() {
    let home = home();
    let folder = home.path("user");
    std::fs::create_dir(&folder).expect("the home is writable");
    std::fs::write(folder.join("thesis"), "mine").expect("the folder is writable");
    let before = Footprint::of(&folder);
    let domain = DOMAIN.replace("ROOT", &guest("container").to_string_lossy());
    let devices = [
        "<filesystem type='mount'><source dir='FOLDER'/><target dir='/mnt'/></filesystem>",
        // As root in the container can mount it anew, writable.
        "<filesystem type='mount'><source dir='FOLDER'/><target dir='/mnt'/><readonly/></filesystem>",
        "<filesystem type='bind'><source dir='FOLDER'/><target dir='/mnt'/></filesystem>",
        "<filesystem type='file'><source file='FOLDER/thesis'/><target dir='/mnt'/></filesystem>",
        "<disk type='file' device='disk'><source file='FOLDER/thesis'/><target dev='sda'/></disk>",
    ];
    for mode in [Value::Null, json!("none"), json!("isolated")] {
        for device in devices {
            let device = device.replace("FOLDER", &folder.to_string_lossy());
            let domain = domain.replace("</devices>", &format!("{device}</devices>"));
            home.write("container.xml", domain);
            let mut context = context(&json!({ "agent": { "transport": "none" } }));
            if !mode.is_null() {
                context["network"] = json!({ "mode": mode });
            }
            let file = run_file(&home, &context, &Value::Null);
            let sample = "for file in /mnt/* /dev/sda; do rm -f $file; echo HOSTILE >$file; done";
            let outcome = run(&home, &file, sample);
            before.assert_unchanged(&folder);
            assert_eq!(outcome.code, Some(2), "{mode}: {device}: {outcome:#?}");
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(
                said.contains("container.xml:6:"),
                "{mode}: {device}: {said}"
            );
        }
    }
    assert_eq!(home.recorded(), Vec::<String>::new());
}
