# SPDX-License-Identifier: GPL-2.0-or-later
"""A VNC viewer for tests: keeps the picture, moves the pointer, presses keys, asks for sizes, passes clipboard texts (UTF-8)."""
import os
import select
import socket
import struct
import time
import zlib

from harness import Failure

RAW, DESKTOP_SIZE, EXTENDED_SIZE, CLIPBOARD = 0, -223, -308, 0xC0A1E5CE - (1 << 32)


class Viewer:
    """Connects to a UNIX socket PATH or to (host, port), for which the server may take SECONDS to appear."""

    def __init__(self, path, seconds=20):
        end = time.monotonic() + seconds
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise Failure(f"no VNC server at {path}")
                time.sleep(.1)
        self.take(12)
        self.socket.sendall(b"RFB 003.008\n")
        self.take(self.take(1)[0])
        self.socket.sendall(b"\1")
        self.take(4)
        self.socket.sendall(b"\1")
        head = self.take(24)
        self.resized(*struct.unpack(">HH", head[:4]))
        self.take(struct.unpack(">I", head[20:])[0])
        self.socket.sendall(struct.pack(">B3xBBBBHHHBBB3x", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self.socket.sendall(struct.pack(">BxH4i", 2, 4, RAW, DESKTOP_SIZE, EXTENDED_SIZE, CLIPBOARD))
        self.clipboard = None  # the guest's latest text
        self.offered = None  # ours, until the server asks for it
        self.changed = time.monotonic()
        self.rectangles = []  # of all updates; whoever counts them empties the list
        self.ask(0)

    def resized(self, width, height):
        self.width, self.height = width, height
        self.picture = bytearray(width * height * 4)

    def take(self, n):
        data, at = bytearray(n), 0
        view = memoryview(data)
        while at < n:
            got = self.socket.recv_into(view[at:])
            if not got:
                raise Failure("the VNC server hung up")
            at += got
        return data

    def ask(self, incremental):
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def update(self):
        for _ in range(struct.unpack(">xH", self.take(3))[0]):
            x, y, w, h, encoding = struct.unpack(">HHHHi", self.take(12))
            if encoding in (DESKTOP_SIZE, EXTENDED_SIZE):
                if encoding == EXTENDED_SIZE:
                    self.take(16 * self.take(4)[0])
                if (w, h) != (self.width, self.height):
                    self.resized(w, h)
                    self.ask(0)
                continue
            data = self.take(w * h * 4)
            for row in range(h):
                at = ((y + row) * self.width + x) * 4
                new = data[row * w * 4:(row + 1) * w * 4]
                if self.picture[at:at + w * 4] != new:
                    self.picture[at:at + w * 4] = new
                    self.changed = time.monotonic()
            self.rectangles.append((x, y, w, h))
        self.ask(1)

    def cut_text(self):
        size = struct.unpack(">3xi", self.take(7))[0]
        if size >= 0:
            self.clipboard = self.take(size).decode("latin1")
            return
        data = self.take(-size)
        flags = struct.unpack(">I", data[:4])[0]
        if flags & 1 << 24:  # what the server can
            return
        if flags & 1 << 27:  # notify: ask for the text
            self.send_clipboard(struct.pack(">I", 1 << 25 | 1))
        elif flags & 1 << 25 and self.offered is not None:  # request
            self.provide(self.offered)
        elif flags & 1 << 28 and flags & 1:  # provide
            plain = zlib.decompressobj().decompress(bytes(data[4:]))
            length = struct.unpack(">I", plain[:4])[0]
            self.clipboard = plain[4:4 + length].split(b"\0")[0].decode()

    def send_clipboard(self, message):
        self.socket.sendall(struct.pack(">B3xi", 6, -len(message)) + message)

    def offer(self, text):
        """Our clipboard has TEXT from now on."""
        self.offered = text
        self.provide(text)

    def provide(self, text):
        encoded, stream = text.encode() + b"\0", zlib.compressobj()
        packed = stream.compress(struct.pack(">I", len(encoded)) + encoded) + stream.flush(zlib.Z_SYNC_FLUSH)  # as viewers do
        self.send_clipboard(struct.pack(">I", 1 << 28 | 1) + packed)

    def serve(self, seconds):
        """Takes what comes for SECONDS."""
        end = time.monotonic() + seconds
        while select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
            kind = self.take(1)[0]
            if kind == 0:
                self.update()
            elif kind == 3:
                self.cut_text()
            elif kind != 2:
                raise Failure(f"the VNC server sent a message of type {kind}")
            if time.monotonic() > end:
                break

    def until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Failure(f"not in {seconds} s: {what}")
            self.serve(.1)

    def still(self, quiet, seconds=60):
        """Until nothing changed for QUIET seconds."""
        self.until(lambda: time.monotonic() - self.changed > quiet, seconds, "a picture that stays")

    def pointer(self, x, y, buttons=0):
        self.socket.sendall(struct.pack(">BBHH", 5, buttons, x, y))

    def click(self, x, y):
        for buttons in (0, 1, 0):
            self.pointer(x, y, buttons)
            self.serve(.15)

    def press(self, keysym, down):
        self.socket.sendall(struct.pack(">BBxxI", 4, down, keysym))

    def key(self, *keysyms):
        """Key symbols, or characters as typed on a US keyboard."""
        for keysym in keysyms:
            shifted = isinstance(keysym, str) and (keysym.isupper() or keysym in '~!@#$%^&*()_+{}|:"<>?')
            code = ord(keysym) if isinstance(keysym, str) else keysym
            for symbol, down in [(0xFFE1, 1)] * shifted + [(code, 1), (code, 0)] + [(0xFFE1, 0)] * shifted:
                self.press(symbol, down)
            self.serve(.08)

    def wish(self, width, height):
        self.socket.sendall(struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 1, 0, 0, width, height, 0))

    def pixel(self, x, y):
        at = (y * self.width + x) * 4
        return int.from_bytes(self.picture[at:at + 3], "little")

    def colours(self):
        return len({bytes(self.picture[i:i + 3]) for i in range(0, len(self.picture), 4 * 37)})

    def difference(self, before):
        """The box around all pixels that differ from the picture BEFORE: x, y, width, height, or None."""
        rows = [y for y in range(self.height) if self.row(self.picture, y) != self.row(before, y)]
        if not rows:
            return None
        columns = [i // 4 for y in rows for i in range(self.width * 4) if self.row(self.picture, y)[i] != self.row(before, y)[i]]
        return min(columns), rows[0], max(columns) - min(columns) + 1, rows[-1] - rows[0] + 1

    def row(self, picture, y):
        return picture[y * self.width * 4:(y + 1) * self.width * 4]

    def save(self, path):
        """As PPM."""
        out = bytearray(self.width * self.height * 3)
        for i, at in enumerate((2, 1, 0)):
            out[i::3] = self.picture[at::4]
        with open(path + ".tmp", "wb") as f:
            f.write(b"P6 %d %d 255\n" % (self.width, self.height) + out)
        os.rename(path + ".tmp", path)
