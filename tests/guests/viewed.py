# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests show and what people do with it over VNC: the graphical installer by mouse and keyboard, text consoles."""
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

import initramfs
import modules
from guests import IMAGES, row
from harness import Failure, Skip, need
from viewer import Viewer

GTK = f"{IMAGES}/amd64/gtk/debian-installer/amd64"
DOWN, UP, RETURN = 0xFF54, 0xFF52, 0xFF0D


# ---- The graphical installer ----
# Beside the stock system: its log, in which debconf tells every question and answer, goes to the serial port too.
LOG = b"(while ! [ -f /var/log/syslog ]; do sleep 1; done; tail -f /var/log/syslog >/dev/ttyS0) &\n"
PLACES = [(640, 300), (641, 300), (641, 301), (500, 617), (777, 333), (1100, 701), (1101, 702), (903, 250), (412, 545)]


def pointer_offsets(viewer):
    """Where the arrow is drawn against where it was sent, in a part of the screen that is plain."""
    viewer.pointer(2, 2)
    viewer.serve(1)
    viewer.still(1.5)
    corner = bytes(viewer.picture)
    offsets = set()
    for x, y in PLACES:
        viewer.pointer(x, y)
        viewer.serve(.3)
        viewer.still(.5)
        # without the corner, where the arrow was
        before = bytearray(corner)
        rows = viewer.width * 4 * 100
        before[:rows] = viewer.picture[:rows]
        box = viewer.difference(before)
        if not box or box[2] > 40 or box[3] > 40:
            raise Failure(f"the pointer sent to {x}, {y} changed {box}")
        offsets.add((box[0] - x, box[1] - y))
    return offsets


def installer_by_mouse(guest, *devices):
    initrd = guest.path("initrd")
    with open(need(f"{GTK}/initrd.gz"), "rb") as f:
        data = f.read()
    with open(initrd, "wb") as f:
        f.write(data + b"\0" * (-len(data) % 4) + initramfs.overlay([("lib/debian-installer-startup.d/S00log", 0o755, LOG)]))
    guest.start("--kernel", f"{GTK}/linux", "--initrd", initrd, "--append", "vga=788 DEBCONF_DEBUG=5", "--memory", "1G",
                "--display", "vnc=unix:" + guest.path("vnc"), *devices)
    viewer = Viewer(guest.path("vnc"))
    answer = drive(guest, viewer)
    guest.stop()
    return answer


def answered(guest, viewer, pattern):
    """Waits for PATTERN in the log while the viewer is served."""
    while not re.search(pattern, guest.output[guest.position:], re.S):
        if time.monotonic() > guest.deadline:
            guest.fail(f"no {pattern!r} in the installer's log")
        viewer.serve(.2)
        guest.pump(0)
    return guest.expect(pattern)


def drive(guest, viewer):
    answered(guest, viewer, rb"INPUT critical localechooser/languagelist.*?--> GO")
    viewer.until(lambda: viewer.colours() > 1000, 90, "the list of languages")
    viewer.still(4)
    offsets = pointer_offsets(viewer)
    if len(offsets) != 1 or not all(-1 <= o <= 1 for o in next(iter(offsets))):
        raise Failure(f"the pointer is drawn beside where it was sent: {sorted(offsets)}")
    viewer.click(100, 547)  # the line of French
    viewer.still(1)
    viewer.click(1219, 775)  # Continue
    answered(guest, viewer, rb"--> GET localechooser/languagelist.{0,80}<-- 0 fr\b")
    answered(guest, viewer, rb"INPUT \w+ localechooser/shortlist.*?--> GO")
    viewer.serve(1)
    viewer.still(2)
    viewer.key(DOWN, DOWN, UP, RETURN)
    country = answered(guest, viewer, rb"--> GET localechooser/shortlist.{0,80}?<-- 0 ([A-Z]{2})\b")[1].decode()
    answered(guest, viewer, rb"INPUT \w+ keyboard-configuration/xkb-keymap.*?--> GO")
    viewer.serve(1)
    viewer.still(2)
    viewer.save(guest.path("keyboard.ppm"))
    return f"pointer exact at {len(PLACES)} places (offset {next(iter(offsets))}), fr by mouse, {country} by keyboard, keyboard page came"


@row("installer-gtk-usb", "Debian's graphical installer over VNC by mouse and keyboard: USB tablet", 400)
def installer_gtk_usb(guest):
    return installer_by_mouse(guest, "--device", "xhci", "--device", "usb-tablet", "--device", "usb-keyboard")


@row("installer-gtk-virtio", "the same with virtio-input, on virtio-gpu", 400)
def installer_gtk_virtio(guest):
    return installer_by_mouse(guest, "--display-adapter", "virtio-gpu", "--device", "virtio-tablet", "--device", "virtio-keyboard")


# ---- Text consoles, against QEMU's picture of the same ----
CONSOLE = """
%s
exec >/dev/tty1 2>&1
printf '\\033[?25l\\033[2J\\033[H'
for c in 0 1 2 3 4 5 6 7; do printf "\\033[3${c}m colour $c \\033[1;4${c}m bright \\033[0m |"; done
echo
for a in 32 48 64 80 96 112; do for b in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do
    printf "\\\\x$(printf %%x $((a + b)))"; done; done
echo; echo "the quick brown fox jumps over the lazy dog"; printf '\\033[7mreverse\\033[0m \\033[4munderlined\\033[0m\\n'
i=0; while [ $i -lt 12 ]; do echo "line $i $((i * 7919))"; i=$((i + 1)); done
sleep 1
echo shown >/dev/ttyS0
read pitch </dev/ttyS0
for y in 0 1 2 3 4 5 6 7; do
    printf '\\377\\377\\377\\377\\377\\377\\377\\377\\377\\377\\377\\377\\377\\377\\377\\377' >/tmp/half
    cat /tmp/half /tmp/half | dd of=/dev/fb0 bs=32 seek=$(((pitch * (500 + y) + 1600) / 32)) conv=notrunc 2>/dev/null
done
echo drawn >/dev/ttyS0
sleep 1000
"""


def qemu_picture(folder, arguments, device):
    """The same guest in QEMU: its screen as bytes of a PPM."""
    if not shutil.which("qemu-system-x86_64"):
        raise Skip("qemu-system-x86_64, the reference, is not installed")
    control, out = os.path.join(folder, "qmp"), os.path.join(folder, "qemu.ppm")
    process = subprocess.Popen(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-vga", "none", "-device", device,
                                "-display", "none", "-serial", "stdio", "-qmp", f"unix:{control},server=on,wait=off", *arguments],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for line in process.stdout:
            if line.startswith(b"shown"):
                break
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(control)
            stream = connection.makefile("rw")
            stream.readline()
            for command, more in (("qmp_capabilities", {}), ("screendump", {"filename": out})):
                stream.write(json.dumps({"execute": command, "arguments": more}) + "\n")
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass
        with open(out, "rb") as f:
            return f.read()
    finally:
        process.kill()
        process.wait()


def small_change(guest, viewer):
    """The guest draws 8x8 pixels: all that is sent lies in a square of 64."""
    viewer.serve(1)
    viewer.rectangles.clear()
    guest.send(f"{viewer.width * 4}\n")
    guest.expect("drawn")
    viewer.until(lambda: all(viewer.pixel(x, y) == 0xFFFFFF for x in (400, 407) for y in (500, 507)), 20, "the small square")
    viewer.serve(1)
    boxes = viewer.rectangles
    width = max(x + w for x, _, w, _ in boxes) - min(x for x, _, _, _ in boxes)
    height = max(y + h for _, y, _, h in boxes) - min(y for _, y, _, _ in boxes)
    if width > 64 or height > 64:
        guest.fail(f"a change of 8x8 pixels was sent as {width}x{height}")
    return f"; 8x8 changed, {width}x{height} sent"


def console(guest, names, append, ours, theirs):
    files, load = modules.files(*names) if names else ([], "")
    initrd = guest.path("initrd")
    initramfs.write(initrd, CONSOLE % load, files)
    boot = ["--kernel", modules.kernel(), "--initrd", initrd, "--append", f"quiet panic=-1 {append}"]
    guest.start("--memory", "512M", "--display", "vnc=unix:" + guest.path("vnc"), "--display-adapter", ours, *boot)
    guest.expect("shown")
    viewer = Viewer(guest.path("vnc"))
    viewer.serve(1)
    viewer.save(guest.path("own.ppm"))
    with open(guest.path("own.ppm"), "rb") as f:
        own = f.read()
    small = small_change(guest, viewer) if viewer.height > 500 else ""
    guest.stop()
    with tempfile.TemporaryDirectory() as folder:
        qemu = qemu_picture(folder, [a.replace("--", "-", 1) for a in boot], theirs)
    with open(guest.path("qemu.ppm"), "wb") as f:
        f.write(qemu)
    size = tuple(map(int, re.match(rb"P6\s(\d+) (\d+)\s", qemu).groups()))
    if size != (viewer.width, viewer.height):
        raise Failure(f"{viewer.width}x{viewer.height} in place of {size}")
    ours, theirs = own[-3 * size[0] * size[1]:], qemu[-3 * size[0] * size[1]:]
    wrong = sum(abs(a - b) > 3 for a, b in zip(ours, theirs))  # of 6 bits, QEMU makes 8 another way
    if wrong or len(set(ours)) < 3:
        raise Failure(f"{wrong} bytes differ from QEMU's")
    return f"{size[0]}x{size[1]}, every pixel as in QEMU{small}"


@row("console-text", "Linux' text console on VGA text", 200)
def console_text(guest):
    return console(guest, [], "", "vga", "VGA")


@row("console-vbe", "the same on a VBE frame buffer, 1024x768 with 32 bits", 200)
def console_vbe(guest):
    return console(guest, [], "vga=0x344", "vga", "VGA")


@row("console-bochs", "the same on bochs-drm", 200)
def console_bochs(guest):
    return console(guest, ["bochs"], "", "vga", "VGA,xres=1280,yres=800")


@row("console-virtio-gpu", "the same on virtio-gpu by the kernel's own driver", 200)
def console_virtio_gpu(guest):
    return console(guest, ["virtio_pci", "virtio_gpu"], "", "virtio-gpu", "virtio-gpu-pci,xres=1280,yres=800")
