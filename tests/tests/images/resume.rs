//! A server that is stopped in the middle of an image and started again: the transfer goes on where it broke.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use see_core::{ImagePhase, ImageProgress};
use see_tests::services::{self, Glance, Nginx, Signal, Swift};
use see_tests::{Dice, rounds, until};
use serde_json::{Value, json};

use crate::support::*;

/// Large enough that a stop in the middle comes in time.
const SIZE: usize = 96 << 20;
/// The same from nginx, which sends eight of them a second where a path says so.
const SLOW_SIZE: usize = 24 << 20;
/// How long received bytes may take to the disk on a busy host.
const WRITTEN: Duration = Duration::from_secs(30);
/// What the heads of answers take at most, which Glance counts as well.
const HEADS: u64 = 64 << 10;
/// How a server is stopped in one download, one after the other.
const STOPS: [Signal; 3] = [Signal::KILL, Signal::TERM, Signal::KILL];

/// Pulls an image whose server is stopped at random bytes; gives the bytes at which it was stopped.
async fn pulled_with_stops(
    dice: &mut Dice,
    desk: &Desk,
    section: &Value,
    content: &[u8],
    stop: impl Fn(Signal),
    again: impl Fn(),
    sent: impl Fn() -> u64,
) -> Vec<u64> {
    let progress = ImageProgress::new();
    let mut listener = progress.listen();
    let size = content.len() as u64;
    let part = size * 8 / 10 / STOPS.len() as u64;
    let instants: Vec<u64> = (0..STOPS.len() as u64)
        .map(|number| dice.within(number * part + 1..(number + 1) * part))
        .collect();
    let mut sent_before = 0;
    let breaking = async {
        for (instant, signal) in instants.iter().zip(STOPS) {
            let reached = listener
                .wait_for(|report| report.phase == ImagePhase::Fetching && report.done >= *instant)
                .await
                .map(|report| report.done);
            // A download that ends too early tells itself why.
            let Ok(done) = reached else { return };
            tokio::task::block_in_place(|| {
                stop(signal);
                println!("{signal:?} at byte {instant} of {size}, seen at {done}");
                assert_partly_there(&desk.store(), *instant);
                sent_before = sent();
                again();
            });
        }
    };
    let (image, ()) = tokio::join!(desk.pull_telling(section, progress), breaking);
    let image = image.expect("the server was there again");
    let pulled = std::fs::read(&image.path).expect("the image is there");
    assert!(pulled == content, "the image differs: {section}");
    // A server logs an answer after its client has it.
    let since = || sent().saturating_sub(sent_before);
    until("the rest in the server's log", WRITTEN, || since() > 0);
    let rest = size - instants.last().expect("it was stopped") + HEADS;
    assert!(
        since() <= rest,
        "{} bytes after the last stop, {rest} were missing",
        since()
    );
    instants
}

/// Fails unless the store has so many bytes of an image, and no image.
fn assert_partly_there(store: &Path, bytes: u64) {
    let images = std::fs::read_dir(store.join("images")).expect("the store is there");
    assert_eq!(images.count(), 0, "an image that is not whole");
    // What was received may still be on its way to the disk.
    until("what came is on the disk", WRITTEN, || {
        let files = std::fs::read_dir(store.join("partial")).expect("the store is there");
        let sizes = files.flatten().filter_map(|file| file.metadata().ok());
        sizes.map(|found| found.len()).max() >= Some(bytes)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke_when_the_web_server_is_stopped() {
    let mut dice = Dice::of("resume from nginx");
    for _ in 0..rounds(1) {
        let nginx = Nginx::start();
        let content = dice.bytes(SLOW_SIZE);
        nginx.put("guest.img", &content);
        let desk = Desk::new();
        let section = json!({ "provider": "http", "uri": nginx.url("slow/guest.img") });
        let stop = |signal| nginx.stop(signal);
        let again = || nginx.again();
        let sent = || nginx.log().iter().map(|request| request.sent).sum();
        let stops =
            pulled_with_stops(&mut dice, &desk, &section, &content, stop, again, sent).await;
        // nginx logs what came to its end: the last request, for what was missing after the last stop.
        let log = nginx.log();
        let last = log.last().expect("something was asked for");
        let begin = last.range.as_deref().and_then(|range| {
            let begin = range.strip_prefix("bytes=")?.split('-').next()?;
            begin.parse::<u64>().ok()
        });
        assert_eq!(last.status, 206, "{log:#?}");
        assert!(
            begin >= stops.last().copied(),
            "{begin:?}, stopped at {stops:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke_when_glance_is_stopped() {
    let mut dice = Dice::of("resume from Glance");
    for _ in 0..rounds(1) {
        let glance = services::glance().alone();
        let content = dice.bytes(SIZE);
        let id = glance.upload("an image whose server is stopped", &content);
        let user = Glance::USER;
        let section = json!({ "provider": "glance", "name": id, "provider_configuration": {
            // On a busy host Glance takes a minute until it is there again.
            "cache": { "patience": "90s" },
            "os_auth": { "auth_url": glance.identity_url(), "username": user.name,
                "password": user.password, "project_name": user.project,
                "user_domain_name": "Default", "project_domain_name": "Default" } } });
        let desk = Desk::new();
        let stop = |signal| glance.stop(signal);
        let again = || glance.again();
        let sent = || glance.sent(&id);
        pulled_with_stops(&mut dice, &desk, &section, &content, stop, again, sent).await;
        glance.delete(&id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke_when_the_s3_server_is_stopped() {
    let mut dice = Dice::of("resume from Swift");
    let swift = services::swift().alone();
    swift.bucket("resume");
    for _ in 0..rounds(1) {
        let content = dice.bytes(SIZE);
        swift.put("resume", "guest.img", &content);
        let section = json!({ "provider": "s3", "name": "guest.img", "provider_configuration": {
            "bucket_name": "resume", "auth": { "endpoint_url": swift.endpoint(),
                "region_name": Swift::REGION, "aws_access_key_id": Swift::KEY,
                "aws_secret_access_key": Swift::SECRET } } });
        let desk = Desk::new();
        let stop = |signal| swift.stop(signal);
        let again = || swift.again();
        let sent = || swift.sent("resume", "guest.img");
        pulled_with_stops(&mut dice, &desk, &section, &content, stop, again, sent).await;
        swift.delete("resume", "guest.img");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_replaced_while_it_downloads_is_fetched_anew_and_never_mixed() {
    let mut dice = Dice::of("replaced");
    let nginx = Nginx::start();
    let (old, new) = (dice.bytes(SLOW_SIZE / 2), dice.bytes(SLOW_SIZE / 2 + 4097));
    nginx.put("guest.img", &old);
    let desk = Desk::new();
    let section = json!({ "provider": "http", "uri": nginx.url("slow/guest.img") });
    let half = old.len() as u64 / 2;
    let replacing = async {
        tokio::task::block_in_place(|| {
            nginx.stop(Signal::KILL);
            nginx.put("guest.img", &new);
            nginx.again();
        });
    };
    let image = desk.pull_while(&section, half, replacing).await;
    let path = image.expect("the new one is there").path;
    let pulled = std::fs::read(path).expect("the image is there");
    assert!(pulled != old, "the old one was there no more");
    assert!(pulled == new, "{} bytes of a mixture", pulled.len());
    let again = desk.pull(&section).await.expect("it is in the store");
    assert!(std::fs::read(again.path).expect("the image is there") == new);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_which_the_date_alone_tells_that_it_was_replaced_is_never_mixed() {
    let mut dice = Dice::of("replaced, of the same length");
    let nginx = Nginx::start();
    let (old, new) = (dice.bytes(SLOW_SIZE / 2), dice.bytes(SLOW_SIZE / 2));
    let dates = [20_000, 20_001].map(|day| UNIX_EPOCH + Duration::from_secs(day * 86_400));
    nginx.put_dated("guest.img", &old, dates[0]);
    let desk = Desk::new();
    let section = json!({ "provider": "http", "uri": nginx.url("dated/guest.img") });
    let half = old.len() as u64 / 2;
    let replacing = async {
        tokio::task::block_in_place(|| {
            nginx.stop(Signal::KILL);
            nginx.put_dated("guest.img", &new, dates[1]);
            nginx.again();
        });
    };
    let image = desk.pull_while(&section, half, replacing).await;
    let path = image.expect("the new one is there").path;
    let pulled = std::fs::read(path).expect("the image is there");
    assert!(pulled == new, "it is the old one, or a mixture");
}
