#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Saved state, class by class: every device that the monitor lists is put into a machine whose firmware has programmed it, and
its state is saved, the machine reset, the state loaded, and compared. A class without a table must refuse by name.
With --record, writes a state file for tests/state; otherwise the ones that are there must load, for ever."""
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KEPT = os.path.join(HERE, "..", "state")
BUILD = os.path.abspath(os.environ.get("CLOCHE_BUILD", "."))
VM = os.path.join(BUILD, "cloche-vm")
PATIENCE = 60
ENGINES = os.environ.get("STATE_ENGINES", "interpret translate").split()  # that load what is kept


class Failure(Exception):
    pass


class Vm:
    """One monitor started by hand, with a control connection."""

    def __init__(self, work, *arguments):
        self.path = os.path.join(work, "control")
        self.process = subprocess.Popen([VM, "--memory", "32M", "--engine", "interpret", "--control", self.path, *arguments],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.socket.connect(self.path)
                break
            except OSError:
                if self.process.poll() is not None:
                    raise Failure(f"cloche-vm {' '.join(arguments)}: {self.process.stderr.read()}")
                if time.monotonic() > end:
                    raise Failure("the control socket does not appear")
                time.sleep(0.02)
        self.file = self.socket.makefile("r")
        self.file.readline()
        self.call("qmp_capabilities")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                return answer

    def call(self, command, **arguments):
        answer = self.ask(command, **arguments)
        if "return" not in answer:
            raise Failure(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def info(self, what):
        return self.call("human-monitor-command", **{"command-line": "info " + what})

    def end(self):
        self.socket.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()


def classes():
    """(name, offered to users) of each class."""
    out = subprocess.run([VM, "--list-devices"], capture_output=True, text=True, check=True).stdout
    return [(line.split()[0], "(part of the board)" not in line) for line in out.splitlines() if line and line[0] != " "]


def extra_arguments(name, work):
    """What a class needs beside --device."""
    image = os.path.join(work, "disk.img")
    with open(image, "wb") as f:
        f.truncate(1 << 20)
    if name == "virtio-blk":
        return ["--disk", f"{image},format=raw,interface=virtio"]
    if name in ("virtio-net", "e1000", "rtl8139", "pcnet", "ne2k"):
        return ["--net", f"none,card={name}"]
    if name == "vga":
        return ["--display-adapter", "vga"]
    if name == "virtio-gpu":
        return ["--display-adapter", "virtio-gpu"]
    if name.startswith("usb-"):
        return ["--device", "xhci", "--device", name]
    return ["--device", name]


def board_arguments(work):
    image, floppy = os.path.join(work, "ide.img"), os.path.join(work, "floppy.img")
    for path, size in ((image, 1 << 20), (floppy, 1474560)):
        with open(path, "wb") as f:
            f.truncate(size)
    return ["--disk", f"{image},format=raw,interface=ide", "--cdrom", "", "--floppy", floppy]


def check_class(name, arguments, work):
    vm = Vm(work, *arguments)
    try:
        tree = dict(line.split(": ", 1) for line in vm.info("qtree").splitlines())
        present = {text.split()[0] for text in tree.values()}
        if name not in present:
            raise Failure(f"{name} is not in a machine that was given it: {sorted(present)}")
        for _ in range(4): # while the firmware finds and programs it
            time.sleep(0.25)
            answer = vm.ask("x-cloche-check-state")
            if "error" in answer:
                text = answer["error"]["desc"]
                if any(f"({name})" in text and "(not saved)" in kind for kind in tree.values()):
                    return f"refuses to be saved, by name: {text}"
                raise Failure(f"{name}: {text}")
        return "saved and loaded"
    finally:
        vm.end()


def every_class(work):
    seen = []
    for name, offered in classes():
        arguments = extra_arguments(name, work) if offered else board_arguments(work)
        if name == "direct-boot":
            kernel = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux"
            if not os.access(kernel, os.R_OK):
                continue
            arguments = ["--memory", "128M", "--kernel", kernel]
        try:
            print(f"{name:16} {check_class(name, arguments, work)}", flush=True)
            seen.append(name)
        except Failure as failure:
            if not offered and "is not in a machine" in str(failure):
                print(f"{name:16} is not on this board: {failure}")
            raise
    return seen


# ---- Kept files: tests/state/NAME/{arguments,text,state,ram.zst}, and whole machines: tests/state/NAME.tar.zst ----
# Made by --record NAME once, kept as they are. Their guest is a boot sector that says a dot at each tick of the timer.

# sti; again: hlt; mov dx, 0x3f8; mov al, '.'; out dx, al; jmp again
TICKER = bytes.fromhex("fb f4 baf803 b02e ee ebf7").ljust(510, b"\0") + b"\x55\xaa"
# A multiboot kernel: dd 0x1badb002, 0x10000, -(both), 0x100000 (twice), 0x10003a (twice), 0x100020; at 0x20:
# again: mov ecx, 0x8000; wait: pause; loop wait; mov dx, 0x3f8; mov al, '.'; out dx, al; jmp again
KERNEL = bytes.fromhex("02b0ad1b 00000100 fe4f51e4 00001000 00001000 3a001000 3a001000 20001000"
                       "b900800000 f390 e2fc 66baf803 b02e ee ebec").ljust(64, b"\0")
SERIAL = ["--serial", "file:{W}/serial"]
DISK = ["--disk", "{W}/disk.img,format=raw,interface="]
SETS = {
    "pc-board": [*SERIAL, DISK[0], DISK[1] + "ide", "--cdrom", "", "--floppy", "{W}/floppy.img"],
    "pc-cards": [*SERIAL, DISK[0], DISK[1] + "ide", *[word for card in ("virtio-net", "e1000", "rtl8139", "pcnet", "ne2k")
                                                      for word in ("--device", f"{card},backend=none,no-rom=on")],
                 "--device", "pci-serial", "--device", "pci-testdev", "--device", "pc-testdev", "--device", "isa-debug-exit"],
    "pc-usb-and-input": [*SERIAL, DISK[0], DISK[1] + "ide", "--device", "xhci", "--device", "usb-keyboard", "--device", "usb-mouse",
                         "--device", "usb-tablet", "--device", "virtio-keyboard", "--device", "virtio-mouse", "--device", "virtio-tablet"],
    "pc-virtio-two-heads": [*SERIAL, DISK[0], DISK[1] + "virtio", "--cpus", "2", "--display-adapter", "none", "--device", "virtio-gpu,heads=2",
                            "--device", "virtio-rng", "--device", "virtio-console", "--device", "spice-agent"],
    "pc-no-screen": [*SERIAL, DISK[0], DISK[1] + "ide", "--display-adapter", "none"],
    "pc-kernel": [*SERIAL, "--kernel", "{W}/kernel"],
}
# Debian's kernel with its drivers for what it finds; each round all of it is used. When loaded, a dummy stands for the kernel file.
LINUX_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_gpu", "virtio_input", "evdev", "xhci_pci", "usbhid", "hid_generic",
                 "ata_piix", "sd_mod", "sr_mod", "8139cp", "e1000")
LINUX_NETS = ("virtio-net", "e1000", "rtl8139")
SETS["pc-linux"] = [*SERIAL, "--memory", "192M", "--kernel", "{W}/kernel", "--display-adapter", "virtio-gpu", DISK[0],
                    "{W}/disk.img,format=raw,interface=virtio", DISK[0], "{W}/disk2.img,format=raw,interface=ide", "--cdrom", "{W}/cd.iso",
                    *[word for card in LINUX_NETS for word in ("--device", f"{card},backend=none,no-rom=on" + (",cplus=on" if card == "rtl8139" else ""))],
                    "--device", "virtio-keyboard", "--device", "virtio-tablet", "--device", "xhci", "--device", "usb-keyboard", "--device", "usb-tablet"]
LINUX_WORK = """
echo 1 > /proc/sys/kernel/printk
while [ ! -b /dev/vda ] || [ ! -b /dev/sda ] || [ ! -b /dev/sr0 ] || [ ! -c /dev/fb0 ] || [ ! -d /sys/class/net/eth2 ]; do sleep 0.2; done
for i in 0 1 2; do ifconfig eth$i 10.0.$i.1 netmask 255.255.255.0 up; done
for e in /dev/input/event*; do (while busybox head -c 24 $e >/dev/null; do echo "input at $e"; done) & done
read_all() { for d in vda sda sr0; do echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/$d bs=64k 2>/dev/null | sha256sum; done; }
sent() { cat /sys/class/net/eth*/statistics/tx_packets | tr '\n' ' '; }
read_all >/tmp/first
n=0
while true; do
    n=$((n + 1)) said=good before=$(sent)
    read_all | cmp -s - /tmp/first || said="BAD disks"
    for d in vda sda; do echo "round $n" | dd of=/dev/$d bs=512 seek=2000 conv=fsync 2>/dev/null || said="BAD $d"; done
    for i in 0 1 2; do ping -c 1 -W 1 10.0.$i.2 >/dev/null 2>&1; done
    set -- $(sent)
    for b in $before; do [ $b -lt $1 ] || said="BAD nets"; shift; done
    dd if=/dev/urandom of=/dev/fb0 bs=4k count=64 2>/dev/null || said="BAD screen"
    read_all >/tmp/first
    echo "round $n $said"
done
"""
FILES = {"disk2.img": bytes(1 << 20), "cd.iso": bytes(range(256)) * 4096, "disk.img": TICKER.ljust(1 << 20, b"\0"), "floppy.img": bytes(1474560), "kernel": KERNEL}


def make_files(arguments, folder):
    """The arguments with the files that they name, which are made in FOLDER."""
    for name, content in FILES.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content)
    return [word.replace("{W}", folder) for word in arguments]


def comparable(text):
    """The state as text without what changes by loading (the attention bits) and spaces at the ends of lines."""
    return re.sub(r"attention = \w+| +$", "", text, flags=re.M)


def ticks(folder):
    path = os.path.join(folder, "serial")
    return os.path.getsize(path) if os.path.exists(path) else 0


def wait_ticks(folder, more):
    start, end = ticks(folder), time.monotonic() + PATIENCE
    while ticks(folder) < start + more:
        if time.monotonic() > end:
            raise Failure("the guest does not run on")
        time.sleep(0.05)


def record(work, name):
    if name == "pc-snapshots":
        return record_machine(work, name)
    arguments = make_files(SETS[name], work)
    if name == "pc-linux":
        arguments = linux_arguments(arguments, work)
    vm = Vm(work, *arguments)
    (wait_rounds if name == "pc-linux" else wait_ticks)(work, 3)
    vm.call("stop")
    folder = os.path.join(KEPT, name)
    os.makedirs(folder)
    vm.call("x-cloche-write-state", folder=folder)
    with open(os.path.join(folder, "text"), "w") as f:
        f.write(re.sub(r" +$", "", vm.info("state"), flags=re.M))
    with open(os.path.join(folder, "arguments"), "w") as f:
        json.dump(SETS[name], f)
    vm.end()
    subprocess.run(["zstd", "-19", "-q", "--rm", os.path.join(folder, "ram")], check=True)
    return None


def linux_arguments(arguments, work):
    sys.path.insert(0, os.path.join(HERE, "..", "guests"))
    import initramfs
    import modules
    files, load = modules.files(*LINUX_MODULES)
    initramfs.write(os.path.join(work, "initrd"), load + LINUX_WORK, files)
    arguments = [modules.kernel() if word.endswith("/kernel") else word for word in arguments]
    # What is free is zero, and compresses.
    return [*arguments, "--engine", "translate", "--initrd", os.path.join(work, "initrd"), "--append", "console=ttyS0 quiet init_on_free=1"]


def said(folder):
    with open(os.path.join(folder, "serial"), errors="replace") as file:
        return file.read()


def wait_said(folder, pattern, more):
    """Until the guest says PATTERN so many times more."""
    begun, end = len(said(folder)), time.monotonic() + 4 * PATIENCE
    while len(re.findall(pattern, said(folder)[begun:])) < more:
        if time.monotonic() > end or "BAD" in said(folder):
            raise Failure(f"the guest does not go on as it did: {said(folder)[-300:]!r}")
        time.sleep(0.05)


def wait_rounds(folder, more):
    if not os.path.exists(os.path.join(folder, "serial")):
        time.sleep(1)
    wait_said(folder, r"round \d+ good", more)


def use_linux(vm, folder):
    """What its drivers left off goes on, and keys arrive."""
    wait_rounds(folder, 2)
    vm.call("send-key", keys=[{"type": "qcode", "data": "a"}])
    wait_said(folder, r"input at /dev/input", 1)
    wait_rounds(folder, 1)


def load_one(folder, work, *engine):
    """Returns the classes that the machine has."""
    copy = os.path.join(work, "kept")
    shutil.copytree(folder, copy)
    subprocess.run(["zstd", "-d", "-q", "--rm", os.path.join(copy, "ram.zst")], check=True)
    with open(os.path.join(copy, "arguments")) as f:
        kept = json.load(f)
    vm = Vm(work, "--pause", "--load-state", copy, *make_files(kept, work), *engine)
    try:
        with open(os.path.join(copy, "text")) as f:
            before = comparable(f.read())
        after = comparable(vm.info("state"))
        for a, b in zip(before.splitlines(), after.splitlines()):
            # A newer build may have more fields; what the file had must be the same.
            if a != b and a in after:
                continue
            if a != b:
                raise Failure(f"{folder}: {a} became {b}")
        vm.call("cont")
        if folder.endswith("pc-linux"):
            use_linux(vm, work)
        elif "--serial" in kept:
            wait_ticks(work, 5)
        else:
            time.sleep(0.5)
        if vm.call("query-status")["status"] != "running":
            raise Failure(f"{folder}: the machine does not run on")
        return {line.split(": ", 1)[1].split()[0] for line in vm.info("qtree").splitlines()}
    finally:
        vm.end()
        shutil.rmtree(copy)


# ---- A whole machine with a chain of snapshots ----

def ctl(*words):
    done = subprocess.run([os.path.join(BUILD, "clochectl"), *words], capture_output=True, text=True, timeout=2 * PATIENCE)
    if done.returncode:
        raise Failure(f"clochectl {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def library(work):
    os.environ.update(CLOCHE_LIBRARY=os.path.join(work, "library"), XDG_RUNTIME_DIR=os.path.join(work, "run"), CLOCHE_VM=VM)
    os.makedirs(os.environ["XDG_RUNTIME_DIR"], 0o700, exist_ok=True)


def record_machine(work, name):
    library(work)
    make_files([], work)
    ctl("create", name, "--memory", "32M", "--net", "none", "--disk", "1M", "--boot", "c", "--engine", "interpret", "--serial", "file:serial")
    folder = os.path.join(work, "library", name)
    subprocess.run([os.path.join(BUILD, "cloche-disk"), "convert", "--force", "--format", "qcow2", os.path.join(work, "disk.img"),
                    os.path.join(folder, "disk0.qcow2")], check=True)
    ctl("snapshot", "take", name, "off")
    ctl("start", name)
    for snapshot in ("one", "two"):
        wait_ticks(folder, 5)
        ctl("snapshot", "take", name, snapshot)
    wait_ticks(folder, 5)
    ctl("save", name)
    os.unlink(os.path.join(folder, "serial"))
    ctl("export", name, os.path.join(KEPT, name + ".tar.zst"), "--snapshots")


def load_machine(archive, work):
    library(work)
    ctl("import", archive, "--name", "kept")
    folder = next(m["folder"] for m in json.loads(ctl("list", "--json")) if m["name"] == "kept")
    for snapshot in ("", "one", "two", "off"):
        if snapshot:
            ctl("snapshot", "restore", "kept", snapshot)
        ctl("start", "kept")
        wait_ticks(folder, 5)
        ctl("stop", "kept", "--force")
    for snapshot in ("one", "off", "two"):
        if snapshot == "off":  # the present state stands on it
            ctl("start", "kept")
            ctl("stop", "kept", "--force")
        ctl("snapshot", "delete", "kept", snapshot)
    ctl("start", "kept")
    wait_ticks(folder, 5)
    ctl("stop", "kept", "--force")
    ctl("remove", "kept", "--yes")


def load_kept(work):
    folders = [f for f in sorted(glob.glob(os.path.join(KEPT, "*"))) if os.path.isdir(f)]
    archives, seen = sorted(glob.glob(os.path.join(KEPT, "*.tar.zst"))), set()
    for folder in folders:
        for engine in ENGINES:
            seen |= load_one(folder, work, "--engine", engine)
        print(f"{os.path.basename(folder)}: loads and runs on under {', '.join(ENGINES)}", flush=True)
    for archive in archives:
        load_machine(archive, work)
        print(f"{os.path.basename(archive)}: every snapshot loads and runs on", flush=True)
    if not folders or not archives:
        raise Failure("no kept state files")
    never = sorted({name for name, _ in classes()} - seen)
    print(f"classes without a kept file: {', '.join(never) or 'none'}")


def refused_extension(work):
    """A processor with an extension that this one has not; AVX-512 needs an engine that has it, too."""
    with open("/proc/cpuinfo") as f:
        flags = f.read()
    if " sha_ni " not in flags:
        return
    folder = os.path.join(work, "extension")
    vm = Vm(work, "--cpu", "host", "--engine", "translate")
    vm.call("stop")
    os.makedirs(folder)
    vm.call("x-cloche-write-state", folder=folder)
    vm.end()
    refusals = [("SHA", ["--cpu", "x86-64-v3"])]
    if " avx512f " in flags:
        refusals.append(("AVX-512F", ["--cpu", "host", "--engine", "interpret"]))
    for name, arguments in refusals:
        loaded = subprocess.run([VM, "--memory", "32M", "--pause", "--load-state", folder, *arguments], capture_output=True,
                                text=True, timeout=60)
        if loaded.returncode == 0 or f"processor has {name}," not in loaded.stderr:
            raise Failure(f"a state with {name} is not refused by name: {loaded.returncode}, {loaded.stderr}")
    print("a processor without an extension of the saved one is refused by its name")


def main():
    work = tempfile.mkdtemp(prefix="cloche-state-")
    try:
        if len(sys.argv) == 3 and sys.argv[1] == "--record":
            record(work, sys.argv[2])
        else:
            every_class(work)
            load_kept(work)
            refused_extension(work)
        return 0
    except Failure as failure:
        print(f"FAILED: {failure}")
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)


sys.exit(main())
