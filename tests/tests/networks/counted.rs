//! How often the program `nft` is started for a closed run.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::support::{RUN, Site, is_event, sampling, told};

/// The most for a run.
const MOST: usize = 3;

#[test]
fn nft_is_started_three_times_for_a_closed_run_at_most_and_never_while_it_goes_on() {
    let site = Site::new();
    let starts = site.home.write("starts", "");
    let folder = site.home.path("programs");
    std::fs::create_dir(&folder).expect("the home is writable");
    let program = folder.join("nft");
    let text = format!(
        "#!/bin/sh\necho >>'{}'\nexec /usr/sbin/nft \"$@\"\n",
        starts.display()
    );
    std::fs::write(&program, text).expect("the home is writable");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", folder.display());
    for mode in ["isolated", "shared"] {
        std::fs::write(&starts, "").expect("the home is writable");
        let run_file = site.run_file(&format!("{mode}.json"), json!({ "mode": mode }), sampling());
        let mut command = site.command(&run_file, "sleep 3");
        let mut run = see_tests::Live::start(command.env("PATH", &path));
        let mut at = |event: &'static str| {
            let heard = run.wait_for(event, RUN, is_event(event));
            assert!(heard.is_some(), "{mode} ended before {event}: {run:#?}");
            count(&starts)
        };
        let (begun, ended) = (at("post_poweron"), at("sample_finished"));
        assert!(begun > 0, "{mode}: nothing was counted");
        assert_eq!(
            begun, ended,
            "{mode}: nft was started while the run went on"
        );
        let outcome = run.finish(RUN);
        assert_eq!(outcome.code, Some(0), "{mode}: {outcome:#?}");
        assert_eq!(told(&outcome, "/isolation/verdict"), json!("proven"));
        let all = count(&starts);
        assert!(all <= MOST, "{mode}: nft was started {all} times");
        assert_eq!(site.traces(), Vec::<String>::new());
    }
}

fn count(starts: &Path) -> usize {
    let text = std::fs::read_to_string(starts).expect("it was written");
    text.lines().count()
}
