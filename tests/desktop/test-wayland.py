#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The desktop app as a client of a Wayland compositor (weston, whose output is a window of the tests' X server), on a stand-in
monitor: it starts, shows the guest's screen, takes keys and an absolute pointer, and goes to full screen and back.
usage: test-wayland.py BUILD-FOLDER"""
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from driver import Desk, Session, build_folder, run_steps, wait_for  # noqa: E402

GREEN, WHITE, RED, BLUE = (0, 0xa0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)
NAME = "Way"
SQUARE = 200  # pixels of one key's square at least


def start_compositor(desk):
    session = desk.session
    log = open(os.path.join(session.root, "weston"), "w", encoding="utf-8")
    session.start(["weston", "--backend=x11-backend.so", "--shell=kiosk-shell.so", "--no-config", "--width=1000", "--height=700",
                   "--socket=cloche-test"], stdout=log, stderr=log)
    wait_for("the compositor", lambda: os.path.exists(os.path.join(session.root, "run", "cloche-test")))
    session.env.update(WAYLAND_DISPLAY="cloche-test", GDK_BACKEND="wayland")


def start(desk):
    start_compositor(desk)
    desk.write_machine(NAME, 1, "[Memory]\nsize=64M\n")
    desk.start_app()
    desk.app.find(f"{NAME}, Off")
    maps = open(f"/proc/{desk.process.pid}/maps", encoding="utf-8").read()
    assert "libwayland-client" in maps
    assert not desk.session.run("xdotool", "search", "--name", "^Cloche$").split(), "its windows are the compositor's"
    desk.app.act("Start", "push button", desk.app.find("Cloche", "frame"))
    desk.app.find(f"{NAME}, Running")
    desk.session.keys("ctrl+o")  # the compositor's window has the keyboard
    desk.wait_color("the guest's screen", GREEN, 40000)
    desk.shot("wayland")


def keys_and_pointer(desk):
    def moved():
        for x, y in (5, 5), (600, 450), (640, 450):  # the compositor learns the place of a pointer that enters its window
            desk.session.run("xdotool", "mousemove", str(x), str(y))
        return desk.count(BLUE) >= 40
    wait_for("the pointer's square", moved)
    desk.session.click(640, 450)
    desk.session.keys("a")
    desk.wait_color("the square of the key a", WHITE, SQUARE)
    desk.session.keys("b")
    desk.wait_color("the square of the key b", RED, SQUARE)
    desk.shot("wayland-input")


def scale(desk):
    """The smooth scale fills the window."""
    before = desk.count(GREEN)
    desk.app.act("Fit to Window", "radio menu item", desk.console(NAME))
    desk.wait_color("a larger picture", GREEN, before * 2)
    desk.shot("wayland-fit")
    desk.app.act("Pixel by Pixel", "radio menu item", desk.console(NAME))
    wait_for("its own size", lambda: abs(desk.count(GREEN) - before) < before // 10)


def full_screen(desk):
    desk.session.keys("shift+F11")
    desk.app.find("Leave Full Screen", "push button")
    desk.wait_color("the guest's screen", GREEN, 30000)
    desk.shot("wayland-full")
    desk.session.keys("shift+F11")
    wait_for("the bar to go", lambda: desk.app.find_now("Leave Full Screen", "push button") is None)


def power_off(desk):
    desk.power_off(NAME)
    assert desk.process.poll() is None
    lines = open(desk.errors, encoding="utf-8").read().split("\n")
    bridge = ("gdk_window_get_window_type", "gtk_accessible_get_widget", "GtkToplevelAccessible")
    complaints = [line for line in lines if "CRITICAL" in line and not any(b in line for b in bridge)]
    assert not complaints, complaints


STEPS = [start, keys_and_pointer, scale, full_screen, power_off]


def main():
    if not shutil.which("weston"):
        print("skipped: weston is not installed")
        return 77
    os.environ["CLOCHE_VM"] = os.path.join(build_folder(), "tests/desktop/fake-monitor")
    with Session() as session:
        return run_steps(Desk(session), STEPS)


if __name__ == "__main__":
    sys.exit(main())
