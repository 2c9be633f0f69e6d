# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that read and write disks: what the host put there is read right, what the guest wrote is found on the host."""
import hashlib
import json
import os
import subprocess
import time

import initramfs
import modules
from guests import row
from harness import Failure, Skip
from serials import Library

MIB = 1 << 20


def make(guest, name, size):
    data = os.urandom(size)
    path = guest.path(name)
    with open(path, "wb") as f:
        f.write(data)
    return path, hashlib.sha256(data).hexdigest()


def expect_sum(guest, what, wanted):
    got = guest.expect(rb"guest: %s ([0-9a-f]{64})" % what.encode())[1].decode()
    if got != wanted:
        raise Failure(f"{what}: the guest read {got[:16]}..., the host wrote {wanted[:16]}...")


def check_written(guest, what, path, offset, length):
    said = guest.expect(rb"guest: %s ([0-9a-f]{64})" % what.encode())[1].decode()
    return what, path, offset, length, said


def verify(written):
    for what, path, offset, length, said in written:
        with open(path, "rb") as f:
            f.seek(offset)
            got = hashlib.sha256(f.read(length)).hexdigest()
        if got != said:
            raise Failure(f"{what}: the guest wrote {said[:16]}..., the file has {got[:16]}...")


def disk_script(device, label):
    """Reads the first 16 MiB, writes 8 MiB of random bytes at 16 MiB, reads them back past the cache."""
    return f"""
echo "guest: {label}-read $(dd if=/dev/{device} bs=1M count=16 2>/dev/null | sha256sum | cut -d' ' -f1)"
dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null
dd if=/tmp/r of=/dev/{device} bs=64k seek=256 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
echo "guest: {label}-wrote $(dd if=/dev/{device} bs=4k skip=4096 count=2048 2>/dev/null | sha256sum | cut -d' ' -f1)"
rm /tmp/r
"""


@row("disks", "virtio-blk, IDE disk, CD and floppy under Linux: reads and writes by checksum", 400)
def disks(guest):
    names = ("virtio_blk", "virtio_pci", "ata_piix", "sd_mod", "sr_mod", "isofs", "floppy")
    files, load = modules.files(*names)
    virtio, _ = make(guest, "virtio.img", 32 * MIB)
    ide, _ = make(guest, "ide.img", 32 * MIB)
    floppy, floppy_sum = make(guest, "floppy.img", 1440 * 1024)
    os.mkdir(guest.path("tree"))
    _, content_sum = make(guest, "tree/content", 5 * MIB)
    iso = guest.path("cd.iso")
    try:
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso, guest.path("tree")], check=True,
                       capture_output=True)
    except FileNotFoundError:
        raise Skip("xorriso is not installed")
    script = load + "sleep 1\n" + disk_script("vda", "virtio") + disk_script("sda", "ide") + """
mount -t iso9660 -o ro /dev/sr0 /mnt && echo "guest: cd $(sha256sum /mnt/content | cut -d' ' -f1)"
echo "guest: floppy-read $(dd if=/dev/fd0 bs=18k 2>/dev/null | sha256sum | cut -d' ' -f1)"
dd if=/dev/urandom of=/tmp/r bs=9k count=10 2>/dev/null
dd if=/tmp/r of=/dev/fd0 bs=9k seek=20 conv=fsync,notrunc 2>/dev/null
echo "guest: floppy-wrote $(sha256sum /tmp/r | cut -d' ' -f1)"
"""
    initrd = guest.path("initrd")
    initramfs.write(initrd, script, files)
    head = {}
    for name, path in (("virtio", virtio), ("ide", ide)):
        with open(path, "rb") as f:
            head[name] = hashlib.sha256(f.read(16 * MIB)).hexdigest()
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1", "--memory", "512M",
                "--cpus", "2", "--disk", f"{virtio},format=raw,interface=virtio", "--disk", f"{ide},format=raw", "--cdrom", iso,
                "--floppy", floppy)
    expect_sum(guest, "virtio-read", head["virtio"])
    written = [check_written(guest, "virtio-wrote", virtio, 16 * MIB, 8 * MIB)]
    expect_sum(guest, "ide-read", head["ide"])
    written.append(check_written(guest, "ide-wrote", ide, 16 * MIB, 8 * MIB))
    expect_sum(guest, "cd", content_sum)
    expect_sum(guest, "floppy-read", floppy_sum)
    written.append(check_written(guest, "floppy-wrote", floppy, 20 * 9 * 1024, 90 * 1024))
    guest.wait()
    verify(written)
    return "virtio, IDE, CD and floppy: all checksums agree on both sides"


SPACE = """
dd if=/dev/urandom of=/tmp/r bs=1M count=48 2>/dev/null
for d in vda vdb sda; do dd if=/tmp/r of=/dev/$d bs=1M conv=fsync 2>/dev/null; done
echo "guest: filled"; read x
busybox blkdiscard /dev/vda || echo "guest: virtio-blk refuses"
busybox blkdiscard /dev/sda || echo "guest: IDE refuses"
dd if=/dev/zero of=/dev/vdb bs=1M count=48 conv=fsync 2>/dev/null
for d in vda sda; do dd if=/dev/zero of=/dev/$d bs=4k count=1 conv=fsync 2>/dev/null; done
echo 3 > /proc/sys/vm/drop_caches
for d in vda vdb sda; do echo "guest: $d $(dd if=/dev/$d bs=1M count=48 2>/dev/null | sha256sum | cut -d' ' -f1)"; done
"""


@row("trim", "TRIM over virtio-blk and IDE, zeroes written: the host gets the space back", 300)
def trim(guest):
    disk = os.path.join(os.path.dirname(os.path.abspath(os.environ.get("CLOCHE_VM", "./cloche-vm"))), "cloche-disk")
    files, load = modules.files("virtio_blk", "virtio_pci", "ata_piix", "sd_mod")
    names = ("virtio.qcow2", "zeroes.raw", "ide.qcow2")
    paths = [guest.path(name) for name in names]
    for path in paths:
        subprocess.run([disk, "create", "-q", "-f", path.rsplit(".")[-1], path, "128M"], check=True)
    initrd = guest.path("initrd")
    initramfs.write(initrd, load + "sleep 1\n" + SPACE, files)
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1", "--memory", "512M",
                "--disk", f"{paths[0]},interface=virtio", "--disk", f"{paths[1]},format=raw,interface=virtio", "--disk",
                paths[2])
    guest.expect(rb"guest: filled")
    full = [os.stat(path).st_blocks * 512 for path in paths]
    guest.send("\n")
    for name in ("vda", "vdb", "sda"):
        expect_sum(guest, name, hashlib.sha256(bytes(48 * MIB)).hexdigest())
    guest.wait()
    empty = [os.stat(path).st_blocks * 512 for path in paths]
    said = ", ".join(f"{n} {a / MIB:.1f} to {b / MIB:.1f} MiB" for n, a, b in zip(names, full, empty))
    if min(full) < 48 * MIB or max(empty) > 2 * MIB:
        raise Failure(f"space on the host: {said}")
    return said


RESIZED = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "flat.vmdk": "vmdk", "vdi": "vdi", "fixed.vdi": "vdi", "vhd": "vpc", "fixed.vhd": "vpc"}
GROWN = 40  # MiB
RESIZE = """
for d in a b c d e f g h; do dd if=/dev/urandom of=/dev/vd$d bs=64k count=300 oflag=direct 2>/dev/null & done
echo "guest: writes"; read go; wait
dd if=/dev/urandom of=/tmp/r bs=1M count=%d 2>/dev/null
echo "guest: has $(sha256sum /tmp/r | cut -d' ' -f1)"
for d in a b c d e f g h; do
    dd if=/tmp/r of=/dev/vd$d bs=256k conv=fsync 2>/dev/null
    echo 3 > /proc/sys/vm/drop_caches
    echo "guest: vd$d $(cat /sys/block/vd$d/size) $(dd if=/dev/vd$d bs=1M 2>/dev/null | sha256sum | cut -d' ' -f1)"
done
""" % GROWN


@row("resize", "disks of every format grow under a guest that writes to them, and are used to their new end", 300)
def resize(guest):
    disk = os.path.join(os.path.dirname(os.path.abspath(os.environ.get("CLOCHE_VM", "./cloche-vm"))), "cloche-disk")
    words, paths = [], {}
    for name in RESIZED:
        paths[name] = path = guest.path("disk." + name)
        fixed = ["-p"] if "." in name else []
        subprocess.run([disk, "create", "-q", "-f", name.rsplit(".")[-1], *fixed, path, "24M"], check=True)
        words += ["--disk", f"{path},format={name.rsplit('.')[-1]},interface=virtio"]
    files, load = modules.files("virtio_blk", "virtio_pci")
    initrd = guest.path("initrd")
    initramfs.write(initrd, load + "sleep 1\n" + RESIZE, files)
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1", "--memory", "512M", "--control",
                guest.path("control"), *words)
    guest.expect(rb"guest: writes")
    for drive in guest.control(("query-block", {}))[0]:
        guest.control(("block_resize", {"device": drive["device"], "size": GROWN * MIB}))
    guest.send("\n")
    wanted = guest.expect(rb"guest: has ([0-9a-f]{64})")[1].decode()
    for name, letter in zip(RESIZED, "abcdefgh"):
        sectors, got = guest.expect(rb"guest: vd%s (\d+) ([0-9a-f]{64})" % letter.encode()).groups()
        if int(sectors) != GROWN * MIB // 512 or got.decode() != wanted:
            raise Failure(f"{name}: the guest sees {sectors.decode()} sectors, and read {got[:16]} in place of {wanted[:16]}")
    guest.wait()
    for name, theirs in RESIZED.items():
        subprocess.run([disk, "check", paths[name]], check=True, capture_output=True)
        subprocess.run(["qemu-img", "convert", "-f", theirs, "-O", "raw", paths[name], guest.path("plain")], check=True)
        with open(guest.path("plain"), "rb") as f:
            if hashlib.sha256(f.read()).hexdigest() != wanted:
                raise Failure(f"{name}: qemu-img reads something else")
    return f"{len(RESIZED)} disks of 24 MiB, written to meanwhile, have {GROWN} MiB; both sides read the same"


FILL = """
dd if=/dev/urandom of=/tmp/r bs=1M count=%d 2>/dev/null
echo "guest: has $(sha256sum /tmp/r | cut -d' ' -f1)"; read go
dd if=/tmp/r of=/dev/%s bs=64k conv=fsync && echo "guest: wrote all"
echo 3 > /proc/sys/vm/drop_caches
echo "guest: reads $(dd if=/dev/%s bs=1M count=%d 2>/dev/null | sha256sum | cut -d' ' -f1)"
echo "guest: errors $(dmesg | grep -ciE 'i/o error|failed command|ata.*(exception|reset)')"; read go
"""
FILLED = 40  # MiB


class SmallFileSystem:
    """An ext4 file system of 64 MiB on the host, most of whose room something else takes."""

    def __init__(self, guest):
        if os.geteuid():
            raise Skip("only root can mount a small file system")
        self.image, self.folder = guest.path("small.img"), guest.path("small")
        self.ballast = os.path.join(self.folder, "ballast")
        os.mkdir(self.folder)
        with open(self.image, "wb") as f:
            f.truncate(64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True)

    def free(self):
        v = os.statvfs(self.folder)
        return v.f_bavail * v.f_frsize

    def fill(self):
        """Leaves half of what the guest will write."""
        subprocess.run(["fallocate", "-l", str(self.free() - FILLED // 2 * MIB), self.ballast], check=True)

    def close(self):
        subprocess.run(["umount", self.folder], check=True)


def wait_for_state(library, name, state, seconds=60):
    end = time.monotonic() + seconds
    while True:
        now = [m["state"] for m in json.loads(library.ctl("list", "--json")) if m["name"] == name][0]
        if now == state:
            return
        if time.monotonic() > end:
            raise Failure(f"{name} is {now}, not {state}")
        time.sleep(0.1)


def fill_and_retry(guest, library, small, interface, device):
    disk = os.path.join(os.path.dirname(library.program), "cloche-disk")
    overlay, base = os.path.join(small.folder, interface), guest.path("base.raw")
    if not os.path.exists(base):
        with open(base, "wb") as f:
            f.truncate(64 * MIB)
    subprocess.run([disk, "create", "-q", "-b", base, "-B", "raw", overlay], check=True)
    small.fill()
    files, load = modules.files("virtio_blk", "virtio_pci", "ata_piix", "sd_mod")
    script = load + "sleep 1\n" + FILL % (FILLED, device, device, FILLED)
    library.create(interface, script, "--memory", "256M", files=files)
    library.ctl("disk", "add", interface, overlay)
    library.ctl("set", interface, f"disk0.interface={interface}")
    library.start(interface)
    events = open(guest.path(interface + ".events"), "w+")
    watcher = subprocess.Popen([library.program, "events", interface], stdout=events)
    console = library.console(interface)
    try:
        wanted = console.expect(rb"guest: has ([0-9a-f]{64})")[1]
        console.send("go\r")
        wait_for_state(library, interface, "io-error")
        library.ctl("resume", interface)  # still no room: the same again
        time.sleep(1)
        wait_for_state(library, interface, "io-error")
        left = small.free()
        os.unlink(small.ballast)
        library.ctl("resume", interface)
        console.expect(rb"guest: wrote all")
        got = console.expect(rb"guest: reads ([0-9a-f]{64})")[1]
        errors = int(console.expect(rb"guest: errors (\d+)\s")[1])
        console.send("go\r")
        console.wait()
    finally:
        console.close()
        watcher.wait(timeout=30)
    events.seek(0)
    said = events.read()
    if got != wanted or errors:
        raise Failure(f"{interface}: the guest saw {errors} errors, and read {got[:16]} in place of {wanted[:16]}")
    if said.count("BLOCK_IO_ERROR") < 2 or "nospace" not in said or said.count("RESUME") < 2:
        raise Failure(f"{interface}: the events were {said}")
    for check in ([disk, "check", overlay], ["qemu-img", "check", "-q", overlay]):
        subprocess.run(check, check=True, capture_output=True)
    os.unlink(overlay)
    return left


@row("full", "a full file system of the host under a writing guest: it pauses, goes on once there is room, and sees no error", 300)
def full(guest):
    library, small = Library(guest), SmallFileSystem(guest)
    try:
        left = [fill_and_retry(guest, library, small, *where) for where in (("virtio", "vda"), ("ide", "sda"))]
    finally:
        library.close()
        small.close()
    return f"virtio and IDE stopped with {left[0] / MIB:.1f} and {left[1] / MIB:.1f} MiB left, and wrote {FILLED} MiB each in the end"


GRUB_CONFIG = """
serial --unit=0 --speed=115200
terminal_output serial
terminal_input serial
echo "grub: up from $root"
cat /nonce
hashsum --hash sha256 /nonce
halt
"""


def grub_iso(guest):
    os.makedirs(guest.path("iso/boot/grub"))
    with open(guest.path("iso/boot/grub/grub.cfg"), "w") as f:
        f.write(GRUB_CONFIG)
    with open(guest.path("iso/nonce"), "w") as f:
        f.write(guest.nonce)
    iso = guest.path("grub.iso")
    try:
        subprocess.run(["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", iso, guest.path("iso")], check=True,
                       capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise Skip("grub-mkrescue with its i386-pc platform (grub-pc-bin, xorriso) is not installed")
    return iso


def grub(guest, *arguments):
    guest.start("--memory", "128M", *arguments)
    wanted = hashlib.sha256(guest.nonce.encode()).hexdigest()
    root = guest.expect(rb"grub: up from (\S+)\s")[1].decode()
    if guest.expect(rb"([0-9a-f]{64})")[1].decode() != wanted:
        raise Failure("GRUB computed a wrong checksum")
    guest.wait()
    return f"booted from {root}, read a file, computed its checksum, halted"


@row("grub-cd", "a GRUB rescue ISO from the CD drive by SeaBIOS (El Torito)", 120, quick=True)
def grub_cd(guest):
    return grub(guest, "--cdrom", grub_iso(guest), "--boot", "d")


@row("grub-ide", "the same image as an IDE disk by SeaBIOS", 120)
def grub_ide(guest):
    return grub(guest, "--disk", f"{grub_iso(guest)},format=raw", "--boot", "c")


@row("grub-virtio", "the same image as a virtio disk by SeaBIOS", 120)
def grub_virtio(guest):
    return grub(guest, "--disk", f"{grub_iso(guest)},format=raw,interface=virtio", "--boot", "c")


@row("ports", "a virtio console, a PCI serial card and virtio-rng: what the guest writes there arrives", 200)
def ports(guest):
    files, load = modules.files("virtio_console", "virtio_pci", "virtio-rng")
    script = load + f"""
stty -F /dev/ttyS4 raw -echo; stty -F /dev/hvc0 raw -echo
busybox seq 1 20000 > /tmp/lines; echo {guest.nonce} >> /tmp/lines
cat /tmp/lines > /dev/hvc0
cat /tmp/lines > /dev/ttyS4
echo "guest: rng $(cat /sys/class/misc/hw_random/rng_current) $(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c)"
sleep 1
"""
    initrd = guest.path("initrd")
    initramfs.write(initrd, script, files)
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet 8250.nr_uarts=8", "--memory",
                "256M", "--device", f"virtio-console,target=file:{guest.path('hvc')}", "--device",
                f"pci-serial,target=file:{guest.path('pci')}", "--device", "virtio-rng")
    source, count = guest.expect(rb"guest: rng (\S+) (\d+)\r").groups()
    guest.wait()
    wanted = "".join(f"{n}\n" for n in range(1, 20001)) + guest.nonce + "\n"
    for name in ("hvc", "pci"):
        with open(guest.path(name)) as f:
            got = f.read()
        if got != wanted:
            raise Failure(f"{name}: {len(got)} bytes arrived in place of {len(wanted)}, or others")
    if not source.startswith(b"virtio_rng") or count != b"1024":
        raise Failure(f"the guest's random source is {source}, and gave {count} bytes")
    return "109 KB without loss over each, 1 KiB of random bytes"
