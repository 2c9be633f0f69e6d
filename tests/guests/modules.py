# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel and modules of Debian's linux-image package, unpacked without being installed."""
import glob
import os
import re
import subprocess

from harness import Skip

PACKAGE = "linux-image-6.1.0-50-amd64"


def tree():
    """The folder of the unpacked package: CLOCHE_LINUX_IMAGE, or a download kept in the user's cache."""
    root = os.environ.get("CLOCHE_LINUX_IMAGE")
    if root:
        return root
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "cloche-tests")
    root = os.path.join(cache, PACKAGE)
    if not os.path.isdir(root):
        os.makedirs(cache, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=True, capture_output=True)
            package = glob.glob(os.path.join(cache, PACKAGE + "_*.deb"))[0]
            subprocess.run(["dpkg-deb", "-x", package, root + ".tmp"], check=True, capture_output=True)
        except (OSError, IndexError, subprocess.CalledProcessError):
            raise Skip(f"the package {PACKAGE} cannot be downloaded")
        os.unlink(package)
        os.rename(root + ".tmp", root)
    return root


def kernel():
    return glob.glob(os.path.join(tree(), "boot", "vmlinuz-*"))[0]


def files(*names):
    """The named modules after what they depend on, as (name in the initramfs, mode, bytes), and the shell lines that load
    them in this order."""
    paths = {}
    for path in glob.glob(os.path.join(tree(), "lib/modules/*/kernel/**/*.ko"), recursive=True):
        paths[os.path.basename(path)[:-3].replace("-", "_")] = path
    ordered = []

    def add(name):
        name = name.replace("-", "_")
        if name in ordered:
            return
        with open(paths[name], "rb") as f:
            depends = re.search(rb"\0depends=([^\0]*)", f.read())
        for other in filter(None, depends[1].decode().split(",") if depends else []):
            add(other)
        ordered.append(name)

    for name in names:
        add(name)
    out = []
    for name in ordered:
        with open(paths[name], "rb") as f:
            out.append((f"lib/{name}.ko", 0o644, f.read()))
    return out, "".join(f"insmod /lib/{name}.ko\n" for name in ordered)
