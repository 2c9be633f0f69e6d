#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""clochectl as people and scripts use it: a row for each word that can be wrong, Ctrl-C in the middle of work, completion."""
import json
import os
import re
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from library import BUILD, CTL, DISK, PATIENCE, check, in_library, machines, run  # noqa: E402

COMPLETION = os.path.join(HERE, "..", "..", "data", "completions", "clochectl")
DONE, FAILED, USAGE, NOT_FOUND, EXISTS, BUSY, UNSUPPORTED, CORRUPT, CANCELLED = 0, 1, 2, 3, 4, 5, 6, 7, 130

# Words, status, and what the answer must say. {W}: the folder of the test. In order: later rows stand on earlier ones.
ROWS = [
    ("", USAGE, "Usage: clochectl COMMAND"),
    ("-x", USAGE, "clochectl has no option -x"),
    ("--nothing list", USAGE, "no option --nothing"),
    ("--json", USAGE, "Name a command"),
    ("--help", DONE, "snapshot take"),
    ("--version", DONE, r"clochectl \(Cloche\) \d"),
    ("nothing", USAGE, 'no command "nothing"'),
    ("snapshot", USAGE, "needs one of: take, list"),
    ("snapshot nothing", USAGE, 'no command "snapshot nothing"; "snapshot" needs one of: take'),
    ("help nothing", USAGE, 'no command "nothing"'),
    ("help snapshot", DONE, "snapshot export NAME SNAPSHOT"),
    ("help create", DONE, "--memory SIZE"),
    ("create -h", DONE, "--memory SIZE"),
    ("create --help", DONE, "--memory SIZE"),
    ("list", DONE, "no machines yet"),
    ("list --json", DONE, r"^\[\]$"),
    ("--json list", DONE, r"^\[\]$"),
    ("list -a", USAGE, "list has no option -a"),
    ("list x", USAGE, '"x" is too much. Usage: clochectl list$'),
    ("list --json=1", USAGE, "--json takes no value"),
    ("create", USAGE, "missing. Usage: clochectl create NAME"),
    ("create demo -m 1G", USAGE, "create has no option -m"),
    ("create demo --memory", USAGE, "--memory needs a value: SIZE"),
    ("create demo --memory much", USAGE, '"much" is not allowed; allowed is a size'),
    ("create demo --cpus 0", USAGE, "a whole number from 1"),
    ("create demo --disk 0", USAGE, "too small"),
    ("create demo --disk {W}/none", NOT_FOUND, "cannot be read"),
    ("create demo --cdrom {W}/none", NOT_FOUND, "no file"),
    ("create demo --kernel {W}/none", NOT_FOUND, "cannot be read"),
    ("create demo --net bad", USAGE, "allowed is user, team"),
    ("create demo --set foo=1", USAGE, 'no option "foo"'),
    ("create a/b", USAGE, "no slash"),
    ("create demo --json --cpus 0", USAGE, '"status" : 2'),
    ("list --json", DONE, r"^\[\]$"),  # nothing of all that is left
    ("create demo --memory 64M --cpus 2 --disk 64M --cdrom {W}/cd.iso", DONE, 'Created "demo"'),
    ("create demo", EXISTS, 'a machine "demo" already'),
    ("create k --kernel {W}/cd.iso --append one\ttwo --json", DONE, '"folder"'),
    ("show", USAGE, "missing. Usage: clochectl show NAME"),
    ("show none", NOT_FOUND, 'no machine "none"'),
    ("show none --json", NOT_FOUND, '"status" : 3'),
    ("show demo", DONE, "size=64M"),
    ("show demo --json", DONE, '"definition"'),
    ("set demo", USAGE, "missing"),
    ("set demo memory", USAGE, "OPTION=VALUE"),
    ("set demo cpus=abc", USAGE, "whole number"),
    ("set demo disk9.interface=ide", USAGE, "no option"),
    ("set demo uuid=1", USAGE, "no option"),
    ("set none memory=1G", NOT_FOUND, "none"),
    ("set demo cpus=1", DONE, ""),
    *[(f"{command} demo{words}", BUSY, '"demo" is off') for command, words in
      [("pause", ""), ("resume", ""), ("reset", ""), ("save", ""), ("stop", ""), ("stop", " --force"), ("screenshot", " x.png"),
       ("type", " x"), ("send-key", " a"), ("events", ""), ("vnc", "")]],
    ("console demo", BUSY, "does not run"),
    ("console demo --port x", USAGE, "number of a serial port"),
    ("stop demo --timeout x", USAGE, "seconds"),
    ("log demo", NOT_FOUND, "never started"),
    ("top --json", DONE, r"^\[\]$"),
    ("disk list demo", DONE, "cd0 +cdrom"),
    ("disk list demo --json", DONE, '"allocated"'),
    ("disk add demo 32M", DONE, "Added drive disk1"),
    ("disk add demo {W}/none", NOT_FOUND, "neither a size"),
    ("disk resize demo disk0 128M", DONE, ""),
    ("disk resize demo disk0 64M", USAGE, "--shrink"),
    ("disk resize demo disk0 much", USAGE, "no size"),
    ("disk resize demo disk9 1G", NOT_FOUND, "no drive disk9"),
    ("disk resize demo cd0 1G", USAGE, "cd0 is no disk"),
    ("disk eject demo disk0", USAGE, "is a disk"),
    ("disk eject demo cd0", DONE, ""),
    ("disk change demo cd0 {W}/none", NOT_FOUND, "cannot be read"),
    ("disk change demo cd0 {W}/cd.iso", DONE, ""),
    ("disk remove demo disk1", DONE, "its file stays"),
    ("disk remove demo disk1", NOT_FOUND, "no drive disk1"),
    ("snapshot list demo --json", DONE, r"^\[\]$"),
    ("snapshot take none x", NOT_FOUND, "none"),
    ("snapshot take demo off --note switched\toff", DONE, ""),
    ("snapshot take demo off", EXISTS, "already"),
    ("snapshot restore demo none", NOT_FOUND, 'no snapshot "none"'),
    ("snapshot rename demo off down", DONE, ""),
    ("snapshot rename demo off x", NOT_FOUND, 'no snapshot "off"'),
    ("snapshot list demo", DONE, "down .*off .*switched off"),
    ("start none", NOT_FOUND, "none"),
    ("start demo", DONE, 'Started "demo"'),
    ("start demo", BUSY, "runs already"),
    ("pause demo", DONE, ""),
    ("list", DONE, "demo +paused"),
    ("list --json", DONE, '"pid"'),
    ("resume demo", DONE, ""),
    ("reset demo", DONE, ""),
    ("type demo x --layout none", NOT_FOUND, "not known here"),
    ("type demo -- -x", DONE, ""),
    ("send-key demo none", USAGE, "no such key"),
    ("send-key demo ctrl-alt-delete", DONE, ""),
    ("screenshot demo {W}/none/x.png", FAILED, "No such file"),
    ("screenshot demo {W}/x.png", DONE, ""),
    ("vnc demo --on nonsense", USAGE, "nonsense"),
    ("vnc demo --disconnect x", USAGE, "number"),
    ("vnc demo", DONE, "VNC is off"),
    ("top --json", DONE, '"written-bytes-per-second"'),
    *[(words, BUSY, "is running; shut it down or save it first") for words in
      ("export demo {W}/x.tar.zst", "disk add demo 1G", "disk remove demo disk0", "template demo", "clone demo c2", "remove demo --yes")],
    ("disk resize demo disk0 64M", USAGE, "--shrink"),
    ("disk resize demo disk0 192M", DONE, ""),
    ("snapshot take demo one", DONE, ""),
    ("snapshot list demo --json", DONE, '"name" : "one"'),
    ("clone demo copy --linked --snapshot one", DONE, 'Cloned to "copy"'),
    ("clone demo copy --snapshot one", EXISTS, "copy"),
    ("clone demo c2 --snapshot none", NOT_FOUND, 'no snapshot "none"'),
    ("snapshot export demo one alone", DONE, ""),
    ("snapshot restore demo one", DONE, ""),
    ("set demo memory=128M", DONE, "At the next start: memory"),
    ("save demo", DONE, 'Saved "demo"'),
    ("save demo", BUSY, "is saved"),
    ("start demo", FAILED, "another amount of memory.*With --discard it boots"),
    ("export demo {W}/x.tar.zst", DONE, "--snapshots takes that along"),
    ("export demo {W}/x.tar.zst", EXISTS, "exists"),
    ("export demo {W}/none/x.tar.zst", FAILED, "No such file"),
    ("clone demo saved", DONE, ""),
    ("list", DONE, "saved +saved"),  # with its memory
    ("start demo --discard", DONE, 'Started "demo"'),
    ("stop demo --timeout 1", BUSY, "did not shut down"),
    ("stop demo --force", DONE, 'Switched off "demo"'),
    ("show demo", DONE, "Last: +it was switched off from outside"),
    ("log demo", DONE, "info"),
    ("remove demo --yes", BUSY, 'linked clone of "demo"'),
    ("import {W}/none", NOT_FOUND, "none"),
    ("import {W}/cd.iso", CORRUPT, "no whole archive"),
    ("import {W}/x.tar.zst", EXISTS, "demo"),
    ("import {W}/x.tar.zst --name a/b", USAGE, "no slash"),
    ("import {W}/x.tar.zst --name again", DONE, ""),
    ("template again", DONE, ""),
    ("start again", BUSY, "is a template"),
    ("clone again third --linked", DONE, ""),
    ("template again --undo", BUSY, "remove the clone"),
    ("remove third --yes", DONE, ""),
    ("template again --undo", DONE, ""),
    ("rename demo other", DONE, ""),
    ("rename other copy", EXISTS, "copy"),
    ("rename demo x", NOT_FOUND, "demo"),
    ("remove copy", CANCELLED, "Nothing was removed"),
    ("remove copy --yes", DONE, ""),
    ("snapshot delete other one", DONE, ""),
    ("doctor --json", DONE, '"verdict"'),
]
DAMAGED = [("list", DONE, "again +damaged"), ("start again", CORRUPT, "damaged"), ("set again cpus=1", CORRUPT, "damaged"),
           ("snapshot list again", CORRUPT, "damaged"), ("clone again x", CORRUPT, "damaged"), ("show again", DONE, "Damage:"),
           ("remove again --yes", DONE, "")]

# What is typed up to the cursor, and what is offered.
COMPLETIONS = [
    ("sn", {"snapshot"}), ("he", {"help"}), ("help imp", {"import"}), ("--json li", {"list"}), ("snapshot re", {"restore", "rename"}),
    ("start d", {"demo"}), ("snapshot restore demo ", {"one", "two"}), ("clone demo x --snapshot t", {"two"}), ("disk eject demo ", {"cd0", "disk0"}),
    ("create x --engine t", {"translate"}), ("create x --engine = t", {"translate"}), ("create x --me", {"--memory"}),
    ("create x --cdrom ", {":files"}), ("set demo mem", {"memory="}), ("set demo engine = tr", {"translate"}), ("import ", {":files"}),
    ("snapshot take demo ", set()), ("list --j", {"--json"}),
]


def ctl(*words):
    """Status, and all that it says."""
    done = run(*words, capture_output=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def run_rows(rows, work):
    for line, status, says in rows:
        words = [word.replace("{W}", work).replace("\t", " ") for word in line.split(" ") if word]
        got, text = ctl(*words)
        check(got == status, f"clochectl {line}: status {got}, not {status}: {text}")
        check(re.search(says, text, re.M | re.S), f"clochectl {line}: says {text!r}, not {says!r}")
        if "--json" in words and "create" not in words or status != DONE and "--json" in words:
            json.loads(text)


def tree(folder):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name not in (".lock", ".conf-lock", ".loose"))


def interrupt(words, after, folder, sent):
    """The command gets SENT after so many seconds; where it was cancelled nothing may have changed. Returns its status."""
    before = tree(folder)
    process = subprocess.Popen([CTL, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(sent)
    _, said = process.communicate(timeout=PATIENCE)
    check(process.returncode in (DONE, CANCELLED, -sent), f"{words}: status {process.returncode}: {said}")
    if process.returncode != DONE:
        check(tree(folder) == before, f"{words}, {sent} after {after} s: {set(tree(folder)) ^ set(before)} is half-done")
    return process.returncode


def interruptions(work):
    """Long work is cancelled, short work finished."""
    library = os.environ["CLOCHE_LIBRARY"]
    with open(os.path.join(work, "noise"), "wb") as noise:
        for _ in range(192):
            noise.write(os.urandom(1 << 20))
    ctl("create", "big", "--memory", "64M", "--disk", "256M")
    subprocess.run([DISK, "convert", "--force", "--format", "qcow2", os.path.join(work, "noise"),
                    os.path.join(library, "big", "disk0.qcow2")], check=True, capture_output=True)
    archive = os.path.join(work, "big.tar.zst")
    check(ctl("export", "big", archive)[0] == DONE, "the export fails")
    for words in (["clone", "big", "full"], ["export", "big", os.path.join(work, "again.tar.zst")], ["import", archive, "--name", "full"]):
        seen = set()
        for after in (0.04, 0.08, 0.16, 0.4, 1, 2.5):
            if after > 0.2 and CANCELLED in seen:
                break  # the later ones are for loaded hosts
            for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                seen.add(interrupt(words, after, work, sent))
                ctl("remove", "full", "--yes")
                if os.path.exists(words[-1]) and words[0] == "export":
                    os.unlink(words[-1])
        check(CANCELLED in seen, f"{words}: never cancelled: {seen}")
        print(f"  {words[0]}: statuses {sorted(seen)}")
    for n in range(8):
        interrupt(["create", f"quick{n}", "--disk", "4000G"], n / 1000, work, signal.SIGINT)
        interrupt(["snapshot", "take", "big", f"quick{n}"], n / 1000, work, signal.SIGINT)
    seen = set()
    for after in (0.02, 0.04, 0.08, 0.16, 0.4, 1):
        if CANCELLED in seen and DONE in seen:
            break
        ctl("snapshot", "take", "big", "merged")
        seen.add(interrupt(["snapshot", "delete", "big", "merged"], after, work, signal.SIGINT))
    check(CANCELLED in seen, f"a deletion was never cancelled: {seen}")
    print(f"  snapshot delete: statuses {sorted(seen)}")
    for entry in machines().values():
        check("damage" not in entry or entry["damage"] is None, f"damaged: {entry}")
    for folder in os.listdir(library):
        check(folder.startswith(".lock") or os.path.exists(os.path.join(library, folder, "machine.conf")), f"{folder} is half a machine")


def completions():
    ctl("create", "demo", "--memory", "64M", "--disk", "64M", "--cdrom", os.path.join(os.environ["CLOCHE_LIBRARY"], "..", "cd.iso"))
    ctl("snapshot", "take", "demo", "one")
    ctl("snapshot", "take", "demo", "two")
    for typed, offered in COMPLETIONS:
        got = set(ctl("complete", "--", *typed.split(" "))[1].split("\n")) - {""}
        check(got == offered, f"completing {typed!r} offers {got}, not {offered}")
    script = f"source {COMPLETION}; COMP_WORDS=(clochectl snapshot restore demo t); COMP_CWORD=4; _clochectl; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True,
                          env=os.environ | {"PATH": f"{BUILD}:{os.environ['PATH']}"})
    check(done.stdout.strip() == "two", f"bash offers {done.stdout!r} {done.stderr!r}")


def life(work):
    with open(os.path.join(work, "cd.iso"), "wb") as iso:
        iso.write(bytes(1 << 20))
    run_rows(ROWS, work)
    check(os.path.getsize(os.path.join(work, "cd.iso")) == 1 << 20, "the CD image was changed")
    with open(os.path.join(os.environ["CLOCHE_LIBRARY"], "again", "machine.conf"), "w") as conf:
        conf.write("nonsense\n")
    run_rows(DAMAGED, work)
    completions()
    interruptions(work)
    print(f"{len(ROWS) + len(DAMAGED)} command lines, {len(COMPLETIONS)} completions, interruptions: as they should be")


sys.exit(in_library("cloche-cli-", life))
