# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives the desktop app as a person would: a private X server with a window manager, a private session bus with the
accessibility service, synthetic keys and clicks, and pictures of the screen to compare pixels with."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

os.environ.setdefault("NO_AT_BRIDGE", "0")


class Session:
    """A throw-away desktop: HOME, XDG folders, X server, window manager, session bus. Use as a context manager. TEXT: how
    much larger than usual the letters are."""

    def __init__(self, size="1280x900x24", scale=1, theme=None, text=1):
        self.size, self.scale, self.theme, self.text = size, scale, theme, text
        self.processes = []

    def __enter__(self):
        self.root = tempfile.mkdtemp(prefix="cloche-desktop-")
        for name in ("home", "run", "data", "config", "cache"):
            os.makedirs(os.path.join(self.root, name), mode=0o700)
        env = self.env = {k: v for k, v in os.environ.items() if k not in ("WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS")}
        env.update(HOME=f"{self.root}/home", XDG_RUNTIME_DIR=f"{self.root}/run", XDG_DATA_HOME=f"{self.root}/data",
                   XDG_CONFIG_HOME=f"{self.root}/config", XDG_CACHE_HOME=f"{self.root}/cache", GDK_BACKEND="x11",
                   GTK_MODULES="gail:atk-bridge", LC_ALL="C.UTF-8", GDK_SCALE=str(self.scale), NO_AT_BRIDGE="0",
                   GSETTINGS_BACKEND="memory", GTK_A11Y="atspi")
        if self.theme:
            env["GTK_THEME"] = self.theme
        env["GDK_DPI_SCALE"] = str(self.text)
        self._start_x()
        self._start_bus()
        self.start(["openbox", "--sm-disable"])
        os.environ.update(env)
        return self

    def _start_x(self):
        read, write = os.pipe()
        self.processes.append(subprocess.Popen(
            ["Xvfb", "-noreset", "-displayfd", str(write), "-screen", "0", self.size, "-nolisten", "tcp"],
            pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        os.close(write)
        with os.fdopen(read) as reply:  # to the end of the line: the server does not survive a closed pipe
            number = reply.readline().strip()
        if not number:
            raise RuntimeError("Xvfb did not start")
        self.env["DISPLAY"] = f":{number}"

    def _start_bus(self):
        bus = subprocess.Popen(["dbus-daemon", "--session", "--nofork", "--print-address=1"], env=self.env,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.processes.append(bus)
        self.env["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
        self.start(["/usr/libexec/at-spi-bus-launcher", "--launch-immediately"])

    def start(self, command, **options):
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        process = subprocess.Popen(command, env=self.env, **options)
        self.processes.append(process)
        return process

    def _stop_monitors(self):
        """Ends the monitors that run machines of this session: they outlive the app."""
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
                if len(words) > 2 and words[1] == b"--machine" and words[2].startswith(self.root.encode() + b"/"):
                    os.kill(int(entry), signal.SIGKILL)
            except (OSError, ValueError):
                continue

    def __exit__(self, *unused):
        self._stop_monitors()
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command):
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False).stdout

    # ---- pictures
    def screenshot(self, path, window="root"):
        subprocess.run(["import", "-window", window, path], env=self.env, check=True)

    def pixels(self, window="root"):
        """(width, height, bytes of RGB) of a window."""
        out = subprocess.run(["import", "-window", window, "-depth", "8", "ppm:-"], env=self.env, capture_output=True,
                             check=True).stdout
        fields = out.split(None, 4)
        return int(fields[1]), int(fields[2]), out[len(out) - int(fields[1]) * int(fields[2]) * 3:]

    def part(self, x, y, width, height):
        """The bytes of a part of the screen."""
        wide, _, data = self.pixels()
        return [data[(row * wide + x) * 3:(row * wide + x + width) * 3] for row in range(y, y + height)]

    # ---- synthetic input
    def activate(self, title):
        """Brings the window whose title is TITLE to the front, as a click on it would."""
        def front():
            self.run("xdotool", "search", "--onlyvisible", "--name", f"^{title}$", "windowactivate", "--sync")
            return title in self.run("xdotool", "getactivewindow", "getwindowname")
        wait_for(f"the window “{title}” in front", front)
        time.sleep(0.2)

    def keys(self, *names):
        self.run("xdotool", "key", "--clearmodifiers", *names)

    def type(self, text):
        for number, line in enumerate(text.split("\n")):
            if number:
                self.keys("Return")
            if line:
                self.run("xdotool", "type", "--delay", "20", line)

    CLIPBOARD = ("import gi; gi.require_version('Gtk', '3.0'); from gi.repository import Gtk, Gdk, GLib;"
                 "c = Gtk.Clipboard.get(Gdk.SELECTION_CLIPBOARD); ")

    def clipboard(self):
        """The text on the clipboard."""
        return self.run(sys.executable, "-c", self.CLIPBOARD + "print(c.wait_for_text())").strip()

    def copy(self, text):
        """TEXT on the clipboard, as another program puts it there."""
        self.start([sys.executable, "-c", self.CLIPBOARD + "import sys; c.set_text(sys.argv[1], -1); GLib.MainLoop().run()", text])

    def click(self, x, y, button=1):
        self.run("xdotool", "mousemove", str(x), str(y), "click", str(button))


def wait_for(what, condition, seconds=20):
    """Calls CONDITION until it gives something true; fails with WHAT otherwise."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


class App:
    """The accessible tree of a running program."""

    def __init__(self, name):
        import gi
        gi.require_version("Atspi", "2.0")
        from gi.repository import Atspi
        self.atspi = Atspi
        self.name = name
        self.root = wait_for(f"the program {name}", self._find_root)

    def _find_root(self):
        desktop = self.atspi.get_desktop(0)
        for index in range(desktop.get_child_count()):
            child = desktop.get_child_at_index(index)
            if child and self.name in (child.get_name() or ""):
                return child
        return None

    def _walk(self, node, depth=0):
        if node is None or depth > 40:
            return
        yield node
        try:
            count = min(node.get_child_count(), 2000)
        except Exception:  # the widget went away while we looked
            return
        for index in range(count):
            try:
                child = node.get_child_at_index(index)
            except Exception:
                continue
            yield from self._walk(child, depth + 1)

    def _showing(self, node):
        try:
            return node.get_state_set().contains(self.atspi.StateType.SHOWING)
        except Exception:
            return False

    def name_of(self, node):
        """Its own name, or that of the label that stands for it."""
        name = node.get_name() or ""
        if not name:
            for relation in node.get_relation_set() or []:
                if relation.get_relation_type() == self.atspi.RelationType.LABELLED_BY and relation.get_n_targets():
                    name = relation.get_target(0).get_name() or ""
        return name

    def find_now(self, name=None, role=None, within=None):
        for node in self._walk(within or self.root):
            try:
                if (name is None or name in self.name_of(node)) and (role is None or node.get_role_name() == role) \
                        and (self._showing(node) or role in ("menu item", "check menu item", "radio menu item")):
                    return node
            except Exception:
                continue
        return None

    def find(self, name=None, role=None, within=None, seconds=20):
        return wait_for(f"{role or 'control'} “{name}”", lambda: self.find_now(name, role, within), seconds)

    def act(self, name=None, role=None, within=None):
        """Presses a button, opens a menu item: the control's first action."""
        node = self.find(name, role, within)
        node.get_action_iface().do_action(0)
        return node

    def click(self, session, node, button=1):
        """A real click in the middle of the control, once it stands still: a new window is put into its place first."""
        def place():
            e = node.get_component_iface().get_extents(self.atspi.CoordType.SCREEN)
            return e.x + e.width // 2, e.y + e.height // 2

        def steady():
            before = place()
            time.sleep(0.15)
            return before == place() and before
        x, y = wait_for("a control that stands still", steady)
        session.click(x * session.scale, y * session.scale, button)

    def set_text(self, node, text):
        node.get_editable_text_iface().set_text_contents(text)

    def text(self, node):
        iface = node.get_text_iface()
        return iface.get_text(0, -1) if iface else node.get_name()

    def enabled(self, node):
        return node.get_state_set().contains(self.atspi.StateType.SENSITIVE)

    def dump(self, out=sys.stderr):
        for node in self._walk(self.root):
            if self._showing(node):
                print(node.get_role_name(), repr(self.name_of(node)), file=out)


SHOTS = os.environ.get("SHOTS")  # a folder: tests keep pictures of their steps


def in_functions(stack):
    """The functions of a backtrace (program or library, symbol, offset), the innermost first."""
    names = []
    for program, symbol, offset in stack:
        if program.endswith("/cloche"):
            found = subprocess.run(["addr2line", "-fe", program, offset], capture_output=True, text=True, check=False).stdout
            symbol = "*" + found.split("\n")[0]
        names.append(symbol or os.path.basename(program).split(".")[0])
    last = len(names) - names[::-1].index("*caught") + 1 if "*caught" in names else 0  # after the latest alarm's handler
    names = names[last:]
    return " < ".join(name for name, after in zip(names, names[1:] + [""]) if name != after)


def build_folder():
    return os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BUILD", "."))


class Desk:
    """A session with the app running in it: what the tests do with its windows."""

    def __init__(self, session):
        self.session = session
        self.errors = os.path.join(session.root, "stderr")
        self.watched = 0

    # ---- The app
    def start_app(self, *arguments):
        self.session.env.setdefault("CLOCHE_WATCHDOG", "100")
        self.process = self.session.start([os.path.join(build_folder(), "cloche"), *arguments],
                                          stderr=open(self.errors, "a", encoding="utf-8"))
        self.app = App("loche")

    def stop_app(self):
        self.session.activate("Cloche")
        self.session.keys("ctrl+q")
        wait_for("the app to end", lambda: self.process.poll() is not None)

    def shot(self, name):
        if SHOTS:
            time.sleep(0.4)
            self.session.screenshot(os.path.join(SHOTS, name + ".png"))

    def folder(self, name):
        return os.path.join(self.session.root, "data", "cloche", "machines", name)

    def write_machine(self, name, number, text):
        """A machine of the library: its definition from TEXT."""
        os.makedirs(self.folder(name))
        head = f"[Machine]\nversion=1\nname={name}\nuuid=7f000000-0000-4000-8000-{number:012d}\n"
        with open(os.path.join(self.folder(name), "machine.conf"), "w", encoding="utf-8") as out:
            out.write(head + text)

    # ---- Windows and their pixels
    def window(self, title):
        """The X window of that title."""
        def search():
            return self.session.run("xdotool", "search", "--onlyvisible", "--name", f"^{title}$").split()
        return wait_for(f"the window “{title}”", search)[0]

    def count(self, color, window="root"):
        """Pixels of COLOR in an X window."""
        return self.session.pixels(window)[2].count(bytes(color))

    def wait_color(self, what, color, at_least, at_most=10**9, window="root", seconds=60):
        return wait_for(what, lambda: at_least <= self.count(color, window) <= at_most, seconds)

    # ---- A machine's console, and its row in the library
    def console(self, name):
        return self.app.find(f"{name} – Cloche", "frame")

    def menu(self, name, item):
        self.app.act(item, "menu item", self.console(name))

    def focus_guest(self, name):
        self.session.activate(f"{name} – Cloche")
        self.app.click(self.session, self.app.find("Guest screen", within=self.console(name)))

    def type_into(self, name, *keys):
        self.focus_guest(name)
        self.session.keys(*keys)

    def select(self, name):
        self.session.activate("Cloche")
        rows = self.app.find("Machines", "list box", self.app.find("Cloche", "frame"))

        def label():
            return next((n for n in self.app._walk(rows) if n.get_role_name() == "label" and n.get_name() == name), None)
        self.app.click(self.session, wait_for(name, label))

    def library(self, keys, name):
        self.select(name)
        self.session.keys(keys)

    def power_off(self, name):
        self.menu(name, "Power Off…")
        self.app.act("Power Off", "push button", self.app.find("Question", "alert"))
        self.app.find(f"{name}, Off")

    def control(self, name, command, **arguments):
        """One command to the monitor of the machine NAME, beside the app."""
        with open(os.path.join(self.folder(name), "machine.conf"), encoding="utf-8") as conf:
            uuid = re.search(r"^uuid=(.*)$", conf.read(), re.M).group(1)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.path.join(self.session.root, "run", "cloche", uuid, "control"))
            stream = connection.makefile("rw")
            stream.readline()
            for request in ("qmp_capabilities", {}), (command, arguments):
                stream.write(json.dumps({"execute": request[0], "arguments": request[1]}) + "\n")
                stream.flush()
                while True:
                    reply = json.loads(stream.readline())
                    assert "error" not in reply, reply
                    if "return" in reply:
                        break
            return reply["return"]

    # ---- Trouble
    def watchdog(self):
        """What the app's watchdog has said since the last call: the main loop was busy for long; and in which functions."""
        with open(self.errors, encoding="utf-8") as log:
            lines = log.read().split("\n")
        new, stack = [], []
        for number, line in enumerate(lines):
            frame = re.match(r"(\S+)\((\w*)\+?(\w*)\)\[0x", line)
            if frame:
                stack.append(frame.groups())
            elif line.startswith("watchdog:"):
                if number >= self.watched:
                    new.append(f"{line} {in_functions(stack)}")
                stack = []
        self.watched = len(lines)
        return new

    def explain(self):
        """What a reader of a failure needs: the picture, the controls in sight, what the programs said."""
        self.session.screenshot(os.path.join(SHOTS or "/tmp", f"failed-{os.path.basename(sys.argv[0])}.png"))
        if hasattr(self, "app"):
            self.app.dump()
        print(open(self.errors, encoding="utf-8").read(), file=sys.stderr)
        for root, _, files in os.walk(os.path.join(self.session.root, "data")):
            for name in (f for f in files if f == "vm.log"):
                lines = open(os.path.join(root, name), encoding="utf-8").read().split("\n")
                print(f"{root}:", *(line for line in lines if not re.match(r" +\d+  ", line)), sep="\n", file=sys.stderr)


def run_steps(desk, steps):
    """Runs STEPS in turn and prints one line for each; the exit status of a test. Stops at the first failure."""
    if SHOTS:
        os.makedirs(SHOTS, exist_ok=True)
    for number, step in enumerate(steps):
        started = time.monotonic()
        try:
            step(desk)
        except Exception:  # the picture and the tree tell more than the traceback
            traceback.print_exc()
            desk.explain()
            print(f"{number} passed, 1 failed: {step.__name__}")
            return 1
        print(f"ok {step.__name__} {time.monotonic() - started:.1f} s", flush=True)
        for line in desk.watchdog():
            print(f"   {line}", flush=True)
    print(f"{len(steps)} passed, 0 failed")
    return 0
