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


# ---- Kept files: tests/state/NAME/{arguments,text,state,ram.zst} ----

KEPT_ARGUMENTS = ["--cpus", "2"]


def comparable(text):
    """The state as text without what changes by loading: the attention bits."""
    return re.sub(r"attention = \w+", "attention", text)


def record(work):
    vm = Vm(work, *KEPT_ARGUMENTS)
    time.sleep(2) # the firmware has found nothing to boot
    vm.call("stop")
    folder = os.path.join(KEPT, sys.argv[2])
    os.makedirs(folder)
    vm.call("x-cloche-write-state", folder=folder)
    with open(os.path.join(folder, "text"), "w") as f:
        f.write(vm.info("state"))
    with open(os.path.join(folder, "arguments"), "w") as f:
        json.dump(KEPT_ARGUMENTS, f)
    vm.end()
    subprocess.run(["zstd", "-19", "-q", "--rm", os.path.join(folder, "ram")], check=True)


def load_kept(work):
    count = 0
    for folder in sorted(glob.glob(os.path.join(KEPT, "*"))):
        copy = os.path.join(work, "kept")
        shutil.copytree(folder, copy)
        subprocess.run(["zstd", "-d", "-q", "--rm", os.path.join(copy, "ram.zst")], check=True)
        with open(os.path.join(copy, "arguments")) as f:
            arguments = json.load(f)
        vm = Vm(work, "--pause", "--load-state", copy, *arguments)
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
        time.sleep(0.5)
        if vm.call("query-status")["status"] != "running":
            raise Failure(f"{folder}: the machine does not run on")
        vm.end()
        shutil.rmtree(copy)
        count += 1
        print(f"{os.path.basename(folder)}: loads and runs on", flush=True)
    if not count:
        raise Failure("no kept state files")


def main():
    work = tempfile.mkdtemp(prefix="cloche-state-")
    try:
        if len(sys.argv) == 3 and sys.argv[1] == "--record":
            record(work)
        else:
            every_class(work)
            load_kept(work)
        return 0
    except Failure as failure:
        print(f"FAILED: {failure}")
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)


sys.exit(main())
