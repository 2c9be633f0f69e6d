#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""cloche-disk as people and scripts use it: every command on every format, what can be wrong, locks, a terminal, Ctrl-C."""
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(os.environ.get("CLOCHE_BUILD", "."))
DISK = os.path.join(BUILD, "cloche-disk")
DONE, NO, FAILED, LEAKS, CANCELLED = 0, 1, 2, 3, 130
FORMATS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhd": "vpc"}
FIXED = {"vmdk": "monolithicFlat", "vdi": "fixed", "vhd": "fixed"}
MIB = 1 << 20

# Words, status, and what the answer must say. In order: later rows stand on earlier ones.
ROWS = [
    ("", FAILED, "Usage: cloche-disk COMMAND"),
    ("--help", DONE, "compact"),
    ("--version", DONE, r"cloche-disk \d"),
    ("nothing", FAILED, "not a command"),
    ("create", FAILED, "Usage: cloche-disk create"),
    ("create a", FAILED, "Give a size for a"),
    ("create a much", FAILED, "is not a size"),
    ("create -f wim a 1M", FAILED, "wim.* is not known"),
    ("create -o frob=1 a 1M", FAILED, "frob=1"),
    ("create -p -f qcow2 a 1M", FAILED, "takes its space as it is written"),
    ("create none/a 1M", FAILED, r"Cannot create none/a: No such file"),
    ("create -j none/a 1M", FAILED, '"error" : "Cannot create none/a: No such file'),
    ("create -f vhd a 4T", FAILED, "2040 GiB"),
    ("create a 64M", DONE, "^$"),
    ("create a 64M", FAILED, "a exists already"),
    ("create --force a 1M", DONE, "^$"),
    ("info none", FAILED, "Cannot open none: No such file"),
    ("info a b", FAILED, "Usage"),
    ("resize a", FAILED, "Usage"),
    ("resize a -2M", FAILED, "cannot shrink by more"),
    ("resize a 8388608T", FAILED, "is not a size|below 8 EiB"),
    ("create -b a over", DONE, "^$"),
    ("create -b over top", DONE, "^$"),
    ("info top --chain", DONE, r"File: +top\n(.*\n)+\nFile: +over\n(.*\n)+\nFile: +a\n"),
    ("info top --chain -j", DONE, '"full-backing-filename" : "over"'),
    ("create -f vdi -b a x", FAILED, "only qcow2 images can be overlays"),
    ("rebase top", FAILED, "Name the new base"),
    ("rebase -b a top", DONE, "^$"),
    ("info top", DONE, r"Base: +a\n"),
    ("rebase -b over top -j", DONE, '"command" : "rebase"'),
    ("merge over top", DONE, "^$"),
    ("info over", FAILED, "No such file"),
    ("info top", DONE, r"Base: +a\n"),
    ("commit top", DONE, "^$"),
    ("flatten top", DONE, "^$"),
    ("commit top", FAILED, "no base|not an overlay"),
    ("snapshot top", DONE, "no internal snapshots"),
    ("snapshot top --json", DONE, '"snapshots" : \\[\\]'),
    ("compare a top", DONE, "identical"),
    ("compare -q a top", DONE, "^$"),
    ("compare a top -j", DONE, '"identical" : true'),
    ("convert a a", FAILED, "exists already"),
    ("convert --force a a", FAILED, "in use"),
    ("convert -c -f vdi a b", FAILED, "Only qcow2 images can be compressed"),
]


def check(good, why):
    if not good:
        sys.exit(f"FAIL: {why}")


def disk(*words):
    done = subprocess.run([DISK, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def must(*words):
    status, said = disk(*words)
    check(status == DONE, f"cloche-disk {' '.join(words)}: status {status}: {said}")
    return said


def qemu(*words):
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def rows():
    for words, status, answer in ROWS:
        got, said = disk(*words.split())
        check(got == status and re.search(answer, said), f"cloche-disk {words}: status {got}, not {status}: {said!r} (not {answer!r})")
    check(sorted(os.listdir(".")) == ["a", "top"], f"left behind: {os.listdir('.')}")


def fill(name, mib):
    with open(name, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))



def formats():
    """Every command on every format, each result looked at with qemu-img."""
    fill("noise.raw", 3)
    os.truncate("noise.raw", 9 * MIB)
    for name, theirs in FORMATS.items():
        for fixed in (False, True) if name in FIXED else (False,):
            image = f"image{'-fixed' * fixed}.{name}"
            must("convert", "-f", name, "noise.raw", image, *["-p"] * fixed)
            qemu("compare", "-f", "raw", "-F", theirs, "noise.raw", image)
            info = json.loads(must("info", "--json", "-f", name, image))
            check(info["format"] == name and info["virtual-size"] == 9 * MIB, f"{image}: {info}")
            check(not fixed or info["variant"] == FIXED[name], f"{image}: {info}")
            said = must("map", image)
            check(len(said.splitlines()) > 1, f"map {image}: {said}")
            extents = json.loads(must("map", "-j", image))
            check(sum(e["length"] for e in extents) == 9 * MIB, f"map {image}: {extents}")
            check(disk("resize", image, "4M")[0] == FAILED, f"{image} shrinks unasked")
            for size, words in (("+4M", []), ("11M", ["--shrink"]), ("-2M", ["--shrink"])):
                must("resize", *words, image, size)
                check(json.loads(must("check", "-j", image))["corruptions"] == 0, f"{image} is damaged at {size}")
                must("compare", "noise.raw", image)
                qemu("compare", "-f", "raw", "-F", theirs, "noise.raw", image)
            must("resize", "--shrink", image, "2M")
            must("resize", image, "9M")
            with open("noise.raw", "rb") as noise, open("shorter.raw", "wb") as shorter:
                shorter.write(noise.read(2 * MIB))
                shorter.truncate(9 * MIB)
            must("compare", "shorter.raw", image)
            said = must("compact", image)
            check("given back to the host" in said, f"compact {image} says {said!r}")
            must("compact", "-j", image)
            qemu("compare", "-f", "raw", "-F", theirs, "shorter.raw", image)
            check(disk("compare", "noise.raw", image) == (NO, f"The disks differ from byte {2 * MIB} on.\n"), f"compare with {image}")
            must("create", "-b", image, "-B", name, "over.qcow2")
            must("flatten", "over.qcow2")
            must("compare", "over.qcow2", image)
            os.unlink("over.qcow2")
            must("create", "--force", "-f", name, image, "5M", *["-p"] * fixed)
            check(json.loads(must("info", "--json", "-f", name, image))["virtual-size"] == 5 * MIB, f"{image} is not replaced")
            stray = [f for f in os.listdir(".") if ".new-" in f or ".compact-" in f]
            check(not stray, f"left behind: {stray}")
            print(f"  {image}: {info.get('variant', name)}")
    with open("image-fixed.vmdk") as descriptor:
        check('FLAT "image-fixed-flat.vmdk" 0' in descriptor.read(), "the descriptor names another file")
    with open("image.vmdk", "rb") as sparse:
        check(b'SPARSE "image.vmdk"' in sparse.read(MIB), "the descriptor names another file")
    must("create", "--force", "-f", "vmdk", "image-fixed.vmdk", "5M")
    check(not os.path.exists("image-fixed-flat.vmdk"), "the data file of what was replaced is still there")


def locks():
    """One writer or any number of readers, between programs of both kinds."""
    must("create", "-f", "qcow2", "base", "16M")
    must("create", "-b", "base", "-B", "qcow2", "over")
    holder = subprocess.Popen(["qemu-io", "-f", "qcow2", "over"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdin.write("write 0 64k\n")
    holder.stdin.flush()
    check("wrote" in holder.stdout.readline() + holder.stdout.readline(), "qemu-io does not write")
    for words in (["check", "over"], ["check", "-r", "over"], ["resize", "over", "32M"], ["create", "--force", "over", "1M"],
                  ["convert", "--force", "base", "over"], ["compact", "over"], ["commit", "over"], ["flatten", "over"], ["map", "over"],
                  ["resize", "base", "32M"], ["check", "-r", "base"], ["create", "--force", "base", "1M"], ["compact", "base"]):
        status, said = disk(*words)
        check(status == FAILED and re.search("in use by|written by", said), f"{words} while it is in use: {status}: {said}")
    for words in (["info", "over"], ["snapshot", "over"], ["info", "base"], ["map", "base"], ["check", "base"]):
        must(*words)
    holder.communicate("quit\n", timeout=20)
    must("check", "over")
    must("commit", "over")


def work_for(command):
    """Makes what COMMAND needs; returns its words, and the files that may not have changed when it was interrupted."""
    for name in ("base.qcow2", "over.qcow2", "target", "copy.vdi"):
        if os.path.exists(name):
            os.unlink(name)
    if command in ("convert", "replace"):
        if command == "replace":
            must("create", "target", "3M")
        return ["convert", "-c", "-o", "compression=zlib", "noise.raw", "target"] + ["--force"] * (command == "replace")
    must("convert", "-f", "qcow2", "noise.raw", "base.qcow2")
    must("create", "-b", "base.qcow2", "over.qcow2")
    if command == "commit":
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 90M", "over.qcow2"], check=True, capture_output=True)
        return ["commit", "over.qcow2"]
    if command == "compact":
        must("convert", "-f", "vdi", "noise.raw", "copy.vdi")
        return ["compact", "copy.vdi"]
    return {"flatten": ["flatten", "over.qcow2"], "compare": ["compare", "base.qcow2", "noise.raw"]}[command]


def shown(name):
    qemu("convert", "-O", "raw", name, "shown")
    with open("shown", "rb") as file:
        return hash(file.read())


def interrupt(command, after, sent):
    words = work_for(command)
    images = [n for n in ("base.qcow2", "over.qcow2", "target", "copy.vdi") if os.path.exists(n)]
    shows = ["over.qcow2"] if command == "commit" else images
    before = [shown(n) for n in shows]
    process = subprocess.Popen([DISK, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(sent)
    _, said = process.communicate(timeout=120)
    check(process.returncode in (DONE, CANCELLED, -sent), f"{words}: status {process.returncode}: {said}")
    if process.returncode != DONE:
        now = [n for n in ("base.qcow2", "over.qcow2", "target", "copy.vdi") if os.path.exists(n)]
        check(now == images, f"{words}: {now} where there was {images}")
        check([shown(n) for n in shows] == before, f"{words}: an image shows something else")
    check(not [f for f in os.listdir(".") if ".new-" in f], f"{words}: {os.listdir('.')}")
    return process.returncode


def interruptions():
    fill("noise.raw", 96)
    for command in ("convert", "replace", "flatten", "commit", "compact", "compare"):
        seen = set()
        for after in (0.01, 0.03, 0.1, 0.3, 1):
            if CANCELLED in seen and after > 0.1:
                break  # the later ones are for loaded hosts
            for sent in (signal.SIGINT, signal.SIGTERM):
                seen.add(interrupt(command, after, sent))
        check(CANCELLED in seen, f"{command}: never cancelled: {seen}")
        print(f"  {command}: statuses {sorted(seen)}")


def terminal():
    """Progress for people; none where the output is no terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(DISK, [DISK, "convert", "--force", "-c", "noise.raw", "target"])
    said = b""
    try:
        while piece := os.read(fd, 4096):
            said += piece
    except OSError:
        pass  # the other side has closed
    check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == DONE, said)
    seen = [float(p) for p in re.findall(rb"Converting: +([0-9.]+) %", said)]
    check(len(seen) > 1 and seen == sorted(seen) and seen[-1] == 100, f"progress: {said}")
    check(must("convert", "--force", "-c", "noise.raw", "target") == "", "progress without a terminal")


def main():
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("qemu-img is missing")
        sys.exit(77)
    folder = tempfile.mkdtemp(prefix="cloche-disk-")
    os.environ["LC_ALL"] = "C.UTF-8"
    os.chdir(folder)
    try:
        for step in (rows, formats, locks, interruptions, terminal):
            print(step.__name__, flush=True)
            step()
    finally:
        os.chdir("/")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
