#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The desktop app and a whole Debian: what is done in the windows is seen in the guest, by its serial line, and the other way
round. Devices' icons and menus, addresses, port forwards, discs, a disk that grows, a host disk that is full, serial ports, the
clock after a pause, snapshots.
usage: test-debian.py BUILD-FOLDER [STEP...]   (a long test: ./dev desktop)"""
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
import tty

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "guests")]
from driver import Desk, Session, build_folder, run_steps  # noqa: E402
import debian  # noqa: E402
import driver  # noqa: E402
from harness import Skip  # noqa: E402

NAME = "Debian"
UUID_NUMBER = 12


def wait_for(what, condition, seconds=30):  # a guest takes its time on a busy host
    return driver.wait_for(what, condition, seconds)


class Line:
    """The guest's first serial port, a pseudo terminal of the host: what tests/guests/debian.py talks to."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd)
        self.output, self.position = b"", 0

    def fail(self, text):
        raise AssertionError(f"{text}; last output {self.output[-300:]!r}")

    def send(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern, seconds=240):
        end = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.S).search(self.output, self.position)
            if match:
                self.position = match.end()
                return match
            if time.monotonic() > end:
                self.fail(f"waited for {pattern!r}")
            if select.select([self.fd], [], [], 0.2)[0]:
                self.output += os.read(self.fd, 65536)

    def run(self, text):
        return debian.command(self, text).replace("\r", "").strip()


class Debian(Desk):
    def monitor_pid(self):
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
            except OSError:
                continue
            if words[1:3] == [b"--machine", self.folder(NAME).encode()]:
                return int(entry)
        raise AssertionError("no monitor runs")

    # ---- The icons in the status bar
    def icon(self, name):
        return self.app.find(name, "toggle button", self.console(NAME))

    def icon_menu(self, name, item):
        """Chooses ITEM in the menu of the icon NAME, as a person does."""
        self.session.activate(f"{NAME} – Cloche")
        self.app.click(self.session, self.icon(name))
        # GtkMenuButton's popover: its rows are buttons or check boxes for the accessible tree
        self.app.click(self.session, self.app.find(item, within=self.console(NAME)))

    def tooltip(self, name):
        return self.icon(name).get_description()

    def light(self, name):
        """Whether the icon's light is lit: its label has a colour (no grey)."""
        e = self.icon(name).get_component_iface().get_extents(self.app.atspi.CoordType.SCREEN)
        width, height, data = self.session.pixels()
        for y in range(e.y, e.y + e.height):
            row = data[(y * width + e.x) * 3:(y * width + e.x + e.width) * 3]
            if any(max(row[i:i + 3]) - min(row[i:i + 3]) > 60 for i in range(0, len(row), 3)):
                return True
        return False

    def choose_file(self, title, path, button):
        """Answers the file dialog TITLE with PATH."""
        dialog = self.app.find(title, "file chooser")
        self.session.activate(title)
        if button != "Capture":
            self.session.keys("slash")  # opens the entry for a path
            time.sleep(1)
        self.session.keys("ctrl+a")
        self.session.type(path)
        time.sleep(0.5)
        self.app.act(button, "push button", dialog)


def boot(desk):
    desk.small = os.path.join(desk.session.root, "small")
    os.makedirs(desk.small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "cloche-test", desk.small], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{desk.small}/data.qcow2", "1G"], check=True)
    text = (f"[Memory]\nsize=512M\n[Processors]\ncount=2\n"
            f"[Drive disk0]\nfile=disk.qcow2\ninterface=virtio\n[Drive data]\nfile={desk.small}/data.qcow2\ninterface=virtio\n"
            "[Drive cd]\nkind=cdrom\n[Device tablet0]\ndevice=virtio-tablet\n[Network net0]\ncard=virtio-net\n"
            f"[Serial serial0]\ntarget=pty\n[Serial serial1]\ntarget=socket:\n"
            f"[Serial serial2]\ntarget=file:{desk.session.root}/port.txt\n")
    desk.write_machine(NAME, UUID_NUMBER, text)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", desk.image,
                    f"{desk.folder(NAME)}/disk.qcow2"], check=True)
    desk.start_app()
    desk.app.find(f"{NAME}, Off")
    desk.library("ctrl+r", NAME)
    desk.library("ctrl+o", NAME)
    desk.app.find(f"{NAME}, Running")
    port = next(c for c in desk.control(NAME, "query-chardev") if c["label"] == "serial0")
    desk.guest = Line(port["filename"].split(":", 1)[1])
    debian.log_in(desk.guest)
    desk.guest.run("printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=ipv4\\n' >/etc/systemd/network/eth.network; "
                   "systemctl start systemd-networkd")


def picture_and_keys(desk):
    """What is typed in the window is seen on the guest's screen, and by its processes."""
    window = desk.window(f"{NAME} – Cloche")
    desk.focus_guest(NAME)
    time.sleep(1)
    before = desk.session.pixels(window)[2]
    desk.session.type("root\n")
    wait_for("a log-in on tty1", lambda: "bash" in desk.guest.run("ps -t tty1 -o comm= || true"))
    on_screen = lambda text: desk.guest.run(f"grep -cF '{text}' /dev/vcs1 || true") == "1"  # noqa: E731
    command = "echo Typed-In_the{window} >/tmp/typed"
    wait_for("its prompt", lambda: on_screen("clochetest:~#"))
    for end in range(3, len(command) + 3, 3):  # a keyboard keeps only a few keys that a busy guest has not read
        desk.session.type(command[end - 3:end])
        wait_for("the typed text", lambda end=end: on_screen("~# " + command[:end]))
    desk.session.keys("Return")
    wait_for("the typed text", lambda: desk.guest.run("cat /tmp/typed 2>/dev/null || true") == "Typed-In_the{window}")
    changed = sum(a != b for a, b in zip(before, desk.session.pixels(window)[2]))
    assert changed > 500, changed


def addresses(desk):
    copy = desk.app.find("Copy Address 10.0.2.15", "push button", desk.app.find("Cloche", "frame"), 60)
    desk.session.activate("Cloche")
    desk.app.click(desk.session, copy)
    wait_for("the address on the clipboard", lambda: desk.session.clipboard() == "10.0.2.15")
    assert "10.0.2.15" in desk.tooltip("Network card net0")


def lights(desk):
    desk.session.activate(f"{NAME} – Cloche")
    time.sleep(2)
    assert not desk.light("Disc drive cd"), "an idle drive is dark"
    desk.guest.send("dd if=/dev/vda of=/dev/null bs=64k count=16000 iflag=direct 2>/dev/null; echo re''ad\r")
    wait_for("the disk's light", lambda: desk.light("Disk disk0"))
    desk.guest.expect(rb"read\r\n")
    wait_for("it to go out", lambda: not desk.light("Disk disk0"))
    assert re.search("disk.qcow2.*[MG]iB read", desk.tooltip("Disk disk0"), re.S), desk.tooltip("Disk disk0")
    desk.guest.send("while ! [ -e /tmp/enough ]; do echo x >/dev/udp/10.0.2.2/9; sleep .05; done; echo se''nt\r")
    wait_for("the card's light", lambda: desk.light("Network card net0"))
    desk.guest.send("\x03")
    desk.guest.run("true")


def cable(desk):
    desk.icon_menu("Network card net0", "Disconnect Cable")
    wait_for("no carrier", lambda: desk.guest.run("cat /sys/class/net/eth0/carrier") == "0")
    wait_for("the tooltip", lambda: "unplugged" in desk.tooltip("Network card net0"))
    desk.icon_menu("Network card net0", "Connect Cable")
    wait_for("the carrier", lambda: desk.guest.run("cat /sys/class/net/eth0/carrier") == "1")


def capture(desk):
    path = os.path.join(desk.session.root, "packets.pcapng")
    desk.icon_menu("Network card net0", "Capture Packets…")
    desk.choose_file("Capture Packets", path, "Capture")
    wait_for("the tooltip", lambda: path in desk.tooltip("Network card net0"))
    desk.guest.run("for i in 1 2 3; do echo CLOCHE-PACKET >/dev/udp/10.0.2.2/9; done")
    desk.icon_menu("Network card net0", "Stop Capturing Packets")
    wait_for("the packets", lambda: open(path, "rb").read().count(b"CLOCHE-PACKET") >= 3)
    size = os.path.getsize(path)
    desk.guest.run("echo CLOCHE-PACKET >/dev/udp/10.0.2.2/9")
    assert os.path.getsize(path) == size, "it has stopped"


def forwards(desk):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    desk.guest.run("(perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1); "
                   "while ($c = $s->accept) { print $c \"guest answers\\n\"; close $c }' >/dev/null 2>&1 &)")
    desk.icon_menu("Network card net0", "Port Forwards…")
    dialog = desk.app.find("Port Forwards", "dialog")
    desk.app.act("Add Forward", "push button", dialog)
    desk.app.find("Port on this host", "spin button", dialog).get_value_iface().set_current_value(port)
    desk.app.find("Port in the guest", "spin button", dialog).get_value_iface().set_current_value(8080)
    desk.app.act("Apply", "push button", dialog)

    def answer():
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as connection:
                return connection.recv(100)
        except OSError:
            return None
    wait_for("the guest's answer", lambda: answer() == b"guest answers\n")
    desk.icon_menu("Network card net0", "Port Forwards…")
    dialog = desk.app.find("Port Forwards", "dialog")
    desk.app.act("Remove this forward", "push button", dialog)
    desk.app.act("Apply", "push button", dialog)
    wait_for("the port to be closed", lambda: answer() is None)


def discs(desk):
    for number in 1, 2:
        folder = os.path.join(desk.session.root, f"files{number}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "note.txt"), "w", encoding="utf-8") as f:
            f.write(f"disc {number}\n")
        disc = os.path.join(desk.session.root, f"disc{number}.iso")
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-o", disc, folder], check=True, capture_output=True)
        desk.icon_menu("Disc drive cd", "Insert…")
        desk.choose_file("Insert Disc or Floppy", disc, "Insert")
        wait_for("the tooltip", lambda: f"disc{number}.iso" in desk.tooltip("Disc drive cd"))
        got = desk.guest.run("for i in 1 2 3 4 5 6 7 8 9; do mount -r /dev/sr0 /mnt 2>/dev/null && break; sleep 1; done; "
                             "cat /mnt/note.txt; umount /mnt")
        assert got == f"disc {number}", got
    desk.icon_menu("Disc drive cd", "Eject")
    wait_for("the tooltip", lambda: "Empty" in desk.tooltip("Disc drive cd"))
    assert "none" in desk.guest.run("mount -r /dev/sr0 /mnt 2>/dev/null || echo none")


def grow(desk):
    desk.icon_menu("Disk disk0", "Grow…")
    dialog = desk.app.find("Grow Disk", "dialog")
    desk.app.set_text(desk.app.find("New size", "text", dialog), "3G")
    desk.app.act("Grow", "push button", dialog)
    wait_for("the guest to see it", lambda: desk.guest.run("blockdev --getsize64 /dev/vda") == str(3 << 30))


def host_disk_full(desk):
    desk.guest.send("dd if=/dev/urandom of=/tmp/random bs=1M count=48 2>/dev/null; "
                    "dd if=/tmp/random of=/dev/vdb bs=1M oflag=direct 2>/dev/null; echo wri''tten $?\r")
    desk.app.find("The host's disk is full, so the machine waits; nothing is lost.", "label", desk.console(NAME), 60)
    desk.app.find(f"{NAME}, Stopped")
    desk.shot("debian-full")
    subprocess.run(["mount", "-o", "remount,size=100m", desk.small], check=True)
    desk.app.act("Retry", "push button", desk.console(NAME))
    desk.app.find(f"{NAME}, Running")
    assert desk.guest.expect(rb"written (\d)\r\n", 60)[1] == b"0"
    assert desk.guest.run("cmp -n 50331648 /tmp/random /dev/vdb && echo same; rm /tmp/random") == "same"
    assert "error" not in desk.guest.run("dmesg | grep vdb | tail -n 3").lower()


def serial_ports(desk):
    desk.guest.run("echo to-the-file >/dev/ttyS2")
    path = os.path.join(desk.session.root, "port.txt")
    wait_for("the file", lambda: os.path.exists(path) and "to-the-file" in open(path, encoding="utf-8").read())
    desk.app.act("Serial Console", "radio menu item", desk.console(NAME))
    terminal = desk.app.find("Serial console", "terminal", desk.console(NAME))
    desk.guest.run("systemctl start serial-getty@ttyS1")
    text = lambda: terminal.get_text_iface().get_text(0, -1)  # noqa: E731
    wait_for("a log-in on the second port", lambda: "clochetest login:" in text())
    desk.session.activate(f"{NAME} – Cloche")
    desk.app.click(desk.session, terminal)
    desk.session.type("root\n")
    wait_for("the prompt", lambda: "root@clochetest:~#" in text())
    desk.session.type("tty\n")
    wait_for("its answer", lambda: "/dev/ttyS1" in text())
    desk.shot("debian-serial")
    desk.app.act("Screen", "radio menu item", desk.console(NAME))


def offset(desk, clock="date +%s.%N"):
    """How far the guest's CLOCK is ahead of the host's, in seconds; the serial line costs some milliseconds."""
    before = time.time()
    guest = float(desk.guest.run(clock).split("\n")[-1])
    return guest - (before + time.time()) / 2


RTC = "cat /sys/class/rtc/rtc0/since_epoch"


def clocks(desk, what):
    """The clock on the board follows the host. Linux looks at it when it starts and counts by itself from then on, so the
    system's time lags by the pause until something in the guest sets it (NTP, hwclock --hctosys)."""
    rtc, system = offset(desk, RTC), offset(desk)
    print(f"   {what}: the board's clock is {rtc:+.1f} s from the host's, the system's {system:+.3f} s")
    assert -2 < rtc < 1, "the board's clock follows the host"


def pause(desk):
    uptime = float(desk.guest.run("cut -d ' ' -f 1 /proc/uptime"))
    started = time.monotonic()
    desk.menu(NAME, "Pause")
    desk.app.find(f"{NAME}, Paused")
    stat = f"/proc/{desk.monitor_pid()}/stat"
    ticks = lambda: sum(map(int, open(stat, encoding="utf-8").read().rsplit(")", 1)[1].split()[11:13]))  # noqa: E731
    time.sleep(1)
    first = ticks()
    time.sleep(5)
    used = ticks() - first
    desk.menu(NAME, "Resume")
    desk.app.find(f"{NAME}, Running")
    passed = time.monotonic() - started
    up = float(desk.guest.run("cut -d ' ' -f 1 /proc/uptime")) - uptime
    print(f"   paused: {used * 10} ms of CPU in 5 s; {passed:.1f} s passed, {up:.1f} s for the guest's monotonic clock")
    assert used <= 5, "a paused machine uses no processor"
    assert up < passed - 4, "the monotonic clock stood still"
    clocks(desk, "after a pause")


def save(desk):
    desk.menu(NAME, "Save State")
    desk.app.find(f"{NAME}, Saved", seconds=60)
    time.sleep(5)
    desk.menu(NAME, "Start")
    desk.app.find(f"{NAME}, Running", seconds=60)
    os.close(desk.guest.fd)
    port = next(c for c in desk.control(NAME, "query-chardev") if c["label"] == "serial0")
    desk.guest = Line(port["filename"].split(":", 1)[1])
    desk.guest.send("\r")
    desk.guest.expect(rb"root@clochetest:~# ")
    clocks(desk, "saved and started")


def rows(desk, window):
    return [n.get_name() for n in desk.app._walk(window) if n.get_role_name() == "table cell" and n.get_name()]


def snapshots(desk):
    app = desk.app
    desk.guest.run("echo one >/root/state; sync")
    desk.menu(NAME, "Manage")
    window = app.find(f"Snapshots of “{NAME}”", "dialog")
    desk.take = lambda name: (app.act("Take…", "push button", window),
                              app.set_text(app.find("Name", "text", app.find("Take Snapshot", "dialog")), name),
                              app.act("Take", "push button", app.find("Take Snapshot", "dialog")),
                              app.find(name, "table cell", window, 60))
    desk.take("First")
    desk.guest.run("echo two >/root/state; sync")
    desk.take("Second")
    desk.guest.run("echo three >/root/state; sync")
    choose_row(desk, window, "First")
    app.act("Restore…", "push button", window)
    app.act("Restore", "push button", app.find("Restore “First”", "dialog"))
    app.find("Before First", "table cell", window, 60)
    wait_for("the first state", lambda: desk.guest.run("cat /root/state") == "one", 60)
    clocks(desk, "after a restored snapshot")
    time.sleep(0.5)
    desk.shot("debian-snapshots")
    names = [row.split("\n")[0] for row in rows(desk, window)]
    print("   tree: " + ", ".join(names))
    assert [n for n in names if n in ("First", "Second", "Before First", "You are here")] \
        == ["First", "Second", "Before First", "You are here"], names
    choose_row(desk, window, "Before First")
    app.act("Clone…", "push button", window)
    asked = app.find("Clone from Snapshot", "dialog")
    app.set_text(app.find("Name of the clone", "text", asked), "Third")
    app.act("Clone", "push button", asked)
    app.find("Third, ", seconds=60)
    choose_row(desk, window, "Second")
    app.act("Delete…", "push button", window)
    app.act("Delete", "push button", app.find("Question", "alert"))
    wait_for("the snapshot to be gone", lambda: not any(r.startswith("Second") for r in rows(desk, window)), 60)
    assert desk.guest.run("cat /root/state") == "one"
    app.act("Close", "push button", window)


def choose_row(desk, window, name):
    cell = next(n for n in desk.app._walk(window) if n.get_role_name() == "table cell" and (n.get_name() or "").split("\n")[0] == name)
    desk.session.activate(f"Snapshots of “{NAME}”")
    desk.app.click(desk.session, cell)
    wait_for("the buttons", lambda: desk.app.enabled(desk.app.find("Clone…", "push button", window)))


def power_off(desk):
    desk.power_off(NAME)


STEPS = [boot, picture_and_keys, addresses, lights, cable, capture, forwards, discs, grow, host_disk_full, serial_ports, pause, save,
         snapshots, power_off]


def main():
    try:
        image = debian.image()  # before the session has another home
    except Skip as skip:
        print(f"skipped: {skip}")
        return 77
    if os.geteuid() != 0:
        print("skipped: a small disk is mounted, which needs root")
        return 77
    os.environ["CLOCHE_VM"] = os.path.join(build_folder(), "cloche-vm")
    steps = [step for step in STEPS if step.__name__ in (sys.argv[2:] or [s.__name__ for s in STEPS]) or step in (boot, power_off)]
    with Session("1280x1000x24") as session:
        desk = Debian(session)
        desk.image = image
        try:
            return run_steps(desk, steps)
        finally:
            subprocess.run(["umount", "-l", os.path.join(session.root, "small")], check=False, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
