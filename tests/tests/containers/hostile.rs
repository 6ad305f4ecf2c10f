//! Containers whose XML is made to let them out, or to write to a file of the user.

use see_tests::hostile::Target;

use super::*;

/// Devices that are admitted, since they become the sandbox's own or are taken out.
const MADE_HARMLESS: &str = "<emulator>FILE</emulator>\
    <console type='pty'><log file='FILE' append='off'/></console>\
    <interface type='bridge'><source bridge='nobr'/></interface>\
    <interface type='network'><source network='default'/></interface>";

/// Writes to each terminal, and calls the host.
const TRY: &str = "for line in /dev/tty* /dev/console /dev/pts/*; do (echo HOSTILE >$line) 2>/dev/null & done; \
    (echo HOSTILE | nc -w 2 127.0.0.1 PORT) 2>/dev/null; ls /sys/class/net";

#[test]
fn what_is_made_harmless_lets_no_container_out() {
    let token = std::fs::read_to_string(guest("token")).expect("the token is text");
    for mode in ["none", "isolated", "shared"] {
        let home = home();
        let mut target = Target::new(&home.path("user"));
        let domain = DOMAIN
            .replace("ROOT", &guest("container").to_string_lossy())
            .replace("</devices>", &format!("{MADE_HARMLESS}</devices>"));
        let domain = target.write(&target.filled_in(&domain));
        let mut context = context(&json!({ "network": { "mode": mode } }));
        context["domain"]["configuration"] = json!(domain);
        let mut sample = target.filled_in(TRY);
        let mut printed = "lo\n".to_owned();
        if mode != "none" {
            context["agent"] = json!({ "transport": "tcp", "port": AGENT_PORT, "token": token });
            sample += &format!("\nset -- 198.51.100.1\n{WHO_ANSWERS}");
            printed = "eth0\nlo\nclosed\nclosed\n".to_owned();
        }
        let outcome = run(&home, &run_file(&home, &context, &Value::Null), &sample);
        assert_eq!(outcome.code, Some(0), "{mode}: {outcome:#?}");
        assert_eq!(stdout(&outcome), printed, "{mode}");
        target.assert_untouched(mode);
        assert_clean(&home, &outcome);
    }
}
