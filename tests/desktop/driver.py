# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives the desktop app as a person would: a private X server with a window manager, a private session bus with the
accessibility service, synthetic keys and clicks, and pictures of the screen to compare pixels with."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("NO_AT_BRIDGE", "0")


class Session:
    """A throw-away desktop: HOME, XDG folders, X server, window manager, session bus. Use as a context manager."""

    def __init__(self, size="1280x900x24", scale=1, theme=None):
        self.size, self.scale, self.theme = size, scale, theme
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
        self.run("xdotool", "type", "--delay", "20", text)

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
        """A real click in the middle of the control."""
        e = node.get_component_iface().get_extents(self.atspi.CoordType.SCREEN)
        session.click(e.x + e.width // 2, e.y + e.height // 2, button)

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
