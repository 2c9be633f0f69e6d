#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of the tree that a compiler does not check: includes point one way, the interpreter has no inline assembly,
files stay readable. Prints each breach; exit status 1 if there is one."""
import os
import re
import subprocess
import sys

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))

# Folder -> what it may include (its own files are always allowed). The longest matching prefix rules.
ALLOWED = {
    "core/base": [],
    "core/memory": ["core/base"],
    "core/cpu": ["core/base", "core/memory"],
    "core/screen": ["core/base"],
    "core/machine": ["core/base", "core/memory", "core/cpu", "core/screen", "disks/disk.h"],
    "core/state": ["core/base", "core/memory", "core/cpu", "core/machine", "core/screen", "disks"],
    "core/config": ["core/base", "core/machine/options.h", "disks", "core/control"],
    "core/control": ["core/base", "core/memory", "core/cpu", "core/machine", "core/screen", "core/state", "core/config"],
    "devices": ["core/base", "core/memory", "core/machine", "core/screen", "core/cpu/lapic.h", "core/cpu/vcpu.h",
                "core/cpu/arch.h", "disks/disk.h", "data/acpi", "data/rom"],
    "disks": ["core/base"],
    "ui/vnc": ["core/base", "core/screen", "core/machine"],
    "ui/cli": ["core/base", "core/config", "core/control", "disks"],
    "ui/desktop": ["core/base", "core/config", "core/control", "core/screen/surface.h", "core/screen/input.h", "disks"],
}
EVERYBODY = {"core/main.c", "core/cloche.h"}  # the files that know everybody
MAX_LINES = 900


def sources():
    try:
        out = subprocess.run(["git", "ls-files", "*.c", "*.h"], cwd=TOP, capture_output=True, text=True, check=True)
        if out.stdout:
            return out.stdout.split()
    except (OSError, subprocess.CalledProcessError):
        pass  # an unpacked release has no git
    found = []
    for folder in ("core", "devices", "disks", "ui", "tests"):
        for root, _, files in os.walk(os.path.join(TOP, folder)):
            found += [os.path.relpath(os.path.join(root, f), TOP) for f in files if f.endswith((".c", ".h"))]
    return found


def check_includes(path, lines):
    folder = max((p for p in ALLOWED if path.startswith(p + "/")), key=len, default=None)
    if not folder or path in EVERYBODY:
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+/[^"]+)"', line)
        if not match or match.group(1).startswith(folder + "/"):
            continue
        target = match.group(1)
        if not any(target == a or target.startswith(a + "/") for a in ALLOWED[folder]):
            yield f'{path}:{number}: {folder} may not include "{target}"'


def check_portable(path, lines):
    if not path.startswith(("core/cpu/interpret/", "core/cpu/softfloat/")):
        return
    for number, line in enumerate(lines, 1):
        if re.search(r"\b(__asm__|asm)\b\s*(volatile|__volatile__|goto)?\s*\(|immintrin\.h|_mm_\w+\(", line):
            yield f"{path}:{number}: the interpreter must stay portable C"


def check_form(path, lines):
    if not any("SPDX-License-Identifier: GPL-2.0-or-later" in line for line in lines[:2]):
        yield f"{path}: no SPDX line at the top"
    if len(lines) > MAX_LINES and not re.search(r"table|keys", os.path.basename(path)):
        yield f"{path}: {len(lines)} lines; split it (at most {MAX_LINES}, tables aside)"


def main():
    breaches = []
    for path in sources():
        with open(os.path.join(TOP, path), encoding="utf-8") as file:
            lines = file.read().split("\n")
        for check in (check_form, check_includes, check_portable):
            breaches += check(path, lines)
    print("\n".join(breaches))
    print(f"{len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
