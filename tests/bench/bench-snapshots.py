#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of live snapshots, restore and clones: how long the guest stands still while a snapshot of 1 GiB under memory load
is taken, how long from a restore to the guest's next words, time and memory of many linked clones of a running machine.
Usage: bench-snapshots.py [CLONES]; the build folder is CLOCHE_BUILD or the present one."""
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "guests"))
import initramfs  # noqa: E402

BUILD = os.path.abspath(os.environ.get("CLOCHE_BUILD", "."))
CTL = os.path.join(BUILD, "clochectl")
KERNEL = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux"
# Fills %d MiB, then writes to all of it again and again, and says so.
LOAD = """
mkdir -p /load; mount -t tmpfs -o size=90%% none /load
dd if=/dev/urandom of=/load/a bs=1M count=%d 2>/dev/null
n=0
while true; do
    n=$((n + 1)); echo "beat $n"
    dd if=/dev/zero of=/load/a bs=1M count=%d conv=notrunc 2>/dev/null
done
"""
IDLE = """
n=0
while true; do n=$((n + 1)); echo "beat $n"; sleep 1; done
"""


def ctl(*words):
    return subprocess.run([CTL, *words], capture_output=True, text=True, check=True).stdout


def machine(name):
    return next(m for m in json.loads(ctl("list", "--json")) if m["name"] == name)


def console(name, patience=120):
    path = os.path.join(os.environ["XDG_RUNTIME_DIR"], "cloche", machine(name)["uuid"], "serial0")
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(patience)
    line.connect(path)
    return line


def wait_beat(line):
    text = b""
    while not re.search(rb"beat \d+\r?\n", text):
        text += line.recv(4096)


def proportional(pid):
    """Private dirty memory plus the share of what is shared, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        fields = dict(re.findall(r"(\w+):\s+(\d+) kB", f.read()))
    return (int(fields["Pss"])) * 1024


def live_snapshots(work):
    initrd = os.path.join(work, "load")
    initramfs.write(initrd, LOAD % (600, 600))
    ctl("create", "load", "--memory", "1G", "--disk", "1G", "--net", "none", "--kernel", KERNEL, "--initrd", initrd,
        "--append", "console=ttyS0 quiet")
    ctl("start", "load")
    line = console("load", 300)
    wait_beat(line)
    wall = []
    for n in range(5):
        since = time.monotonic()
        ctl("snapshot", "take", "load", f"s{n}")
        wall.append(time.monotonic() - since)
    pauses = [int(us) / 1000 for us in re.findall(r"stood still for (\d+) us", ctl("log", "load"))]
    print(f"live snapshot of 1 GiB under memory load: the guest stood still for {statistics.median(pauses):.1f} ms "
          f"(worst {max(pauses):.1f}); the whole took {statistics.median(wall):.2f} s")
    ctl("stop", "load", "--force")
    times = []
    for n in range(3):
        ctl("snapshot", "restore", "load", "s4")
        since = time.monotonic()
        ctl("start", "load")
        started = time.monotonic() - since
        line = console("load")
        wait_beat(line)
        times.append((started, time.monotonic() - since))
        ctl("stop", "load", "--force")
    print(f"restore of 1 GiB: the monitor answers after {statistics.median(t[0] for t in times) * 1000:.0f} ms, the guest's "
          f"next words come after {statistics.median(t[1] for t in times) * 1000:.0f} ms (they follow a round of its load)")


def clones(work, count):
    initrd = os.path.join(work, "idle")
    initramfs.write(initrd, IDLE)
    ctl("create", "idle", "--memory", "128M", "--disk", "1G", "--net", "none", "--kernel", KERNEL, "--initrd", initrd,
        "--append", "console=ttyS0 quiet")
    ctl("start", "idle")
    wait_beat(console("idle"))
    ctl("snapshot", "take", "idle", "base")
    ctl("stop", "idle", "--force")
    since = time.monotonic()
    for n in range(count):
        ctl("clone", "idle", f"c{n}", "--linked", "--snapshot", "base")
    cloned = time.monotonic() - since
    for n in range(count):
        ctl("start", f"c{n}")
    running = time.monotonic() - since
    entries = [m for m in json.loads(ctl("list", "--json")) if m["name"].startswith("c") and m.get("pid")]
    memory = [proportional(m["pid"]) for m in entries]
    print(f"{count} linked clones of a running 128 MiB machine: made in {cloned:.1f} s, all running after {running:.1f} s, "
          f"{statistics.mean(memory) / 2**20:.1f} MiB each ({len(entries)} run)")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    work = tempfile.mkdtemp(prefix="cloche-bench-", dir=os.environ.get("CLOCHE_BENCH_DIR"))
    os.environ.update(CLOCHE_LIBRARY=os.path.join(work, "library"), XDG_RUNTIME_DIR=os.path.join(work, "run"),
                      CLOCHE_VM=os.path.join(BUILD, "cloche-vm"))
    os.mkdir(os.environ["XDG_RUNTIME_DIR"], 0o700)
    try:
        live_snapshots(work)
        clones(work, count)
    finally:
        for entry in json.loads(subprocess.run([CTL, "list", "--json"], capture_output=True, text=True).stdout or "[]"):
            if entry.get("pid"):
                os.kill(entry["pid"], signal.SIGKILL)
        shutil.rmtree(work, ignore_errors=True)


main()
