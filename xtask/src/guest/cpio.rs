//! A writer of the archive the kernel reads as initramfs (cpio, "newc").
//!
//! Every entry belongs to root and has no time, so the same content gives the
//! same bytes.

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[], (0, 0));
    }

    /// Adds a file, executable for everybody.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, 0o100_755, content, (0, 0));
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, 0o020_600, &[], (major, minor));
    }

    /// The whole archive, ended as the kernel expects it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let length = |bytes: usize| {
            u32::try_from(bytes).unwrap_or_else(|_| {
                unreachable!("the files of an initramfs are far below four gigabytes")
            })
        };
        // Inode, mode, owner, group, links, time, size, the device the file
        // lies on, the device it is, the length of its name, no checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length(content.len()),
            0,
            0,
            device.0,
            device.1,
            length(path.len() + 1),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_begin_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/a", b"hello");
        let bytes = archive.finish();
        let starts: Vec<usize> = bytes
            .windows(6)
            .enumerate()
            .filter_map(|(at, window)| (window == b"070701").then_some(at))
            .collect();
        assert_eq!(starts.len(), 3);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        let content = bytes.windows(5).position(|window| window == b"hello");
        assert_eq!(content.map(|at| at % 4), Some(0));
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let build = || {
            let mut archive = Archive::default();
            archive.device("dev/console", 5, 1);
            archive.file("init", b"#!/bin/sh\n");
            archive.finish()
        };
        assert_eq!(build(), build());
    }
}
