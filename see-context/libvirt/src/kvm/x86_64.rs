//! The probe's loop on x86-64: one virtual processor, 64 KiB of memory, no device.

use std::time::Instant;

use kvm_bindings::{KVM_API_VERSION, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

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

const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const DIRECTORY: usize = 0x3000;
const START: usize = 0x4000;
const STACK: u64 = 0x8000;

/// The guest's memory: whole pages of the host's.
#[repr(align(4096))]
struct Memory([u8; 0x1_0000]);

impl Memory {
    /// Page tables that map the first 2 MiB onto themselves, and the code.
    fn filled() -> Box<Self> {
        const PRESENT_WRITABLE: usize = 0b11;
        const LARGE: usize = 1 << 7;
        let mut memory = Box::new(Self([0; 0x1_0000]));
        let mut write = |at: usize, bytes: &[u8]| {
            memory.0[at..at + bytes.len()].copy_from_slice(bytes);
        };
        write(PML4, &(PDPT | PRESENT_WRITABLE).to_le_bytes());
        write(PDPT, &(DIRECTORY | PRESENT_WRITABLE).to_le_bytes());
        write(DIRECTORY, &(PRESENT_WRITABLE | LARGE).to_le_bytes());
        write(START, &CODE);
        memory
    }
}

pub(super) fn probe() -> Result<KvmProbe, KvmProbe> {
    let kvm = open()?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(KvmProbe::Failed {
            step: "asking for KVM's version",
            reason: format!("it is {version}, known is {KVM_API_VERSION}"),
        });
    }
    // The machine is dropped before the memory that it uses.
    let mut memory = Memory::filled();
    let machine = machine(&kvm, &mut memory).map_err(|error| failed("making a machine", error))?;
    let mut processor =
        processor(&machine).map_err(|error| failed("making a virtual processor", error))?;
    run(&mut processor)
}

fn open() -> Result<Kvm, KvmProbe> {
    Kvm::new().map_err(|error| match error.errno() {
        // The last two: a node without a driver behind it.
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmProbe::NoDevice,
        libc::EACCES | libc::EPERM => KvmProbe::NoPermission,
        _ => failed("opening /dev/kvm", error),
    })
}

fn failed(step: &'static str, error: kvm_ioctls::Error) -> KvmProbe {
    KvmProbe::Failed {
        step,
        reason: error.to_string(),
    }
}

fn run(processor: &mut VcpuFd) -> Result<KvmProbe, KvmProbe> {
    let begin = Instant::now();
    let mut turns = 0;
    while turns < PROBE_TURNS {
        match processor.run() {
            Ok(VcpuExit::IoOut(..)) => turns += u64::from(PART),
            Ok(other) => {
                return Err(KvmProbe::Failed {
                    step: "running the loop",
                    reason: format!("the guest left it for {other:?}"),
                });
            }
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(failed("running the loop", error)),
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

fn machine(kvm: &Kvm, memory: &mut Memory) -> Result<VmFd, kvm_ioctls::Error> {
    let machine = kvm.create_vm()?;
    let region = kvm_userspace_memory_region {
        memory_size: memory.0.len() as u64,
        userspace_addr: memory.0.as_mut_ptr() as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: the region is whole pages of `memory`, which outlives the machine, see `probe`, and which nothing
    // touches while the machine runs.
    unsafe { machine.set_user_memory_region(region) }?;
    Ok(machine)
}

fn processor(machine: &VmFd) -> Result<VcpuFd, kvm_ioctls::Error> {
    let processor = machine.create_vcpu(0)?;
    let mut special = processor.get_sregs()?;
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 16,
        // Read, write, accessed.
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    special.cs = kvm_segment {
        selector: 8,
        // Execute, read, accessed; 64 bits.
        type_: 11,
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
    special.cr3 = PML4 as u64;
    // Physical address extension; protection, numeric errors and paging; long mode.
    special.cr4 = 1 << 5;
    special.cr0 = 1 | 1 << 4 | 1 << 5 | 1 << 31;
    special.efer = 1 << 8 | 1 << 10;
    processor.set_sregs(&special)?;
    processor.set_regs(&kvm_regs {
        rip: START as u64,
        rsp: STACK,
        // The bit that is always set; interrupts stay off.
        rflags: 2,
        ..kvm_regs::default()
    })?;
    Ok(processor)
}
