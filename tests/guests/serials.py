# SPDX-License-Identifier: GPL-2.0-or-later
"""Serial ports between guests and with programs and telnet clients of the host; modem lines and flow control."""
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time

import initramfs
import modules
from guests import row
from harness import Failure, Guest

KIB = 60  # less than the 64 that are kept for who comes late
RAW = "stty -F /dev/ttyS%d raw -echo crtscts clocal\n"


def start(who, script, *ports):
    initrd = who.path("initrd")
    initramfs.write(initrd, script)
    arguments = []
    for port in ports:
        arguments += ["--serial", port]
    who.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory", "128M",
              *arguments)


BOTH_WAYS = RAW % 1 + f"""
dd if=/dev/urandom of=/tmp/r bs=1k count={KIB} 2>/dev/null
echo "guest: has $(sha256sum /tmp/r | cut -d' ' -f1)"
(head -c {KIB << 10} /dev/ttyS1 > /tmp/f; echo "guest: got $(sha256sum /tmp/f | cut -d' ' -f1)") &
sleep 1
echo "guest: listens"
read go
cat /tmp/r > /dev/ttyS1
wait
"""


@row("serial-pair", "two machines joined by a serial line, the second started later: every byte arrives both ways", 120)
def serial_pair(guest):
    other = Guest(guest.folder, guest.engine, guest.seconds)
    other.path = lambda name: os.path.join(guest.folder, "other-" + name)
    line = guest.path("line")
    try:
        start(guest, BOTH_WAYS, f"unix:{line}")
        mine = guest.expect(rb"guest: has ([0-9a-f]{64})")[1]
        start(other, BOTH_WAYS, f"socket:{line}")
        its = other.expect(rb"guest: has ([0-9a-f]{64})")[1]
        for each in (guest, other):
            each.expect(rb"guest: listens")
        for each in (guest, other):
            each.send("go\r")
        if other.expect(rb"guest: got ([0-9a-f]{64})")[1] != mine or guest.expect(rb"guest: got ([0-9a-f]{64})")[1] != its:
            raise Failure("what one machine received is not what the other sent")
        guest.wait()
        other.wait()
    finally:
        other.close()
    return f"{KIB} KiB each way with equal checksums"


@row("serial-host", "a telnet client, a program and a file at three ports of one guest", 300)
def serial_host(guest):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start(guest, RAW % 1 + RAW % 2 + RAW % 3 + f"""
echo "{guest.nonce}" > /dev/ttyS1
read answer < /dev/ttyS1; echo "guest: telnet $answer"
(read x; echo "$x" > /tmp/p) < /dev/ttyS2 & echo "word" > /dev/ttyS2; wait; echo "guest: program $(cat /tmp/p)"
dmesg > /dev/ttyS3; echo "guest: file $(dmesg | wc -c) $(dmesg | sha256sum | cut -d' ' -f1)"
""", f"telnet:127.0.0.1:{port}", "program:sed -u s/word/sentence/", f"file:{guest.path('file')}")
    guest.expect(rb"guest: up")
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.settimeout(guest.seconds)
        said = b""
        while guest.nonce.encode() not in said:
            part = client.recv(4096)
            if not part:
                raise Failure("the telnet server hung up")
            said += part
        if said[0] != 255:
            raise Failure("the telnet server does not say what it can")
        client.sendall(b"\xff\xfd\x03an\xff\xf1swer\r\0\n")
        if guest.expect(rb"guest: telnet ([^\r\n]*)")[1] != b"answer":
            raise Failure("the guest read something else")
    if guest.expect(rb"guest: program ([^\r\n]*)")[1] != b"sentence":
        raise Failure("the program's answer is another one")
    match = guest.expect(rb"guest: file (\d+) ([0-9a-f]{64})\s")
    guest.wait()
    with open(guest.path("file"), "rb") as f:
        content = f.read()
    if len(content) != int(match[1]) or hashlib.sha256(content).hexdigest() != match[2].decode():
        raise Failure(f"the file has {len(content)} bytes that are not what the guest wrote ({match[1].decode()})")
    return "an answer over telnet, a program's answer, the kernel's log in a file"


class Library:
    """Machines of a library of their own, driven by the clochectl beside the monitor."""

    def __init__(self, guest):
        monitor = os.path.abspath(os.environ.get("CLOCHE_VM", "./cloche-vm"))
        self.program = os.path.join(os.path.dirname(monitor), "clochectl")
        self.guest = guest
        os.mkdir(guest.path("run"), 0o700)
        os.environ.update(CLOCHE_LIBRARY=guest.path("library"), XDG_RUNTIME_DIR=guest.path("run"), CLOCHE_VM=monitor)

    def ctl(self, *words):
        done = subprocess.run([self.program, *words], capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"clochectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def create(self, name, script, *words, files=()):
        initrd = self.guest.path(name + ".initrd")
        initramfs.write(initrd, script, files)
        self.ctl("create", name, "--memory", "128M", "--net", "none", "--engine", self.guest.engine, "--kernel",
                 modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", *words)

    def start(self, name):
        """Once its last run is quite over."""
        while name not in [m["name"] for m in json.loads(self.ctl("list", "--json")) if m["state"] == "off"]:
            time.sleep(0.1)
        self.ctl("start", name)

    def console(self, name):
        """A running machine's first serial port, as a Guest."""
        console = Guest(self.guest.folder, self.guest.engine, self.guest.seconds)
        console.path = lambda file: os.path.join(self.guest.folder, f"{name}.{file}")
        console.run([self.program, "console", name])
        return console

    def close(self):
        for machine in json.loads(self.ctl("list", "--json")):
            if machine.get("pid"):
                os.kill(machine["pid"], signal.SIGKILL)


def joined_machines(guest, library, order):
    consoles = {}
    for name in order:
        library.start(name)
        consoles[name] = library.console(name)
        consoles[name].expect(rb"guest: listens")
    try:
        sums = {name: re.search(rb"guest: has ([0-9a-f]{64})", consoles[name].output)[1] for name in order}
        for name in order:
            consoles[name].send("go\r")
        for name, other in (order, order[::-1]):
            if consoles[name].expect(rb"guest: got ([0-9a-f]{64})")[1] != sums[other]:
                raise Failure(f"{order[0]} was started first, and what {name} received is not what {other} sent")
        for name in order:
            consoles[name].wait()
    finally:
        for console in consoles.values():
            console.close()


@row("serial-machines", "a port that leads to another machine's by name, by clochectl, whichever starts first", 240)
def serial_machines(guest):
    library = Library(guest)
    try:
        library.create("answering", BOTH_WAYS, "--serial", "socket:", "--serial", "socket:")
        library.create("calling", BOTH_WAYS, "--serial", "socket:", "--serial", "machine:answering:1")
        for order in (("answering", "calling"), ("calling", "answering")):
            joined_machines(guest, library, order)
    finally:
        library.close()
    return f"{KIB} KiB each way with equal checksums, in both orders"


LINES = """
show() { grep '^1:' /proc/tty/driver/serial; echo "guest: shown $1"; }
exec 3<>/dev/ttyS1
show alone; read go; show connected; read go; show left
stty -F /dev/ttyS1 -clocal
exec 3<&-
(exec 3<>/dev/ttyS1; echo "guest: has a carrier"; read line <&3; echo "guest: hung up") &
sleep 1; show closed; read go; wait
"""


def lines_of(guest, name):
    """The lines that Linux sees raised on its second port when it says NAME."""
    found = guest.expect(rb"\n1: uart:16550A ([^\r\n]*)\r?\nguest: shown " + name.encode())
    return {word for word in found[1].decode().split()[-1].split("|") if word in ("RTS", "CTS", "DTR", "DSR", "CD", "RI")}


@row("serial-lines", "modem lines: the carrier comes and goes with whoever connects, and Linux waits for it and hangs up", 120)
def serial_lines(guest):
    path = guest.path("line")

    def connect():
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        time.sleep(0.3)
        guest.send("go\r")
        return client

    start(guest, RAW % 1 + LINES, f"socket:{path}")
    ready = {"RTS", "CTS", "DTR", "DSR"}
    seen = [lines_of(guest, "alone")]
    client = connect()
    seen.append(lines_of(guest, "connected"))
    client.close()
    time.sleep(0.3)
    guest.send("go\r")
    seen.append(lines_of(guest, "left"))
    seen.append(lines_of(guest, "closed"))
    if seen[:3] != [ready, ready | {"CD"}, ready] or "CD" in seen[3]:
        raise Failure(f"the lines were {seen}")
    if b"has a carrier" in guest.output:
        raise Failure("a port that waits for a carrier was opened without one")
    client = connect()
    guest.expect(rb"guest: has a carrier")
    client.close()
    guest.expect(rb"guest: hung up")
    guest.wait()
    return "CD comes and goes with the peer; a port that wants a carrier opens with it and is hung up without it"


HELD = 512  # KiB: more than the sockets of the host keep


@row("serial-flow", "a guest that does not read holds the sender back by RTS, and gets every byte in the end", 180)
def serial_flow(guest):
    path = guest.path("line")
    start(guest, RAW % 1 + f"""
exec 3<>/dev/ttyS1
echo "guest: sleeps"
read go
head -c {HELD << 10} <&3 | sha256sum | sed 's/^/guest: got /'
""", f"socket:{path}")
    guest.expect(rb"guest: sleeps")
    data, sent = os.urandom(HELD << 10), 0
    with socket.socket(socket.AF_UNIX) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        client.connect(path)
        client.settimeout(3)
        try:
            while sent < len(data):
                sent += client.send(data[sent:sent + 4096])
        except TimeoutError:
            pass
        held = sent
        if held == len(data):
            raise Failure("the guest reads nothing, but everything was taken")
        guest.send("go\r")
        client.settimeout(guest.seconds)
        client.sendall(data[sent:])
        got = guest.expect(rb"guest: got ([0-9a-f]{64})")[1].decode()
    if got != hashlib.sha256(data).hexdigest():
        raise Failure("the guest got other bytes than were sent")
    guest.wait()
    return f"held back after {held >> 10} KiB, all {HELD} KiB arrived"
