#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of live snapshots, restore and clones: how long a guest of 1 GiB under memory load falls silent while a snapshot is
taken (and under QEMU's savevm, in turn), how long from a restore to the guest's next words, time and memory of many linked
clones of a running machine, restore from a disk that the host has not cached, with what was recorded read ahead, everything, or
nothing. The guest talks every few milliseconds beside its load; a silence is seen from outside, because a
guest's clocks stand still with it. Usage: bench-snapshots.py [CLONES [ROUNDS]]; the build folder is CLOCHE_BUILD or the present."""
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
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "guests"))
import initramfs  # noqa: E402

BUILD = os.path.abspath(os.environ.get("CLOCHE_BUILD", "."))
CTL = os.path.join(BUILD, "clochectl")
KERNEL = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux"
APPEND = "console=ttyS0 quiet"
# Writes 600 MiB again and again, and talks beside it, first of all.
LOAD = """
mkdir -p /load; mount -t tmpfs -o size=90% none /load
dd if=/dev/urandom of=/load/p bs=1M count=16 2>/dev/null
load() {
    while true; do
        k=0
        while [ $k -lt 37 ]; do dd if=/load/p of=/load/a bs=1M seek=$((k * 16)) conv=notrunc 2>/dev/null; k=$((k + 1)); done
        [ -f /full ] || { : > /full; }
    done
}
load < /dev/null &
renice -n -15 $$ > /dev/null
while [ ! -f /full ]; do read -t 1 x; done
echo full
while true; do echo beat; read -t 0.005 x; done
"""
IDLE = """
n=0
while true; do n=$((n + 1)); echo "beat $n"; read -t 1 x; done
"""


# 600 MiB, of which a tenth here and there is what it works on when told to.
COLD = """
mkdir -p /load; mount -t tmpfs -o size=90% none /load
dd if=/dev/urandom of=/load/p bs=1M count=12 2>/dev/null
k=0
while [ $k -lt 16 ]; do
    dd if=/load/p of=/load/hot$k bs=1M count=3 2>/dev/null
    cat /load/p /load/p /load/p > /load/cold$k
    k=$((k + 1))
done
echo full
while read word; do cat /load/hot* | cksum; echo done; done
"""
# Takes readahead() away from a program.
NO_READAHEAD = "#include <sys/types.h>\nssize_t readahead(int fd, off_t at, size_t length) { return -1; }\n"


def ctl(*words):
    return subprocess.run([CTL, *words], capture_output=True, text=True, check=True).stdout


def machine(name):
    return next(m for m in json.loads(ctl("list", "--json")) if m["name"] == name)


class Line:
    """A serial line with the time of each piece that comes."""

    def __init__(self, path, patience=60):
        self.socket, self.times, self.text = socket.socket(socket.AF_UNIX), [], b""
        end = time.monotonic() + patience
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.002)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            while data := self.socket.recv(65536):
                self.text = (self.text + data)[-65536:]
                self.times.append(time.monotonic())
        except OSError:
            pass # closed by us

    def wait(self, word, patience=300):
        end = time.monotonic() + patience
        while word not in self.text:
            if time.monotonic() > end:
                raise SystemExit(f"the guest does not say {word!r}: {self.text[-300:]!r}")
            time.sleep(0.01)

    def silence(self, since, until):
        """The longest between two pieces, in milliseconds."""
        times = [t for t in self.times if since - 0.2 <= t <= until + 0.2]
        return max((b - a for a, b in zip(times, times[1:])), default=until - since) * 1000


def serial_path(name):
    return os.path.join(os.environ["XDG_RUNTIME_DIR"], "cloche", machine(name)["uuid"], "serial0")


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.02)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while "event" in (answer := json.loads(self.file.readline())):
            pass
        return answer


class Cloche:
    def __init__(self, work, initrd):
        ctl("create", "load", "--memory", "1G", "--disk", "2G", "--net", "none", "--kernel", KERNEL, "--initrd", initrd,
            "--append", APPEND)
        ctl("start", "load")
        self.line, self.rounds = Line(serial_path("load")), 0

    def snapshot(self):
        self.rounds += 1
        ctl("snapshot", "take", "load", f"s{self.rounds}")

    def held(self):
        return [int(us) / 1000 for us in re.findall(r"\": the guest stood still for (\d+) us", ctl("log", "load"))]

    def end(self):
        self.line.socket.close()
        ctl("stop", "load", "--force")


class Qemu:
    """The same guest, and savevm into the qcow2 disk."""

    def __init__(self, work, initrd):
        disk, serial, control = (os.path.join(work, name) for name in ("qemu.qcow2", "qemu-serial", "qemu-qmp"))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "2G"], check=True)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-nodefaults", "-display", "none", "-kernel", KERNEL, "-initrd",
             initrd, "-append", APPEND, "-drive", f"file={disk},if=virtio", "-serial", f"unix:{serial},server=on,wait=off", "-qmp",
             f"unix:{control},server=on,wait=off"], stdin=subprocess.DEVNULL)
        self.qmp, self.line, self.rounds = Qmp(control), Line(serial), 0

    def snapshot(self):
        self.rounds += 1
        answer = self.qmp.call("human-monitor-command", **{"command-line": f"savevm s{self.rounds}"})
        if answer.get("return"):
            raise SystemExit(f"savevm: {answer}")

    def end(self):
        self.process.kill()
        self.process.wait()


def live_snapshots(work, rounds):
    initrd = os.path.join(work, "load")
    initramfs.write(initrd, LOAD)
    monitors = {"cloche": Cloche(work, initrd)}
    if shutil.which("qemu-system-x86_64"):
        monitors["qemu"] = Qemu(work, initrd)
    for monitor in monitors.values():
        monitor.line.wait(b"full")
    time.sleep(1)
    results = {name: [] for name in monitors}
    for _ in range(rounds):
        for name, monitor in monitors.items():  # in turn, so that both see the same host
            since = time.monotonic()
            usual = None
            time.sleep(1)
            usual = monitor.line.silence(since + 0.2, time.monotonic() - 0.2)
            since = time.monotonic()
            monitor.snapshot()
            until = time.monotonic()
            time.sleep(0.3)
            results[name].append((monitor.line.silence(since, until), usual, until - since))
    for name, values in results.items():
        silent, usual, took = (sorted(v[i] for v in values) for i in range(3))
        print(f"{name}: snapshot of 1 GiB under memory load: the guest is silent for {statistics.median(silent):.0f} ms "
              f"({silent[0]:.0f} to {silent[-1]:.0f}; without a snapshot {statistics.median(usual):.0f}); all of it takes "
              f"{statistics.median(took):.2f} s")
    held = monitors["cloche"].held()
    print(f"cloche: the monitor held the guest for {statistics.median(held):.1f} ms ({min(held):.1f} to {max(held):.1f})")
    for monitor in monitors.values():
        monitor.end()


def restore(rounds):
    """The machine that is off goes on from a snapshot: from the command to the guest's next words."""
    answers, words = [], []
    for _ in range(rounds):
        ctl("snapshot", "restore", "load", "s1")
        path, since = serial_path("load"), time.monotonic()
        starter = subprocess.Popen([CTL, "start", "load"], stdout=subprocess.DEVNULL)
        line = Line(path)
        answers.append(time.monotonic() - since)
        line.wait(b"beat")
        words.append(line.times[0] - since)
        starter.wait()
        time.sleep(2.5) # it notes what it needed
        if _ < rounds - 1:
            line.socket.close()
            ctl("stop", "load", "--force")
    qmp = Qmp(os.path.join(os.path.dirname(path), "control"))
    inside = []
    for n in range(rounds):
        since = time.monotonic()
        qmp.call("snapshot-load", **{"job-id": f"back{n}", "tag": "s1"})
        back = time.monotonic()
        while line.times[-1] < back:
            time.sleep(0.0005)
        inside.append(line.times[-1] - since)
        time.sleep(1)
    ctl("stop", "load", "--force")
    print(f"restore of 1 GiB by a new monitor: reached after {statistics.median(answers) * 1000:.0f} ms, the guest's next words "
          f"after {statistics.median(words) * 1000:.0f} ms ({min(words) * 1000:.0f} to {max(words) * 1000:.0f})")
    print(f"restore of 1 GiB in the running machine: the guest's next words after {statistics.median(inside) * 1000:.0f} ms "
          f"({min(inside) * 1000:.0f} to {max(inside) * 1000:.0f})")


def forget(path):
    """The file is not in the host's page cache any more."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def cold(work, rounds):
    """Restore of memory that the host has to read from its disk: until the guest has worked through its hot tenth."""
    initrd, preload = os.path.join(work, "cold"), os.path.join(work, "no-readahead.so")
    initramfs.write(initrd, COLD)
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", preload], input=NO_READAHEAD, text=True, check=True)
    ctl("create", "cold", "--memory", "1G", "--net", "none", "--kernel", KERNEL, "--initrd", initrd, "--append", APPEND)
    ctl("start", "cold")
    line = Line(serial_path("cold"))
    line.wait(b"full")
    ctl("snapshot", "take", "cold", "s")
    ctl("stop", "cold", "--force")
    folder = json.loads(ctl("snapshot", "list", "cold", "--json"))[0]["folder"]
    record, ram, kept = os.path.join(folder, "working-set"), os.path.join(folder, "ram"), os.path.join(work, "working-set")
    times = {"recorded": [], "later all of it": [], "nothing": []}
    for n in range(rounds + 1):
        for way, results in times.items():
            if way == "recorded" and os.path.exists(kept):
                shutil.copy(kept, record)
            elif os.path.exists(record):
                os.unlink(record)
            ctl("snapshot", "restore", "cold", "s")
            forget(ram)
            environment = os.environ | ({"LD_PRELOAD": preload} if way == "nothing" else {})
            since = time.monotonic()
            starter = subprocess.Popen([CTL, "start", "cold"], stdout=subprocess.DEVNULL, env=environment)
            line = Line(serial_path("cold"))
            line.socket.sendall(b"go\n")
            line.wait(b"done")
            results.append(line.times[-1] - since)
            starter.wait()
            time.sleep(2.5) # it notes what it needed
            if not os.path.exists(kept):
                shutil.copy(record, kept)
            line.socket.close()
            ctl("stop", "cold", "--force")
    for way, results in times.items():
        values = sorted(results[1:]) # the first made the record
        print(f"restore of 1 GiB that is not in the host's cache, {way} read ahead: the guest is through its hot 48 MiB after "
              f"{statistics.median(values) * 1000:.0f} ms ({values[0] * 1000:.0f} to {values[-1] * 1000:.0f})")


def proportional(pid):
    """Private memory plus the share of what is shared, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        fields = dict(re.findall(r"(\w+):\s+(\d+) kB", f.read()))
    return (int(fields["Pss"])) * 1024


def clones(work, count):
    initrd = os.path.join(work, "idle")
    initramfs.write(initrd, IDLE)
    ctl("create", "idle", "--memory", "128M", "--disk", "1G", "--net", "none", "--kernel", KERNEL, "--initrd", initrd,
        "--append", APPEND)
    ctl("start", "idle")
    line = Line(serial_path("idle"))
    line.wait(b"beat")
    ctl("snapshot", "take", "idle", "base")
    ctl("stop", "idle", "--force")
    since = time.monotonic()
    for n in range(count):
        ctl("clone", "idle", f"c{n}", "--linked", "--snapshot", "base")
    cloned = time.monotonic() - since
    for n in range(count):
        ctl("start", f"c{n}")
    running = time.monotonic() - since
    time.sleep(2)
    entries = [m for m in json.loads(ctl("list", "--json")) if m["name"].startswith("c") and m.get("pid")]
    memory = [proportional(m["pid"]) for m in entries]
    print(f"{count} linked clones of a running 128 MiB machine: made in {cloned:.1f} s, all running after {running:.1f} s, "
          f"{statistics.mean(memory) / 2**20:.1f} MiB each ({len(entries)} run)")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    work = tempfile.mkdtemp(prefix="cloche-bench-", dir=os.environ.get("CLOCHE_BENCH_DIR"))
    os.environ.update(CLOCHE_LIBRARY=os.path.join(work, "library"), XDG_RUNTIME_DIR=os.path.join(work, "run"),
                      CLOCHE_VM=os.path.join(BUILD, "cloche-vm"))
    os.mkdir(os.environ["XDG_RUNTIME_DIR"], 0o700)
    try:
        if rounds:
            live_snapshots(work, rounds)
            restore(rounds)
            cold(work, rounds)
        if count:
            clones(work, count)
    finally:
        for entry in json.loads(subprocess.run([CTL, "list", "--json"], capture_output=True, text=True).stdout or "[]"):
            if entry.get("pid"):
                os.kill(entry["pid"], signal.SIGKILL)
        shutil.rmtree(work, ignore_errors=True)


main()
