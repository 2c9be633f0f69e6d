# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a small initial RAM disk out of Debian's static busybox: no root, no mounts, the archive is written here."""
import gzip
import os

BUSYBOX = "/bin/busybox"
LINKS = ("sh mount umount cat echo sha256sum poweroff reboot ls dmesg grep sed awk sleep mkdir dd cmp sync "
         "head tail wc cut tr date hwclock ip ifconfig ping wget nproc uname seq true false test expr od modprobe "
         "insmod lsmod mknod rm mv cp find fdisk hexdump free ps kill stty").split()


def entry(name, mode, data=b"", rdev=(0, 0), ino=[0]):
    ino[0] += 1
    fields = [ino[0], mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def archive(files):
    """FILES: (name, mode, bytes) in addition to the fixed part. Returns the gzip-compressed archive."""
    out = [entry(d, 0o040755) for d in ("bin", "dev", "proc", "sys", "tmp", "mnt", "lib")]
    out.append(entry("dev/console", 0o020600, rdev=(5, 1)))
    out.append(entry("dev/null", 0o020666, rdev=(1, 3)))
    with open(BUSYBOX, "rb") as f:
        out.append(entry("bin/busybox", 0o100755, f.read()))
    for link in LINKS:
        out.append(entry("bin/" + link, 0o120777, b"busybox"))
    made = set()
    for name, mode, data in files:
        parts = name.split("/")[:-1]
        for n in range(1, len(parts) + 1):
            directory = "/".join(parts[:n])
            if directory not in made and directory not in ("bin", "dev", "proc", "sys", "tmp", "mnt", "lib"):
                made.add(directory)
                out.append(entry(directory, 0o040755))
        out.append(entry(name, 0o100000 | mode, data))
    out.append(entry("TRAILER!!!", 0))
    return gzip.compress(b"".join(out), 1)


INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo "guest: up $(cut -d' ' -f1 /proc/uptime) cpus $(grep -c ^processor /proc/cpuinfo) $(uname -m)"
%s
echo "guest: done"
poweroff -f
"""


def overlay(files):
    """FILES alone, to be put behind another archive."""
    return gzip.compress(b"".join([entry(n, 0o100000 | m, d) for n, m, d in files] + [entry("TRAILER!!!", 0)]), 1)


def write(path, script, files=(), base=None):
    """With BASE, another archive's system is used, and the script is /guest-init in it."""
    init = (INIT % script).encode()
    if base:
        with open(base, "rb") as f:
            data = f.read()
        data += b"\0" * (-len(data) % 4) + overlay([("guest-init", 0o755, init)] + list(files))
    else:
        data = archive([("init", 0o755, init)] + list(files))
    with open(path + ".tmp", "wb") as f:
        f.write(data)
    os.rename(path + ".tmp", path)
