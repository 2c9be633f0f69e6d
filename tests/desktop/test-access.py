#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every window of the desktop app on a stand-in monitor: each control has an accessible name; a machine is made, renamed and
deleted by keyboard alone; every text passes through gettext (by a test translation that marks what it translates); and no
step lets the main loop wait (what takes over 100 ms is printed).
usage: test-access.py BUILD-FOLDER"""
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from driver import Desk, Session, build_folder, run_steps, wait_for  # noqa: E402

TOP = os.path.dirname(os.path.dirname(HERE))
CONTROLS = {"push button", "toggle button", "check box", "radio button", "text", "password text", "combo box", "spin button",
            "list box", "table", "tree table", "slider", "drawing area", "terminal", "menu", "menu item", "check menu item",
            "radio menu item", "switch"}


class Reader(Desk):
    """Also notes what a screen reader could not name."""

    def __init__(self, session):
        super().__init__(session)
        self.unnamed = set()

    def look(self, where):
        """Notes the controls in sight that have no name."""
        for node in self.app._walk(self.app.root):
            try:
                role = node.get_role_name()
                if role not in CONTROLS or not (self.app._showing(node) or "menu" in role):
                    continue
                if self.app.name_of(node) or node.get_description():
                    continue
                parent = node.get_parent()
                if parent and parent.get_role_name() in ("combo box", "spin button", "table cell") or inside_chooser(node):
                    continue  # GTK's own part of a named control
                path = []
                while parent and len(path) < 4:
                    path.append(f"{parent.get_role_name()} {self.app.name_of(parent)!r}")
                    parent = parent.get_parent()
                self.unnamed.add(f"{where}: {role} in {' in '.join(path)}")
            except Exception:
                continue
        self.shot("access-" + where.replace(" ", "-"))


def inside_chooser(node):
    while node:
        if node.get_role_name() == "file chooser":
            return True
        node = node.get_parent()
    return False


# ---- By keyboard alone, with a look at each window on the way ----
def create(desk):
    app, keys = desk.app, desk.session.keys
    app.find("Welcome to Cloche", "label")
    desk.look("welcome")
    desk.session.activate("Cloche")
    keys("ctrl+n")
    app.find("Nothing yet: an empty machine", "radio button")
    desk.look("assistant source")
    focus_on(desk, "Installer medium")
    keys("Down", "Down", "Down")  # arrows choose within a group
    wait_for("the last choice", lambda: "Nothing" in focused(desk))
    keys("alt+n")
    name = app.find("Name", "text")
    desk.look("assistant resources")
    focus_on(desk, "Name")
    keys("ctrl+a")
    desk.session.type("Kay")
    wait_for("the typed name", lambda: app.text(name) == "Kay")
    keys("alt+n")
    app.find("Name: Kay", "label")
    desk.look("assistant summary")
    focus_on(desk, "Customise")
    keys("space")
    keys("alt+r")
    wait_for("the machine", lambda: os.path.exists(desk.folder("Kay") + "/machine.conf"))
    dialog = app.find("Settings of “Kay”", "dialog")
    desk.session.activate("Settings of “Kay”")
    pages = [n for n in app._walk(dialog) if n.get_role_name() == "list item"]
    assert len(pages) >= 8, "settings have their pages"
    for _ in pages:
        desk.look(f"settings {_.get_name() or pages.index(_)}")
        keys("Down")
        time.sleep(0.1)
    keys("Escape")
    wait_for("the settings to close", lambda: not app.find_now("Settings of “Kay”", "dialog"))


def focused(desk):
    for node in desk.app._walk(desk.app.root):
        try:
            if node.get_state_set().contains(desk.app.atspi.StateType.FOCUSED):
                name = desk.app.name_of(node)
                if name and desk.app._showing(node) and node.get_role_name() != "frame":
                    return name
        except Exception:
            continue
    return ""


def focus_on(desk, name):
    """Tab until the control NAME has the focus."""
    for _ in range(40):
        for node in desk.app._walk(desk.app.root):
            try:
                if node.get_state_set().contains(desk.app.atspi.StateType.FOCUSED) and name in desk.app.name_of(node):
                    return
            except Exception:
                continue
        desk.session.keys("Tab")
        time.sleep(0.1)
    raise AssertionError(f"Tab never reached “{name}”")


def windows(desk):
    app, keys = desk.app, desk.session.keys
    desk.session.activate("Cloche")
    desk.look("library")
    for shortcut, title, role in (("ctrl+shift+s", "Snapshots of “Kay”", "dialog"), ("ctrl+comma", "Preferences", "dialog"),
                                  ("F2", "Rename Machine", "dialog"), ("ctrl+t", "Take Snapshot", "dialog"),
                                  ("Delete", "Delete “Kay”?", "dialog")):
        desk.session.activate("Cloche")
        keys(shortcut)
        app.find(title, role)
        desk.look(title.split(" “")[0])
        keys("Escape")
        wait_for(f"{title} to close", lambda: not app.find_now(title, role))


def console(desk):
    app, keys = desk.app, desk.session.keys
    desk.session.activate("Cloche")
    keys("ctrl+r")
    app.find("Kay, Running")
    desk.session.activate("Cloche")
    keys("ctrl+o")
    app.find("Guest screen")
    desk.look("console")
    frame = app.find("Kay – Cloche", "frame")
    tips = {n.get_name(): n.get_description() for n in app._walk(frame) if n.get_role_name() == "menu item"}
    assert "Only a machine that is off can be started" in tips["Start"], tips
    assert "It has no disc or floppy drive" in tips["Insert Disc or Floppy…"], tips
    assert not tips["Pause"], tips
    app.act("Share over VNC…", "menu item", frame)
    app.find("Share", "push button")
    desk.look("VNC")
    keys("Escape")
    app.act("Serial Console", "radio menu item", frame)
    app.find("Serial console", "terminal")
    desk.look("serial tab")
    app.act("Screen", "radio menu item", frame)


def host_disk_full(desk):
    """The stand-in says what a monitor says when a write finds no space."""
    app = desk.app
    desk.control("Kay", "x-fake-state", status="io-error")
    app.find("The host's disk is full, so the machine waits; nothing is lost.", "label")
    desk.shot("access-disk-full")
    app.act("Retry", "push button", app.find("Kay – Cloche", "frame"))
    app.find("Kay, Running")
    app.act("Power Off…", "menu item", app.find("Kay – Cloche", "frame"))
    app.find("Question", "alert")
    desk.look("question")
    app.act("Power Off", "push button", app.find("Question", "alert"))
    app.find("Kay, Off")
    app.act("Close Window", "menu item", app.find("Kay – Cloche", "frame"))


def rename_and_delete(desk):
    app, keys = desk.app, desk.session.keys
    desk.session.activate("Cloche")
    keys("F2")
    app.find("Rename Machine", "dialog")
    keys("ctrl+a")
    desk.session.type("Lee")
    keys("Return")
    app.find("Lee, Off")
    desk.session.activate("Cloche")
    keys("Delete")
    app.find("Delete “Lee”?", "dialog")
    keys("alt+d")
    app.find("“Lee” was deleted", "label")
    app.find("Welcome to Cloche", "label")


def every_control_is_named(desk):
    assert not desk.unnamed, "\n".join(sorted(desk.unnamed))


# ---- A test translation: what passes through gettext stands in « » ----
def mark(text):
    return "«" + text + "»" if text.strip() else text


def write_translation(folder):
    folder = os.path.join(folder, "xx", "LC_MESSAGES")
    os.makedirs(folder)
    pot = open(os.path.join(TOP, "po", "cloche.pot"), encoding="utf-8").read()
    entries = pot.split("\n\n")[1:]
    out = ['msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\nPlural-Forms: nplurals=2; plural=n != 1;\\n"']
    for entry in entries:
        lines = [line for line in entry.split("\n") if line and not line.startswith("#~")]
        text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', "\n".join(line for line in lines if not line.startswith("#")).split("msgid_plural")[0].split("msgstr")[0]))
        if not text:
            continue
        newline = "\\n" if text.startswith("\\n") else ""
        end = "\\n" if text.endswith("\\n") and len(text) > 2 else ""
        marked = newline + mark(text[len(newline):len(text) - len(end)]) + end
        body = "\n".join(line for line in lines if not line.startswith("msgstr"))
        if "msgid_plural" in entry:
            plural = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', body.split("msgid_plural")[1]))
            out.append(body + f'\nmsgstr[0] "{marked}"\nmsgstr[1] "{mark(plural)}"')
        else:
            out.append(body + f'\nmsgstr "{marked}"')
    po = os.path.join(folder, "cloche.po")
    with open(po, "w", encoding="utf-8") as f:
        f.write("\n\n".join(out) + "\n")
    subprocess.run(["msgfmt", "--check-format", "-o", os.path.join(folder, "cloche.mo"), po], check=True)
    return len(out)


def translated(desk):
    count = write_translation(os.path.join(desk.session.root, "locale"))
    assert count > 300, count
    desk.stop_app()
    desk.session.env.update(LANGUAGE="xx", CLOCHE_LOCALEDIR=os.path.join(desk.session.root, "locale"))
    desk.start_app()
    app = desk.app
    app.find("«Welcome to Cloche»", "label")
    desk.shot("access-translated")
    allowed = re.compile(r"«.*»|^[\W\d]*$|^Cloche$|^(?:Close|Maximize|Minimize)$|.*(?:Processor|KVM|memory|Memory).*", re.S)
    plain = set()
    for node in app._walk(app.root):
        try:
            name = node.get_name() or ""
            if app._showing(node) and node.get_role_name() in ("label", "push button", "toggle button", "menu item", "radio button") \
                    and not allowed.match(name):
                plain.add(f"{node.get_role_name()} {name!r}")
        except Exception:
            continue
    assert not plain, plain


def main_loop_is_free(desk):
    """What the watchdog reports is printed with each step; more than a second is no matter of a slow host, but a call that waits."""
    busy = [line.strip() for line in open(os.path.join(desk.session.root, "stderr"), encoding="utf-8") if line.startswith("watchdog:")]
    assert all(int(re.search(r"(\d+) ms", line).group(1)) < 1000 for line in busy), busy


STEPS = [create, windows, console, host_disk_full, rename_and_delete, every_control_is_named, translated, main_loop_is_free]


def main():
    os.environ["CLOCHE_VM"] = os.path.join(build_folder(), "tests/desktop/fake-monitor")
    with Session() as session:
        desk = Reader(session)
        desk.start_app()
        return run_steps(desk, STEPS)


if __name__ == "__main__":
    sys.exit(main())
