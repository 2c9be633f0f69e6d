#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest writes numbered blocks to its disk and tells each that is on stable storage. Meanwhile snapshots are taken, deleted
and restored, and at some moment the monitor is killed, or Ctrl-C ends clochectl. Started again, the machine is before
or after: its list of snapshots, its files, and what the guest reads back. KILLS: rounds (14); KILLS_SEED."""
import os
import random
import re
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "guests"), HERE]
import harness  # noqa: E402
import initramfs  # noqa: E402
import modules  # noqa: E402
from library import CTL, Failure, Monitor, PATIENCE, check, ctl, in_library, machine, machines, step, until  # noqa: E402

ROUNDS = int(os.environ.get("KILLS", "14"))
SLOTS = 32
WRITER = """
while [ ! -b /dev/vda ]; do sleep 0.1; done
i=0
while [ $i -lt %d ]; do
    echo "slot $i $(dd if=/dev/vda bs=65536 skip=$i count=1 2>/dev/null | head -c 12 | tr -dc 0-9)."
    i=$((i + 1))
done
echo "slots told"
head -c 20000000 /dev/urandom >/tmp/ballast
n=%s
while true; do
    n=$((n + 1))
    yes $(printf %%011d $n) | dd of=/dev/vda bs=65536 count=1 iflag=fullblock seek=$((n %% %d)) conv=fsync 2>/dev/null
    echo "beat $n."
done
"""


class Guest:
    """What it says on its serial port, a file in the machine's folder that each run begins anew."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "serial")

    def text(self):
        with open(self.path, errors="replace") as file:
            return file.read()

    def beat(self):
        return max(map(int, re.findall(r"beat (\d+)\.", self.text())), default=0)

    def wait_beats(self, more):
        first = self.beat()
        until(lambda: self.beat() >= first + more, f"the guest does not write on after {first}: {self.text()[-300:]}")

    def slots(self):
        until(lambda: "slots told" in self.text(), f"the guest does not come up: {self.text()[-300:]}")
        return {int(slot): int(value or "0") for slot, value in re.findall(r"slot (\d+) (\d*)\.", self.text())}


class Snapshots:
    """The machine under test, and what must be true of it."""

    def __init__(self, work):
        files, load = modules.files("virtio_pci", "virtio_blk")
        initrd = os.path.join(work, "initrd")
        first = "$(cat /proc/cmdline | sed 's/.*first=\\([0-9]*\\).*/\\1/')"
        initramfs.write(initrd, load + WRITER % (SLOTS, first, SLOTS), files)
        self.work, self.count, self.known = work, 0, {}  # name -> (written before it, written when it was there)
        ctl("create", "m", "--memory", "128M", "--disk", "16M", "--net", "none", "--serial", "file:serial", "--kernel", modules.kernel(),
            "--initrd", initrd, "--append", "console=ttyS0 quiet first=1")
        ctl("set", "m", "disk0.interface=virtio")
        self.folder = machine("m")["folder"]
        self.written = (0, 0)
        self.first = 1
        self.start()

    def start(self):
        self.first += 1000000  # each run writes higher numbers than those before
        ctl("set", "m", f"append=console=ttyS0 quiet first={self.first}")
        ctl("start", "m")
        self.guest = Guest(self.folder)

    def names(self):
        with_time = ctl("snapshot", "list", "m", "--json")
        return set(re.findall(r'"name" : "(.*?)"', with_time))

    def files(self):
        return sorted(f for f in os.listdir(self.folder) if f.endswith(".qcow2"))

    def choose(self, dice):
        """A command for the monitor and clochectl, its snapshot, and the names that must be there after it."""
        names = self.names()
        what = dice.choice(["take", "take", "delete", "restore"]) if names else "take"
        if len(names) > 4:
            what = "delete"
        if what == "take":
            self.count += 1
            name = f"s{self.count}"
            return what, name, names | {name}
        name = dice.choice(sorted(names))
        return what, name, names - {name} if what == "delete" else names

    def bases(self):
        told = (subprocess.run(["qemu-img", "info", "-U", os.path.join(self.folder, f)], capture_output=True, text=True).stdout for f in self.files())
        return {os.path.basename(base) for text in told for base in re.findall(r"^backing file: (\S+)", text, re.M)}

    def named(self):
        named = set()
        for at, _, leaves in os.walk(self.folder):
            for leaf in {"machine.conf", "snapshot.conf"} & set(leaves):
                with open(os.path.join(at, leaf)) as conf:
                    named |= set(re.findall(r"disk0\S*\.qcow2", conf.read()))
        return named

    def check_tidy(self, text):
        """No image is left that nobody names and nothing stands on."""
        loose = set(self.files()) - self.named() - self.bases()
        check(not loose, f"{text}: nobody needs {loose}")
        left = [f for f in os.listdir(os.path.join(self.folder, "snapshots")) if f.startswith((".new", ".gone", ".current"))]
        check(not left, f"{text}: left over: {left}")
        current = re.findall(r'"current" : true', ctl("snapshot", "list", "m", "--json"))
        check(len(current) <= 1, f"{text}: {len(current)} present snapshots")

    def check_images(self, text):
        for image in set(self.files()) & (self.named() | self.bases()):  # others may be half made
            done = subprocess.run(["qemu-img", "check", "-q", os.path.join(self.folder, image)], capture_output=True, text=True)
            check(done.returncode in (0, 3), f"{text}: {image}: {done.stdout}{done.stderr}")

    def check_disk(self, lineages, text):
        """What the guest reads belongs to one of LINEAGES: (at least, at most) of the number written last."""
        slots = self.guest.slots()
        top = max(slots.values())
        check(any(low <= top <= high for low, high in lineages), f"{text}: the last block is {top}, not of {lineages}")
        check(len(slots) == SLOTS, f"{text}: {slots}")
        run = [value for value in range(top - SLOTS + 1, top + 1) if value > self.run_begin(top)]
        for value in run:
            check(slots[value % SLOTS] == value, f"{text}: block {value} is lost: {slots}")

    @staticmethod
    def run_begin(value):
        return 1 + value // 1000000 * 1000000


COMMANDS = {"take": "snapshot-save", "delete": "snapshot-delete", "restore": "snapshot-load"}


def kill(snapshots, dice, number, lengths):
    """One command, and the monitor killed in the middle. Returns what was done, and whether it was done."""
    what, name, after = snapshots.choose(dice)
    before, low = snapshots.names(), snapshots.guest.beat()
    monitor, pid = Monitor("m"), machine("m")["pid"]
    delay = dice.uniform(0, lengths[what] * 1.1) + dice.choice([0, 0, 0, 3])
    begun = time.monotonic()
    text = f"round {number}, {what} {name}, killed after {delay * 1000:.1f} ms"
    answer = monitor.ask if what == "restore" else monitor.call  # which answers at its end
    if what == "restore":
        monitor.socket.sendall(b'{"execute": "snapshot-load", "arguments": {"job-id": "j", "tag": "%s"}}' % name.encode())
    else:
        answer(COMMANDS[what], **{"job-id": "j", "tag": name})
    time.sleep(max(0, begun + delay - time.monotonic()))
    os.kill(pid, signal.SIGKILL)
    monitor.close()
    until(lambda: machine("m")["state"] == "crashed", f"{text}: shown as {machine('m')['state']}")
    high = snapshots.guest.beat() + 1  # one may be on the disk and not told
    snapshots.check_images(text)
    snapshots.start()
    names = snapshots.names()
    check(names in (before, after), f"{text}: {names}, before {before}, after {after}")
    if what == "take" and name in names:
        snapshots.known[name] = (low, high)
    snapshots.check_tidy(text)
    lineages = [(max(snapshots.written[0], low), max(high, snapshots.written[1]))]
    if what == "restore":
        lineages.append(snapshots.known[name])
    snapshots.check_disk(lineages, text)
    snapshots.written = (max(snapshots.guest.slots().values()),) * 2
    snapshots.guest.wait_beats(2)
    return text + (": after" if names == after and names != before else "")


def whole(snapshots, what, name):
    """Without a kill: how long it takes."""
    monitor, begun, low = Monitor("m"), time.monotonic(), snapshots.guest.beat()
    monitor.call(COMMANDS[what], **{"job-id": f"whole-{name}-{what}", "tag": name})
    monitor.job_ends(f"whole-{name}-{what}")
    monitor.close()
    if what == "take":
        snapshots.known[name] = (low, snapshots.guest.beat() + 1)
    return time.monotonic() - begun


def interrupt(snapshots, dice, number):
    """Ctrl-C on clochectl; the guest runs on whatever happens."""
    what, name, after = snapshots.choose(dice)
    if what == "restore":
        return None  # one moment, which cannot be interrupted
    before, files, low = snapshots.names(), snapshots.files(), snapshots.guest.beat()
    process = subprocess.Popen([CTL, "snapshot", what, "m", name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(dice.uniform(0.005, 0.25))
    process.send_signal(signal.SIGINT)
    said, text = process.communicate(timeout=PATIENCE)[1], f"interruption {number}, {what} {name}"
    check(process.returncode in (0, 130, -signal.SIGINT), f"{text}: status {process.returncode}: {said}")
    names = snapshots.names()
    if process.returncode == -signal.SIGINT:
        check(names == before, f"{text}: it had not begun, and left {names}")
    else:
        check(names == (before if process.returncode else after), f"{text}: status {process.returncode}, {names}, before {before}")
    if name in names and what == "take":
        snapshots.known[name] = (low, snapshots.guest.beat() + 1)
    if names == before:
        check(len(snapshots.files()) == len(files), f"{text}: {snapshots.files()} in place of {files}")
    snapshots.check_tidy(text)
    snapshots.guest.wait_beats(1)
    return process.returncode


def life(work):
    seed = int(os.environ.get("KILLS_SEED", random.randrange(1 << 30)))
    dice, lengths, outcomes = random.Random(seed), {}, []
    step(f"a guest that writes; seed {seed}")
    snapshots = Snapshots(work)
    snapshots.guest.slots()
    snapshots.guest.wait_beats(3)
    lengths["take"] = whole(snapshots, "take", "a")
    whole(snapshots, "take", "b")
    snapshots.guest.wait_beats(3)
    lengths["delete"] = whole(snapshots, "delete", "a")
    lengths["restore"] = 0.05
    print("   " + ", ".join(f"{what} takes {1000 * length:.0f} ms" for what, length in lengths.items()))
    step("clochectl is interrupted")
    statuses = [interrupt(snapshots, dice, n) for n in range(ROUNDS)]
    print(f"   {statuses.count(130)} cancelled, {statuses.count(0)} were quicker, {statuses.count(-2)} had not begun")
    step("the monitor is killed")
    for number in range(ROUNDS):
        outcomes.append(kill(snapshots, dice, number, lengths))
        print(f"   {outcomes[-1]}", flush=True)
    ctl("stop", "m", "--force")
    for name in sorted(snapshots.names()):
        ctl("snapshot", "delete", "m", name)
    snapshots.check_tidy("at the end")
    check(len(snapshots.files()) == 1, f"not merged: {snapshots.files()}")
    snapshots.check_images("at the end")


def main():
    try:
        modules.tree()
    except harness.Skip as reason:
        print(f"skipped: {reason}")
        return 77
    return in_library("cloche-kills-", life)


sys.exit(main())
