# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of defined machines share: a library of their own, clochectl, a control connection."""
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

BUILD = os.path.abspath(os.environ.get("CLOCHE_BUILD", "."))
CTL = os.path.join(BUILD, "clochectl")
VM = os.path.join(BUILD, "cloche-vm")
DISK = os.path.join(BUILD, "cloche-disk")
KERNEL = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux"
PATIENCE = int(os.environ.get("CLOCHE_PATIENCE", "180"))  # seconds for one step on a loaded host


class Failure(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failure(text)


def step(text):
    print(f"-- {text}", flush=True)


def run(*words, **options):
    """clochectl with these words, to its end."""
    return subprocess.run([CTL, *words], stdin=subprocess.DEVNULL, text=True, timeout=PATIENCE, **({"capture_output": True} | options))


def ctl(*words, status=0):
    """What clochectl says; it must end with STATUS."""
    done = run(*words)
    check(done.returncode == status, f"clochectl {' '.join(words)}: status {done.returncode}, not {status}: {done.stdout}{done.stderr}")
    return done.stdout


def machines():
    return {entry["name"]: entry for entry in json.loads(run("list", "--json").stdout or "[]")}


def machine(name):
    entry = machines().get(name)
    check(entry, f"{name} is not in the list")
    return entry


def runtime(name, leaf):
    return os.path.join(os.environ["XDG_RUNTIME_DIR"], "cloche", machine(name)["uuid"], leaf)


def until(condition, text):
    end = time.monotonic() + PATIENCE
    while not condition():
        check(time.monotonic() < end, text)
        time.sleep(0.02)


class Monitor:
    """A control connection of our own to a machine of the library, or to the socket at PATH."""

    def __init__(self, name=None, path=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path or runtime(name, "control"))
        self.file = self.socket.makefile("r")
        self.greeting = json.loads(self.file.readline())
        self.events = []
        self.call("qmp_capabilities")

    def ask(self, command, **arguments):
        """The answer, whatever it is."""
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            line = self.file.readline()
            check(line, f"{command}: the monitor ended")
            answer = json.loads(line)
            if "event" not in answer:
                return answer
            self.events.append(answer)

    def call(self, command, **arguments):
        answer = self.ask(command, **arguments)
        check("return" in answer, f"{command}: {answer.get('error', {}).get('desc')}")
        return answer["return"]

    def info(self, what):
        return self.call("human-monitor-command", **{"command-line": "info " + what})

    def job_ends(self, job):
        until(lambda: not any(j["id"] == job and j["status"] != "concluded" for j in self.call("query-jobs")), f"{job} does not end")

    def cancel(self, job):
        """Until the job has ended, cancelled or not."""
        self.ask("job-cancel", id=job)  # it may have ended
        self.job_ends(job)

    def close(self):
        self.socket.close()


def in_library(prefix, test):
    """TEST(work) with a library in the folder work. Returns the exit status; no machine and no file of it stays."""
    work = tempfile.mkdtemp(prefix=prefix)
    os.environ.update(CLOCHE_LIBRARY=os.path.join(work, "library"), XDG_RUNTIME_DIR=os.path.join(work, "run"), CLOCHE_VM=VM, LC_ALL="C.UTF-8")
    os.mkdir(os.environ["XDG_RUNTIME_DIR"], 0o700)
    try:
        test(work)
        print("passed")
        return 0
    except Failure as failure:
        print(f"FAILED: {failure}")
        for log in subprocess.run(["find", work, "-name", "vm.log"], capture_output=True, text=True).stdout.split():
            with open(log, errors="replace") as said:
                print(log, said.read()[-3000:])
        return 1
    finally:
        for entry in machines().values():
            if entry.get("pid"):
                os.kill(entry["pid"], signal.SIGKILL)
        shutil.rmtree(work, ignore_errors=True)
