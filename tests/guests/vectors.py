# SPDX-License-Identifier: GPL-2.0-or-later
"""Vector registers of Linux programs, AVX-512's too: kept over context switches, system calls, signals, and a saved state."""
import os
import subprocess
import time

import initramfs
from guests import KERNEL64, row
from harness import Failure, Skip, need
from soak import Carried

SECONDS = 10


def program(guest):
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vector-state.c")
    out = guest.path("vector-state")
    try:
        subprocess.run([*os.environ.get("CC", "gcc").split(), "-O2", "-static", "-o", out, source], check=True,
                       capture_output=True)
    except FileNotFoundError as missing:
        raise Skip(f"{missing.filename} is not installed")
    except subprocess.CalledProcessError as error:
        raise Failure(error.stderr.decode())
    with open(out, "rb") as f:
        return f.read()


def arguments(guest):
    initramfs.write(guest.path("initrd"), "echo guest: flags $(grep -c avx512f /proc/cpuinfo)\n"
                    f"/vector-state 6 {SECONDS}; sleep 5\n", [("vector-state", 0o755, program(guest))])
    return ["--kernel", need(KERNEL64), "--initrd", guest.path("initrd"), "--memory", "256M", "--cpus", "2", "--append",
            "console=ttyS0 quiet", "--cpu", "host"]


def has_avx512(guest):
    if guest.expect(rb"guest: flags (\d+)\r")[1] == b"0":
        raise Skip("the guest has no AVX-512: not this engine, or not this host")


def kept(guest):
    said = guest.expect(rb"vectors: (\w+)\r")[1].decode()
    if said != "kept":
        raise Failure(f"registers changed: {said}")
    guest.wait()


@row("vectors", f"six Linux programs on two processors keep all AVX-512 registers for {SECONDS} s; others have none", 200)
def vectors(guest):
    guest.start(*arguments(guest))
    has_avx512(guest)
    kept(guest)
    return f"six programs, {SECONDS} s, ZMM0-31 and k1-7 always as they were, in ptrace's view too"


@row("vectors-saved", "the same, saved and loaded every 500 ms", 300)
def vectors_saved(guest):
    guest.arguments = [*arguments(guest), "--control", guest.path("control")]
    carried = Carried(guest, [guest.engine])
    has_avx512(guest)
    while b"vectors: " not in guest.output:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if not guest.pump(0.05):
                guest.fail(f"the monitor ended after {carried.loads} loads")
        if b"vectors: " not in guest.output:
            carried.next()
    if carried.loads < 5:
        raise Failure(f"only {carried.loads} loads")
    kept(guest)
    return f"{carried.loads} loads, ZMM0-31 and k1-7 always as they were"
