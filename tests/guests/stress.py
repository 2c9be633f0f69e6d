# SPDX-License-Identifier: GPL-2.0-or-later
"""stress-ng in the Debian guest: every class checks its own results, with as many workers as the guest has processors."""
import os
import re
import subprocess

from debian import command, image, log_in
from guests import row
from harness import Failure

STRESSORS = (("cpu", "--cpu-method all"), ("vm", "--vm-bytes 64M --vm-method all"), ("vecmath", ""), ("matrix", ""),
             ("atomic", ""), ("context", ""), ("mmap", "--mmap-bytes 32M"), ("fork", ""), ("signal", ""), ("sigsegv", ""),
             ("cache", ""), ("bsearch", ""), ("fp", ""), ("fault", ""), ("pthread", ""), ("shm", "--shm-bytes 8M"))


def stress(guest, cpus):
    """STRESS_SECONDS: how long each class runs (default 10)."""
    seconds = os.environ.get("STRESS_SECONDS", "10")
    disk = guest.path("disk.img")
    subprocess.run(["cp", "--sparse=always", image(), disk], check=True)
    guest.start("--memory", "1G", "--cpus", cpus, "--disk", f"{disk},format=raw,interface=virtio", "--control",
                guest.path("control"))
    log_in(guest)
    ran = 0
    for name, options in STRESSORS:
        said = command(guest, f"stress-ng --{name} {cpus} {options} --verify -t {seconds}s 2>&1 | tail -n 25")
        if "successful run completed" not in said or re.search(r"fail:|error:|unsuccessful", said):
            raise Failure(f"stress-ng --{name}: {said[-600:]}")
        ran += 1
    broken = command(guest, "dmesg >/tmp/log; echo complaints=$(grep -ciE 'BUG:|oops|general protection|lockup|rcu.*stall' "
                            "/tmp/log)")
    if "complaints=0" not in broken:
        raise Failure("the guest's kernel complains: " + command(guest, "tail -n 20 /tmp/log"))
    figures = guest.monitor("info jit")
    found = re.search(r"(\d+)  instructions retired by the interpreter", figures)
    guest.send("poweroff\r")
    guest.wait()
    return f"{ran} classes of {seconds} s verified on {cpus} processors" + (
        f"; {found[1]} instructions by the interpreter" if found else "")


for cpus in (1, 2, 4):
    row(f"stress-smp{cpus}", f"stress-ng --verify in Debian with {cpus} processors: 16 classes", 3600)(
        lambda guest, cpus=cpus: stress(guest, cpus))
