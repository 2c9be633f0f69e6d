#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The desktop app on the real monitor: the demo machine (Debian's graphical installer) is started from the app, its picture is
compared by pixels, it is moved in by key, paused and resumed, snapshotted, changed, restored and powered off.
usage: test-real.py BUILD-FOLDER"""
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from driver import App, Session, wait_for  # noqa: E402

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BUILD", "."))
SHOTS = os.environ.get("SHOTS")
NAME = "Debian Installer Demo"
IMAGES = "/usr/lib/debian-installer/images/12/amd64/gtk/debian-installer/amd64/linux"
SELECTED = (0x2a, 0x86, 0x79)  # about the installer's highlight


def highlight_row(session):
    """The middle of the highlighted line of the language list: its row on the screen, or None."""
    width, height, data = session.pixels()
    rows = []
    for y in range(height):
        line = data[y * width * 3:(y + 1) * width * 3]
        hits = sum(1 for x in range(0, width, 16) if all(abs(line[x * 3 + c] - SELECTED[c]) < 24 for c in range(3)))
        if hits > 20:
            rows.append(y)
    return sum(rows) // len(rows) if rows else None


def steady_row(session, other_than=None, seconds=60):
    """The highlighted row once it stands still, and differs from OTHER_THAN."""
    def look():
        first = highlight_row(session)
        time.sleep(0.4)
        return first if first is not None and first == highlight_row(session) and first != other_than else None
    return wait_for("the highlighted language", look, seconds)


def run(session):
    app_process = session.start([os.path.join(BUILD, "cloche"), "--demo"], stderr=open(os.path.join(session.root, "stderr"), "w"))
    app = App("loche")
    start = steady_row(session, seconds=240)
    print("ok the installer's language page is in the window", flush=True)

    session.activate(f"{NAME} – Cloche")
    app.click(session, app.find("Guest screen"))
    session.keys("Down", "Down", "Down")
    moved = steady_row(session, start)
    assert moved > start, (start, moved)
    print("ok three keys move the highlight down", flush=True)

    app.act("Pause", "menu item")
    app.find("Paused", "label")
    app.act("Resume", "menu item")
    app.find("Running", "label")
    print("ok pause and resume by menu", flush=True)

    app.act("Take…", "menu item")
    asked = app.find("Take Snapshot", "dialog")
    app.set_text(app.find("Name", "text", asked), "Here")
    app.act("Take", "push button", asked)
    folder = os.path.join(session.root, "data/cloche/machines", NAME, "snapshots")
    wait_for("the snapshot", lambda: os.path.isdir(folder) and [f for f in os.listdir(folder) if not f.startswith(".")], 60)
    session.activate(f"{NAME} – Cloche")
    app.click(session, app.find("Guest screen"))
    here = steady_row(session)
    session.keys("Down", "Down", "Down", "Down", "Down")
    changed = steady_row(session, here)
    app.act("Manage", "menu item")
    window = app.find(f"Snapshots of “{NAME}”", "dialog")
    app.act("Restore…", "push button", window)
    asked = app.find("Restore “Here”", "dialog")
    app.act("Keep the present state", "check box", asked)
    app.act("Restore", "push button", asked)
    time.sleep(1)
    app.act("Close", "push button", window)
    back = steady_row(session, changed)
    assert back == moved, (moved, here, changed, back)
    print("ok a restored snapshot takes the change back", flush=True)
    if SHOTS:
        session.screenshot(os.path.join(SHOTS, "real.png"))

    session.activate("Cloche")
    app.act("Power Off…", "menu item")
    app.act("Power Off", "push button")
    app.find(f"{NAME}, Off")
    print("ok power off", flush=True)
    app_process.terminate()


def main():
    if not os.path.exists(IMAGES):
        print("skipped: the package debian-installer-12-netboot-amd64 is not installed")
        return 77
    with Session("1500x1000x24") as session:
        try:
            run(session)
        except Exception:
            traceback.print_exc()
            session.screenshot(os.path.join(SHOTS or "/tmp", "cloche-test-real-failed.png"))
            print(open(os.path.join(session.root, "stderr"), encoding="utf-8").read(), file=sys.stderr)
            for root, _, files in os.walk(os.path.join(session.root, "data")):
                for name in files:
                    if name == "vm.log":
                        print(open(os.path.join(root, name), encoding="utf-8").read(), file=sys.stderr)
            return 1
    print("5 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
