//! The committed corpora, without a fuzzer: what was found once stays repaired.

use std::path::Path;

#[test]
fn every_target_survives_its_corpus_and_makes_something_of_it() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (mut files, mut size) = (0, 0);
    for target in see_fuzz::TARGETS {
        let folder = corpora.join(target.name);
        let mut understood = 0;
        for entry in std::fs::read_dir(&folder).expect("a corpus") {
            let path = entry.expect("a file").path();
            let bytes = std::fs::read(&path).expect("a file");
            files += 1;
            size += bytes.len();
            understood += usize::from((target.read)(&bytes));
        }
        assert!(
            understood > 0,
            "{} makes nothing of its corpus",
            target.name
        );
    }
    assert!(
        files < 200 && size < 1 << 20,
        "{files} files, {size} bytes: minimise them"
    );
}
