# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole Debian system on a partitioned disk: GRUB, systemd, log in, write, reboot, check, power off, fsck."""
import os
import re
import shutil
import subprocess

from guests import row
from harness import Failure, Skip

START = 1024 * 1024  # of the partition


def image():
    """Made once and kept in the cache; DEBIAN_IMAGE names a ready one."""
    ready = os.environ.get("DEBIAN_IMAGE")
    if ready:
        return ready
    cache = os.environ.get("CLOCHE_CACHE", os.path.expanduser("~/.cache/cloche-tests"))
    path = os.path.join(cache, "debian-12.img")
    if not os.path.exists(path):
        if os.geteuid() != 0 or not shutil.which("debootstrap"):
            raise Skip("making the Debian disk needs root and debootstrap")
        os.makedirs(cache, exist_ok=True)
        maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "make-debian")
        made = subprocess.run([maker, path], capture_output=True, text=True)
        if made.returncode:
            raise Skip(f"the Debian disk could not be made: {made.stdout[-200:]}{made.stderr[-200:]}")
    return path


def log_in(guest):
    guest.expect(rb"clochetest login: ")
    guest.send("root\r")
    guest.expect(rb"root@clochetest:~# ")
    guest.send("stty cols 200; dmesg -n 1; bind 'set enable-bracketed-paste off'\r")
    guest.expect(rb"paste off'.*?root@clochetest:~# ")


def command(guest, text):
    """Runs one command and returns what it printed; fails when its status is not 0."""
    guest.send(text + "; echo status-$?-\r")
    match = guest.expect(rb"echo status-\$\?-\r\n(.*?)status-(\d+)-\r\n")
    if match[2] != b"0":
        guest.fail(f"{text} ended with status {match[2].decode()}: {match[1][-200:]!r}")
    return re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", match[1]).decode(errors="replace")


def check_disk(guest, disk, checksum):
    part = guest.path("part")
    subprocess.run(["dd", f"if={disk}", f"of={part}", "bs=1M", "skip=1", "conv=sparse"], check=True, capture_output=True)
    fsck = subprocess.run(["e2fsck", "-f", "-n", part], capture_output=True, text=True)
    if fsck.returncode:
        raise Failure(f"fsck finds damage: {fsck.stdout[-300:]}")
    subprocess.run(["debugfs", "-R", f"dump /root/data {guest.path('data')}", part], check=True, capture_output=True)
    got = subprocess.run(["sha256sum", guest.path("data")], check=True, capture_output=True, text=True).stdout.split()[0]
    if got != checksum:
        raise Failure("the file on the disk is not what the guest wrote")


def debian(guest, cpus, drive):
    disk = guest.path("disk.img")
    subprocess.run(["cp", "--sparse=always", image(), disk], check=True)
    guest.start("--memory", "1G", "--cpus", cpus, "--disk", f"{disk},format=raw{drive}")
    log_in(guest)
    command(guest, "test $(nproc) = %d" % cpus)
    command(guest, "head -c 20000000 /dev/urandom >/root/data")
    checksum = re.search("[0-9a-f]{64}", command(guest, "sha256sum /root/data | tee /root/sum"))[0]
    guest.send("reboot\r")
    log_in(guest)
    command(guest, "sha256sum -c /root/sum")
    command(guest, f"stress-ng --cpu {cpus} --vm 1 --vm-bytes 64M --atomic {cpus} --vecmath 1 --verify -t 20s --metrics-brief")
    units = command(guest, "systemctl is-system-running || systemctl --failed --no-legend")
    guest.send("poweroff\r")
    guest.wait()
    check_disk(guest, disk, checksum)
    return f"20 MB survive a reboot, stress-ng verified, system {units.split()[-1] if units.split() else 'running'}, fsck clean"


@row("debian-disk", "debootstrap's Debian by GRUB from an IDE disk: log in, write, reboot, stress-ng, power off, fsck", 900)
def debian_disk(guest):
    return debian(guest, 1, "")


@row("debian-virtio-smp4", "the same from a virtio disk with four processors", 900)
def debian_virtio_smp4(guest):
    return debian(guest, 4, ",interface=virtio")
