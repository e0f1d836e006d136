"""The machine of scripts/board: a Raspberry Pi Zero with 64 MB that QEMU emulates, and its card.

The kernel starts from an initial file system that has the modules for the card and the network, then goes on from the
card, an ext4 file system, where BusyBox's init and midge's own init script start the broker. The serial line carries
the log of the machine, and the answers to what is asked (guest/answers).
"""

import gzip
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GUEST = Path(__file__).resolve().parent / "guest"
PORT = 1883
# A power of two, as QEMU wants it of a card.
CARD_BYTES = 32 << 20
# In the order in which they need each other.
MODULES = "mii usbnet cdc_ether crc16 mbcache crc32c_generic jbd2 ext4".split()
FOLDERS = "bin sbin usr/bin usr/sbin dev proc sys run tmp etc/init.d etc/default etc/midge/conf.d var/lib/midge".split()
# What the scripts of the machine and midge's init script call; the last is the first program.
APPLETS = "sh cat chmod chown echo grep id ifconfig kill mkdir mount rm sleep syslogd usleep init".split()
# The emulated hardware is there after some seconds, or, in one of a hundred starts, never.
HARDWARE_TIMEOUT_S, START_TIMEOUT_S = 60, 120
ANSWER_TIMEOUT_S = 30
LOOK_S = 0.05
# QEMU's Zero has 512 MB and puts the initial file system at 128 MB, so that the 64 are made of two pieces. Without the
# power driver, for which QEMU has no device, the kernel starts.
COMMAND_LINE = (
    "console=ttyAMA0,115200 mem=62M mem=2M@0x08000000 cma=4M rdinit=/init quiet panic=1 "
    "initcall_blacklist=bcm2835_power_driver_init"
)
# In /proc/net/tcp.
LISTENS = "0A"
COMPLETE, STARTED, NOT_STARTED = "board: complete", "board: started", "board: not started"
BROKER_LINE = re.compile(r"midge\[\d+\]: |^midge: |^midge is not|EXT4-fs error|Kernel panic|Oops|Out of memory")


class Failed(Exception):
    """The machine did not do what it is for, in a line."""


class Stuck(Failed):
    """The machine did not come as far as its network and its card, which is no fault of what runs on it."""


# ---- What it starts from --------------------------------------------------------------------------------------------


def archive(entries):
    """A file system as the kernel unpacks it (cpio, newc), of names, modes and contents."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def initial_file_system(packages, path):
    folder, program, link, plain = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777, stat.S_IFREG | 0o644
    entries = [(name, folder, b"") for name in ("bin", "dev", "modules", "card")]
    entries.append(("bin/busybox", program, packages.busybox().read_bytes()))
    entries.append(("bin/sh", link, b"busybox"))
    entries.append(("init", program, (GUEST / "init").read_bytes()))
    # Loaded by name, in the order of the names.
    for at, name in enumerate(MODULES):
        entries.append((f"modules/{at:02}-{name}.ko", plain, packages.module(name).read_bytes()))
    path.write_bytes(gzip.compress(archive(entries), 1))


def card(packages, binary, settings, path):
    """Makes the card: BusyBox, and midge as its packages install it, with these settings besides."""
    root = path.with_suffix(".root")
    shutil.rmtree(root, ignore_errors=True)
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    files = {
        "bin/busybox": packages.busybox(),
        "etc/inittab": GUEST / "inittab",
        "etc/init.d/rcS": GUEST / "rcS",
        "usr/sbin/answers": GUEST / "answers",
        "usr/sbin/midge": binary,
        "etc/init.d/midge": ROOT / "packaging/sysv/midge",
        "etc/default/midge": ROOT / "packaging/sysv/midge.default",
        "etc/midge/midge.conf": ROOT / "packaging/midge.conf",
    }
    for name, source in files.items():
        shutil.copyfile(source, root / name)
        (root / name).chmod(0o644 if name.startswith(("etc/default", "etc/midge", "etc/inittab")) else 0o755)
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "sbin/init").symlink_to("/bin/busybox")
    (root / "etc/midge/conf.d/board.conf").write_text(f"listener {PORT}\nallow_anonymous true\n{settings}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nmidge:x:100:100:midge:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nmidge:x:100:\n")
    path.unlink(missing_ok=True)
    command = [*packages.make_file_system(), "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", root, path]
    done = subprocess.run(
        [*map(str, command), f"{CARD_BYTES >> 10}k"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    shutil.rmtree(root)
    if done.returncode != 0:
        raise Failed(f"the card could not be made: {done.stderr.strip()}")


# ---- The machine ----------------------------------------------------------------------------------------------------


class Machine:
    """One run of the machine, from power on to power off."""

    def __init__(self, packages, folder, card_path):
        self.questions = 0
        self.log_path = folder / "serial.log"
        command = [
            *packages.qemu(), "-M", "raspi0", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", packages.kernel(), "-dtb", packages.device_tree(), "-initrd", folder / "initial", "-append", COMMAND_LINE,
            "-drive", f"if=sd,format=raw,file={card_path}",
            # A network with nobody else in it, and a way in from a free port of this side.
            "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:{PORT}", "-device", "usb-net,netdev=net",
        ]  # fmt: skip
        self.started = time.monotonic()
        # Into a file: a pipe that is full would stop the machine.
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=log, stderr=log)

    @property
    def log(self):
        return self.log_path.read_bytes().replace(b"\r", b"")

    def text(self):
        return self.log.decode(errors="replace")

    def wait_for(self, pattern, timeout_s, what):
        """The match of a pattern in what the machine said."""
        until = time.monotonic() + timeout_s
        while not (found := re.search(pattern, self.text(), re.M | re.S)):
            if self.process.poll() is not None:
                raise Failed(f"QEMU ended with {self.process.returncode} instead of {what}: {self.last_words()}")
            if time.monotonic() > until:
                raise Failed(f"{what} took more than {timeout_s} s: {self.last_words()}")
            time.sleep(LOOK_S)
        return found

    def port(self):
        """The one on loopback that leads to the broker's: the only one that QEMU listens on."""
        sockets = set()
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            sockets.update(re.findall(r"^socket:\[(\d+)\]$", os.readlink(descriptor)))
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, address, _, state, *_, inode = line.split()[:10]
            if state == LISTENS and inode in sockets:
                return int(address.rpartition(":")[2], 16)
        raise Failed("QEMU listens on no port")

    def wait_complete(self):
        """Returns when the machine has its card and its network."""
        try:
            self.wait_for(f"^{COMPLETE}$", HARDWARE_TIMEOUT_S, "coming up")
        except Failed as failed:
            raise Stuck(str(failed)) from None

    def wait_started(self):
        """Returns when the broker serves."""
        if self.wait_for(f"^({STARTED}|{NOT_STARTED}.*?)$", START_TIMEOUT_S, "starting").group(1) != STARTED:
            raise Failed(f"the broker did not start: {self.last_words()}")

    def last_words(self):
        return " / ".join(self.text().strip().splitlines()[-4:])

    def ask(self, question):
        """What the machine answers to a question that guest/answers knows."""
        self.questions += 1
        mark = f"{question} {self.questions}"
        self.process.stdin.write(f"{mark}\n".encode())
        self.process.stdin.flush()
        answer = f"^board: begin {mark}$(.*)^board: end {mark}$"
        return self.wait_for(answer, ANSWER_TIMEOUT_S, f"the answer to {question}").group(1)

    def broker_lines(self):
        """What the broker and its init script logged, and what the kernel has to complain about."""
        return [line for line in self.text().splitlines() if BROKER_LINE.search(line)]

    def kill(self):
        """Takes the power away; the exit code if there was none any more. What was written to the card is there, for it
        is a file of the host; what the machine had in its memory alone is not."""
        code = self.process.poll()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        return code
