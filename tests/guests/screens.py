# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that are looked at: text is read off the screen by the font of the VGA BIOS, pages are known by their pixels."""
import re
import time

from guests import INITRD32, INITRD64, KERNEL32, KERNEL64, row
from harness import Failure, need

VGA_BIOS = "/usr/share/seabios/vgabios-stdvga.bin"
LETTER_A = bytes.fromhex("000010386cc6c6fec6c6c6c600000000")  # in the 8 x 16 font
GTK = "/usr/lib/debian-installer/images/12/amd64/gtk/debian-installer/amd64"
HIGHLIGHT = (0x2a, 0x86, 0x79)  # about the graphical installer's


# ---- Pictures ----
def read_ppm(path):
    """Width, height and rows of bytes, three a pixel."""
    with open(path, "rb") as f:
        width, height, data = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s(.*)", f.read(), re.S).groups()
    width, height = int(width), int(height)
    return width, height, [data[y * width * 3:(y + 1) * width * 3] for y in range(height)]


def look(guest):
    path = guest.path("screen.ppm")
    guest.control(("screendump", {"filename": path, "format": "ppm"}))
    return read_ppm(path)


def wait_until(guest, what, test, pause=1.0):
    """What TEST makes of the screen once that is not None."""
    while time.monotonic() < guest.deadline:
        if guest.process.poll() is not None:
            guest.fail(f"the monitor ended while waiting for {what}")
        found = test(look(guest))
        if found is not None:
            return found
        time.sleep(pause)
    raise Failure(f"time limit of {guest.seconds:.0f} s while waiting for {what}")


# ---- Text ----
def font():
    with open(need(VGA_BIOS), "rb") as f:
        bios = f.read()
    start = bios.index(LETTER_A) - ord("A") * 16
    return {bios[start + c * 16:start + c * 16 + 16]: chr(c) for c in range(32, 127)}


def read_text(picture, glyphs):
    """The lines of an 80 x 25 text screen; what is not ASCII is a blank."""
    width, height, rows = picture
    if height != 400 or width not in (640, 720):
        return []
    cell = width // 80
    lines = []
    for top in range(0, 400, 16):
        line = ""
        for column in range(80):
            pixels = [rows[top + y][(column * cell) * 3:(column * cell + 8) * 3] for y in range(16)]
            back = pixels[0][:3]
            key = bytes(sum((row[x * 3:x * 3 + 3] != back) << (7 - x) for x in range(8)) for row in pixels)
            line += glyphs.get(key, " ")
        lines.append(line.rstrip())
    return lines


def text_installer(guest, kernel, initrd):
    glyphs = font()
    guest.start("--kernel", need(kernel), "--initrd", need(initrd), "--memory", "1G", "--control", guest.path("control"),
                "--append", "vga=normal nomodeset fb=false priority=high", serial="null")

    def page(*words):
        def test(picture):
            text = "\n".join(read_text(picture, glyphs))
            return text if all(word in text for word in words) else None
        return test

    wait_until(guest, "the language dialog", page("Select a language", "English", "Choose the language"), 2)
    guest.keys("ret")
    wait_until(guest, "the location dialog", page("Select your location", "United States"), 2)
    guest.stop()
    return "the language dialog was read off the screen, Return leads to the location dialog"


@row("installer-vga-amd64", "the Debian text installer on the VGA text screen, by keyboard", 600)
def installer_vga(guest):
    return text_installer(guest, KERNEL64, INITRD64)


@row("installer-vga-i386", "the same, 32 bits", 600)
def installer_vga_i386(guest):
    return text_installer(guest, KERNEL32, INITRD32)


# ---- The graphical installer ----
def highlighted(picture):
    """The middle of the highlighted line of a list: its row, or None."""
    width, _, rows = picture
    lit = [y for y, line in enumerate(rows)
           if sum(all(abs(line[x * 3 + c] - HIGHLIGHT[c]) < 24 for c in range(3)) for x in range(0, width, 16)) > 20]
    return sum(lit) // len(lit) if lit else None


def graphical_installer(guest, *arguments):
    guest.start("--kernel", need(f"{GTK}/linux"), "--initrd", need(f"{GTK}/initrd.gz"), "--memory", "1G", "--control",
                guest.path("control"), "--append", "vga=788 priority=high", *arguments, serial="null")
    first = wait_until(guest, "the language page", highlighted)
    time.sleep(2)
    guest.keys("down", "down", "down")

    def lower(picture):
        at = highlighted(picture)
        return at if at is not None and at > first else None
    second = wait_until(guest, "the highlight to move", lower)
    guest.stop()
    return f"language page; three keys move the highlight from line {first} to {second}"


@row("installer-gtk", "the graphical Debian installer to its language page, moved in by keyboard", 900)
def installer_gtk(guest):
    return graphical_installer(guest)
