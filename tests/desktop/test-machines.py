#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The desktop app on real monitors with a small guest of its own (guest.asm): a machine is created by the assistant, typed
into, paused, snapshotted, restored, saved, cloned, run beside its clone, found again by a new app, deleted; and ten things go
wrong, each with a sentence that names it.
usage: test-machines.py BUILD-FOLDER"""
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from driver import Desk, Session, build_folder, run_steps, wait_for  # noqa: E402

GREEN, WHITE, RED = (0, 0xaa, 0), (0xff, 0xff, 0xff), (0xff, 0x55, 0x55)


BLOCK = 100  # pixels of one block at least


def count(desk, name, color):
    """Pixels of COLOR in the console of the machine NAME."""
    return desk.count(color, desk.window(f"{name} – Cloche"))


def wait_color(desk, what, name, color, at_least, at_most=10**9):
    window = desk.window(f"{name} – Cloche")
    desk.session.activate(f"{name} – Cloche")  # what another window covers is not seen
    desk.wait_color(what, color, at_least, at_most, window)


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
    app.act("Create", "push button", app.find("Summary", "frame"))
    wait_color(desk, "the guest's green screen", "Tiny", GREEN, 50000)
    desk.shot("machines-created")


def type_and_pause(desk):
    desk.type_into("Tiny", "a")
    wait_color(desk, "a white block", "Tiny", WHITE, BLOCK)
    desk.menu("Tiny", "Pause")
    wait_color(desk, "no green behind the veil", "Tiny", GREEN, 0, 500)
    desk.menu("Tiny", "Resume")
    wait_color(desk, "green again", "Tiny", GREEN, 50000)


def snapshot_and_restore(desk):
    app = desk.app
    desk.menu("Tiny", "Take…")
    asked = app.find("Take Snapshot", "dialog")
    app.set_text(app.find("Name", "text", asked), "One")
    app.act("Take", "push button", asked)
    wait_for("the snapshot", lambda: glob.glob(desk.folder("Tiny") + "/snapshots/*/snapshot.conf"))
    desk.type_into("Tiny", "b")
    wait_color(desk, "a red block", "Tiny", RED, BLOCK)
    desk.menu("Tiny", "Restore “One”…")
    asked = app.find("Restore “One”", "dialog")
    app.act("Restore", "push button", asked)  # keeps the present state first
    wait_color(desk, "the red block to be gone", "Tiny", RED, 0, 0)
    assert count(desk, "Tiny", WHITE) >= BLOCK, "what was there at the snapshot is there"
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
    wait_color(desk, "the guest as it was", "Tiny", GREEN, 50000)
    assert count(desk, "Tiny", WHITE) >= BLOCK


def clone_and_run_both(desk):
    app = desk.app
    desk.power_off("Tiny")
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
        wait_color(desk, f"the screen of {name}", name, GREEN, 50000)
    desk.type_into("Twin", "b")
    wait_color(desk, "a red block in the clone", "Twin", RED, BLOCK)
    assert count(desk, "Tiny", RED) == 0, "the clone's disk is its own"
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
        wait_color(desk, "the clone's screen", "Twin", GREEN, 50000)
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
    desk.session.activate("Cloche")
    desk.session.keys("ctrl+z")
    app.find("Twin, Off")
    assert os.path.exists(desk.folder("Twin") + "/machine.conf")
    desk.library("Delete", "Twin")
    app.act("Delete", "push button", app.find("Delete “Twin”?", "dialog"))
    wait_for("its folder to be gone", lambda: not os.path.exists(desk.folder("Twin")))
    app.find("Tiny, Running")
    desk.library("ctrl+o", "Tiny")
    desk.power_off("Tiny")
    desk.menu("Tiny", "Close Window")


def failures(desk, taken_port):
    """Name, definition, what the error text must say."""
    damaged = os.path.join(desk.session.root, "home", "damaged.qcow2")
    with open(damaged, "wb") as out:
        out.write(b"QFI\xfb\0\0\0\3" + b"\xff" * 500)
    text = os.path.join(desk.session.root, "home", "kernel.txt")
    with open(text, "w", encoding="utf-8") as out:
        out.write("this is no kernel\n")
    definition = open(desk.folder("Tiny") + "/machine.conf", encoding="utf-8").read()
    tiny = os.path.join(desk.folder("Tiny"), re.search(r"^file=(.*)$", definition, re.M).group(1))
    return [
        ("No Disk", "[Drive disk0]\nfile=/nowhere/disk.img\n", "disk.img for writing: No such file or directory; put it back there"),
        ("Damaged Disk", f"[Drive disk0]\nfile={damaged}\n", "; put a backup of this file in its place"),
        ("No Kernel", f"[Direct Boot]\nkernel={text}\n", "kernel.txt"),
        ("No Firmware", "[Firmware]\nfile=/nowhere/bios.bin\n", "/nowhere/bios.bin"),
        ("No Such Engine", "[Processors]\nengine=warp\n", "engine"),
        ("Much Memory", "size=900G\n", "memory"),
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
            desk.write_machine(name, number, "[Memory]\nsize=64M\n" + text)
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
    desk.power_off("Tiny")


STEPS = [create_by_assistant, type_and_pause, snapshot_and_restore, save_and_go_on, clone_and_run_both, new_app_finds_them,
         one_stops_by_itself, delete_with_undo, ten_failures]


def main():
    if not shutil.which("nasm"):
        print("skipped: nasm is not installed")
        return 77
    os.environ["CLOCHE_VM"] = os.path.join(build_folder(), "cloche-vm")
    with Session("1280x1200x24") as session:
        return run_steps(Desk(session), STEPS)


if __name__ == "__main__":
    sys.exit(main())
