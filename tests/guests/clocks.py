# SPDX-License-Identifier: GPL-2.0-or-later
"""Clocks against the host's, and what an idle guest costs."""
import os
import re
import time

import initramfs
from guests import KERNEL64, row
from harness import Failure, need

SECONDS = 40  # between the two ends of a measurement
SAMPLES = 40  # at each end: the quickest way from guest to host counts
DRIFT_PPM = 100
IDLE_SECONDS = 20
IDLE_PERCENT = {"interpret": 3.0}  # of one host core; every other engine: 1

NOW = f"""
ends() {{ i=0; while [ $i -lt {SAMPLES} ]; do echo "guest: $1 $(sed -n 's/^now at //p' /proc/timer_list)"; i=$((i + 1)); done; }}
cd /sys/devices/system/clocksource/clocksource0
for source in $(cat available_clocksource); do
    echo $source >current_clocksource
    echo "guest: source $(cat current_clocksource)"
    sleep 1
    ends start; sleep {SECONDS}; ends end
done
"""


def offset(guest, name):
    """Host time less guest time in nanoseconds, by the sample that came quickest."""
    best = None
    for _ in range(SAMPLES):
        now = int(guest.expect(rb"guest: " + name + rb" (\d+) nsecs\r")[1])
        difference = time.monotonic_ns() - now
        best = difference if best is None else min(best, difference)
    return best


@row("clocks", f"each clock source of Linux keeps within {DRIFT_PPM} ppm of the host's clock, with two processors", 600)
def clocks(guest):
    initramfs.write(guest.path("initrd"), NOW)
    guest.start("--kernel", need(KERNEL64), "--initrd", guest.path("initrd"), "--memory", "256M", "--cpus", "2", "--append",
                "console=ttyS0 quiet")
    seen = []
    while True:
        name = guest.expect(rb"guest: (source (\S+)|done)\r")[2]
        if name is None:
            break
        start = offset(guest, b"start")
        begun = time.monotonic_ns()
        end = offset(guest, b"end")
        ppm = (end - start) * 1e6 / (time.monotonic_ns() - begun)
        seen.append(f"{name.decode()} {ppm:+.1f} ppm")
        if abs(ppm) > DRIFT_PPM:
            raise Failure(f"the guest's clock runs wrong: {', '.join(seen)}")
    guest.wait()
    if len(seen) < 3:
        raise Failure(f"the guest has few clock sources: {', '.join(seen)}")
    return ", ".join(seen)


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = re.sub(r"^.*\) ", "", f.read()).split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@row("idle", "an idle Linux costs less than 1 % of a host core (3 % by the interpreter), with one and two processors", 300)
def idle(guest):
    limit = IDLE_PERCENT.get(guest.engine, 1.0)
    seen = []
    for cpus in (1, 2):
        initramfs.write(guest.path("initrd"), f"sleep 5; echo guest: idle; sleep {IDLE_SECONDS + 1}")
        guest.start("--kernel", need(KERNEL64), "--initrd", guest.path("initrd"), "--memory", "256M", "--cpus", cpus,
                    "--append", "console=ttyS0 quiet")
        guest.expect(rb"guest: idle")
        before = processor_seconds(guest.process.pid)
        time.sleep(IDLE_SECONDS)
        percent = (processor_seconds(guest.process.pid) - before) * 100 / IDLE_SECONDS
        guest.wait()
        seen.append(f"{percent:.2f} % with {cpus}")
        if percent >= limit:
            raise Failure(f"the idle guest used {', '.join(seen)} of a core in place of {limit} %")
    return ", ".join(seen)
