//! Packed images, unpacked on their way.

use std::io::Write as _;

use see_core::ErrorKind;
use see_image_providers::cache::{Algorithm, Unpack};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Shelf, Web, digest};

/// An image with a hole in it, and noise around that.
fn image() -> Vec<u8> {
    let mut image = noise(300_000).to_vec();
    image.resize(2 << 20, 0);
    image.extend_from_slice(&noise(100_001));
    image
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    // As the tool has it.
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Packer = fn(&[u8]) -> Vec<u8>;
const PACKERS: [(&str, Packer); 3] = [("gzip", gzip), ("xz", xz), ("Zstandard", zstandard)];

#[tokio::test]
async fn a_packed_image_is_unpacked_while_it_is_downloaded() {
    let image = image();
    for (name, pack) in PACKERS {
        let server = FaultServer::start().await;
        // Two streams after another are one, as the tools have it.
        let (first, second) = image.split_at(1_000_000);
        let packed = [pack(first), pack(second)].concat();
        let resource = Resource::new(packed.clone())
            .entity_tag("one")
            .fault(Fault::CutAfter(100_000));
        server.put("/image", resource);
        let sum = digest(Algorithm::Sha512, &packed);
        let origin = Web::new(server.url("/image")).promising(sum);
        for unpack in [Unpack::Auto, Unpack::Always] {
            let mut shelf = Shelf::new();
            shelf.delivery.unpack = unpack;
            let got = shelf.get(&origin).await.unwrap();
            assert!(std::fs::read(&got.path).unwrap() == image, "{name}");
            let stored = shelf.store().list().unwrap();
            assert_eq!(
                stored[0].digest,
                digest(Algorithm::Sha256, &image),
                "{name}"
            );
            assert_eq!(shelf.partials(), Vec::<String>::new(), "{name}");
            // It is known by what was sent, and not got again.
            let sent = server.sent();
            shelf.get(&origin).await.unwrap();
            assert_eq!(server.sent(), sent, "{name}");
        }
    }
}

#[tokio::test]
async fn unpacking_continues_after_the_process_ended() {
    let image = image();
    for (name, pack) in PACKERS {
        let server = FaultServer::start().await;
        let packed = pack(&image);
        let resource = Resource::new(packed.clone())
            .entity_tag("one")
            .fault(Fault::Stall(200_000));
        server.put("/image", resource);
        let origin = Web::new(server.url("/image"));
        let mut shelf = Shelf::new();
        shelf.delivery.unpack = Unpack::Auto;
        let stopping = async {
            shelf.until_partial_has(200_000).await;
            shelf.stop.stop();
        };
        let (ended, ()) = tokio::join!(shelf.get(&origin), stopping);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Stopped);
        shelf.stop = see_core::Stop::new();
        let got = shelf.get(&origin).await.unwrap();
        assert!(std::fs::read(&got.path).unwrap() == image, "{name}");
        assert_eq!(
            server.sent(),
            packed.len() as u64,
            "{name}: nothing came twice"
        );
    }
}

#[tokio::test]
async fn a_bomb_stops_at_the_declared_size() {
    let zeros = vec![0; 8 << 20];
    for (name, pack) in PACKERS {
        let server = FaultServer::start().await;
        server.put("/image", Resource::new(pack(&zeros)));
        let mut shelf = Shelf::new();
        shelf.delivery.unpack = Unpack::Auto;
        shelf.delivery.max_size = Some(1 << 20);
        let error = shelf
            .get(&Web::new(server.url("/image")))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(
            text.contains(&format!("the {name} image holds more than 1MiB")),
            "{text}"
        );
        assert_eq!(shelf.partials(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn a_packed_image_that_is_cut_off_or_broken_is_refused() {
    let image = image();
    for (name, pack) in PACKERS {
        let packed = pack(&image);
        let mut broken = packed.clone();
        let middle = broken.len() / 2;
        broken[middle] ^= 0x10;
        let short = packed[..packed.len() - 5].to_vec();
        for (what, bytes) in [("cut off", short), ("broken", broken)] {
            let server = FaultServer::start().await;
            server.put("/image", Resource::new(bytes));
            let mut shelf = Shelf::new();
            shelf.delivery.unpack = Unpack::Auto;
            let got = shelf.get(&Web::new(server.url("/image"))).await;
            let error = got.expect_err(&format!("{name} {what}"));
            let text = error.to_string();
            assert!(
                text.contains(&format!("cannot be unpacked as {name}")),
                "{text}"
            );
            assert_eq!(shelf.partials(), Vec::<String>::new(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_packed_image_is_not_taken_for_one_and_the_reverse() {
    let server = FaultServer::start().await;
    server.put("/packed", Resource::new(gzip(&image())));
    server.put("/plain", Resource::new(noise(100_000)));
    let mut shelf = Shelf::new();
    let error = shelf
        .get(&Web::new(server.url("/packed")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("packed with gzip"), "{error}");
    shelf.delivery.unpack = Unpack::Always;
    let error = shelf
        .get(&Web::new(server.url("/plain")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("none of gzip"), "{error}");
    shelf.delivery.unpack = Unpack::Auto;
    shelf.get(&Web::new(server.url("/plain"))).await.unwrap();
}

#[tokio::test]
async fn what_is_packed_is_bounded_on_its_way_too() {
    let server = FaultServer::start().await;
    // Members without content: nothing is ever unpacked.
    let member = gzip(b"");
    let count = (4 << 20) / member.len();
    let resource = Resource::new(member.repeat(count)).entity_tag("one");
    server.put("/image", resource.always(Fault::NoLength));
    let mut origin = Web::new(server.url("/image"));
    origin.forgets_size = true;
    let mut shelf = Shelf::new();
    shelf.delivery.unpack = Unpack::Always;
    shelf.delivery.max_size = Some(200_000);
    let error = shelf.get(&origin).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("`max_size`"), "{error}");
    assert_eq!(shelf.partials(), [""; 0]);
    // One that says how long it is does not even come.
    let asked = server.seen().len();
    let error = shelf
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(
        server.seen()[asked..]
            .iter()
            .all(|seen| seen.method == "HEAD")
    );
}
