#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The desktop app on real monitors with a small guest of its own (guest.asm): a machine is created by the assistant, typed
into, paused, snapshotted, restored, saved, cloned, run beside its clone, found again by a new app, deleted; and ten things go
wrong, each with a sentence that names it.
usage: test-machines.py BUILD-FOLDER"""
import glob
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from driver import App, Session, wait_for  # noqa: E402

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BUILD", "."))
SHOTS = os.environ.get("SHOTS")
GREEN, WHITE, RED = (0, 0xaa, 0), (0xff, 0xff, 0xff), (0xff, 0x55, 0x55)


class Desk:
    def __init__(self, session):
        self.session = session
        self.spy = None

    def start_app(self, *arguments):
        self.stderr = open(os.path.join(self.session.root, "stderr"), "a", encoding="utf-8")
        self.process = self.session.start([os.path.join(BUILD, "cloche"), *arguments], stderr=self.stderr)
        self.app = App("loche")

    def stop_app(self):
        self.session.activate("Cloche")
        self.session.keys("ctrl+q")
        wait_for("the app to end", lambda: self.process.poll() is not None)

    def shot(self, name):
        if SHOTS:
            self.session.screenshot(os.path.join(SHOTS, name + ".png"))

    def folder(self, name):
        return os.path.join(self.session.root, "data", "cloche", "machines", name)

    def window(self, title):
        def search():
            return self.session.run("xdotool", "search", "--onlyvisible", "--name", f"^{title}$").split()
        return wait_for(f"the window “{title}”", search)[0]

    def count(self, title, color):
        """Pixels of COLOR in the console of the machine TITLE."""
        return self.session.pixels(self.window(f"{title} – Cloche"))[2].count(bytes(color))

    def wait_color(self, what, title, color, at_least, at_most=10**9, seconds=60):
        self.window(f"{title} – Cloche")
        self.session.activate(f"{title} – Cloche")  # what another window covers is not seen
        return wait_for(what, lambda: at_least <= self.count(title, color) <= at_most, seconds)

    def type_into(self, title, key):
        self.session.activate(f"{title} – Cloche")
        window = self.app.find(f"{title} – Cloche", "frame")
        self.app.click(self.session, self.app.find("Guest screen", within=window))
        self.session.keys(key)

    def menu(self, title, item):
        self.app.act(item, "menu item", self.app.find(f"{title} – Cloche", "frame"))

    def select(self, name):
        self.session.activate("Cloche")
        frame = self.app.find("Cloche", "frame")
        rows = self.app.find("Machines", "list box", frame)

        def label():
            return next((n for n in self.app._walk(rows) if n.get_role_name() == "label" and n.get_name() == name), None)
        self.app.click(self.session, wait_for(name, label))

    def library(self, keys, name):
        self.select(name)
        self.session.keys(keys)


BLOCK = 100  # pixels of one block at least


def create_by_assistant(desk):
    disk = os.path.join(desk.session.root, "home", "tiny.img")
    boot = os.path.join(desk.session.root, "home", "boot")
    subprocess.run(["nasm", "-f", "bin", "-o", boot, os.path.join(HERE, "guest.asm")], check=True)
    with open(disk, "wb") as f:
        f.write(open(boot, "rb").read().ljust(2 << 20, b"\0"))
    desk.start_app(disk)
    app = desk.app
    app.find("Existing disk", "radio button")
    app.act("Next", "push button")
    app.set_text(app.find("Name", "text"), "Tiny")
    app.find("Memory", "spin button").get_value_iface().set_current_value(128)
    app.act("Next", "push button")
    app.find("Name: Tiny", "label")
    app.act("Apply", "push button")
    desk.wait_color("the guest's green screen", "Tiny", GREEN, 50000)
    desk.shot("machines-created")


def type_and_pause(desk):
    desk.type_into("Tiny", "a")
    desk.wait_color("a white block", "Tiny", WHITE, BLOCK)
    desk.menu("Tiny", "Pause")
    desk.wait_color("no green behind the veil", "Tiny", GREEN, 0, 500)
    desk.menu("Tiny", "Resume")
    desk.wait_color("green again", "Tiny", GREEN, 50000)


def snapshot_and_restore(desk):
    app = desk.app
    desk.menu("Tiny", "Take…")
    asked = app.find("Take Snapshot", "dialog")
    app.set_text(app.find("Name", "text", asked), "One")
    app.act("Take", "push button", asked)
    wait_for("the snapshot", lambda: glob.glob(desk.folder("Tiny") + "/snapshots/*/snapshot.conf"))
    desk.type_into("Tiny", "b")
    desk.wait_color("a red block", "Tiny", RED, BLOCK)
    desk.menu("Tiny", "Restore “One”…")
    asked = app.find("Restore “One”", "dialog")
    app.act("Restore", "push button", asked)  # keeps the present state first
    desk.wait_color("the red block to be gone", "Tiny", RED, 0, 0)
    assert desk.count("Tiny", WHITE) >= BLOCK, "what was there at the snapshot is there"
    wait_for("two snapshots", lambda: len(glob.glob(desk.folder("Tiny") + "/snapshots/*/snapshot.conf")) == 2)
    desk.menu("Tiny", "Manage")
    window = app.find("Snapshots of “Tiny”", "dialog")
    app.find("You are here", "table cell", window)
    app.find("Before One", "table cell", window)
    desk.shot("machines-snapshots")
    app.act("Close", "push button", window)


def save_and_go_on(desk):
    desk.menu("Tiny", "Save State")
    desk.app.find("Tiny, Saved")
    picture = glob.glob(desk.folder("Tiny") + "/*/screen.png")
    assert picture, "the last screen is kept"
    desk.session.activate("Cloche")
    time.sleep(0.5)
    width, height, data = desk.session.pixels(desk.window("Cloche"))
    assert data.count(bytes(GREEN)) > 2000, "the library shows the last screen of a saved machine"
    desk.shot("machines-saved")
    desk.menu("Tiny", "Start")
    desk.wait_color("the guest as it was", "Tiny", GREEN, 50000)
    assert desk.count("Tiny", WHITE) >= BLOCK


def power_off(desk, name):
    desk.menu(name, "Power Off…")
    desk.app.act("Power Off", "push button", desk.app.find("Question", "alert"))
    desk.app.find(f"{name}, Off")


def clone_and_run_both(desk):
    app = desk.app
    power_off(desk, "Tiny")
    desk.select("Tiny")
    desk.session.keys("ctrl+shift+c")
    asked = app.find("Clone Machine", "dialog")
    app.set_text(app.find("Name of the clone", "text", asked), "Twin")
    app.act("Linked clone", "check box", asked)
    app.act("Clone", "push button", asked)
    app.find("Twin, Off")
    for name in ("Tiny", "Twin"):
        desk.library("ctrl+r", name)
        desk.library("ctrl+o", name)
        desk.wait_color(f"the screen of {name}", name, GREEN, 50000)
    desk.type_into("Twin", "b")
    desk.wait_color("a red block in the clone", "Twin", RED, BLOCK)
    assert desk.count("Tiny", RED) == 0, "the clone's disk is its own"
    desk.shot("machines-both")


def new_app_finds_them(desk):
    for name in ("Tiny", "Twin"):
        desk.menu(name, "Close Window")
        dialog = desk.app.find("Close the Window", "dialog")
        desk.app.act("Close", "push button", dialog)
        wait_for("the console to close", lambda: not desk.app.find_now(f"{name} – Cloche", "frame"))
    desk.stop_app()
    desk.start_app()
    desk.app.find("Tiny, Running")
    desk.app.find("Twin, Running")
    frame = desk.window("Cloche")
    wait_for("live pictures without a console", lambda: desk.session.pixels(frame)[2].count(bytes(GREEN)) > 5000)
    desk.shot("machines-library")


def one_stops_by_itself(desk):
    notes = os.path.join(desk.session.root, "notes")
    with open(notes, "w", encoding="utf-8") as out:
        desk.session.start(["dbus-monitor", "--session", "member='Notify'"], stdout=out)
        desk.session.start(["dbus-monitor", "--session", "member='AddNotification'"], stdout=out)
        time.sleep(0.5)
        desk.library("ctrl+o", "Twin")
        desk.wait_color("the clone's screen", "Twin", GREEN, 50000)
        desk.type_into("Twin", "q")
        desk.app.find("Twin, Off")
        if desk.app.find_now("Tiny, Running") is None:
            raise AssertionError("the other machine runs on")
        wait_for("a notification", lambda: "“Twin” has stopped" in open(notes, encoding="utf-8").read())


def delete_with_undo(desk):
    app = desk.app
    desk.menu("Twin", "Close Window")
    desk.library("Delete", "Twin")
    dialog = app.find("Delete “Twin”?", "dialog")
    app.find("files are deleted", "label", dialog)
    desk.shot("machines-delete")
    app.act("Delete", "push button", dialog)
    app.act("Undo", "push button")
    app.find("Twin, Off")
    assert os.path.exists(desk.folder("Twin") + "/machine.conf")
    desk.library("Delete", "Twin")
    app.act("Delete", "push button", app.find("Delete “Twin”?", "dialog"))
    wait_for("its folder to be gone", lambda: not os.path.exists(desk.folder("Twin")))
    app.find("Tiny, Running")
    desk.library("ctrl+o", "Tiny")
    power_off(desk, "Tiny")
    desk.menu("Tiny", "Close Window")


def write_machine(desk, name, number, text):
    os.makedirs(desk.folder(name))
    conf = f"[Machine]\nversion=1\nname={name}\nuuid=7f000000-0000-4000-8000-{number:012d}\n[Memory]\nsize=64M\n" + text
    with open(os.path.join(desk.folder(name), "machine.conf"), "w", encoding="utf-8") as out:
        out.write(conf)


def failures(desk, taken_port):
    """Name, definition, what the error text must say."""
    damaged = os.path.join(desk.session.root, "home", "damaged.qcow2")
    with open(damaged, "wb") as out:
        out.write(b"QFI\xfb\0\0\0\3" + b"\xff" * 500)
    text = os.path.join(desk.session.root, "home", "kernel.txt")
    with open(text, "w", encoding="utf-8") as out:
        out.write("this is no kernel\n")
    tiny = glob.glob(desk.folder("Tiny") + "/*.qcow2")[0]
    return [
        ("No Disk", "[Drive disk0]\nfile=/nowhere/disk.img\n", "/nowhere/disk.img"),
        ("Damaged Disk", f"[Drive disk0]\nfile={damaged}\n", "damaged.qcow2"),
        ("No Kernel", f"[Direct Boot]\nkernel={text}\n", "kernel.txt"),
        ("No Firmware", "[Firmware]\nfile=/nowhere/bios.bin\n", "/nowhere/bios.bin"),
        ("No Such Engine", "[Processors]\nengine=warp\n", "engine"),
        ("Much Memory", "[Memory]\nsize=900G\n", "memory"),
        ("Port Taken", f"[Network net0]\nforwards=tcp:127.0.0.1:{taken_port}-22\n", str(taken_port)),
        ("Open VNC", "[VNC]\naddress=0.0.0.0:7\n", "password"),
        ("No Device", "[Device x]\ndevice=flux-capacitor\n", "flux-capacitor"),
        ("Shared Disk", f"[Drive disk0]\nfile={tiny}\n", os.path.basename(tiny)),
    ]


def ten_failures(desk):
    app = desk.app
    window = desk.window("Cloche")  # room for a row each: what is scrolled away cannot be clicked
    desk.session.run("xdotool", "windowmove", window, "0", "0", "windowsize", window, "1270", "1120")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rows = failures(desk, taken.getsockname()[1])
        for number, (name, text, _) in enumerate(rows):
            write_machine(desk, name, number, text)
        desk.library("ctrl+r", "Tiny")  # holds the disk of the last row
        app.find("Tiny, Running")
        for name, _, expected in rows:
            app.find(f"{name}, ")
            desk.select(name)
            if app.find_now(f"{name}, Damaged"):  # its definition is refused at once, with the reason in the row
                said = app.find(f"{name}, Damaged").get_name()
            else:
                desk.session.keys("ctrl+r")
                alert = app.find("Error", "alert")
                app.find("The machine could not be started", "label", alert)
                said = " ".join(app.text(n) or "" for n in app._walk(alert) if n.get_role_name() == "label")
                if name == "No Disk":
                    desk.shot("machines-failure")
                app.act("Close", "push button", alert)
            print(f"   {name}: {said}", flush=True)
            assert expected.lower() in said.lower(), (name, expected, said)
    desk.library("ctrl+o", "Tiny")
    power_off(desk, "Tiny")


STEPS = [create_by_assistant, type_and_pause, snapshot_and_restore, save_and_go_on, clone_and_run_both, new_app_finds_them,
         one_stops_by_itself, delete_with_undo, ten_failures]


def main():
    if not shutil.which("nasm"):
        print("skipped: nasm is not installed")
        return 77
    os.environ["CLOCHE_VM"] = os.path.join(BUILD, "cloche-vm")
    if SHOTS:
        os.makedirs(SHOTS, exist_ok=True)
    passed = 0
    with Session("1280x1200x24") as session:
        desk = Desk(session)
        for step in STEPS:
            started = time.monotonic()
            try:
                step(desk)
            except Exception:
                traceback.print_exc()
                session.screenshot(os.path.join(SHOTS or session.root, "failed.png"))
                desk.app.dump()
                print(open(os.path.join(session.root, "stderr"), encoding="utf-8").read(), file=sys.stderr)
                print(f"{passed} passed, 1 failed: {step.__name__}")
                return 1
            passed += 1
            print(f"ok {step.__name__} {time.monotonic() - started:.1f} s", flush=True)
    print(f"{passed} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
