# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests on networks: DHCP on every card, transfers both ways by checksum, network boot, two machines of a team."""
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

import guests
import initramfs
import modules
from guests import row
from harness import Failure, Guest, Skip, need

DRIVERS = {"virtio-net": ("virtio_net", "virtio_pci"), "e1000": ("e1000",), "rtl8139": ("8139too",), "pcnet": ("pcnet32",),
           "ne2k": ("ne2k-pci",)}
CPLUS = {"rtl8139cp": ("8139cp",)}  # the RTL8139 as an 8139C+
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


def transfer(guest, card, mib, settings="", arguments=None, put="busybox nc", further="", more_files=()):
    host = Host(os.urandom(mib << 20))
    files, load = modules.files(*(DRIVERS | CPLUS)[card])
    script = load + f"""
ip link set eth0 up; sleep 1
busybox udhcpc -i eth0 -n -q -s /dhcp -t 10
(echo get; sleep 600) | busybox nc 10.0.2.2 {host.port} > /tmp/f &
for i in $(seq 600); do [ $(wc -c < /tmp/f) = {mib << 20} ] && break; sleep 0.2; done
echo "guest: got $(sha256sum /tmp/f | cut -d' ' -f1)"
dd if=/dev/urandom of=/tmp/r bs=1M count={mib} 2>/dev/null
echo "guest: sent $(sha256sum /tmp/r | cut -d' ' -f1)"
packets=$(cat /sys/class/net/eth0/statistics/tx_packets)
(echo put; cat /tmp/r; sleep 1) | {put} 10.0.2.2 {host.port}
for i in 1 2 3 4 5 6 7 8 9 10; do ip -6 addr show dev eth0 | grep -q fec0 && break; sleep 1; done
ip -6 addr show dev eth0 | grep -q fec0 && echo "guest: ipv6"
{further}"""
    initrd = guest.path("initrd")
    initramfs.write(initrd, script, files + [("dhcp", 0o755, DHCP.encode()), *more_files])
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory",
                "256M", *(arguments or ("--net", f"user,card={card}{settings}")))
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


# ethtool -K eth0 sg on tx on tso on; then standard input goes to ADDRESS PORT in large writes.
OFFLOADS = """
#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
static char buffer[1 << 20];
int main(int argc, char **argv)
{
    static const unsigned commands[] = {ETHTOOL_STXCSUM, ETHTOOL_SSG, ETHTOOL_STSO};
    struct ifreq request = {.ifr_name = "eth0"};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    for (int i = 0; i < 3; i++) {
        struct ethtool_value value = {commands[i], 1};
        request.ifr_data = (void *)&value;
        if (ioctl(fd, SIOCETHTOOL, &request))
            return 1;
    }
    if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 || connect(fd, (void *)&to, sizeof to))
        return 2;
    for (long n; (n = read(0, buffer, sizeof buffer)) > 0;)
        for (long done = 0, part; done < n; done += part)
            if ((part = write(fd, buffer + done, n - done)) <= 0)
                return 3;
    return 0;
}
"""


@row("net-rtl8139cp", "the same on an RTL8139C+ by its own driver, whose checksums and segments the card makes", 300)
def net_rtl8139cp(guest):
    compiler = os.environ.get("CC", "gcc").split()
    try:
        subprocess.run([*compiler, "-static", "-O2", "-x", "c", "-o", guest.path("offloads"), "-"], input=OFFLOADS.encode(),
                       check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skip(f"no static program can be made: {error}")
    with open(guest.path("offloads"), "rb") as f:
        program = ("offloads", 0o755, f.read())
    evidence = transfer(guest, "rtl8139cp", 4, "", ("--device", "rtl8139,cplus=on,backend=user"),
                        "/offloads", """
echo "guest: driver $(busybox basename $(busybox readlink /sys/class/net/eth0/device/driver))"
echo "guest: packets $(($(cat /sys/class/net/eth0/statistics/tx_packets) - packets))"
""", [program])
    driver = re.search(rb"guest: driver (\S+)", guest.output)[1]
    packets = int(re.search(rb"guest: packets (\d+)", guest.output)[1])
    # A large frame is one packet to the driver.
    if driver != b"8139cp" or packets > (4 << 20) // 1460 * 3 // 4:
        raise Failure(f"{driver.decode()} sent 4 MiB in {packets} packets")
    return f"{evidence}; the second 4 MiB left the driver in {packets} packets"


@row("net-loss", "the same over a cable with 2 % loss, 5 ms delay and 20 Mbit/s", 400)
def net_loss(guest):
    return transfer(guest, "virtio-net", 2, ",rate=20M,delay=5,loss=2")


SHAPED = """
ip link set eth0 up; sleep 1
busybox udhcpc -i eth0 -n -q -s /dhcp -t 10
busybox ping -c 40 -i 0.05 10.0.2.2 | sed 's/^/guest: /'
echo "guest: pinged"
read go
busybox ping -c 1000 -i 0.01 -q 10.0.2.2 | sed 's/^/guest: /'
echo "guest: lossy"
read go
"""


def flood(guest, port, seconds):
    """Mbit/s that reach the card while more than that is sent to PORT."""
    stop = threading.Event()

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stop.is_set():
                for _ in range(20):
                    sender.sendto(bytes(1400), ("127.0.0.1", port))
                time.sleep(0.005)

    def received():
        return qmp(guest, ("x-cloche-query-nics", {}))[0]["received-bytes"], time.monotonic()

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(1)
    before = received()
    time.sleep(seconds)
    after = received()
    stop.set()
    thread.join()
    return (after[0] - before[0]) * 8e-6 / (after[1] - before[1])


@row("net-shape", "a cable's delay, loss and rate as a guest measures them", 300)
def net_shape(guest):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files, load = modules.files(*DRIVERS["virtio-net"])
    initrd = guest.path("initrd")
    initramfs.write(initrd, load + SHAPED, files + [("dhcp", 0o755, DHCP.encode())])
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory",
                "256M", "--net", "user,card=virtio-net,delay=20", "--control", guest.path("control"))
    guest.expect(rb"guest: pinged")
    times = sorted(float(t) for t in re.findall(rb"time=([0-9.]+) ms", guest.output))
    middle = times[len(times) // 2]
    if len(times) != 40 or not 40 <= times[0] < 42:  # within a millisecond each way; the rest waited for a busy host
        raise Failure(f"{len(times)} answers after {times[0]} ms at least and {middle} ms usually, at 20 ms each way")
    qmp(guest, ("x-cloche-cable", {"name": "net0", "settings": "delay=0,loss=5,seed=11"}))
    guest.send("go\r")
    arrived = int(guest.expect(rb"guest: 1000 packets transmitted, (\d+) packets received")[1])
    wanted, sigma = 1000 * 0.95 ** 2, (1000 * 0.95 ** 2 * (1 - 0.95 ** 2)) ** 0.5
    if abs(arrived - wanted) > 5 * sigma:
        raise Failure(f"{arrived} of 1000 answers at 5 % loss each way, {wanted:.0f} expected, sigma {sigma:.1f}")
    guest.expect(rb"guest: lossy")
    qmp(guest, ("x-cloche-cable", {"name": "net0", "settings": "rate=8M,loss=0"}),
        ("x-cloche-forward", {"name": "net0", "forward": f"udp:127.0.0.1:{port}-9"}))
    rate = flood(guest, port, 5)
    guest.send("go\r")
    guest.wait()
    if abs(rate / 8 - 1) > 0.05:
        raise Failure(f"{rate:.2f} Mbit/s through a cable of 8 Mbit/s")
    return f"{times[0]:.1f} ms at least and {middle:.1f} usually at 2 x 20 ms, {arrived} of 1000 answers at 5 % loss each way, {rate:.2f} Mbit/s at 8"


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


# ---- Large transfers: what was made on one side is summed on the other, without ever being a file ----
CHUNK = 16  # MiB


class Streams:
    """On ADDRESS: sends TIMES chunks to who says "get", sums what comes after "put"."""

    def __init__(self, address, times, chunk):
        self.chunk, self.times = os.urandom(chunk << 20), times
        self.sum, self.done, self.bytes = None, threading.Event(), 0
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def expected(self):
        total = hashlib.sha256()
        for _ in range(self.times):
            total.update(self.chunk)
        return total.hexdigest()

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
                for _ in range(self.times):
                    connection.sendall(self.chunk)
                return
            total = hashlib.sha256()
            while part := connection.recv(1 << 20):
                total.update(part)
                self.bytes += len(part)
            self.sum = total.hexdigest()
            self.done.set()


STREAM = """
many() { for n in $(seq %(times)d); do cat /tmp/r; done; }
dd if=/dev/urandom of=/tmp/r bs=1M count=%(chunk)d 2>/dev/null
echo "guest: has $(many | sha256sum | cut -d' ' -f1)"
"""
STREAM_HOST = """
cut -d' ' -f1 /proc/uptime > /tmp/t0
(echo get; exec sleep 99999) | busybox nc %(host)s %(port)d | sha256sum > /tmp/sum &
while ! [ -s /tmp/sum ]; do sleep 0.2; done
echo "guest: got $(cut -d' ' -f1 /tmp/sum) $(cat /tmp/t0) $(cut -d' ' -f1 /proc/uptime)"
cut -d' ' -f1 /proc/uptime > /tmp/t0
(echo put; many) | busybox nc %(host)s %(port)d
echo "guest: put $(cat /tmp/t0) $(cut -d' ' -f1 /proc/uptime)"
"""


def rate(mib, match):
    return f"{mib * 8.388608 / max(float(match[2]) - float(match[1]), 0.01):.0f}"


def stream(guest, net, up, address, mib, meanwhile=None):
    """MIB each way between the guest and a server at ADDRESS of this host."""
    card = re.search("card=([^,]*)", net)[1]
    chunk = min(mib, CHUNK)
    times = mib // chunk
    host = Streams("127.0.0.1" if address == "10.0.2.2" else address, times, chunk)
    files, load = modules.files(*DRIVERS[card])
    script = load + up + (STREAM + STREAM_HOST) % {"times": times, "chunk": chunk, "host": address, "port": host.port}
    initrd = guest.path("initrd")
    initramfs.write(initrd, script, files + [("dhcp", 0o755, DHCP.encode())])
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory",
                "256M", "--net", net, "--control", guest.path("control"))
    has = guest.expect(rb"guest: has ([0-9a-f]{64})")[1].decode()
    if meanwhile:
        meanwhile(guest)
    got = guest.expect(rb"guest: got ([0-9a-f]{64}) ([0-9.]+) ([0-9.]+)\s")
    if got[1].decode() != host.expected():
        raise Failure("what the guest received is not what the host sent")
    put = guest.expect(rb"guest: put ([0-9.]+) ([0-9.]+)\s")
    guest.wait()
    if not host.done.wait(20) or host.sum != has:
        raise Failure(f"what the host received ({host.bytes} bytes) is not what the guest sent")
    to_guest = rate(mib, [None, got[2], got[3]])
    return f"{mib} MiB each way with equal checksums, {to_guest} and {rate(mib, [None, put[1], put[2]])} Mbit/s to and from the guest"


NAT = """
ip link set eth0 up; sleep 1
busybox udhcpc -i eth0 -n -q -s /dhcp -t 10
"""
GIB = {"virtio-net": 1024, "e1000": 1024, "rtl8139": 1024, "pcnet": 1024, "ne2k": 64}


def register_gib(card):
    mib = int(os.environ.get("GUEST_NET_MIB", GIB[card]))

    @row(f"net-gib-{card}", f"{GIB[card]} MiB each way by checksum over NAT on {card} (GUEST_NET_MIB)", 1200)
    def run(guest):
        return stream(guest, f"user,card={card}", NAT, "10.0.2.2", mib)


for each in DRIVERS:
    register_gib(each)


def qmp(guest, *requests):
    """Requests to the monitor: (command, arguments). Returns the last reply."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(guest.path("control"))
        lines = connection.makefile("rw")
        lines.readline()
        for command, arguments in (("qmp_capabilities", {}),) + requests:
            lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            lines.flush()
            reply = {}
            while "return" not in reply and "error" not in reply:
                reply = json.loads(lines.readline())
            if "error" in reply:
                raise Failure(f"{command}: {reply['error']['desc']}")
    return reply["return"]


@row("net-flaps", "a transfer goes on over a cable that is pulled five times and loses 1 %", 300)
def net_flaps(guest):
    def flap(guest):
        for _ in range(5):
            time.sleep(0.7)
            qmp(guest, ("set_link", {"name": "net0", "up": False}))
            time.sleep(0.4)
            qmp(guest, ("set_link", {"name": "net0", "up": True}))
        if guest.pump(0) and b"guest: got" in guest.output:
            raise Failure("the transfer was over before the last flap")

    # 2 MiB take 8 seconds at least.
    return stream(guest, "user,card=e1000,loss=1,rate=2M", NAT, "10.0.2.2", 2, flap) + ", 5 flaps"


@row("net-forwards", "port forwards are added and removed while the guest runs", 300)
def net_forwards(guest):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files, load = modules.files(*DRIVERS["virtio-net"])
    initrd = guest.path("initrd")
    initramfs.write(initrd, load + NAT + f"""
echo "guest: ready"
for n in 1 2; do echo "{guest.nonce} $n" | busybox nc -l -p 7; done
""", files + [("dhcp", 0o755, DHCP.encode())])
    guest.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory",
                "128M", "--net", "user,card=virtio-net", "--control", guest.path("control"))
    guest.expect(rb"guest: ready")

    def ask():
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            try:
                return connection.makefile().readline()
            except ConnectionResetError:  # forwarded, but nobody listens in the guest yet
                return ""

    def refused():
        try:
            ask()
        except ConnectionRefusedError:
            return True
        return False

    forward = {"name": "net0", "forward": f"tcp:127.0.0.1:{port}-7"}
    if not refused():
        raise Failure("the port answers before it is forwarded")
    for n in 1, 2:
        qmp(guest, ("x-cloche-forward", forward))
        for _ in range(20):  # the guest's listener comes again
            if said := ask():
                break
            time.sleep(0.2)
        if said.strip() != f"{guest.nonce} {n}":
            raise Failure(f"the guest said {said!r}")
        qmp(guest, ("x-cloche-forward", forward | {"add": False}))
        if not refused():
            raise Failure("the port answers after its forward was removed")
    guest.wait()
    return "twice added, used and removed"


@row("net-tap", "16 MiB each way over a TAP interface of this host (root only)", 300)
def net_tap(guest):
    if os.geteuid() or not os.path.exists("/dev/net/tun"):
        raise Skip("TAP needs root and /dev/net/tun")
    name = f"tap{os.getpid() % 100000}"
    try:
        for command in (f"tuntap add dev {name} mode tap", f"addr add 10.77.77.1/24 dev {name}", f"link set {name} up"):
            subprocess.run(["ip"] + command.split(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skip(f"no TAP interface can be made here: {error}")
    try:
        return stream(guest, f"tap:{name},card=virtio-net",
                      "ip link set eth0 up; ip addr add 10.77.77.2/24 dev eth0; sleep 2\n", "10.77.77.1", 16)
    finally:
        subprocess.run(["ip", "link", "del", name], capture_output=True)


# Segments that were lost: others acknowledged, these sent again at once. (A tail that nobody acknowledged for a while
# because the host was busy is sent twice without having been lost.)
LOST = """
lost=$(awk '/^TcpExt:/ { for (i = 2; i <= NF; i++) if (name[i] == "TCPFastRetrans") print $i; else name[i] = $i }' /proc/net/netstat)
echo "guest: lost $lost of $(awk '/^Tcp: [0-9]/ { print $12 }' /proc/net/snmp)"
read go
"""


@row("net-gib-team", "1 GiB each way by checksum between two machines of a team, no frame lost (GUEST_NET_MIB)", 1200)
def net_gib_team(guest):
    mib = int(os.environ.get("GUEST_NET_MIB", 1024))
    files, load = modules.files(*DRIVERS["virtio-net"])
    team = f"gib{os.getpid()}"
    other = Guest(guest.folder, guest.engine, guest.seconds)
    other.path = lambda name: os.path.join(guest.folder, "other-" + name)
    words = {"times": max(mib // CHUNK, 1), "chunk": CHUNK}

    def start(who, address, script):
        initrd = who.path("initrd")
        initramfs.write(initrd, load + f"ip link set eth0 up; ip addr add {address}/24 dev eth0; sleep 1\n" + STREAM % words +
                        script, files)
        who.start("--kernel", modules.kernel(), "--initrd", initrd, "--append", "console=ttyS0 panic=-1 quiet", "--memory",
                  "192M", "--net", f"team:{team},mac=52:54:00:00:00:0{address[-1]}", "--control", who.path("control"))

    try:
        start(other, "10.9.9.2", "many | busybox nc -l -p 99 >/dev/null\n"
              "(exec sleep 99999) | busybox nc -l -p 98 | sha256sum > /tmp/sum &\n"
              "while ! [ -s /tmp/sum ]; do sleep 0.2; done\necho \"guest: got $(cut -d' ' -f1 /tmp/sum)\"\n" + LOST)
        has = other.expect(rb"guest: has ([0-9a-f]{64})")[1]
        start(guest, "10.9.9.1", "cut -d' ' -f1 /proc/uptime > /tmp/t0\n"
              "(exec sleep 99999) | busybox nc 10.9.9.2 99 | sha256sum > /tmp/sum &\n"
              "while ! [ -s /tmp/sum ]; do sleep 0.2; done\n"
              "echo \"guest: got $(cut -d' ' -f1 /tmp/sum) $(cat /tmp/t0) $(cut -d' ' -f1 /proc/uptime)\"\n"
              "sleep 2; many | busybox nc 10.9.9.2 98\n" + LOST)
        mine = guest.expect(rb"guest: has ([0-9a-f]{64})")[1]
        got = guest.expect(rb"guest: got ([0-9a-f]{64}) ([0-9.]+) ([0-9.]+)\s")
        if got[1] != has:
            raise Failure("what the first machine received is not what the second sent")
        if other.expect(rb"guest: got ([0-9a-f]{64})")[1] != mine:
            raise Failure("what the second machine received is not what the first sent")
        for each in (other, guest):
            lost = each.expect(rb"guest: lost (\d+) of (\d+)\s")
            dropped = qmp(each, ("x-cloche-query-nics", {}))[0]["dropped-frames"]
            if int(lost[1]) or dropped or int(lost[2]) < mib:
                raise Failure(f"{lost[1].decode()} of {lost[2].decode()} segments were lost, {dropped} frames dropped")
            each.send("go\r")
        guest.wait()
    finally:
        other.close()
    return f"{mib} MiB each way with equal checksums, no frame lost, {rate(mib, [None, got[2], got[3]])} Mbit/s"


# ---- Network boot ----
@row("pxe-installer", "Debian's installer by pxelinux from the built-in TFTP server, to its first dialogs", 900)
def pxe_installer(guest):
    image = f"{guests.IMAGES}/amd64/text/debian-installer/amd64"
    os.makedirs(guest.path("tftp/pxelinux.cfg"))
    for source, name in ((f"{image}/pxelinux.0", "pxelinux.0"), (f"{image}/boot-screens/ldlinux.c32", "ldlinux.c32"),
                         (f"{image}/linux", "linux"), (f"{image}/initrd.gz", "initrd.gz")):
        shutil.copy(need(source), guest.path("tftp/" + name))
    with open(guest.path("tftp/pxelinux.cfg/default"), "w") as f:
        f.write("serial 0 115200\nprompt 0\ndefault install\nlabel install\nkernel linux\n"
                "append initrd=initrd.gz console=ttyS0,115200n8 DEBIAN_FRONTEND=text priority=high\n")
    guest.start("--memory", "1G", "--net", f"user,card=virtio-net,tftp={guest.path('tftp')},bootfile=pxelinux.0", "--boot", "n")
    guest.expect(rb"Linux version")
    guest.expect(rb"Choose the language to be used.*?English.*?Prompt: '\?' for help, default=\d+> ")
    guest.send("2\r")
    guest.expect(rb"Select your location.*?Country, territory or area:.*?(\d+): United States.*?Prompt: ")
    guest.stop()
    return "kernel and initrd over TFTP, language dialog answered, location dialog came"


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
