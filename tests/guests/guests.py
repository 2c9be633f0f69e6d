# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of guests. One row: a name, what it shows, and a function that drives the guest and returns the evidence."""
import hashlib
import os
import re
import subprocess
from collections import namedtuple

import initramfs
from harness import Failure, Skip, need

IMAGES = "/usr/lib/debian-installer/images/12"
KERNEL64 = f"{IMAGES}/amd64/text/debian-installer/amd64/linux"
INITRD64 = f"{IMAGES}/amd64/text/debian-installer/amd64/initrd.gz"
KERNEL32 = f"{IMAGES}/i386/text/debian-installer/i386/linux"
INITRD32 = f"{IMAGES}/i386/text/debian-installer/i386/initrd.gz"

Row = namedtuple("Row", "name quick seconds help function")
ROWS = []


def row(name, help, seconds, quick=False):
    def register(function):
        ROWS.append(Row(name, quick, seconds, help, function))
        return function
    return register


def assemble(guest, source, name, *flags):
    """NASM source from this folder as a flat binary."""
    out = guest.path(name)
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        subprocess.run(["nasm", "-f", "bin", *flags, "-o", out, os.path.join(here, source)], check=True, capture_output=True)
    except FileNotFoundError:
        raise Skip("nasm is not installed")
    except subprocess.CalledProcessError as error:
        raise Failure(error.stderr.decode())
    return out


# ---- Linux with busybox ----
CHECKS = """
echo "guest: sum $(sha256sum /nonce | cut -d' ' -f1)"
echo "guest: clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "guest: irqs $(grep -c . /proc/interrupts) $(ls /sys/bus/pci/devices | wc -l) pci"
"""


def linux_to_power_off(guest, kernel, arguments, script="", base=None, machine="x86_64"):
    initrd = guest.path("initrd")
    need("/bin/busybox")
    initramfs.write(initrd, CHECKS + script, [("nonce", 0o644, guest.nonce.encode())], base and need(base))
    append = "console=ttyS0 panic=-1" + (" rdinit=/guest-init" if base else "")
    guest.start("--kernel", need(kernel), "--initrd", initrd, "--append", append, "--no-reboot", *arguments)
    up = guest.expect(rb"guest: up ([0-9.]+) cpus (\d+) (\w+)\r")
    if up[3].decode() != machine:
        raise Failure(f"the guest says that it is {up[3]}")
    got = guest.expect(rb"guest: sum ([0-9a-f]{64})")[1].decode()
    if got != hashlib.sha256(guest.nonce.encode()).hexdigest():
        raise Failure("the guest computed a wrong checksum")
    clock = guest.expect(rb"guest: clock ([\w-]+)\r")[1].decode()
    guest.expect(rb"guest: irqs")
    return up, clock


@row("linux-busybox", "Debian's stock amd64 kernel, busybox, checksum, ACPI power-off", 240, quick=True)
def linux_busybox(guest):
    up, clock = linux_to_power_off(guest, KERNEL64, ["--memory", "256M"])
    guest.wait()
    return f"checksum right, clock {clock}, powered off; kernel needed {up[1].decode()} s"


@row("linux-smp2", "the same with two processors", 300, quick=True)
def linux_smp2(guest):
    up, clock = linux_to_power_off(guest, KERNEL64, ["--memory", "256M", "--cpus", "2"])
    guest.wait()
    if up[2] != b"2":
        raise Failure(f"the guest sees {up[2].decode()} processors")
    return f"2 processors, checksum right, clock {clock}"


@row("linux-smp4", "the same with four processors", 400, quick=True)
def linux_smp4(guest):
    up, clock = linux_to_power_off(guest, KERNEL64, ["--memory", "512M", "--cpus", "4"])
    guest.wait()
    if up[2] != b"4":
        raise Failure(f"the guest sees {up[2].decode()} processors")
    return f"4 processors, checksum right, clock {clock}"


@row("linux-high-memory", "memory above 4 GiB is seen and works", 400)
def linux_high_memory(guest):
    script = "mkdir -p /mnt/t; mount -t tmpfs -o size=3400m t /mnt/t; free -k | grep Mem | awk '{print \"guest: mem \" $2}'\n"
    linux_to_power_off(guest, KERNEL64, ["--memory", "5G"], script)
    kib = int(guest.expect(rb"guest: mem (\d+)\r")[1])
    guest.wait()
    if kib < 4.7 * 1024 * 1024:
        raise Failure(f"the guest sees only {kib} KiB")
    return f"the guest sees {kib} KiB"


@row("linux-32bit", "Debian's i386 kernel (PAE): busybox, checksum, ACPI power-off", 300)
def linux_32bit(guest):
    up, clock = linux_to_power_off(guest, KERNEL32, ["--memory", "512M"], base=INITRD32, machine="i686")
    guest.wait()
    return f"checksum right, clock {clock}"


# ---- Debian's installer ----
def installer(guest, kernel, initrd, arguments):
    guest.start("--kernel", need(kernel), "--initrd", need(initrd), "--append",
                "console=ttyS0,115200n8 DEBIAN_FRONTEND=text priority=high", "--memory", "1G", *arguments)
    guest.expect(rb"Choose the language to be used.*?English.*?Prompt: '\?' for help, default=\d+> ")
    guest.send("2\r")  # English: the guest's own program goes on to the next question
    guest.expect(rb"Select your location.*?Country, territory or area:.*?(\d+): United States.*?Prompt: ")
    guest.stop()
    return "language dialog answered, location dialog came"


@row("installer-amd64", "the Debian text installer to its first dialog on the serial port", 600)
def installer_amd64(guest):
    return installer(guest, KERNEL64, INITRD64, [])


@row("installer-i386", "the same, 32 bits", 600, quick=True)
def installer_i386(guest):
    return installer(guest, KERNEL32, INITRD32, [])


# ---- Firmware ----
def order_sum(data):
    total = 1
    for byte in data:
        total = (total * 31 + byte) & 0xffffffff
    return total


def ramp_sum(count):
    total, value = 0, 0
    for _ in range(count):
        total = (total + value) & 0xffffffff
        total = (total << 1 | total >> 31) & 0xffffffff
        value = (value + 0x010203) & 0xffffffff
    return total


def make_floppy(guest):
    """A floppy with the program and a page of nonce; returns the page."""
    with open(assemble(guest, "bios.asm", "program"), "rb") as f:
        program = f.read()
    page = (guest.nonce.encode() * 16)[:512]
    image = bytearray(1440 * 1024)
    image[:len(program)] = program
    image[20 * 512:21 * 512] = page
    with open(guest.path("floppy.img"), "wb") as f:
        f.write(image)
    return page


@row("bios-services", "a boot sector that uses BIOS services, unreal mode, the A20 gate and VBE on SeaBIOS", 120, quick=True)
def bios_services(guest):
    page = make_floppy(guest)
    guest.start("--memory", "32M", "--floppy", guest.path("floppy.img"), "--boot", "a", "--device", "isa-debug-exit",
                "--debug-output", guest.path("bios.log"), "--screenshot", guest.path("screen.png"))
    seen = {name: int(guest.expect(name + rb" ([0-9a-f]{8})\n")[1], 16)
            for name in (b"base", b"map", b"ram", b"sum", b"unreal", b"a20", b"vbe")}
    guest.expect(b"ticks")
    guest.wait(status=0x21)
    wanted = {b"sum": order_sum(page), b"unreal": 0x600df00d, b"a20": 0x22224444, b"vbe": ramp_sum(4096)}
    for name, value in wanted.items():
        if seen[name] != value:
            raise Failure(f"{name.decode()} is {seen[name]:08x} in place of {value:08x}")
    if not 600 <= seen[b"base"] <= 640 or not 31 << 20 <= seen[b"ram"] <= 32 << 20:
        raise Failure(f"the BIOS reports {seen[b'base']} KiB and {seen[b'ram']} bytes")
    return f"nonce sum {seen[b'sum']:08x}, {seen[b'map']} map entries, unreal mode, A20 gate, VBE frame buffer, timer ticks"


@row("boot-menu", "SeaBIOS's boot menu by keyboard: the floppy is chosen in place of the disk", 120)
def boot_menu(guest):
    page = make_floppy(guest)
    with open(guest.path("disk.img"), "wb") as f:
        f.truncate(1 << 20)
    guest.start("--memory", "32M", "--floppy", guest.path("floppy.img"), "--disk", guest.path("disk.img") + ",format=raw",
                "--boot", "ca,menu", "--device", "isa-debug-exit", "--control", guest.path("control"), "--debug-output",
                "stdio", serial=None)
    guest.expect(rb"Press ESC for boot menu")
    guest.keys("esc")
    guest.expect(rb"Select boot device:")
    choice = guest.expect(rb"(\d)\. Floppy")[1].decode()
    guest.expect(rb"\n")
    guest.keys(choice)
    guest.expect(rb"Booting from Floppy")
    guest.wait(status=0x21)
    return f"entry {choice} was chosen by key, its program ran to its end ({order_sum(page):08x})"


# ---- Resets ----
REBOOT = """
n=/sys/bus/nvmem/devices/cmos_nvram0/nvmem
case "$(dd if=$n bs=1 skip=100 count=1 2>/dev/null)" in
A) echo "guest: second life"; printf B | dd of=$n bs=1 seek=100 conv=notrunc 2>/dev/null ;;
*) printf A | dd of=$n bs=1 seek=100 conv=notrunc 2>/dev/null; echo "guest: first life"; reboot -f ;;
esac
"""


@row("resets", "Linux resets by ACPI, keyboard controller, 0xCF9 and triple fault; the CMOS memory keeps its bytes", 600)
def resets(guest):
    for way in ("acpi", "kbd", "pci", "triple"):
        initramfs.write(guest.path("initrd"), REBOOT)
        guest.start("--kernel", need(KERNEL64), "--initrd", guest.path("initrd"), "--memory", "256M",
                    "--append", f"console=ttyS0 panic=-1 reboot={way},force")
        guest.expect(rb"guest: first life")
        guest.expect(rb"guest: up [0-9.]+ ")
        guest.expect(rb"guest: second life")
        guest.wait()
    return "four ways, two lives each"


# ---- Memory tests ----
def memtest(guest, image):
    guest.start("--memory", "64M", "--kernel", need(image), "--append", "console=ttyS0,115200")
    guest.expect(rb"Pass:\s+1(\x1b\S*|\s)+Errors:\s+0 ")
    guest.stop()
    return "a pass over 64 MiB without errors"


@row("memtest-x64", "memtest86+ (64 bits): one clean pass over 64 MiB", 900)
def memtest_x64(guest):
    return memtest(guest, "/boot/memtest86+x64.bin")


@row("memtest-ia32", "memtest86+ (32 bits): one clean pass over 64 MiB", 900)
def memtest_ia32(guest):
    return memtest(guest, "/boot/memtest86+ia32.bin")


# ---- Small kernels by the other boot protocols ----
def link_kernel(guest, name, *flags):
    here = os.path.dirname(os.path.abspath(__file__))
    elf = guest.path(name)
    try:
        subprocess.run(["nasm", "-f", "elf32", *flags, "-o", elf + ".o", os.path.join(here, "kernel.asm")], check=True,
                       capture_output=True)
        subprocess.run(["ld", "-m", "elf_i386", "-n", "-e", "start", "-T", os.path.join(here, "kernel.ld"), "-o", elf,
                        elf + ".o"], check=True, capture_output=True)
    except FileNotFoundError as missing:
        raise Skip(f"{missing.filename} is not installed")
    except subprocess.CalledProcessError as error:
        raise Failure(error.stderr.decode())
    return elf


def small_kernel(guest, name, magic, *flags):
    elf = link_kernel(guest, name, *flags)
    module = guest.nonce.encode() * 5000
    with open(guest.path("module"), "wb") as f:
        f.write(module)
    guest.start("--memory", "16M", "--kernel", elf, "--initrd", guest.path("module"), "--append", guest.nonce,
                "--device", "isa-debug-exit")
    seen = int(guest.expect(rb"M([0-9a-f]{8})\n")[1], 16)
    total = int(guest.expect(rb"S([0-9a-f]{8})\n")[1], 16)
    line = guest.expect(rb"(\S+)\n")[1].decode()
    modules = int(guest.expect(rb"N([0-9a-f]{8})\n")[1], 16)
    guest.wait(status=0x23)
    if (seen, total, line, modules) != (magic, order_sum(module), guest.nonce, 1):
        raise Failure(f"magic {seen:08x}, sum {total:08x}, command line {line}, modules {modules}")


@row("small-kernels", "multiboot and PVH kernels get their module and command line; a triple fault ends or resets", 60,
     quick=True)
def small_kernels(guest):
    small_kernel(guest, "multiboot", 0x2badb002)
    small_kernel(guest, "pvh", 0x336ec578, "-dPVH")
    elf = link_kernel(guest, "multiboot")
    arguments = ["--memory", "16M", "--kernel", elf, "--initrd", guest.path("module"), "--append", "fault"]
    guest.start(*arguments, "--no-reboot")
    guest.expect(rb"S[0-9a-f]{8}\n")
    guest.wait()
    guest.start(*arguments)
    for _ in range(5):
        guest.expect(rb"S[0-9a-f]{8}\n")
    guest.stop()
    return "module sums right by both protocols, five lives after triple faults"


def old_kernel(guest, version, segment, *flags):
    payload, module = guest.nonce.encode() * 900, guest.nonce.encode() * 5000
    kernel = assemble(guest, "setup.asm", "kernel", f"-dVERSION={version:#x}", f"-dPAYLOAD={len(payload)}", *flags)
    with open(kernel, "ab") as f:
        f.write(payload)
    with open(guest.path("module"), "wb") as f:
        f.write(module)
    guest.start("--memory", "16M", "--kernel", kernel, "--initrd", guest.path("module"), "--append", guest.nonce, "--device",
                "isa-debug-exit")
    seen = tuple(int(guest.expect(name + rb" ([0-9a-f]{8})\n")[1], 16) for name in (b"segment", b"kernel", b"ramdisk"))
    line = guest.expect(rb"(\S+)\n")[1].decode()
    guest.wait(status=0x23)
    if seen != (segment, order_sum(payload), order_sum(module)) or line != guest.nonce:
        raise Failure(f"protocol {version:#x}: saw {seen}, command line {line}")


@row("old-kernels", "Linux boot protocols 2.00 to 2.02, loaded low and high, started by their real-mode code", 60, quick=True)
def old_kernels(guest):
    old_kernel(guest, 0x200, 0x9000)
    old_kernel(guest, 0x200, 0x9000, "-dHIGH")
    old_kernel(guest, 0x201, 0x9000, "-dHIGH")
    old_kernel(guest, 0x202, 0x9000)
    return "kernel, initial RAM disk and command line by checksum, four ways"


# ---- Page tables ----
def paging_kernel(guest):
    here = os.path.dirname(os.path.abspath(__file__))
    elf = guest.path("paging")
    compiler = os.environ.get("CC", "gcc").split()
    steps = [["nasm", "-f", "elf64", "-o", elf + ".asm.o", os.path.join(here, "paging.asm")],
             [*compiler, "-m64", "-std=gnu17", "-O2", "-ffreestanding", "-mgeneral-regs-only", "-mno-red-zone", "-fno-pic",
              "-fno-pie", "-mcmodel=small", "-fno-stack-protector", "-fcf-protection=none", "-c", "-o", elf + ".c.o",
              os.path.join(here, "paging.c")],
             ["ld", "-m", "elf_x86_64", "-n", "-e", "start", "-T", os.path.join(here, "kernel.ld"), "-o", elf + ".64",
              elf + ".asm.o", elf + ".c.o"],
             ["objcopy", "-O", "elf32-i386", elf + ".64", elf]]
    for step in steps:
        try:
            subprocess.run(step, check=True, capture_output=True)
        except FileNotFoundError as missing:
            raise Skip(f"{missing.filename} is not installed")
        except subprocess.CalledProcessError as error:
            raise Failure(error.stderr.decode())
    return elf


def paging_run(guest, elf, line, *arguments):
    """What the tester saw as a hash, how many accesses it checked, and what the monitor said at its end."""
    guest.start("--memory", "64M", "--kernel", elf, "--append", line, "--device", "isa-debug-exit", "--no-reboot",
                "--display-adapter", "none", *arguments)
    seen = guest.expect(rb"(OK|WRONG|unexpected)([^\n]*)\n")
    if seen[1] != b"OK":
        raise Failure(f"{guest.engine}, {line}: {seen[0].decode().strip()}")
    words = seen[2].decode().split()
    guest.wait(status=0x23)
    with open(guest.path("stderr")) as f:
        return words[0], int(words[2], 16), f.read()


def paging_torture(guest, seeds, rounds):
    elf, engine, checks = paging_kernel(guest), guest.engine, 0
    for seed in seeds:
        hashes = set()
        for guest.engine in {engine, "interpret"}:
            seen, count, _ = paging_run(guest, elf, f"t {seed} {rounds}")
            hashes.add(seen)
            checks += count
        if len(hashes) > 1:
            raise Failure(f"seed {seed}: the engines saw different things")
    guest.engine = engine
    return elf, checks


@row("page-tables", "live page tables edited at random, each access against a plain walk; warm address spaces by counter", 120,
     quick=True)
def page_tables(guest):
    seed = int(guest.nonce[:6], 16)
    elf, checks = paging_torture(guest, [1, seed], 6000)
    evidence = f"{checks} accesses right, seed {seed}"
    walks = {}
    for switches in (10, 1010):
        said = paging_run(guest, elf, f"s {switches}", "-v")[2]
        walked = [re.search(rf"(\d+)  TLB fills by the {name}", said) for name in ("short walk", "full guest table walk")]
        if not all(walked):
            return evidence  # an engine without these counters
        walks[switches] = sum(int(w[1]) for w in walked)
    more = walks[1010] - walks[10]
    if more > 100:
        raise Failure(f"a thousand switches between two warm address spaces walked the tables {more} times")
    return f"{evidence}; {more} walks for a thousand switches"


def paging_together(guest, seeds, rounds):
    elf, engine, checks = paging_kernel(guest), guest.engine, 0
    for seed in seeds:
        for guest.engine in {engine, "interpret"}:
            for cpus in (2, 4):
                checks += paging_run(guest, elf, f"p {cpus} {seed} {rounds}", "--cpus", str(cpus))[1]
    guest.engine = engine
    return f"{checks} accesses right on 2 and 4 processors"


@row("page-tables-smp", "live page tables edited on one processor while others use them, invalidated by IPI", 240, quick=True)
def page_tables_smp(guest):
    seed = int(guest.nonce[:6], 16)
    return f"{paging_together(guest, [seed], 100)}, seed {seed}"


@row("page-tables-smp-long", "the same with twenty seeds", 3600)
def page_tables_smp_long(guest):
    first = int(guest.nonce[:6], 16)
    return f"{paging_together(guest, range(first, first + 20), 3000)}, seeds from {first}"


@row("page-tables-long", "the same with forty seeds", 3600)
def page_tables_long(guest):
    first = int(guest.nonce[:6], 16)
    return f"{paging_torture(guest, range(first, first + 40), 100000)[1]} accesses right, seeds from {first}"
