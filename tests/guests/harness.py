# SPDX-License-Identifier: GPL-2.0-or-later
"""One running guest: starts the monitor, reads the serial console, answers it, checks how it ended."""
import json
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import time


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def need(path):
    """PATH, or a skip that says which package is missing."""
    if not os.path.exists(path):
        raise Skip(f"{path} is not installed")
    return path


COUNTING = "CLOCHE_COUNT_INSTRUCTIONS" in os.environ
SHARE = rb"(\d+)  instructions retired by translated code\s+([0-9.]+)%  of the instructions in translated modes.*?\n(?: +\d+  (\w+) to the)?"


class Guest:
    def __init__(self, folder, engine, seconds):
        self.folder = folder
        self.engine = engine
        self.seconds = seconds
        self.process = None
        self.output = b""
        self.position = 0
        self.nonce = secrets.token_hex(16)
        self.shares = []  # what the translator gave to the interpreter, for each monitor that ended by itself or by SIGTERM

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, *arguments, serial="stdio"):
        command = [os.environ.get("CLOCHE_VM", "./cloche-vm"), "--engine", self.engine]
        if COUNTING:
            command.append("-v")
        if serial:
            command += ["--serial", serial]
        if "GUEST_CPUS" in os.environ and "--cpus" not in arguments:
            command += ["--cpus", os.environ["GUEST_CPUS"]]
        if "GUEST_CPU" in os.environ and "--cpu" not in arguments:
            command += ["--cpu", os.environ["GUEST_CPU"]]
        self.run(command + [str(a) for a in arguments])

    def run(self, command):
        with open(self.path("command"), "w") as f:
            f.write(" ".join(repr(c) for c in command) + "\n")
        self.log = open(self.path("stderr"), "wb")
        self.serial = open(self.path("serial"), "ab", buffering=0)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output, self.position = b"", 0
        self.deadline = time.monotonic() + self.seconds

    def fail(self, reason):
        tail = re.sub(rb"[^\x20-\x7e]+", b" ", self.output[-300:]).decode()
        with open(self.path("stderr"), "rb") as f:
            said = f.read()[-300:].decode(errors="replace").strip()
        raise Failure(f"{reason}; last output: ...{tail!r}" + (f"; monitor said: {said!r}" if said else ""))

    def pump(self, timeout=0.2):
        """Reads what there is. False: the monitor closed its output."""
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        self.output += data
        self.serial.write(data)
        return bool(data)

    def expect(self, pattern):
        """Waits for a regular expression in the output that was not matched yet; returns the match."""
        pattern = re.compile(pattern if isinstance(pattern, bytes) else pattern.encode(), re.S)
        while True:
            match = pattern.search(self.output, self.position)
            if match:
                self.position = match.end()
                return match
            if time.monotonic() > self.deadline:
                self.fail(f"time limit of {self.seconds:.0f} s while waiting for {pattern.pattern!r}")
            if not self.pump():
                self.fail(f"the monitor ended (status {self.process.wait()}) while waiting for {pattern.pattern!r}")

    def send(self, text):
        self.process.stdin.write(text.encode() if isinstance(text, str) else text)
        self.process.stdin.flush()

    def control(self, *requests):
        """Sends (command, arguments) pairs to the control socket at "control" in the guest's folder; returns the replies."""
        replies = []
        with socket.socket(socket.AF_UNIX) as connection:
            while True:
                try:
                    connection.connect(self.path("control"))
                    break
                except (FileNotFoundError, ConnectionRefusedError):  # the monitor is still starting
                    if time.monotonic() > self.deadline or self.process.poll() is not None:
                        self.fail("the monitor has no control socket")
                    time.sleep(0.05)
            stream = connection.makefile("rw")
            stream.readline()
            for command, arguments in [("qmp_capabilities", {}), *requests]:
                stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                stream.flush()
                while True:
                    reply = json.loads(stream.readline())
                    if "error" in reply:
                        self.fail(reply["error"]["desc"])
                    if "return" in reply:
                        replies.append(reply["return"])
                        break
        return replies[1:]

    def keys(self, *names):
        """Presses keys by their QKeyCode names."""
        self.control(*[("send-key", {"keys": [{"type": "qcode", "data": name}]}) for name in names])

    def monitor(self, line):
        """Text that a monitor command like "info jit" prints."""
        return self.control(("human-monitor-command", {"command-line": line}))[0]

    def wait(self, status=0):
        """Waits for the monitor to end by itself with this status."""
        while self.pump():
            if time.monotonic() > self.deadline:
                self.fail(f"time limit of {self.seconds:.0f} s while waiting for the end")
        self.process.stdin.close()
        got = self.process.wait(timeout=10)
        if got != status:
            self.fail(f"the monitor ended with status {got} in place of {status}")
        if COUNTING:
            self.count()

    def stop(self):
        """Ends the monitor from outside and checks that it ends well."""
        self.process.send_signal(signal.SIGTERM)
        self.wait(0)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process:
            self.log.close()
            self.serial.close()

    def count(self):
        """Notes the interpreter's share that a monitor with -v printed at its end."""
        with open(self.path("stderr"), "rb") as f:
            for retired, share, most in re.findall(SHARE, f.read(), re.S):
                self.shares.append(f"{share.decode()} % of {int(retired) / 1e9:.2f} G, most {most.decode()}")
