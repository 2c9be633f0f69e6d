# SPDX-License-Identifier: GPL-2.0-or-later
"""Serial ports between guests and with programs and telnet clients of the host."""
import hashlib
import os
import socket

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
