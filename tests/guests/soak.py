# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that verify themselves while the monitor is disturbed: pauses, kicks, flushed code, state saved and loaded."""
import os
import random
import re
import shutil
import subprocess
import time

from debian import check_disk, command, image, log_in
from guests import CHECKS, KERNEL64, row
from harness import Failure, need
import initramfs

STRESS = "--cpu {n} --vm 1 --vm-bytes 48M --matrix 1 --atomic 1 --context 1 --fork 1 --signal 1 --sigsegv 1 --mmap 1 --mmap-bytes 16M"


def pause(guest, dice):
    guest.control(("stop", {}))
    time.sleep(dice.uniform(0, 0.5))
    guest.control(("cont", {}))


def kick(guest, dice):
    for _ in range(dice.randint(1, 40)):
        guest.control(("query-cpus-fast", {}))
        guest.monitor("info registers")


def check_state(guest, dice):
    """All devices and processors are saved, reset and loaded in place."""
    guest.control(("stop", {}), ("x-cloche-check-state", {}), ("cont", {}))


def reload_state(guest, dice):
    """Written out, the monitor ended, a new one goes on."""
    folder = guest.path("state%d" % dice.randint(0, 1 << 30))
    os.mkdir(folder)
    guest.control(("stop", {}), ("x-cloche-write-state", {"folder": folder}))
    guest.process.kill()
    guest.process.wait()
    output, deadline = guest.output[guest.position:], guest.deadline
    guest.start(*guest.arguments, "--load-state", folder)
    guest.output, guest.deadline = output, deadline
    time.sleep(1)
    subprocess.run(["rm", "-rf", folder], check=True)


@row("soak", "Debian under stress-ng --verify with random pauses, kicks, flushed code, saves and loads", 7200)
def soak(guest):
    """SOAK_SECONDS (1200), SOAK_CPUS (2), SOAK_SEED."""
    seconds, cpus = int(os.environ.get("SOAK_SECONDS", "1200")), int(os.environ.get("SOAK_CPUS", "2"))
    seed = int(os.environ.get("SOAK_SEED", random.randrange(1 << 30)))
    dice, done = random.Random(seed), {}
    disk = guest.path("disk.img")
    subprocess.run(["cp", "--sparse=always", image(), disk], check=True)
    os.environ.setdefault("CLOCHE_CODE_CACHE_KIB", "16384")  # full every few seconds
    guest.arguments = ["--memory", "512M", "--cpus", cpus, "--disk", f"{disk},format=raw,interface=virtio", "--control",
                       guest.path("control")]
    guest.start(*guest.arguments)
    log_in(guest)
    # What it prints goes to a file: the terminal is not disturbed by a monitor that ends.
    guest.send(f"stress-ng {STRESS.format(n=cpus)} --verify -t {seconds}s >/tmp/stress.log 2>&1; echo verified-$?-\r")
    end, last = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.2, 4))
        if not guest.pump(0) or guest.process.poll() is not None:
            guest.fail("the monitor ended")
        action = dice.choice([pause, pause, kick, kick, check_state, check_state, reload_state])
        action(guest, dice)
        done[action.__name__] = done.get(action.__name__, 0) + 1
        if time.monotonic() - last > 60:
            last = time.monotonic()
            print(f"  soak, seed {seed}: {end - last:.0f} s to go, {done}", flush=True)
    guest.deadline = time.monotonic() + seconds + 600
    status = guest.expect(rb"verified-(\d+)-\r")[1]
    log = command(guest, "tail -n 5 /tmp/stress.log; grep -c fail /tmp/stress.log; true")
    if status != b"0" or "successful run completed" not in log:
        raise Failure(f"seed {seed}: status {status.decode()}: {log[-500:]}")
    broken = command(guest, "dmesg >/tmp/log; echo complaints=$(grep -ciE 'BUG:|oops|general protection' /tmp/log)")
    if "complaints=0" not in broken:
        raise Failure(f"seed {seed}: the guest's kernel complains: " + command(guest, "tail -n 20 /tmp/log"))
    flushes = re.search(r"(\d+)  code cache flushes", guest.monitor("info jit"))
    guest.send("poweroff\r")
    guest.wait()
    return f"seed {seed}, {seconds} s, {cpus} processors: {done}, {flushes[1] if flushes else 0} cache flushes since the last load"


@row("engines", "one boot carried on by translate, interpret and translate again in the middle", 900)
def engines(guest):
    """ENGINES: the order."""
    order = os.environ.get("ENGINES", "translate interpret translate interpret translate").split()
    script = CHECKS + "for i in 1 2 3 4; do echo \"guest: round $i $(sha256sum /nonce | cut -d' ' -f1)\"; done\n"
    import hashlib
    nonce = guest.nonce.encode() * 4096
    initramfs.write(guest.path("initrd"), script, [("nonce", 0o644, nonce)])
    guest.arguments = ["--kernel", need(KERNEL64), "--initrd", guest.path("initrd"), "--memory", "128M", "--append",
                       "console=ttyS0 panic=-1", "--no-reboot", "--cpu", os.environ.get("ENGINES_CPU", "x86-64-v3"),
                       "--control", guest.path("control")]
    state = []
    for n, engine in enumerate(order):
        guest.engine = engine
        output, position = guest.output, guest.position
        guest.start(*guest.arguments, *state)
        guest.output, guest.position = output, position
        if n == len(order) - 1:
            break
        time.sleep(float(os.environ.get("ENGINES_SECONDS", "2")))
        if guest.process.poll() is not None:
            break
        folder = guest.path(f"state{n}")
        os.mkdir(folder)
        guest.control(("stop", {}), ("x-cloche-write-state", {"folder": folder}))
        guest.pump(0)
        guest.process.kill()
        guest.process.wait()
        state = ["--load-state", folder]
    for i in range(4):
        got = guest.expect(rb"guest: round %d ([0-9a-f]{64})" % (i + 1))[1].decode()
        if got != hashlib.sha256(nonce).hexdigest():
            raise Failure(f"round {i + 1}: a wrong checksum")
    guest.wait()
    return " -> ".join(order[:n + 1]) + ": checksums right, powered off"


class Carried:
    """One guest carried on by one monitor after the other, each with the next of ENGINES."""

    def __init__(self, guest, engines):
        self.guest, self.engines, self.loads = guest, engines, 0
        guest.engine = engines[0]
        guest.start(*guest.arguments)

    def next(self):
        """State and memory are written out, the monitor ends, one with the next engine goes on."""
        guest, folder = self.guest, self.guest.path(f"state{self.loads}")
        os.mkdir(folder)
        guest.control(("stop", {}), ("x-cloche-write-state", {"folder": folder}), ("quit", {}))
        while guest.pump():
            pass
        if guest.process.wait() != 0:
            guest.fail(f"after {self.loads} loads: the monitor ended badly")
        self.loads += 1
        kept = guest.output, guest.position, guest.deadline
        guest.close()
        guest.engine = self.engines[self.loads % len(self.engines)]
        guest.start(*guest.arguments, "--load-state", folder)
        guest.output, guest.position, guest.deadline = kept
        guest.control(("query-status", {}))
        shutil.rmtree(folder)


@row("debian-engines", "Debian boots from disk, saved and loaded every 500 ms, by translate and interpret in turn", 3600)
def debian_engines(guest):
    """ENGINES: the order; ENGINES_CPUS (1)."""
    disk, cpus = guest.path("disk.qcow2"), int(os.environ.get("ENGINES_CPUS", "1"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image(), "-F", "raw", disk], check=True)
    guest.arguments = ["--memory", "256M", "--cpus", cpus, "--cpu", "x86-64-v3", "--disk", f"{disk},interface=virtio",
                       "--control", guest.path("control")]
    carried = Carried(guest, os.environ.get("ENGINES", "translate interpret").split())
    while b"clochetest login: " not in guest.output:
        if time.monotonic() > guest.deadline:
            guest.fail(f"no login prompt after {carried.loads} loads")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if not guest.pump(0.05):
                guest.fail(f"the monitor ended after {carried.loads} loads")
        carried.next()
    if guest.engine == "interpret":
        carried.next()
    boot = carried.loads
    log_in(guest)
    command(guest, "head -c 5000000 /dev/urandom >/root/data")
    checksum = re.search("[0-9a-f]{64}", command(guest, "sha256sum /root/data"))[0]
    broken = command(guest, "dmesg >/tmp/log; echo complaints=$(grep -ciE 'BUG:|oops|general protection|segfault|I/O error' /tmp/log)")
    if "complaints=0" not in broken:
        raise Failure(f"after {boot} loads the guest's kernel complains: " + command(guest, "tail -n 20 /tmp/log"))
    guest.send("poweroff\r")
    guest.wait()
    raw = guest.path("disk.img")
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    check_disk(guest, raw, checksum)
    return f"{boot} loads to the login prompt, {cpus} processors, disk and fsck clean"


WRITER = "while [ ! -e /root/stop ]; do head -c 12000000 /dev/urandom >/root/w; sha256sum /root/w >/root/w.sum; sync; " \
         "rm -f /root/w0 /root/w0.sum; cp /root/w /root/w0; fstrim / 2>/dev/null; sha256sum -c --quiet /root/w.sum || echo WRONG; done"


def machine_folder(guest, more=""):
    """A defined machine in a library of its own, for the commands that need a folder; MORE: of its definition. Returns the folder."""
    uuid, folder = "5ca1ab1e-0000-4000-8000-00000000c10c", guest.path("library/snap")
    os.makedirs(folder)
    disk = os.path.join(folder, "disk0.qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", image(), disk], check=True)
    with open(os.path.join(folder, "machine.conf"), "w") as conf:
        conf.write(f"[Machine]\nversion=1\nname=snap\nuuid={uuid}\n\n[Memory]\nsize=512M\n\n[Processors]\ncount=2\nengine={guest.engine}\n"
                   f"\n[Drive disk0]\nkind=disk\nfile=disk0.qcow2\ninterface=virtio\n\n[Serial 0]\ntarget=stdio\n{more}")
    os.environ.update(CLOCHE_LIBRARY=guest.path("library"), XDG_RUNTIME_DIR=guest.path("run"))
    os.mkdir(guest.path("run"), 0o700)
    os.symlink(guest.path(f"run/cloche/{uuid}/control"), guest.path("control"))
    return folder


def run_machine(guest, folder):
    guest.run([os.environ.get("CLOCHE_VM", "./cloche-vm"), "--machine", folder])


def end_of_job(guest, job):
    while any(j["id"] == job and j["status"] != "concluded" for j in guest.control(("query-jobs", {}))[0]):
        guest.pump(0.02)


@row("debian-given-up", "Debian writes to its disk while snapshots are taken, cancelled after their moment, and deleted", 1200)
def debian_given_up(guest):
    """GIVEN_UP: how many are cancelled after their moment (8)."""
    wanted = int(os.environ.get("GIVEN_UP", "8"))
    folder = machine_folder(guest)
    run_machine(guest, folder)
    log_in(guest)
    guest.send(f"({WRITER}) & \r")
    log, conf = os.path.join(folder, "log", "vm.log"), os.path.join(folder, "machine.conf")
    definition, taken, given_up, n = open(conf).read().split(), 0, 0, 0
    while given_up < wanted:
        guest.pump(1)
        stood, n = open(log).read().count("stood still"), n + 1
        guest.control(("snapshot-save", {"job-id": f"j{n}", "tag": f"s{n}"}))
        while open(log).read().count("stood still") == stood and time.monotonic() < guest.deadline:
            time.sleep(0.001)
        if n % 4:
            guest.pump(0.02 * n)  # the guest writes to the overlays
            if any(j["id"] == f"j{n}" and j["status"] == "running" for j in guest.control(("query-jobs", {}))[0]):
                guest.control(("job-cancel", {"id": f"j{n}"}))
        end_of_job(guest, f"j{n}")
        if os.listdir(os.path.join(folder, "snapshots")):
            taken += 1
            guest.control(("snapshot-delete", {"job-id": f"d{n}", "tag": f"s{n}"}))
            end_of_job(guest, f"d{n}")
            definition = open(conf).read().split()
        given_up = open(log).read().count("is given up")
        images = [f for f in os.listdir(folder) if f.endswith(".qcow2")]
        if len(images) != 1 or open(conf).read().split() != definition:
            raise Failure(f"round {n}: {images}, {open(conf).read()} in place of {definition}")
    guest.send("touch /root/stop; wait; echo all-$?-done\r")
    guest.expect(rb"all-0-done\r")
    if b"\nWRONG" in guest.output:
        raise Failure("the guest read back other data than it wrote")
    command(guest, "sync; cmp /root/w /root/w0 && sha256sum -c --quiet /root/w.sum")
    checksum = re.search("[0-9a-f]{64}", command(guest, "cp /root/w /root/data; sha256sum /root/data"))[0]
    guest.send("poweroff\r")
    guest.wait()
    disk, raw = os.path.join(folder, images[0]), guest.path("disk.img")
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    check_disk(guest, raw, checksum)
    stops = [int(us) / 1000 for us in re.findall(r"is given up; the guest stood still for (\d+) us", open(log).read())]
    return f"{given_up} given up ({min(stops):.0f} to {max(stops):.0f} ms still), {taken} taken and deleted, data, image and fsck clean"
