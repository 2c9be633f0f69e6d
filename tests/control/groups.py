#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines of a group are started, paused, saved and stopped as one, by clochectl. The guests are boot sectors: one obeys
the power button, one does not."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from library import check, ctl, in_library, machines, run  # noqa: E402

# sti; again: hlt; mov dx, 0x600; in ax, dx; test ah, 1; jz again; mov dx, 0x604; mov ax, 0x2000; out dx, ax; jmp $
OBEYS = bytes.fromhex("fb f4 ba0006 ed f6c401 74f6 ba0406 b80020 ef ebfe")
IGNORES = bytes.fromhex("fb f4 ebfd")  # sti; again: hlt; jmp again


def states():
    return {name: entry["state"] for name, entry in machines().items()}


def expect(said, **wanted):
    """The changed machines and the failed ones of a group command's JSON, by name."""
    seen = {m["name"]: m["status"] or m["changed"] for m in json.loads(said)}
    check(seen == wanted, f"{seen} in place of {wanted}")


def create(work, name, program, group):
    disk = os.path.join(work, name + ".img")
    with open(disk, "wb") as f:
        f.write(program.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    ctl("create", name, "--memory", "32M", "--net", "none", "--disk", disk, "--boot", "c", "--group", group)


def life(work):
    for name in "one", "two":
        create(work, name, OBEYS, "web farm")
    create(work, "other", OBEYS, "")
    check(ctl("complete", "--", "start", "--group", "w") == "web farm\n", "the group is not completed")
    ctl("start", status=2)
    ctl("start", "one", "--group", "web farm", status=2)
    for nobody in "nobody", "":
        ctl("start", "--group", nobody, status=3)

    ctl("start", "two")
    expect(ctl("start", "--group", "web farm", "--json"), one=True, two=False)
    check(states() == {"one": "running", "two": "running", "other": "off"}, f"after start: {states()}")
    check("Paused \"one\"\nPaused \"two\"\n" == ctl("pause", "--group", "web farm"), "pause says something else")
    check(states() == {"one": "paused", "two": "paused", "other": "off"}, f"after pause: {states()}")
    expect(ctl("save", "--group", "web farm", "--json"), one=True, two=True)
    check(states() == {"one": "saved", "two": "saved", "other": "off"}, f"after save: {states()}")
    expect(ctl("pause", "--group", "web farm", "--json"), one=False, two=False)
    check(ctl("start", "--group", "web farm") == "Resumed \"one\"\nResumed \"two\"\n", "start says something else")
    expect(ctl("resume", "--group", "web farm", "--json"), one=True, two=True)

    # One that does not listen is named, and the others go all the same.
    create(work, "deaf", IGNORES, "web farm")
    ctl("start", "deaf")
    time.sleep(1)  # the boot sectors run
    done = run("stop", "--group", "web farm", "--timeout", "4")
    check(done.returncode == 5 and done.stderr.startswith("clochectl: \"deaf\" did not shut down") and done.stderr.count("\n") == 1, done.stderr)
    check(states() == {"one": "off", "two": "off", "deaf": "running", "other": "off"}, f"after stop: {states()}")
    expect(ctl("stop", "--group", "web farm", "--timeout", "1", "--json", status=5), one=False, two=False, deaf=5)
    expect(ctl("stop", "--group", "web farm", "--force", "--json"), one=False, two=False, deaf=True)

    # One that cannot start is named too.
    os.unlink(os.path.join(work, "one.img"))
    expect(ctl("start", "--group", "web farm", "--json", status=1), one=1, two=True, deaf=True)
    ctl("stop", "--group", "web farm", "--force")
    check(set(states().values()) == {"off"}, f"at the end: {states()}")


sys.exit(in_library("cloche-groups-", life))
