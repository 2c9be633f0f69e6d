#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines as things, end to end: a real kernel with a heartbeat on its serial port is created, paused, snapshotted while it
runs, restored, suspended, resumed under another engine, cloned, killed and started again. Each step is judged by what
the guest says: the beats are numbered, so a lost, repeated or restarted guest shows."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "guests"), HERE]
import initramfs  # noqa: E402
from library import Failure, KERNEL, Monitor, PATIENCE, VM, check, ctl, in_library, machine, runtime, step  # noqa: E402

ENGINE = os.environ.get("CLOCHE_ENGINE", "auto")

BEAT = """
yes | head -c 24000000 >/tmp/ballast
n=0
while true; do
    n=$((n + 1))
    echo "beat $n $(sha256sum /proc/version | cut -c1-8)"
    [ $((n % 10)) = 0 ] && dd if=/dev/urandom of=/tmp/noise bs=64k count=16 2>/dev/null
done
"""


class Console:
    """The serial port of a running machine."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(runtime(name, "serial0"))
        self.text = b""
        self.gaps = []
        self.last = None

    def read(self, seconds):
        """What comes within SECONDS, added to the text."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except socket.timeout:
            return False
        check(data, "the serial port was closed")
        now = time.monotonic()
        if self.last:
            self.gaps.append(now - self.last)
        self.last = now
        self.text += data
        return True

    def beats(self):
        return [int(n) for n in re.findall(rb"beat (\d+) [0-9a-f]{8}\r?\n", self.text)]

    def wait_beat(self, number):
        """Until a beat of at least NUMBER came. Returns it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            beats = self.beats()
            if beats and beats[-1] >= number:
                return beats[-1]
            self.read(1)
        raise Failure(f"no beat {number}; the guest's last words: {self.text[-400:]!r}")

    def forget(self):
        self.text = self.text[self.text.rfind(b"\n") + 1:]

    def check_order(self):
        beats = self.beats()
        for before, after in zip(beats, beats[1:]):
            check(after == before + 1, f"beat {after} came after {before}")

    def close(self):
        self.socket.close()


def read(path):
    with open(path) as file:
        return file.read()


def images_of(name):
    return sorted(f for f in os.listdir(machine(name)["folder"]) if f.endswith(".qcow2"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_in_use(pid):
    """Bytes of memory of the process; what it has mapped twice (a memory file) counts once."""
    mapped = {}
    for line in read(f"/proc/{pid}/smaps").split("\n"):
        if re.match(r"[0-9a-f]+-", line):
            place = tuple(line.split()[i] for i in (2, 3, 4)) if line.split()[4] != "0" else line
        elif line.startswith("Rss:"):
            mapped[place] = max(mapped.get(place, 0), int(line.split()[1]) * 1024)
    return sum(mapped.values())


def life(work):
    initrd = os.path.join(work, "initrd")
    initramfs.write(initrd, BEAT)
    step("create and start")
    ctl("create", "demo", "--memory", "128M", "--disk", "256M", "--net", "none", "--engine", ENGINE,
        "--kernel", KERNEL, "--initrd", initrd, "--append", "console=ttyS0 quiet")
    ctl("create", "demo", status=4)
    ctl("start", "nothing", status=3)
    ctl("start", "demo")
    ctl("start", "demo", status=5)
    check(machine("demo")["state"] == "running", "it is not shown as running")
    console = Console("demo")
    console.wait_beat(5)

    step("state saved, reset and loaded in place while the guest boots and beats")
    ctl("reset", "demo")
    while console.read(0.3):
        pass
    console.text = b""
    monitor, rounds = Monitor("demo"), 0
    while len(console.beats()) < 10 or console.beats()[-1] < 10:
        monitor.call("x-cloche-check-state")
        rounds += 1
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            console.read(0.1)
        check(rounds < PATIENCE * 2, f"the guest does not come up; its last words: {console.text[-400:]!r}")
    monitor.close()
    print(f"   {rounds} times")

    step("pause uses no CPU, resume goes on")
    ctl("pause", "demo")
    check(machine("demo")["state"] == "paused", "it is not shown as paused")
    while console.read(0.3):
        pass
    pid = machine("demo")["pid"]
    before, beats = cpu_seconds(pid), len(console.beats())
    time.sleep(2)
    check(cpu_seconds(pid) - before <= 0.05, f"a paused machine used {cpu_seconds(pid) - before} s of CPU in 2 s")
    check(len(console.beats()) == beats and not console.read(0.2), "a paused machine talked")
    control = Monitor("demo")
    said, used = control.call("x-cloche-stats")["resident-bytes"], memory_in_use(pid)
    control.close()
    check(abs(said - used) < 1 << 20, f"the memory in use is {used >> 20} MiB, and it says {said >> 20} MiB")
    ctl("resume", "demo")
    console.wait_beat(console.beats()[-1] + 5)
    console.check_order()

    step("live snapshot: the guest beats on")
    console.gaps.clear()
    ctl("snapshot", "take", "demo", "one", "--note", "while it beats")
    at_snapshot = console.wait_beat(console.beats()[-1] + 5)
    console.check_order()
    log = ctl("log", "demo")
    pause = int(re.search(r"stood still for (\d+) us", log)[1])
    print(f"   the monitor held the guest for {pause / 1000:.1f} ms; longest silence {max(console.gaps) * 1000:.0f} ms")
    listed = json.loads(ctl("snapshot", "list", "demo", "--json"))
    check(len(listed) == 1 and listed[0]["state"] and listed[0]["current"] and listed[0]["memory-bytes"] > 0, str(listed))
    ctl("snapshot", "take", "demo", "one", status=4)

    step("a snapshot of the running machine is deleted, and its disk merged, while it beats")
    images = len(images_of("demo"))
    ctl("snapshot", "take", "demo", "two")
    ctl("snapshot", "delete", "demo", "two")
    check(len(images_of("demo")) == images, "an image is left over")
    console.wait_beat(console.beats()[-1] + 3)
    console.check_order()

    step("a snapshot that is cancelled after its moment leaves the machine as it was")
    def shape():
        return images_of("demo"), read(os.path.join(machine("demo")["folder"], "machine.conf"))
    before, given_up, monitor = shape(), 0, Monitor("demo")
    for n in range(40):
        stood = ctl("log", "demo").count("stood still")
        monitor.call("snapshot-save", **{"job-id": f"job{n}", "tag": f"cancelled{n}"})
        while n % 8 and ctl("log", "demo").count("stood still") == stood:  # some before it
            pass
        monitor.cancel(f"job{n}")
        if "cancelled" in ctl("snapshot", "list", "demo"):  # it was quicker
            ctl("snapshot", "delete", "demo", f"cancelled{n}")
            check(len(images_of("demo")) == len(before[0]), "an image is left over")
            before = shape()
        check(shape() == before, f"{shape()} in place of {before}")
        given_up = ctl("log", "demo").count("is given up")
        if given_up > 2:
            break
    monitor.close()
    check(given_up, "no snapshot was cancelled after its moment")
    console.wait_beat(console.beats()[-1] + 3)
    console.check_order()
    print(f"   {given_up} of {n + 1} were given up after their moment")

    step("restore in the running machine: the beats go back")
    later = console.wait_beat(at_snapshot + 40)
    console.forget()
    ctl("snapshot", "restore", "demo", "one")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and not (console.beats() and console.beats()[-1] < later):
        console.read(1)
    again = next((beat for beat in console.beats() if beat < later), later)
    check(again <= at_snapshot + 5, f"after the restore the guest was at {again}, the snapshot was before {at_snapshot}")
    console.forget()
    console.wait_beat(again + 5)
    console.check_order()

    step("suspend to disk; resume under the other engine")
    last = console.wait_beat(again + 6)
    ctl("save", "demo")
    console.close()
    check(machine("demo")["state"] == "saved", "it is not shown as saved")
    engines = [line.split(":")[0] for line in
               subprocess.run([VM, "--list-engines"], capture_output=True, text=True).stdout.splitlines()
               if ": works" in line]
    other = "interpret" if ENGINE != "interpret" else engines[0]
    ctl("set", "demo", f"engine={other}")
    ctl("start", "demo")
    console = Console("demo")
    resumed = console.wait_beat(last)
    check(resumed <= last + 60 and b"Linux version" not in console.text, "it booted anew")
    console.wait_beat(resumed + 3)
    console.check_order()

    step("SIGTERM suspends too")
    last = console.beats()[-1]
    os.kill(machine("demo")["pid"], signal.SIGTERM)
    console.close()
    end = time.monotonic() + PATIENCE
    while machine("demo")["state"] != "saved":
        check(time.monotonic() < end, "it is not saved after SIGTERM")
        time.sleep(0.1)
    ctl("set", "demo", f"engine={ENGINE}")
    ctl("start", "demo")
    console = Console("demo")
    console.wait_beat(last + 3)

    step("linked clone of the snapshot, running beside it")
    ctl("clone", "demo", "copy", "--linked", "--snapshot", "one")
    check(machine("copy")["uuid"] != machine("demo")["uuid"], "the clone has the same UUID")
    ctl("start", "copy")
    clone = Console("copy")
    cloned = clone.wait_beat(1)
    check(cloned <= at_snapshot + 5, f"the clone went on at {cloned}, the snapshot was before {at_snapshot}")
    clone.wait_beat(cloned + 5)
    clone.check_order()
    ctl("remove", "demo", "--yes", status=5)
    ctl("stop", "copy", "--force")
    clone.close()
    ctl("remove", "copy", "--yes")

    step("a killed monitor is shown as crashed, and the machine starts again")
    os.kill(machine("demo")["pid"], signal.SIGKILL)
    console.close()
    end = time.monotonic() + PATIENCE
    while machine("demo")["state"] != "crashed":
        check(time.monotonic() < end, f"it is shown as {machine('demo')['state']}")
        time.sleep(0.1)
    check("killed" in machine("demo")["reason"], machine("demo")["reason"])
    ctl("start", "demo")
    console = Console("demo")
    console.wait_beat(1)
    ctl("screenshot", "demo", os.path.join(work, "screen.png"))
    check(open(os.path.join(work, "screen.png"), "rb").read(4) == b"\x89PNG", "the screenshot is no PNG")
    ctl("stop", "demo", "--force")
    console.close()

    step("restore while it is off; delete with merge")
    ctl("snapshot", "restore", "demo", "one")
    check(machine("demo")["state"] == "saved", "a restored machine goes on where it was")
    ctl("snapshot", "delete", "demo", "one", status=5)
    ctl("start", "demo")
    console = Console("demo")
    restored = console.wait_beat(1)
    check(restored <= at_snapshot + 5, f"the restored machine went on at {restored}")
    ctl("stop", "demo", "--force")
    console.close()
    ctl("snapshot", "delete", "demo", "one")
    check(json.loads(ctl("snapshot", "list", "demo", "--json")) == [], "the snapshot is still listed")
    disks = [f for f in os.listdir(machine("demo")["folder"]) if f.endswith(".qcow2")]
    check(len(disks) == 1, f"images are left over: {disks}")
    subprocess.run(["qemu-img", "check", "-q", os.path.join(machine("demo")["folder"], disks[0])], check=True)
    ctl("remove", "demo", "--yes")
    check(json.loads(ctl("list", "--json")) == [], "machines are left over")


def main():
    if not os.access(KERNEL, os.R_OK):
        print(f"skipped: {KERNEL} is not there (package debian-installer-12-netboot-amd64)")
        return 77
    return in_library("cloche-e2e-", life)


sys.exit(main())
