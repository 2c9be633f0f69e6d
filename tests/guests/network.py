# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests on networks: DHCP on every card, transfers both ways by checksum, network boot, two machines of a team."""
import hashlib
import http.server
import os
import socket
import threading
import urllib.parse

import initramfs
import modules
from guests import row
from harness import Failure, Guest

DRIVERS = {"virtio-net": ("virtio_net", "virtio_pci"), "e1000": ("e1000",), "rtl8139": ("8139too",), "pcnet": ("pcnet32",),
           "ne2k": ("ne2k-pci",)}
DHCP = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
echo "guest: dhcp $ip"
"""


class Host:
    """A server on 127.0.0.1: sends DATA to who says "get", takes what comes after "put"."""

    def __init__(self, data):
        self.data, self.received = data, None
        self.done = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        with connection:
            word = b""
            while len(word) < 4:
                word += connection.recv(4 - len(word))
            if word == b"get\n":
                connection.sendall(self.data)
                return
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            self.received = b"".join(parts)
            self.done.set()


def transfer(guest, card, mib, settings=""):
    host = Host(os.urandom(mib << 20))
    files, load = modules.files(*DRIVERS[card])
    script = load + f"""
ip link set eth0 up; sleep 1
busybox udhcpc -i eth0 -n -q -s /dhcp -t 10
(echo get; sleep 600) | busybox nc 10.0.2.2 {host.port} > /tmp/f &
for i in $(seq 600); do [ $(wc -c < /tmp/f) = {mib << 20} ] && break; sleep 0.2; done
echo "guest: got $(sha256sum /tmp/f | cut -d' ' -f1)"
dd if=/dev/urandom of=/tmp/r bs=1M count={mib} 2>/dev/null
echo "guest: sent $(sha256sum /tmp/r | cut -d' ' -f1)"
(echo put; cat /tmp/r; sleep 1) | busybox nc 10.0.2.2 {host.port}
ip -6 addr show dev eth0 | grep -q fec0 && echo "guest: ipv6"
"""
    initrd = guest.path("initrd")
    initramfs.write(initrd, script, files + [("dhcp", 0o755, DHCP.encode())])
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory",
                "256M", "--net", f"user,card={card}{settings}")
    guest.expect(rb"guest: dhcp 10\.0\.2\.15")
    if guest.expect(rb"guest: got ([0-9a-f]{64})")[1].decode() != hashlib.sha256(host.data).hexdigest():
        raise Failure("what the guest received is not what the host sent")
    sent = guest.expect(rb"guest: sent ([0-9a-f]{64})")[1].decode()
    guest.expect(rb"guest: ipv6")
    guest.wait()
    if not host.done.wait(10) or hashlib.sha256(host.received).hexdigest() != sent:
        raise Failure("what the host received is not what the guest sent")
    return f"DHCP, IPv6, {mib} MiB each way with equal checksums"


def register(card):
    @row(f"net-{card}", f"DHCP and transfers by checksum on {card}", 300)
    def run(guest):
        return transfer(guest, card, 4)


for each in DRIVERS:
    register(each)


@row("net-loss", "the same over a cable with 2 % loss, 5 ms delay and 20 Mbit/s", 400)
def net_loss(guest):
    return transfer(guest, "virtio-net", 2, ",rate=20M,delay=5,loss=2")


@row("net-team", "two machines on a private network exchange a file", 300)
def net_team(guest):
    files, load = modules.files("virtio_net", "virtio_pci")
    team = f"test{os.getpid()}"
    other = Guest(guest.folder, guest.engine, guest.seconds)
    other.path = lambda name: os.path.join(guest.folder, "other-" + name)

    def start(who, address, script):
        initrd = who.path("initrd")
        initramfs.write(initrd, load + f"ip link set eth0 up; ip addr add {address}/24 dev eth0; sleep 1\n" + script, files)
        who.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory",
                  "128M", "--net", f"team:{team},mac=52:54:00:00:00:0{address[-1]}")

    try:
        start(other, "10.9.9.2", "dd if=/dev/urandom of=/tmp/r bs=1M count=3 2>/dev/null\n"
              'echo "guest: has $(sha256sum /tmp/r | cut -d\' \' -f1)"\nbusybox nc -l -p 99 < /tmp/r >/dev/null\n')
        has = other.expect(rb"guest: has ([0-9a-f]{64})")[1]
        start(guest, "10.9.9.1", "busybox ping -c 2 10.9.9.2\nsleep 100000 | busybox nc 10.9.9.2 99 > /tmp/f &\n"
              f"for i in $(seq 300); do [ $(wc -c < /tmp/f) = {3 << 20} ] && break; sleep 0.2; done\n"
              'echo "guest: got $(sha256sum /tmp/f | cut -d\' \' -f1)"\n')
        got = guest.expect(rb"guest: got ([0-9a-f]{64})")[1]
        guest.wait()
        if got != has:
            raise Failure("the file of one machine is another one on the other")
    finally:
        other.close()
    return "3 MiB from one machine to the other with equal checksums"


class Requests(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(urllib.parse.unquote(self.path))
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_):
        pass


def pxe(guest, card):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.paths = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.mkdir(guest.path("tftp"))
    with open(guest.path("tftp/boot.ipxe"), "w") as f:
        f.write(f"#!ipxe\nimgfetch http://10.0.2.2:{server.server_port}/{guest.nonce}/${{net0/mac}}/${{net0/ip}}\nreboot\n")
    guest.start("--memory", "128M", "--net",
                f"user,card={card},mac=52:54:00:aa:bb:cc,tftp={guest.path('tftp')},bootfile=boot.ipxe", "--boot", "n",
                "--no-reboot", "--display", "none")
    guest.wait()
    server.shutdown()
    wanted = f"/{guest.nonce}/52:54:00:aa:bb:cc/10.0.2.15"
    if wanted not in server.paths:
        raise Failure(f"the boot script did not ask for {wanted}, but {server.paths}")
    return "DHCP, TFTP, and a boot script that asked the host over HTTP with the card's address"


def register_pxe(card):
    @row(f"pxe-{card}", f"{card}'s iPXE ROM boots a script over the built-in DHCP and TFTP", 200, quick=card == "virtio-net")
    def run(guest):
        return pxe(guest, card)


for each in DRIVERS:
    register_pxe(each)
