//! Domains whose XML is made to let the guest out, or to let it write to a file of the user.

use std::fs::{File, FileTimes};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::{Footprint, parts};

/// Devices that are admitted in every mode, since they become the sandbox's own or are taken out: see
/// [`Target::filled_in`].
pub const MADE_HARMLESS: [&str; 7] = [
    "<emulator>FILE</emulator>",
    "<serial type='pty'><log file='FILE' append='off'/></serial>",
    "<serial type='file'><source path='FILE'/></serial>",
    "<serial type='unix'><source mode='bind' path='FILE'/></serial>",
    "<channel type='unix'><source mode='bind' path='FILE'/><target type='virtio' name='org.see.x'/></channel>",
    "<graphics type='vnc' port='PORT' autoport='no' listen='0.0.0.0' socket='FILE'/>",
    "<interface type='user'><model type='virtio'/></interface><interface type='user'/><interface type='bridge'><source bridge='nobr'/></interface>",
];

/// What the guest does with all that it has: it writes to each line and each disk but the first, and calls the host.
pub const TRY: &str = "for line in /dev/ttyS* /dev/hvc* /dev/vport*; do [ \"$line\" = /dev/ttyS0 ] || \
    (echo HOSTILE >$line) 2>/dev/null & done; \
    for disk in /dev/vd[b-z]; do [ -b $disk ] && echo HOSTILE >$disk; done; \
    for address in 10.0.2.2 127.0.0.1; do (echo HOSTILE | nc -w 2 $address PORT) 2>/dev/null & done; sleep 3; echo tried";

/// Older than a day: then the kernel notes the next reading, also on file systems mounted `relatime`.
const LONG_AGO: Duration = Duration::from_secs(48 * 60 * 60);

/// A folder of the user with a file that the guest aims at, and services of the host.
///
/// In the same folder lie the image and the domain's XML of the machine, so that nothing may appear beside them either.
#[derive(Debug)]
pub struct Target {
    folder: PathBuf,
    before: Footprint,
    /// When the file was last read, and when anything of it was last changed.
    times: [i64; 4],
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
}

impl Target {
    /// Makes the folder, with the small guest's image. The services are in the network of the thread that calls.
    pub fn new(folder: &Path) -> Self {
        std::fs::create_dir(folder).expect("its parent is writable");
        std::fs::write(folder.join("thesis"), vec![7; 1 << 20]).expect("it is writable");
        let image = folder.join("guest.qcow2");
        std::fs::copy(parts::guest("guest.qcow2"), image).expect("it is writable");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let udp = UdpSocket::bind(tcp.local_addr().expect("it has one")).expect("the same port");
        let unix = UnixListener::bind(folder.join("service.sock")).expect("a free name");
        tcp.set_nonblocking(true).expect("it can");
        udp.set_nonblocking(true).expect("it can");
        unix.set_nonblocking(true).expect("it can");
        let mut target = Self {
            before: Footprint::of(folder),
            folder: folder.to_owned(),
            times: [0; 4],
            tcp,
            udp,
            unix,
        };
        target.look();
        target
    }

    /// The image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("guest.qcow2")
    }

    /// Writes a domain's XML into the folder: a whole machine with these devices beside its disk, from line 8 on,
    /// and with these elements beneath `<domain>`, on the second line after them.
    pub fn domain(&mut self, devices: &str, beside: &str) -> PathBuf {
        let (devices, beside) = (self.filled_in(devices), self.filled_in(beside));
        self.write(&format!(
            "<domain type='qemu'>\n<memory unit='MiB'>128</memory>\n<os><type machine='pc'>hvm</type></os>\n\
             <features><acpi/></features>\n<devices>\n<disk type='file' device='disk'><target dev='vda' bus='virtio'/>\n\
             <boot order='1'/></disk>\n{devices}\n</devices>\n{beside}\n</domain>"
        ))
    }

    /// Writes a domain's XML into the folder.
    pub fn write(&mut self, xml: &str) -> PathBuf {
        let path = self.folder.join("domain.xml");
        std::fs::write(&path, xml).expect("it is writable");
        self.look();
        path
    }

    /// The text with the path of the file for `FILE`, of the socket for `SOCKET`, of their folder for `FOLDER`, and
    /// the port of the services on this host's loopback for `PORT`.
    pub fn filled_in(&self, text: &str) -> String {
        let port = self.tcp.local_addr().expect("it has one").port();
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        text.replace("FILE", &path("thesis"))
            .replace("FOLDER", &self.folder.to_string_lossy())
            .replace("SOCKET", &path("service.sock"))
            .replace("PORT", &port.to_string())
    }

    /// Fails if anything in the folder changed or appeared, the file was read, or somebody called the services.
    pub fn assert_untouched(&mut self, what: &str) {
        let times = times(&self.file());
        assert_eq!(times, self.times, "{what}: the user's file was used");
        let changes = Footprint::of(&self.folder).changes(&self.before);
        assert!(changes.is_empty(), "{what}: {changes:#?}");
        let called = self.tcp.accept();
        assert!(called.is_err(), "{what}: somebody called the host");
        let sent = self.udp.recv(&mut [0; 16]);
        assert!(sent.is_err(), "{what}: somebody sent to the host");
        let opened = self.unix.accept();
        assert!(opened.is_err(), "{what}: somebody opened the host's socket");
        self.look();
    }

    fn file(&self) -> PathBuf {
        self.folder.join("thesis")
    }

    /// Notes the state to which the next one is compared. To look at the file is to read it.
    fn look(&mut self) {
        self.before = Footprint::of(&self.folder);
        let file = File::open(self.file()).expect("the user's file is there");
        let read = FileTimes::new().set_accessed(SystemTime::now() - LONG_AGO);
        file.set_times(read).expect("its owner may");
        self.times = times(&self.file());
    }
}

fn times(file: &Path) -> [i64; 4] {
    let found = std::fs::symlink_metadata(file).expect("the user's file is there");
    [
        found.atime(),
        found.atime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ]
}
