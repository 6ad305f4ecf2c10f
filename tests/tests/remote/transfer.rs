//! Bytes on their way into a volume.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use see_libvirt::Connection;
use see_tests::Transport;

use crate::{IMAGES, PATIENCE, other_host};

const POOL: &str = "<pool type='dir'><name>mine</name><target><path>/var/lib/libvirt/images/mine</path>\
    </target></pool>";

fn volume(name: &str, capacity: u64) -> String {
    format!(
        "<volume><name>{name}</name><capacity>{capacity}</capacity><allocation>0</allocation>\
         <target><format type='raw'/></target></volume>"
    )
}

#[tokio::test]
async fn an_upload_keeps_holes_tells_how_far_it_is_ends_when_told_and_does_not_wait_for_a_hung_host()
 {
    const LENGTH: u64 = 256 << 20;
    let mut daemon = other_host(Transport::Tcp);
    let source = tempfile::tempfile().expect("there is a temporary folder");
    source.set_len(LENGTH).expect("there is room for a hole");
    source.write_all_at(b"begin", 0).expect("there is room");
    source
        .write_all_at(&[7; 3 << 20], 100 << 20)
        .expect("there is room");
    let source = Arc::new(source);

    let connection = Connection::open(&daemon.remote_uri(Transport::Tcp), PATIENCE)
        .await
        .expect("it answers");
    let pool = connection
        .define_storage_pool(POOL)
        .await
        .expect("it is XML");
    pool.build().await.expect("the folder can be made");
    pool.start().await.expect("the folder is there");

    let whole = pool
        .create_volume(&volume("whole", LENGTH))
        .await
        .expect("there is room");
    let (tell, told) = std::sync::mpsc::channel();
    whole
        .upload(Arc::clone(&source), LENGTH, move |done| {
            tell.send(done).is_ok()
        })
        .await
        .expect("it arrives");
    let told: Vec<u64> = told.into_iter().collect();
    assert!(told.is_sorted(), "{told:?}");
    assert!(told.len() > 2 && told.last() == Some(&LENGTH), "{told:?}");
    let there = format!("{IMAGES}/mine/whole");
    let mut sum = Command::new("md5sum");
    let input = source.try_clone().expect("it is open");
    sum.stdin(std::process::Stdio::from(input));
    // The other thread of control over the file's position is ours alone.
    std::io::Seek::rewind(&mut &*source).expect("it is a file");
    let here = String::from_utf8(sum.output().expect("it is installed").stdout).expect("text");
    let arrived = daemon.told("md5sum", &[&there]);
    assert_eq!(arrived[..32], here[..32]);
    let blocks: u64 = daemon
        .told("stat", &["-c", "%b", &there])
        .trim()
        .parse()
        .expect("a number");
    assert!(
        blocks * 512 < 16 << 20,
        "{blocks} blocks: the holes were filled"
    );

    let part = pool
        .create_volume(&volume("part", LENGTH))
        .await
        .expect("there is room");
    let error = part
        .upload(Arc::clone(&source), LENGTH, |_| false)
        .await
        .expect_err("it was told to end");
    assert!(error.to_string().contains("broken off"), "{error}");

    let hung = pool
        .create_volume(&volume("hung", LENGTH))
        .await
        .expect("there is room");
    let hung = hung.within(Duration::from_secs(1));
    let (begun, mut started) = tokio::sync::mpsc::channel(1);
    let (go_on, paused) = std::sync::mpsc::channel();
    let uploading = hung.upload(Arc::clone(&source), LENGTH, move |_| {
        // At the first piece it waits for the pause.
        if begun.try_send(()).is_ok() {
            let _ = paused.recv_timeout(PATIENCE);
        }
        true
    });
    let mut begin = Instant::now();
    let pausing = async {
        started.recv().await.expect("it begins");
        daemon.pause();
        started.close();
        begin = Instant::now();
        go_on.send(()).expect("it waits");
    };
    let (uploaded, ()) = tokio::join!(uploading, pausing);
    let error = uploaded.expect_err("nobody takes it");
    assert!(error.is_timed_out(), "{error}");
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    daemon.cont();
}
