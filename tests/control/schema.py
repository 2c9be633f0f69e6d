#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies of a running monitor against QEMU's own schema, asked of the QEMU that is installed: every command and event name that does
not start with x-cloche- exists there, every reply has the members that are not optional there and no others but ours, with their
types. Then nonsense: commands with arguments of every wrong kind, from several clients at once; the monitor answers each and
the guest runs on."""
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

BUILD = os.path.abspath(os.environ.get("CLOCHE_BUILD", "."))
VM = os.path.join(BUILD, "cloche-vm")
OURS = "x-cloche-"


class Failure(Exception):
    pass


class Qmp:
    def __init__(self, path, process):
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 60
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise Failure("the control socket does not appear")
                time.sleep(0.02)
        self.socket.settimeout(60)
        self.file, self.events = self.socket.makefile("r"), []
        self.greeting = json.loads(self.file.readline())
        self.ask("qmp_capabilities")

    def ask(self, command, arguments=None):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments or {}, "id": 7}).encode())
        while True:
            answer = json.loads(self.file.readline())
            if "event" in answer:
                self.events.append(answer)
            else:
                return answer

    def call(self, command, **arguments):
        answer = self.ask(command, {name.replace("_", "-"): value for name, value in arguments.items()})
        if "return" not in answer:
            raise Failure(f"{command}: {answer}")
        return answer["return"]


def qemu_schema(work):
    path = os.path.join(work, "qemu")
    process = subprocess.Popen(["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on"],
                               stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return Qmp(path, process).call("query-qmp-schema")
    finally:
        process.kill()
        process.wait()


class Schema:
    def __init__(self, entries):
        self.types = {e["name"]: e for e in entries if e["meta-type"] not in ("command", "event")}
        self.commands = {e["name"]: e for e in entries if e["meta-type"] == "command"}
        self.events = {e["name"]: e for e in entries if e["meta-type"] == "event"}

    def check(self, kind, value, where):
        getattr(self, "check_" + self.types[kind]["meta-type"])(self.types[kind], value, where)

    def check_builtin(self, kind, value, where):
        wanted = {"string": str, "int": int, "number": (int, float), "boolean": bool, "null": type(None)}.get(kind["json-type"])
        if wanted and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
            raise Failure(f"{where} is {value!r}, not of type {kind['json-type']}")

    def check_enum(self, kind, value, where):
        if value not in kind["values"] and not str(value).startswith(OURS):
            raise Failure(f"{where} is {value!r}; QEMU knows {kind['values']}")

    def check_array(self, kind, value, where):
        if not isinstance(value, list):
            raise Failure(f"{where} is no array")
        for n, each in enumerate(value):
            self.check(kind["element-type"], each, f"{where}[{n}]")

    def check_alternate(self, kind, value, where):
        failures = []
        for member in kind["members"]:
            try:
                return self.check(member["type"], value, where)
            except Failure as failure:
                failures.append(str(failure))
        raise Failure("; ".join(failures))

    def check_object(self, kind, value, where):
        if not isinstance(value, dict):
            raise Failure(f"{where} is no object")
        members = {m["name"]: m for m in kind["members"]}
        for variant in kind.get("variants", []):
            if variant["case"] == value.get(kind["tag"]):
                members.update({m["name"]: m for m in self.types[variant["type"]]["members"]})
        for name, member in members.items():
            if name not in value and "default" not in member:
                raise Failure(f"{where} has no {name}")
        for name, each in value.items():
            if name.startswith(OURS):
                continue
            if name not in members:
                raise Failure(f"{where} has {name}, which QEMU's has not")
            self.check(members[name]["type"], each, f"{where}.{name}")


# With arguments where they are needed; {} goes by itself. The order matters: the machine is paused and runs again.
ASKED = [("stop", {}), ("query-status", {}), ("cont", {}), ("send-key", {"keys": [{"type": "qcode", "data": "a"}]}),
         ("input-send-event", {"events": [{"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "b"}}}]}),
         ("inject-nmi", {}), ("human-monitor-command", {"command-line": "info registers"}), ("system_reset", {}),
         ("block_resize", {"device": "disk0", "size": 2 << 20}), ("blockdev-open-tray", {"id": "cd0", "force": True}),
         ("blockdev-close-tray", {"id": "cd0"}), ("eject", {"device": "cd0", "force": True}), ("set_link", {"name": "net0", "up": False}),
         ("set_link", {"name": "net0", "up": True}), ("change-vnc-password", {"password": "secret"}),
         ("blockdev-change-medium", {"id": "cd0", "filename": None}), ("screendump", {"filename": None})]
NOT_ASKED = {"quit", "system_powerdown", "qmp_capabilities", "snapshot-save", "snapshot-load", "snapshot-delete", "job-cancel",
             "job-dismiss"} # end the machine, or need a defined one or a job: tests of their own


def replies(qmp, schema, work, iso):
    names = [c["name"] for c in qmp.call("query-commands")]
    unknown = [n for n in names if not n.startswith(OURS) and n not in schema.commands]
    if unknown:
        raise Failure(f"QEMU has no commands {unknown}")
    asked = [(n, {}) for n in names if n.startswith("query-")] + ASKED
    for command, arguments in asked:
        arguments = {name: value if value is not None else {"blockdev-change-medium": iso}.get(command, os.path.join(work, "screen.ppm"))
                     for name, value in arguments.items()}
        members = {m["name"] for m in schema.types[schema.commands[command]["arg-type"]]["members"]}
        if not set(arguments) <= members:
            raise Failure(f"{command} takes {sorted(members)} in QEMU, not {sorted(arguments)}")
        answer = qmp.ask(command, arguments)
        if "return" not in answer or answer.get("id") != 7:
            raise Failure(f"{command} {arguments}: {answer}")
        schema.check(schema.commands[command]["ret-type"], answer["return"], command)
    left = {n for n in names if not n.startswith(OURS)} - {c for c, _ in asked} - NOT_ASKED
    if left:
        raise Failure(f"never asked: {sorted(left)}")
    qmp.call("query-status")
    for event in qmp.events:
        name = event["event"]
        if name.startswith("X_CLOCHE_"):
            continue
        if name not in schema.events or set(event) - {"event", "data", "timestamp"} or "timestamp" not in event:
            raise Failure(f"event {event}")
        schema.check(schema.events[name]["arg-type"], event.get("data", {}), name)
    seen = {e["event"] for e in qmp.events}
    for name in ("STOP", "RESUME", "RESET", "DEVICE_TRAY_MOVED"):
        if name not in seen:
            raise Failure(f"no event {name} among {sorted(seen)}")
    print(f"{len(names)} commands, {len(asked)} asked; events {', '.join(sorted(seen))}")


def nonsense(path, process, names, seed, failures):
    pick = random.Random(seed)

    def value(depth=0):
        kinds = [lambda: pick.choice(["", "a" * 5000, "disk0", "net0", "cd0", "\x00", "../../x", "-1", "é"]), lambda: pick.choice([True, False]),
                 lambda: pick.choice([0, -1, 1 << 62, -(1 << 63), 512, 7]), lambda: 1e308, lambda: None]
        if depth < 3:
            kinds += [lambda: [value(depth + 1) for _ in range(pick.randrange(4))],
                      lambda: {pick.choice(words): value(depth + 1) for _ in range(pick.randrange(4))}]
        return pick.choice(kinds)()

    words = ["device", "id", "filename", "force", "size", "keys", "events", "tag", "job-id", "name", "up", "password", "type", "data",
             "forward", "command-line", "address", "folder", "x", "index", "value", "add"]
    try:
        qmp = Qmp(path, process)
        for _ in range(300):
            command = pick.choice(names)
            answer = qmp.ask(command, {pick.choice(words): value() for _ in range(pick.randrange(5))})
            if ("return" in answer) == ("error" in answer) or ("error" in answer and not answer["error"].get("desc")):
                raise Failure(f"{command}: {answer}")
        qmp.socket.close()
    except (Failure, OSError, ValueError) as failure:
        failures.append(f"seed {seed}: {failure}")


def main():
    if not shutil.which("qemu-system-x86_64"):
        print("skipped: qemu-system-x86_64 is not there")
        return 77
    work = tempfile.mkdtemp(prefix="cloche-schema-")
    path, disk, iso = (os.path.join(work, name) for name in ("control", "disk.img", "cd.iso"))
    for name in (disk, iso):
        with open(name, "wb") as f:
            f.truncate(1 << 20)
    # In a folder of its own: nonsense may name files.
    process = subprocess.Popen([VM, "--memory", "32M", "--engine", "interpret", "--control", path, "--disk", f"{disk},format=raw,id=disk0",
                                "--cdrom", "", "--net", "user", "--display-adapter", "vga", "--display", f"vnc=unix:{work}/vnc"], cwd=work,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        schema = Schema(qemu_schema(work))
        qmp = Qmp(path, process)
        replies(qmp, schema, work, iso)
        names = [c["name"] for c in qmp.call("query-commands") if c["name"] not in ("quit", OURS + "suspend")]
        failures = []
        threads = [threading.Thread(target=nonsense, args=(path, process, names, seed, failures)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures or process.poll() is not None:
            raise Failure(f"nonsense: {failures}, status {process.poll()}")
        if qmp.call("query-status")["status"] != "running":
            qmp.call("cont")
        before = qmp.call("query-cpus-fast")
        if len(before) != 1 or not os.path.exists(f"/proc/{process.pid}/task/{before[0]['thread-id']}"):
            raise Failure(f"thread ids: {before}")
        print("1,200 senseless commands from four clients answered")
        return 0
    except Failure as failure:
        print(f"FAILED: {failure}")
        return 1
    finally:
        process.send_signal(9)
        process.wait()
        shutil.rmtree(work, ignore_errors=True)


sys.exit(main())
