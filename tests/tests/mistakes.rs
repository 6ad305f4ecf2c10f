//! What a person reads who made a mistake in a run file, and that nothing was made then.

use std::time::Duration;

use see_tests::{Footprint, Home, guest};

const PATIENCE: Duration = Duration::from_secs(60);

/// A run file with this context and these hooks, as a person would write it.
fn run_file(context: &str, hooks: &str) -> String {
    format!("{{\n  \"version\": 1,\n  \"context\": {context},\n  \"hooks\": {hooks}\n}}\n")
}

const HOOKS: &str = r#"{ "hooks": [{ "name": "commands" }] }"#;

/// A context with the guest's disk and these further lines.
fn context(lines: &str) -> String {
    let image = guest("guest.qcow2");
    let image = serde_json::to_string(&image).expect("a path is JSON");
    format!("{{\n    \"disk\": {{ \"image\": {image} }}{lines}\n  }}")
}

/// The message about a run file, as it stands in the person's terminal.
///
/// Fails unless the run was refused with the exit code for mistakes, in a message on stderr, and unless everything
/// in the home is as it was before: no record, no results, nothing in the folder for sockets.
fn refusal(home: &Home, text: &str) -> String {
    refusal_of(home, text, &[])
}

fn refusal_of(home: &Home, text: &str, arguments: &[&str]) -> String {
    let run_file = home.write("run.json", text);
    let runtime = home.runtime();
    // The ledger's own folders are there already.
    home.listed();
    let before = Footprint::of(home.folder());
    let mut command = home.seectl();
    command
        .env("TMPDIR", &runtime)
        .arg("run")
        .arg(&run_file)
        .args(arguments);
    let outcome = see_tests::finish(see_tests::spawn(&mut command), PATIENCE);
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    assert_eq!(outcome.stdout, "", "{outcome:#?}");
    before.assert_unchanged(home.folder());
    assert_eq!(home.listed(), Vec::<serde_json::Value>::new());
    outcome
        .stderr
        .replace(&home.folder().display().to_string(), "HOME")
        .replace(&guest("guest.qcow2").display().to_string(), "GUEST")
}

/// Compares with the stored message.
macro_rules! assert_message {
    ($message:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => true }, {
            insta::assert_snapshot!($message);
        })
    };
}

#[test]
fn a_run_file_that_is_not_json() {
    let home = Home::new();
    let text = "{\n  \"version\": 1\n  \"context\": {}\n}\n";
    assert_message!(refusal(&home, text));
}

#[test]
fn a_run_file_that_is_not_there() {
    let home = Home::new();
    let outcome = home.run(["run", "rnu.json"], PATIENCE);
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    assert_message!(
        outcome
            .stderr
            .replace(&home.folder().display().to_string(), "HOME")
    );
}

#[test]
fn a_key_at_the_top_that_nobody_knows() {
    let home = Home::new();
    let text = run_file(&context(""), HOOKS).replace("\"hooks\": {", "\"hoks\": {");
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_key_of_the_context_that_nobody_knows() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"memroy\": \"256MiB\""), HOOKS);
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_key_of_a_hook_that_nobody_knows() {
    let home = Home::new();
    let hooks = r#"{
    "configuration": { "results_folder": "results" },
    "hooks": [
      { "name": "screen", "configuration": { "screenshot_on_evnt": "ready" } }
    ]
  }"#;
    assert_message!(refusal(&home, &run_file(&context(""), hooks)));
}

#[test]
fn a_shared_key_that_no_hook_knows() {
    let home = Home::new();
    let hooks =
        r#"{ "configuration": { "result_folder": "results" }, "hooks": [{ "name": "commands" }] }"#;
    assert_message!(refusal(&home, &run_file(&context(""), hooks)));
}

#[test]
fn a_value_of_the_wrong_type() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"cpus\": \"two\""), HOOKS);
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_word_that_is_none_of_the_allowed_ones() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"acceleration\": \"kmv\""), HOOKS);
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_size_that_is_none() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"memory\": \"256 megs\""), HOOKS);
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_step_that_does_not_exist() {
    let home = Home::new();
    let text = run_file(&context(""), HOOKS).replace(
        "\n}\n",
        ",\n  \"protocol\": [\n    { \"step\": \"poweron\" },\n    { \"step\": \"shutdwon\" }\n  ]\n}\n",
    );
    assert_message!(refusal(&home, &text));
}

#[test]
fn an_override_of_the_wrong_type() {
    let home = Home::new();
    let text = run_file(&context(""), HOOKS);
    assert_message!(refusal_of(&home, &text, &["--set", "context.cpus=many"]));
}

#[test]
fn an_image_that_is_not_there() {
    let home = Home::new();
    let context = r#"{ "disk": { "image": "gest.qcow2" } }"#;
    assert_message!(refusal(&home, &run_file(context, HOOKS)));
}

#[test]
fn an_image_of_a_provider_that_is_not_there() {
    let home = Home::new();
    let context = r#"{
    "disk": { "image": { "provider": "dummy", "provider_configuration": { "path": "gest.qcow2" } } }
  }"#;
    assert_message!(refusal(&home, &run_file(context, HOOKS)));
}

#[test]
fn a_context_without_a_disk() {
    let home = Home::new();
    assert_message!(refusal(&home, &run_file("{ \"cpus\": 1 }", HOOKS)));
}

#[test]
fn a_hook_that_nobody_knows() {
    let home = Home::new();
    let hooks = r#"{
    "hooks": [
      { "name": "commands" },
      { "name": "scren" }
    ]
  }"#;
    assert_message!(refusal(&home, &run_file(&context(""), hooks)));
}

#[test]
fn a_provider_that_nobody_knows() {
    let home = Home::new();
    let context = r#"{
    "disk": { "image": { "provider": "dumy", "provider_configuration": { "path": "/guest.qcow2" } } }
  }"#;
    assert_message!(refusal(&home, &run_file(context, HOOKS)));
}

#[test]
fn a_backend_that_nobody_knows() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"backend\": \"qmeu\""), HOOKS);
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_domain_that_is_not_there() {
    let home = Home::new();
    let text = run_file(
        &context(",\n    \"domain\": { \"configuration\": \"domian.xml\" }"),
        HOOKS,
    );
    assert_message!(refusal(&home, &text));
}

/// The message about a run file whose domain is described by this text.
fn refusal_of_domain(home: &Home, xml: &str) -> String {
    home.write("domain.xml", xml);
    let text = run_file(
        &context(",\n    \"domain\": { \"configuration\": \"domain.xml\" }"),
        HOOKS,
    );
    refusal(home, &text)
}

#[test]
fn a_domain_that_is_not_xml() {
    let home = Home::new();
    assert_message!(refusal_of_domain(&home, "{ \"type\": \"qemu\" }\n"));
}

#[test]
fn a_domain_whose_xml_is_broken() {
    let home = Home::new();
    let xml =
        "<domain type='qemu'>\n  <devices>\n    <disk type='file'>\n  </devices>\n</domain>\n";
    assert_message!(refusal_of_domain(&home, xml));
}

#[test]
fn a_domain_that_is_other_xml() {
    let home = Home::new();
    assert_message!(refusal_of_domain(
        &home,
        "<network>\n  <name>n</name>\n</network>\n"
    ));
}

#[test]
fn a_domain_without_devices() {
    let home = Home::new();
    let xml = "<domain type='qemu'>\n  <memory unit='MiB'>128</memory>\n  <os><type>hvm</type></os>\n</domain>\n";
    assert_message!(refusal_of_domain(&home, xml));
}

#[test]
fn a_domain_without_a_disk_to_take_the_image() {
    let home = Home::new();
    let xml = "<domain type='qemu'>\n  <memory unit='MiB'>128</memory>\n  <os><type>hvm</type></os>\n  \
               <devices>\n    <disk type='file' device='cdrom'>\n      <target dev='hda' bus='ide'/>\n    \
               </disk>\n  </devices>\n</domain>\n";
    assert_message!(refusal_of_domain(&home, xml));
}

#[test]
fn a_hypervisor_that_does_not_exist() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"hypervisor\": \"qmeu:///system\""), HOOKS);
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_hypervisor_that_does_not_answer() {
    let home = Home::new();
    let uri = "qemu+unix:///system?socket=/nowhere/libvirt-sock";
    let text = run_file(
        &context(&format!(",\n    \"hypervisor\": \"{uri}\"")),
        HOOKS,
    );
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_domain_of_another_hypervisor_than_the_uris() {
    let home = Home::new();
    home.write(
        "domain.xml",
        "<domain type='lxc'>\n  <os><type>exe</type></os>\n  <devices/>\n</domain>\n",
    );
    let text = run_file(
        &context(
            ",\n    \"hypervisor\": \"qemu:///system\",\n    \"domain\": { \"configuration\": \"domain.xml\" }",
        ),
        HOOKS,
    );
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_hypervisor_of_another_backend_than_the_named_one() {
    let home = Home::new();
    let text = run_file(
        &context(",\n    \"backend\": \"qemu\",\n    \"hypervisor\": \"lxc:///\""),
        HOOKS,
    );
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_backend_on_the_command_line_that_contradicts_the_hypervisor() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"hypervisor\": \"lxc:///\""), HOOKS);
    assert_message!(refusal_of(&home, &text, &["--backend", "qemu"]));
}

#[test]
fn hooks_that_are_null() {
    let home = Home::new();
    assert_message!(refusal(&home, &run_file(&context(""), "null")));
}

#[test]
fn hooks_that_are_a_list_of_words() {
    let home = Home::new();
    assert_message!(refusal(
        &home,
        &run_file(&context(""), r#"["commands", "screen"]"#)
    ));
}

#[test]
fn hooks_whose_list_is_of_words() {
    let home = Home::new();
    let hooks = r#"{ "hooks": ["commands", "screen"] }"#;
    assert_message!(refusal(&home, &run_file(&context(""), hooks)));
}

#[test]
fn a_network_on_the_embedded_hypervisor() {
    let home = Home::new();
    let text = run_file(&context(",\n    \"network\": { \"mode\": \"nat\" }"), HOOKS);
    assert_message!(refusal(&home, &text));
}

#[test]
fn a_sample_that_is_not_there() {
    let home = Home::new();
    let text = run_file(&context(""), HOOKS);
    assert_message!(refusal_of(&home, &text, &["--sample", "smaple.sh"]));
}

#[test]
fn a_mistake_is_told_in_json_where_that_was_asked_for() {
    let home = Home::new();
    let run_file = home.write("run.json", "{ \"version\": 1, \"contxt\": {} }");
    let outcome = home.run(
        [
            "run".as_ref(),
            run_file.as_os_str(),
            "--output".as_ref(),
            "json".as_ref(),
        ],
        PATIENCE,
    );
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(told.contains("`context`"), "{outcome:#?}");
    for line in outcome.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
    }
}
