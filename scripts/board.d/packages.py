"""What scripts/board runs: QEMU, and a kernel and BusyBox for the Raspberry Pi Zero, from Debian's packages.

They are unpacked into a folder of their own and run from there with the C library they came with. Nothing is installed,
the machine's package lists stay as they are, and it takes no root: apt has its state in that folder as well.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# armel is Debian's ARM without FPU; its kernels are the ones for the processor of the Zero.
BOARD = "armel"
HOST_PACKAGES = ["qemu-system-arm", "e2fsprogs"]
KERNEL, BOARD_PACKAGES = "linux-image-rpi", ["busybox-static"]
STEP_TIMEOUT_S = 600
APT_CONF = """#clear APT::Architectures;
APT::Architecture "{host}";
APT::Architectures {{ "{host}"; "{board}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
"""


class Missing(Exception):
    """What it takes and cannot get, in a line."""


class Packages:
    """The folder with what was unpacked, filled if it is not."""

    def __init__(self, folder):
        self.folder, self.host, self.board = folder, folder / "host", folder / "board"
        self.log = folder / "log"
        stamp, wanted = folder / ".unpacked", f"{SUITE} {HOST_PACKAGES} {KERNEL} {BOARD_PACKAGES}"
        if not stamp.exists() or stamp.read_text() != wanted:
            self.get()
            stamp.write_text(wanted)

    def get(self):
        tools = ["apt-get", "apt-cache", "dpkg", "dpkg-deb"]
        if missing := [tool for tool in tools if not shutil.which(tool)]:
            raise Missing(f"needs {missing[0]}: QEMU and the kernel of the machine are taken from Debian's packages")
        if not KEYRING.exists():
            raise Missing(f"needs {KEYRING}, by which apt knows Debian's packages: install debian-archive-keyring")
        shutil.rmtree(self.folder, ignore_errors=True)
        apt = self.folder / "apt"
        for name in ("state/lists/partial", "cache/archives/partial", "board"):
            (apt / name).mkdir(parents=True)
        host = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
        # Nothing is there already, or else a library would be the machine's, whose version is any.
        (apt / "status").touch()
        (apt / "sources.list").write_text(f"deb [arch={host},{BOARD} signed-by={KEYRING}] {MIRROR} {SUITE} main\n")
        (apt / "apt.conf").write_text(APT_CONF.format(host=host, board=BOARD, folder=apt))
        self.run("apt-get", "update")
        self.run("apt-get", "install", "-y", "--download-only", *HOST_PACKAGES)
        wanted = [f"{name}:{BOARD}" for name in [self.kernel_package(), *BOARD_PACKAGES]]
        self.run("apt-get", "download", *wanted, cwd=apt / "board")
        for archives, into in ((apt / "cache/archives", self.host), (apt / "board", self.board)):
            for archive in sorted(archives.glob("*.deb")):
                self.run("dpkg-deb", "-x", archive, into)
        shutil.rmtree(apt)

    def kernel_package(self):
        """The package with the kernel of the day, which the one with the lasting name asks for."""
        said = self.run("apt-cache", "depends", f"{KERNEL}:{BOARD}")
        return re.search(r"Depends: (linux-image-[^\s:]+)", said).group(1)

    def run(self, command, *arguments, cwd=None):
        """What it printed."""
        # After the machine's configuration, which names other places.
        conf = ["-c", self.folder / "apt/apt.conf"] if command.startswith("apt") else []
        words = [command, *conf, *arguments]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            list(map(str, words)), cwd=cwd, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=STEP_TIMEOUT_S,
        )
        if done.returncode != 0:
            last = " / ".join(done.stderr.strip().splitlines()[-2:])
            raise Missing(f"needs Debian's packages, and {command} {arguments[0]} ended with {done.returncode}: {last}")
        return done.stdout

    # ---- What was unpacked

    def program(self, path):
        """The beginning of a command that runs a program of the host's packages with their own libraries."""
        loader = next(self.host.glob("lib/*/ld-linux*.so*"))
        libraries = f"{loader.parent}:{self.host / 'usr/lib' / loader.parent.name}"
        return [str(loader), "--library-path", libraries, str(self.host / path)]

    def qemu(self):
        return self.program("usr/bin/qemu-system-arm")

    def make_file_system(self):
        return self.program("sbin/mke2fs")

    def kernel(self):
        return next(self.board.glob("boot/vmlinuz-*"))

    def device_tree(self):
        return next(self.board.glob("usr/lib/linux-image-*/bcm2835-rpi-zero.dtb"))

    def module(self, name):
        return next(self.board.glob(f"lib/modules/*/kernel/**/{name}.ko"))

    def busybox(self):
        return self.board / "bin/busybox"
