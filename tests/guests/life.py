# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a defined machine with a real system in it: paused, suspended by SIGTERM, killed, crashed, started again."""
import json
import os
import signal
import subprocess
import time

from debian import command, log_in
from guests import row
from harness import Failure
from soak import machine_folder, run_machine
from viewer import Viewer

MORE = """
[Drive cd0]
kind=cdrom

[Network net0]
backend=user
card=virtio-net

[Network net1]
backend=user
card=e1000

[Device usb0]
device=xhci

[Device usb1]
device=usb-tablet

[VNC]
address=unix:%s
"""
SECONDS = 10


def shown():
    """The machine as clochectl lists it."""
    ctl = os.path.join(os.path.dirname(os.path.abspath(os.environ.get("CLOCHE_VM", "./cloche-vm"))), "clochectl")
    return json.loads(subprocess.run([ctl, "list", "--json"], capture_output=True, text=True, check=True).stdout)[0]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def paused(guest, viewer):
    """Two processors, disks, cards and a VNC viewer that waits for the next picture; the guest is at work."""
    guest.send("(while :; do :; done) & (while :; do dd if=/dev/zero of=/root/z bs=1M count=4 conv=fsync 2>/dev/null; done) & "
               "(while :; do echo x >/dev/udp/10.0.2.3/53; done) 2>/dev/null & echo begun-$?-\r")
    guest.expect(rb"begun-0-\r")
    guest.pump(2)
    viewer.serve(0.2)
    guest.control(("stop", {}))
    viewer.serve(1)
    before = cpu_seconds(guest.process.pid)
    time.sleep(SECONDS)
    used = cpu_seconds(guest.process.pid) - before
    if used > 0.05:
        raise Failure(f"a paused machine used {used:.2f} s of CPU in {SECONDS} s")
    if shown()["state"] != "paused":
        raise Failure(f"it is shown as {shown()['state']}")
    guest.control(("cont", {}))
    command(guest, "kill %1 %2 %3; wait")
    return used


def suspended(guest, folder):
    """SIGTERM: its shell goes on in a new monitor."""
    command(guest, f"word={guest.nonce}")
    guest.stop()
    if shown()["state"] != "saved":
        raise Failure(f"after SIGTERM it is shown as {shown()['state']}")
    guest.close()
    run_machine(guest, folder)
    if guest.nonce not in command(guest, "echo $word"):
        raise Failure("after SIGTERM it began anew")


def ended(guest, folder, number, reason):
    """The monitor dies; what the guest had flushed is there when it is started again."""
    command(guest, f"head -c 30000000 /dev/urandom >/root/kept{number}; sha256sum /root/kept{number} >/root/sum{number}; sync")
    guest.send("head -c 30000000 /dev/urandom >/root/unflushed &\r")
    guest.pump(1)
    guest.process.send_signal(number)
    guest.process.wait()
    machine = shown()
    if machine["state"] != "crashed" or reason not in machine["reason"]:
        raise Failure(f"after signal {number} it is shown as {machine['state']}: {machine['reason']}")
    if not os.path.getsize(os.path.join(folder, "log", "vm.log")):
        raise Failure("it has no log")
    guest.close()
    run_machine(guest, folder)
    log_in(guest)
    command(guest, f"sha256sum -c --quiet /root/sum{number}")
    if not os.path.exists(os.path.join(folder, "log", "vm.log.1")):
        raise Failure("the log of the run that crashed is gone")


@row("debian-life", "a defined machine with Debian: paused with all it has, SIGTERM and on, killed, crashed, started again", 900)
def debian_life(guest):
    folder = machine_folder(guest, MORE % guest.path("vnc"))
    run_machine(guest, folder)
    log_in(guest)
    viewer = Viewer(guest.path("vnc"))
    used = paused(guest, viewer)
    viewer.socket.close()
    suspended(guest, folder)
    ended(guest, folder, signal.SIGKILL, "killed")
    ended(guest, folder, signal.SIGSEGV, "Segmentation fault")
    guest.send("poweroff\r")
    guest.wait()
    if shown()["state"] != "off":
        raise Failure(f"after poweroff it is shown as {shown()['state']}")
    subprocess.run(["qemu-img", "check", "-q", os.path.join(folder, "disk0.qcow2")], check=True)
    return f"paused: {used:.2f} s of CPU in {SECONDS} s; on after SIGTERM; flushed data there after SIGKILL and SIGSEGV"
