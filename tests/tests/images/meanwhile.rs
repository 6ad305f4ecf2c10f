//! What happens to an image at its server while it is on its way: it shrinks, the server asks for time, the login
//! is revoked, the end is missing.

use std::time::Duration;

use see_core::ErrorKind;
use see_tests::Dice;
use see_tests::services::{self, Glance, Nginx, Signal};
use serde_json::json;

use crate::support::Desk;

/// Large enough that a stop in the middle comes in time.
const SIZE: usize = 32 << 20;
/// The same from nginx, which sends eight of them a second where a path says so.
const SLOW_SIZE: usize = 12 << 20;
/// So much is there when it happens.
const BEGUN: u64 = 1 << 20;
/// How long a server that asks for time may take to be asked.
const ASKED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_shrank_behind_its_broken_download_is_fetched_anew() {
    let mut dice = Dice::of("shrunk");
    let nginx = Nginx::start();
    let (old, new) = (dice.bytes(SLOW_SIZE), dice.bytes(70_000));
    nginx.put("guest.img", &old);
    let desk = Desk::new();
    // Nothing but its length tells the one from the other.
    let section = json!({ "provider": "http", "uri": nginx.url("bare/guest.img") });
    let shrinking = async {
        tokio::task::block_in_place(|| {
            nginx.stop(Signal::KILL);
            nginx.put("guest.img", &new);
            nginx.again();
        });
    };
    let image = desk.pull_while(&section, BEGUN, shrinking).await;
    let path = image.expect("the new one is there").path;
    assert!(std::fs::read(path).expect("the image is there") == new);
    let log = nginx.log();
    let beyond: Vec<_> = log.iter().filter(|request| request.status == 416).collect();
    assert_eq!(beyond.len(), 1, "the rest was asked for, once: {log:#?}");
    assert!(beyond[0].range.is_some(), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_time_is_given_it_and_the_download_goes_on() {
    let nginx = Nginx::start();
    let content = Dice::of("closed for a while").bytes(SLOW_SIZE);
    nginx.put("guest.img", &content);
    let desk = Desk::new();
    let section = json!({ "provider": "http", "uri": nginx.url("closable/guest.img") });
    let refusals = || {
        let log = nginx.log();
        log.iter().filter(|request| request.status == 503).count()
    };
    let closing = async {
        tokio::task::block_in_place(|| {
            nginx.stop(Signal::KILL);
            nginx.put("closed", b"");
            nginx.again();
        });
        let refused = async {
            while refusals() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let refused = tokio::time::timeout(ASKED, refused).await;
        refused.unwrap_or_else(|_| panic!("waited {ASKED:?} for the rest to be asked for"));
        std::fs::remove_file(nginx.files().join("closed")).expect("it was put there");
    };
    let image = desk.pull_while(&section, BEGUN, closing).await;
    let path = image.expect("the server is open again").path;
    assert!(std::fs::read(path).expect("the image is there") == content);
    assert_eq!(refusals(), 1, "it asked for two seconds, and got them");
    let log = nginx.log();
    let refused = log.iter().position(|request| request.status == 503);
    let refused = refused.expect("it was counted");
    let next = log.get(refused + 1).expect("the rest was asked for");
    let waited = next.at.saturating_sub(log[refused].at);
    // nginx counts milliseconds, and looks at its clock once in a round.
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
    let is_rest = |range: &str| !range.starts_with("bytes=0-");
    assert!(next.range.as_deref().is_some_and(is_rest), "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_while_the_image_downloads_is_renewed_and_the_rest_fetched() {
    let glance = services::glance().alone();
    let content = Dice::of("a revoked token").bytes(SIZE);
    let id = glance.upload("behind a revoked token", &content);
    let user = Glance::USER;
    let section = json!({ "provider": "glance", "name": id, "provider_configuration": {
        "interface": "internal",
        "session": { "cacert": glance.authority().file() },
        "os_auth": { "auth_url": glance.secure_identity_url(), "username": user.name,
            "password": user.password, "project_name": user.project,
            "user_domain_name": "Default", "project_domain_name": "Default" } } });
    let desk = Desk::new();
    let revoking = async {
        tokio::task::block_in_place(|| {
            glance.close_https();
            glance.revoke_all(user);
            glance.open_https();
        });
    };
    let image = desk.pull_while(&section, BEGUN, revoking).await;
    let image = image.expect("it logs in again");
    assert!(std::fs::read(image.path).expect("the image is there") == content);
    glance.delete(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_end_is_missing_at_glance_is_told_with_what_came() {
    let glance = services::glance().shared();
    let id = glance.upload("an image without its end", &[3; 5000]);
    glance.shorten(&id, 3000);
    // Glance ends its answer early and keeps the connection open, so that nothing but the wait tells.
    let user = Glance::USER;
    let section = json!({ "provider": "glance", "name": id, "provider_configuration": {
        "cache": { "patience": "3s" },
        "os_auth": { "auth_url": glance.identity_url(), "username": user.name,
            "password": user.password, "project_name": user.project,
            "user_domain_name": "Default", "project_domain_name": "Default" } } });
    let error = Desk::new().pull(&section).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(
        error.to_string().contains("waited 3.0s for a byte"),
        "{error}"
    );
    let advice = error.advice_text().expect("it says what to do");
    assert!(advice.contains("3000 of 5000 bytes"), "{error:?}");
    glance.delete(&id);
}
