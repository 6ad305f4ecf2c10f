//! The probe's loop on x86-64: one virtual processor, 64 KiB of memory, no device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Instant;

use super::{KvmProbe, PROBE_LIMIT, PROBE_TURNS};

/// The turns between two looks at the clock. At the speed of the slowest host that was seen
/// (2.4 million instructions a second) one such part takes 0.1 s.
const PART: u32 = 100_000;

/// `mov ecx, PART; again: dec ecx; jnz again; out 0x10, al; jmp start`
const CODE: [u8; 13] = {
    let count = PART.to_le_bytes();
    [
        0xb9, count[0], count[1], count[2], count[3], 0xff, 0xc9, 0x75, 0xfc, 0xe6, 0x10, 0xeb,
        0xf3,
    ]
};

const MEMORY: usize = 0x1_0000;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const START: u64 = 0x4000;
const STACK: u64 = 0x8000;

const KVM_GET_API_VERSION: libc::c_ulong = 0xae00;
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xae04;
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;
const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
const KVM_RUN: libc::c_ulong = 0xae80;
const KVM_SET_REGS: libc::c_ulong = 0x4090_ae82;
const KVM_GET_SREGS: libc::c_ulong = 0x8138_ae83;
const KVM_SET_SREGS: libc::c_ulong = 0x4138_ae84;

const KVM_API_VERSION: libc::c_int = 12;
const KVM_EXIT_IO: u32 = 2;
/// Where `exit_reason` lies in the page that the kernel shares for a virtual processor.
const EXIT_REASON: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    dpl: u8,
    db: u8,
    s: u8,
    l: u8,
    g: u8,
    avl: u8,
    unusable: u8,
    padding: u8,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Table {
    base: u64,
    limit: u16,
    padding: [u16; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SpecialRegisters {
    cs: Segment,
    ds: Segment,
    es: Segment,
    fs: Segment,
    gs: Segment,
    ss: Segment,
    tr: Segment,
    ldt: Segment,
    gdt: Table,
    idt: Table,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    cr8: u64,
    efer: u64,
    apic_base: u64,
    interrupt_bitmap: [u64; 4],
}

#[repr(C)]
#[derive(Default)]
struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 … r15
    general: [u64; 16],
    rip: u64,
    rflags: u64,
}

#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_address: u64,
    size: u64,
    host_address: u64,
}

// The sizes are part of the ioctls' numbers.
const _: () = assert!(size_of::<SpecialRegisters>() == 0x138);
const _: () = assert!(size_of::<Registers>() == 0x90);
const _: () = assert!(size_of::<MemoryRegion>() == 0x20);

pub(super) fn probe() -> Result<KvmProbe, KvmProbe> {
    let kvm = open()?;
    // SAFETY: these two ioctls take no argument.
    let version = unsafe { control(&kvm, KVM_GET_API_VERSION, 0) };
    match version {
        Ok(KVM_API_VERSION) => {}
        Ok(other) => {
            return Err(KvmProbe::Failed {
                step: "asking for KVM's version",
                reason: format!("it is {other}, known is {KVM_API_VERSION}"),
            });
        }
        Err(error) => return Err(failed("asking for KVM's version", &error)),
    }
    // The machine is dropped before the memory that it uses.
    let memory = Mapping::anonymous(MEMORY).map_err(|error| failed("memory", &error))?;
    fill(&memory);
    let machine = machine(&kvm, &memory).map_err(|error| failed("making a machine", &error))?;
    let processor =
        processor(&kvm, &machine).map_err(|error| failed("making a virtual processor", &error))?;
    run(&processor)
}

fn open() -> Result<File, KvmProbe> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KvmProbe::NoDevice,
            io::ErrorKind::PermissionDenied => KvmProbe::NoPermission,
            // A node without a driver behind it.
            _ if error.raw_os_error() == Some(libc::ENODEV)
                || error.raw_os_error() == Some(libc::ENXIO) =>
            {
                KvmProbe::NoDevice
            }
            _ => failed("opening /dev/kvm", &error),
        })
}

fn failed(step: &'static str, error: &io::Error) -> KvmProbe {
    KvmProbe::Failed {
        step,
        reason: error.to_string(),
    }
}

fn run(processor: &Processor) -> Result<KvmProbe, KvmProbe> {
    let begin = Instant::now();
    let mut turns = 0;
    while turns < PROBE_TURNS {
        // SAFETY: KVM_RUN takes no argument; the shared page and the guest's memory stay
        // mapped as long as `processor` and the caller's mapping live.
        match unsafe { control(&processor.descriptor, KVM_RUN, 0) } {
            Ok(_) if processor.exit_reason() == KVM_EXIT_IO => turns += u64::from(PART),
            Ok(_) => {
                return Err(KvmProbe::Failed {
                    step: "running the loop",
                    reason: format!("the guest left it for reason {}", processor.exit_reason()),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("running the loop", &error)),
        }
        let after = begin.elapsed();
        if after > PROBE_LIMIT {
            return Err(KvmProbe::TooSlow { turns, after });
        }
    }
    Ok(KvmProbe::Usable {
        took: begin.elapsed(),
    })
}

/// Page tables that map the first 2 MiB onto themselves, and the code.
fn fill(memory: &Mapping) {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    memory.write(PML4, &(PDPT | PRESENT_WRITABLE).to_le_bytes());
    memory.write(PDPT, &(DIRECTORY | PRESENT_WRITABLE).to_le_bytes());
    memory.write(DIRECTORY, &(PRESENT_WRITABLE | LARGE).to_le_bytes());
    memory.write(START, &CODE);
}

fn machine(kvm: &File, memory: &Mapping) -> io::Result<OwnedFd> {
    // SAFETY: KVM_CREATE_VM takes the machine's type, 0 for the usual one.
    let machine = unsafe { control(kvm, KVM_CREATE_VM, 0) }?;
    // SAFETY: the ioctl returned a new descriptor that nobody else owns.
    let machine = unsafe { OwnedFd::from_raw_fd(machine) };
    let region = MemoryRegion {
        slot: 0,
        flags: 0,
        guest_address: 0,
        size: MEMORY as u64,
        host_address: memory.start.as_ptr() as u64,
    };
    // SAFETY: the argument points to a region of the size that the number names, which the
    // kernel only reads; the memory in it outlives the machine, see `probe`.
    unsafe {
        control(
            &machine,
            KVM_SET_USER_MEMORY_REGION,
            &raw const region as u64,
        )
    }?;
    Ok(machine)
}

struct Processor {
    descriptor: OwnedFd,
    shared: Mapping,
}

impl Processor {
    fn exit_reason(&self) -> u32 {
        // SAFETY: the shared page is mapped, at least `EXIT_REASON + 4` bytes long (checked
        // where it is made) and aligned; the kernel writes it only inside of KVM_RUN, which
        // this thread is not in.
        unsafe {
            self.shared
                .start
                .as_ptr()
                .add(EXIT_REASON)
                .cast::<u32>()
                .read_volatile()
        }
    }
}

fn processor(kvm: &File, machine: &OwnedFd) -> io::Result<Processor> {
    // SAFETY: KVM_GET_VCPU_MMAP_SIZE takes no argument.
    let size = unsafe { control(kvm, KVM_GET_VCPU_MMAP_SIZE, 0) }?;
    let size = usize::try_from(size).unwrap_or(0);
    if size < EXIT_REASON + size_of::<u32>() {
        return Err(io::Error::other("the processor's page is too small"));
    }
    // SAFETY: KVM_CREATE_VCPU takes the processor's number.
    let descriptor = unsafe { control(machine, KVM_CREATE_VCPU, 0) }?;
    // SAFETY: the ioctl returned a new descriptor that nobody else owns.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let shared = Mapping::of(&descriptor, size)?;

    let mut special = SpecialRegisters::default();
    // SAFETY: the argument points to a structure of the size that the number names.
    unsafe { control(&descriptor, KVM_GET_SREGS, &raw mut special as u64) }?;
    let data = Segment {
        limit: u32::MAX,
        selector: 16,
        // Read, write, accessed.
        kind: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Segment::default()
    };
    special.cs = Segment {
        selector: 8,
        // Execute, read, accessed; 64 bits.
        kind: 11,
        db: 0,
        l: 1,
        ..data
    };
    for segment in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *segment = data;
    }
    special.cr3 = PML4;
    // Physical address extension; protection, numeric errors and paging; long mode.
    special.cr4 = 1 << 5;
    special.cr0 = 1 | 1 << 4 | 1 << 5 | 1 << 31;
    special.efer = 1 << 8 | 1 << 10;
    // SAFETY: as above; the kernel only reads it.
    unsafe { control(&descriptor, KVM_SET_SREGS, &raw const special as u64) }?;

    let mut registers = Registers {
        rip: START,
        // The bit that is always set; interrupts stay off.
        rflags: 2,
        ..Registers::default()
    };
    registers.general[6] = STACK;
    // SAFETY: as above; the kernel only reads it.
    unsafe { control(&descriptor, KVM_SET_REGS, &raw const registers as u64) }?;
    Ok(Processor { descriptor, shared })
}

/// One ioctl.
///
/// # Safety
/// `argument` must be what `request` takes: a number, or the address of a structure of the
/// right size that lives and may be written to during the call.
unsafe fn control(
    descriptor: &impl AsRawFd,
    request: libc::c_ulong,
    argument: u64,
) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open; the rest is the caller's promise.
    let answer = unsafe { libc::ioctl(descriptor.as_raw_fd(), request, argument) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

/// Mapped memory, unmapped when dropped.
struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

impl Mapping {
    fn anonymous(size: usize) -> io::Result<Self> {
        Self::map(size, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn of(descriptor: &OwnedFd, size: usize) -> io::Result<Self> {
        Self::map(size, libc::MAP_SHARED, descriptor.as_raw_fd())
    }

    fn map(size: usize, flags: libc::c_int, descriptor: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, descriptor, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("a mapping at address zero"))?;
        Ok(Self { start, size })
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        assert!(
            offset
                .checked_add(bytes.len())
                .is_some_and(|end| end <= self.size),
            "the probe writes inside of its memory"
        );
        // SAFETY: the range was checked to be inside the mapping, which no reference exists
        // to and no machine runs on yet.
        unsafe {
            self.start
                .as_ptr()
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}
