# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's X11 on virtio-gpu, seen and driven by a VNC viewer: sizes that follow the viewer, pointer, keys, clipboard."""
import os
import re
import shutil
import subprocess
import time

from debian import command, log_in
from guests import row
from harness import Skip
from viewer import Viewer

PACKAGES = ("xserver-xorg-core xserver-xorg-input-libinput xinit xterm x11-xserver-utils x11-utils xfonts-base xdotool xclip "
            "spice-vdagent openbox dbus dbus-x11 kbd libpam-systemd python3-minimal").split()
SESSION = r"""
mkdir -p /etc/systemd/system/getty@tty1.service.d
printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty -a root --noclear tty1 linux\n' >/etc/systemd/system/getty@tty1.service.d/auto.conf
printf '[ "$(tty)" = /dev/tty1 ] && exec startx\n' >/root/.bash_profile
cat >/root/.xinitrc <<'END'
xsetroot -solid '#336699'
spice-vdagent
udevadm monitor -u -s drm | while read -r line; do xrandr --output Virtual-1 --auto; done &
openbox &
sleep 2
xterm -geometry 60x10+20+20 -e sh -c 'touch /tmp/x-ready; cat >/tmp/typed' &
wait
END
"""
PLACES = [(0, 0), (1, 0), (0, 1), (333, 127), (334, 128), (500, 699), (999, 699), (998, 350), (77, 600)]
FROM_GUEST, TO_GUEST = "Gr\u00fc\u00dfe, \u4e16\u754c \U0001F600 from the guest", "\u20ac 100 f\u00fcr \u0416\u0443\u043a, to the guest"


def image():
    """Made once and kept in the cache."""
    cache = os.environ.get("CLOCHE_CACHE", os.path.expanduser("~/.cache/cloche-tests"))
    path = os.path.join(cache, "debian-12-x.img")
    if not os.path.exists(path):
        if os.geteuid() != 0 or not shutil.which("debootstrap"):
            raise Skip("making the Debian disk needs root and debootstrap")
        os.makedirs(cache, exist_ok=True)
        maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "make-debian")
        made = subprocess.run([maker, path, *PACKAGES], capture_output=True, text=True, env=dict(os.environ, SIZE="2600"))
        if made.returncode:
            raise Skip(f"the Debian disk could not be made: {made.stdout[-200:]}{made.stderr[-200:]}")
    return path


def start_x(guest, *devices):
    disk = guest.path("disk.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image(), disk], check=True)
    guest.start("--memory", "1G", "--disk", f"{disk},format=qcow2,interface=virtio", "--display-adapter", "virtio-gpu",
                "--display", "vnc=unix:" + guest.path("vnc"), *devices)
    log_in(guest)
    guest.send("cat >/root/session <<'ALL'\r" + SESSION.strip().replace("\n", "\r") + "\rALL\r")
    guest.expect(rb"\r\n> ALL\r\n")
    command(guest, "sh /root/session")
    command(guest, "systemctl daemon-reload; systemctl restart getty@tty1")
    command(guest, "for i in $(seq 200); do [ -f /tmp/x-ready ] && break; sleep 1; done; [ -f /tmp/x-ready ]")
    command(guest, "export DISPLAY=:0 XAUTHORITY=$(ls -t /tmp/serverauth.* /root/.Xauthority 2>/dev/null | head -n 1)")
    return Viewer(guest.path("vnc"))


def guest_size(guest):
    return tuple(map(int, re.search(r"dimensions: +(\d+)x(\d+)", command(guest, "xdpyinfo | grep dimensions")).groups()))


def sizes(guest, viewer):
    seen = [guest_size(guest)]
    if seen[0] != (viewer.width, viewer.height):
        guest.fail(f"the viewer has {viewer.width}x{viewer.height}, the guest {seen[0]}")
    for size in ((1436, 888), (1000, 700)):
        viewer.wish(*size)
        viewer.until(lambda: (viewer.width, viewer.height) == size, 30, f"a picture of {size}")
        seen.append(guest_size(guest))
        if seen[-1] != size:
            guest.fail(f"the viewer has {size}, the guest {seen[-1]}")
    viewer.until(lambda: viewer.pixel(900, 600) == 0x336699, 30, "the background")
    return ", ".join("%dx%d" % s for s in seen)


def pointer(guest, viewer):
    for x, y in PLACES:
        viewer.pointer(x, y)
        viewer.serve(.4)
        place = re.search(r"x:(\d+) y:(\d+)", command(guest, "xdotool getmouselocation"))
        if (int(place[1]), int(place[2])) != (x, y):
            guest.fail(f"the pointer sent to {x}, {y} is at {place[1]}, {place[2]}")
    return f"pointer exact at {len(PLACES)} places"


def drawn(guest, viewer):
    """The arrow that the adapter's hardware cursor makes, on the plain background: its tip is where the pointer is."""
    offsets = set()
    for x, y in ((600, 400), (601, 400), (733, 655), (900, 300)):
        viewer.pointer(x, y)
        viewer.serve(1)
        ink = [(i % 60, i // 60) for i in range(3600) if viewer.pixel(x - 30 + i % 60, y - 30 + i // 60) != 0x336699]
        offsets.add((min(i[0] for i in ink) - 30, min(i[1] for i in ink) - 30) if ink else None)
    if len(offsets) != 1 or None in offsets or not all(-2 <= o <= 1 for o in next(iter(offsets))):
        guest.fail(f"the arrow is drawn beside the pointer: {offsets}")
    return "arrow drawn there"


def typing(guest, viewer):
    text = "The quick brown fox: 0123456789 {[(<>)]} ~!@#$%^&*_+-=|;,./?"
    viewer.click(100, 100)
    viewer.serve(2)
    viewer.key(*text, 0xFF0D)
    got, end = "", time.monotonic() + 30
    while not got and time.monotonic() < end:
        viewer.serve(1)
        got = command(guest, "cat /tmp/typed").replace("\r", "").strip()
    viewer.save(guest.path("typed.ppm"))
    if got != text:
        guest.fail(f"typed {text!r}, arrived {got!r}")
    return f"{len(text)} characters typed"


def clipboard(guest, viewer):
    command(guest, f"printf %s '{FROM_GUEST}' >/tmp/text; xclip -selection clipboard /tmp/text </dev/null >/dev/null 2>&1")
    viewer.until(lambda: viewer.clipboard == FROM_GUEST, 20, "the guest's text on the viewer's clipboard")
    viewer.offer(TO_GUEST)
    end = time.monotonic() + 20
    got = ""
    while got != TO_GUEST and time.monotonic() < end:
        viewer.serve(.5)
        got = command(guest, "timeout 5 xclip -selection clipboard -o || echo; echo").replace("\r", "").strip()
    if got != TO_GUEST:
        guest.fail(f"offered {TO_GUEST!r}, the guest pastes {got!r}")
    return "clipboard both ways in UTF-8"


def x11(guest, *devices):
    viewer = start_x(guest, *devices)
    evidence = [sizes(guest, viewer), pointer(guest, viewer), drawn(guest, viewer), typing(guest, viewer), clipboard(guest, viewer)]
    viewer.save(guest.path("x11.ppm"))
    errors = command(guest, "dmesg | grep -c 'virtio_gpu.*ERROR' || true").strip()
    if errors != "0":
        guest.fail(f"the guest's driver reports {errors} errors")
    guest.send("poweroff\r")
    guest.wait()
    return "; ".join(evidence)


@row("x11-usb", "Debian's X11 on virtio-gpu by VNC: sizes, USB tablet, keyboard, clipboard through spice-vdagent", 400)
def x11_usb(guest):
    return x11(guest, "--device", "xhci", "--device", "usb-tablet", "--device", "usb-keyboard", "--device", "spice-agent")


@row("x11-virtio", "the same with virtio-input", 400)
def x11_virtio(guest):
    return x11(guest, "--device", "virtio-tablet", "--device", "virtio-keyboard", "--device", "spice-agent")
