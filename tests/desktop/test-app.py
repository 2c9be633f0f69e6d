#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The desktop app on a stand-in monitor, driven through accessibility and synthetic input, checked by pixels and files.
usage: test-app.py BUILD-FOLDER"""
import glob
import os
import re
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from driver import Desk, Session, build_folder, run_steps, wait_for  # noqa: E402

GREEN = (0, 0xa0, 0)


def create_by_assistant(desk):
    app = desk.app
    app.act("Create a Machine…", "push button")
    app.act("Nothing yet: an empty machine", "radio button")
    app.act("Next", "push button")
    name = app.find("Name", "text")
    app.set_text(name, "Alpha")
    desk.shot("assistant-resources")
    app.act("Next", "push button")
    app.find("Name: Alpha", "label")
    desk.shot("assistant-summary")
    app.act("Create", "push button", app.find("Summary", "frame"))
    wait_for("the machine's folder", lambda: os.path.exists(desk.folder("Alpha") + "/machine.conf"))
    disk = desk.folder("Alpha") + "/disk0.img"
    assert os.path.getsize(disk) >= 1 << 30, "the new disk has its size"
    assert os.stat(disk).st_blocks * 512 < 1 << 20, "the new disk takes no space"


def see_picture(desk):
    desk.wait_color("the running machine's green screen", GREEN, 50000)
    desk.shot("console-running")


def type_into_guest(desk):
    desk.session.activate("Alpha – Cloche")
    desk.app.click(desk.session, desk.app.find("Guest screen"))
    desk.wait_color("the pointer's blue square", (0, 0, 255), 64, 100)
    desk.session.keys("a")
    desk.session.keys("b")
    desk.wait_color("the white square of the key a", (255, 255, 255), 256)
    desk.wait_color("the red square of the key b", (255, 0, 0), 256)


def pause_and_resume(desk):
    desk.app.act("Pause", "menu item")
    wait_for("no green while paused", lambda: desk.count(GREEN) < 2000)
    desk.shot("console-paused")
    assert "Paused" in "".join(n.get_name() or "" for n in desk.app._walk(desk.app.root) if n.get_role_name() == "label")
    desk.app.act("Resume", "menu item")
    desk.wait_color("the green screen again", GREEN, 50000)


def reopen_finds_running_machine(desk):
    desk.app.act("Close Window", "menu item")
    desk.app.find("Keep running in the background", "radio button")
    desk.shot("close-dialog")
    desk.app.act("Close", "push button", desk.app.find("Close the Window", "dialog"))
    desk.stop_app()
    desk.start_app()
    desk.app.find("Alpha, Running")
    desk.session.activate("Cloche")
    desk.app.act("Open", "menu item") if desk.app.find_now("Open", "menu item") else desk.session.keys("ctrl+o")
    see_picture(desk)


def nothing_is_drawn_over(desk):
    """What the guest paints appears beside a popover that lies over its screen, not on it."""
    app, window = desk.app, desk.window("Alpha – Cloche")
    desk.session.run("xdotool", "windowsize", "--sync", window, "400", "300")
    desk.session.activate("Alpha – Cloche")
    app.click(desk.session, app.find("Translated", "toggle button", desk.console("Alpha")))
    text = app.find("Guest code is translated", "label", desk.console("Alpha"))
    time.sleep(1)  # it moves in
    e = text.get_component_iface().get_extents(app.atspi.CoordType.SCREEN)
    look = lambda: desk.session.part(e.x, e.y, e.width, e.height)  # noqa: E731
    before = look()
    desk.control("Alpha", "x-fake-paint", color=0xc000c0)
    desk.wait_color("the guest's new colour", (0xc0, 0, 0xc0), 5000)
    desk.shot("popover")
    assert look() == before, "the popover is as it was"
    desk.session.keys("Escape")
    time.sleep(0.5)
    assert look() != before, "it lay over the guest's screen"
    desk.control("Alpha", "x-fake-paint", color=0x00a000)


def clipboard_by_direction(desk):
    app = desk.app
    desk.session.activate("Cloche")
    desk.session.copy("copied here")
    wait_for("the text on the clipboard", lambda: desk.session.clipboard() == "copied here")
    assert desk.control("Alpha", "x-fake-pasted") == "", "a guest sees only what is copied while its window is used"
    desk.session.activate("Alpha – Cloche")
    wait_for("the text in the guest", lambda: desk.control("Alpha", "x-fake-pasted") == "copied here")
    desk.control("Alpha", "x-fake-copy", text="copied there")
    wait_for("the guest's text", lambda: desk.session.clipboard() == "copied there")
    assert desk.control("Alpha", "x-fake-pasted") == "copied here", "what comes from the guest is not sent back"
    app.act("Only to the Guest", "radio menu item", desk.console("Alpha"))
    conf = os.path.join(desk.folder("Alpha"), "machine.conf")
    wait_for("the definition", lambda: "device=spice-agent,clipboard=to-guest" in open(conf, encoding="utf-8").read())


def power_off(desk):
    desk.power_off("Alpha")


def failure_is_explained(desk):
    os.environ["FAKE_FAIL"] = "start"
    desk.session.env["FAKE_FAIL"] = "start"
    desk.session.activate("Alpha – Cloche")
    desk.app.act("Close Window", "menu item")
    desk.stop_app()
    desk.start_app()
    desk.app.find("Alpha, Off")
    desk.app.act("Start", "push button")
    desk.app.find("told to fail")
    desk.shot("library-crashed")
    desk.app.act("Close", "push button", desk.app.find("Error", "alert"))
    del desk.session.env["FAKE_FAIL"]
    desk.stop_app()
    desk.start_app()


def settings_refuse_and_save(desk):
    app = desk.app
    app.find("Alpha, ")
    desk.session.activate("Cloche")
    desk.session.keys("ctrl+e")
    dialog = app.find("Settings of “Alpha”", "dialog")
    app.click(desk.session, app.find("System", "label", app.find("Pages", "list box", dialog)))
    memory = app.find("Memory", "text", dialog)
    app.set_text(memory, "enormous")
    app.act("Save", "push button", dialog)
    app.find("The settings were not saved", "label")
    desk.shot("settings-refused")
    app.act("Close", "push button", app.find("Error", "alert"))
    app.set_text(memory, "512M")
    app.act("Save", "push button", dialog)
    conf = desk.folder("Alpha") + "/machine.conf"
    wait_for("the new size in machine.conf", lambda: "512M" in open(conf, encoding="utf-8").read())


def snapshots_of_a_machine_that_is_off(desk):
    app, folder = desk.app, desk.folder("Alpha")
    desk.session.activate("Cloche")
    desk.session.keys("ctrl+shift+s")
    window = app.find("Snapshots of “Alpha”", "dialog")
    app.act("Take…", "push button", window)
    asked = app.find("Take Snapshot", "dialog")
    app.set_text(app.find("Name", "text", asked), "First")
    app.act("Take", "push button", asked)
    app.find("First", "table cell", window)
    desk.shot("snapshots")
    snapshots = glob.glob(folder + "/snapshots/*/snapshot.conf")
    assert len(snapshots) == 1, snapshots
    overlay = [f for f in glob.glob(folder + "/*.qcow2")]
    assert len(overlay) == 1, "the disk goes on in an overlay"
    app.act("Restore…", "push button", window)
    asked = app.find("Restore “First”", "dialog")
    app.act("Restore", "push button", asked)
    app.find("Before First", "table cell", window)
    wait_for("the second snapshot", lambda: len(glob.glob(folder + "/snapshots/*/snapshot.conf")) == 2)
    app.act("Close", "push button", window)


def linked_clone(desk):
    app = desk.app
    desk.session.activate("Cloche")
    app.click(desk.session, app.find("Alpha", "label"), 3)
    desk.shot("library-menu")
    app.act("Clone…", "menu item")
    asked = app.find("Clone Machine", "dialog")
    app.set_text(app.find("Name of the clone", "text", asked), "Beta")
    app.act("Linked clone", "check box", asked)
    app.act("Clone", "push button", asked)
    app.find("Beta, Off")
    conf = open(desk.folder("Beta") + "/machine.conf", encoding="utf-8").read()
    other = open(desk.folder("Alpha") + "/machine.conf", encoding="utf-8").read()
    uuid = [line for line in conf.splitlines() if line.startswith("uuid")][0]
    assert uuid not in other, "a clone has a UUID of its own"
    assert "base-machine" in conf, "a linked clone knows its base"
    desk.shot("library-clone")


def group_as_one(desk):
    app = desk.app
    for name in ("Alpha", "Beta"):
        desk.session.run(os.path.join(build_folder(), "clochectl"), "set", name, "group=Pair")
    app.find("Pair", "label")
    time.sleep(0.5)  # the rows move down
    for pointed, item, state in (("Beta", "Start All in Group", "Running"), ("Alpha", "Shut Down All in Group", "Off")):
        desk.session.activate("Cloche")
        app.click(desk.session, app.find(pointed, "label"), 3)
        app.act(item, "menu item")
        for name in ("Alpha", "Beta"):
            app.find(f"{name}, {state}")


def show_by_state(desk):
    """The library shows the machines of one state or all, and the next start remembers which."""
    def shown():
        rows = desk.app.find("Machines", "list box", desk.app.find("Cloche", "frame"))
        names = {n.get_name() for n in desk.app._walk(rows) if n.get_role_name() == "label" and desk.app._showing(n)}
        return names & {"Alpha", "Beta", "Broken"}

    def choose(item, names):
        desk.session.activate("Cloche")
        desk.app.act("Menu", "toggle button", desk.app.find("Cloche", "frame"))
        desk.app.act(item, "radio button", desk.app.find("Cloche", "frame"))
        wait_for(f"{names} after {item}", lambda: shown() == names)
    desk.write_machine("Broken", 9, "[Processors]\nengine=warp\n")
    wait_for("all", lambda: shown() == {"Alpha", "Beta", "Broken"})
    desk.library("ctrl+r", "Beta")
    desk.app.find("Beta, Running")
    desk.session.activate("Cloche")
    desk.session.keys("ctrl+shift+a")
    wait_for("what runs", lambda: shown() == {"Beta"})
    desk.control("Beta", "stop")
    wait_for("nothing that runs", lambda: shown() == set())
    desk.app.find("No machine is in this view", "label")
    choose("Paused", {"Beta"})
    choose("Off", {"Alpha"})
    choose("Saved", set())
    choose("Stopped or Failed", set())
    choose("Damaged", {"Broken"})
    desk.shot("library-damaged")
    desk.stop_app()
    desk.start_app()
    desk.app.find("Broken, Damaged")
    assert shown() == {"Broken"}
    desk.session.activate("Cloche")
    desk.session.keys("ctrl+3")
    wait_for("all again", lambda: shown() == {"Alpha", "Beta", "Broken"})
    shutil.rmtree(desk.folder("Broken"))
    desk.library("ctrl+shift+k", "Beta")
    desk.app.act("Power Off", "push button", desk.app.find("Question", "alert"))
    desk.app.find("Beta, Off")
    wait_for("the broken one to go", lambda: shown() == {"Alpha", "Beta"})


def windows_remember_their_size(desk):
    """Settings, snapshots and console come back as large as they were left, the console maximized too."""
    console = "Alpha – Cloche"

    def size(title):
        text = desk.session.run("xwininfo", "-id", desk.window(title))
        return tuple(int(re.search(rf"{word}: (\d+)", text).group(1)) for word in ("Width", "Height"))

    def resize(title, width, height):
        desk.session.run("xdotool", "windowsize", "--sync", desk.window(title), str(width), str(height))
        wait_for(f"the new size of {title}", lambda: abs(size(title)[0] - width) < 8)
        time.sleep(0.3)  # the app hears of it
        return size(title)

    def toggle_maximized():
        """As a double-click on the title bar that the window manager draws."""
        text = desk.session.run("xwininfo", "-id", desk.window(console))
        x, y = (int(re.search(rf"Absolute upper-left {axis}: +(\d+)", text).group(1)) for axis in "XY")
        desk.session.run("xdotool", "mousemove", str(x + 200), str(y - 8), "click", "--repeat", "2", "--delay", "60", "1")

    def open_and_close(keys, title):
        desk.library(keys, "Alpha")
        dialog = desk.app.find(title, "dialog")
        wait_for(f"the window {title}", lambda: desk.window(title))
        yield
        desk.session.activate(title)
        desk.session.keys("Escape")
        wait_for(f"{title} to close", lambda: not desk.app.find_now(title, "dialog"))
        del dialog

    def left(keys, title, width, height):
        for _ in open_and_close(keys, title):
            return_size = resize(title, width, height)
        return return_size

    def check(keys, title, expected):
        for _ in open_and_close(keys, title):
            wait_for(f"{title} as large as {expected}", lambda: size(title) == expected, 5)
    dialogs = [("ctrl+e", "Settings of “Alpha”", 900, 650), ("ctrl+shift+s", "Snapshots of “Alpha”", 850, 500)]
    expected = [left(*row) for row in dialogs]
    desk.library("ctrl+o", "Alpha")
    normal = resize(console, 777, 555)
    desk.session.activate(console)
    desk.session.keys("ctrl+w")
    wait_for("the console to close", lambda: not desk.app.find_now(console, "frame"))
    desk.stop_app()
    desk.start_app()
    desk.app.find("Alpha, Off")
    for (keys, title, _, _), was in zip(dialogs, expected):
        check(keys, title, was)
    desk.library("ctrl+o", "Alpha")
    wait_for("the console's size", lambda: size(console) == normal, 5)
    toggle_maximized()
    wait_for("a larger console", lambda: size(console)[0] > 1000)
    large = size(console)
    time.sleep(0.3)
    desk.session.activate(console)
    desk.session.keys("ctrl+w")
    wait_for("the console to close", lambda: not desk.app.find_now(console, "frame"))
    desk.library("ctrl+o", "Alpha")
    wait_for("the maximized console", lambda: size(console) == large, 5)
    toggle_maximized()
    wait_for("its size before", lambda: size(console) == normal, 5)
    desk.session.activate(console)
    desk.session.keys("ctrl+w")
    wait_for("the console to close", lambda: not desk.app.find_now(console, "frame"))


def delete(desk, name):
    desk.app.click(desk.session, desk.app.find(name, "label"))
    desk.session.keys("Delete")
    dialog = desk.app.find(f"Delete “{name}”?", "dialog")
    desk.shot("delete-dialog")
    desk.app.act("Delete", "push button", dialog)


def delete_with_undo(desk):
    app = desk.app
    desk.session.activate("Cloche")
    app.click(desk.session, app.find("Alpha", "label"))
    desk.session.keys("Delete")
    app.find("is a linked clone and needs its disks", "label")
    app.act("Close", "push button", app.find("Error", "alert"))
    delete(desk, "Beta")
    desk.session.activate("Cloche")
    desk.session.keys("ctrl+z")
    app.find("Beta, Off")
    assert os.path.exists(desk.folder("Beta") + "/machine.conf"), "Undo keeps the files"
    for name in ("Beta", "Alpha"):
        delete(desk, name)
        wait_for("the folder to be gone", lambda: not os.path.exists(desk.folder(name)))
    app.find("Welcome to Cloche", "label")


def nothing_was_criticised(desk):
    """The libraries' complaints about wrong calls are failures."""
    # The accessibility bridge of GTK 3 asks about top-level windows that it does not know; nothing of ours.
    bridge = ("gdk_window_get_window_type", "gtk_accessible_get_widget", "GtkToplevelAccessible")
    lines = open(desk.errors, encoding="utf-8").read().split("\n")
    for log in glob.glob(os.path.join(desk.session.root, "data/**/*.log"), recursive=True):
        lines += open(log, encoding="utf-8").read().split("\n")
    complaints = [line for line in lines if ("CRITICAL" in line or "WARNING" in line) and not any(b in line for b in bridge)]
    assert not complaints, complaints


STEPS = [create_by_assistant, see_picture, type_into_guest, pause_and_resume, reopen_finds_running_machine, nothing_is_drawn_over, clipboard_by_direction, power_off,
         failure_is_explained, settings_refuse_and_save,
         snapshots_of_a_machine_that_is_off, linked_clone, group_as_one, show_by_state, windows_remember_their_size, delete_with_undo, nothing_was_criticised]


def main():
    os.environ["CLOCHE_VM"] = os.path.join(build_folder(), "tests/desktop/fake-monitor")
    with Session() as session:
        desk = Desk(session)
        desk.start_app()
        return run_steps(desk, STEPS)


if __name__ == "__main__":
    sys.exit(main())
