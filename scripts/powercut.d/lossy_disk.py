"""A disk that loses what was not flushed when its power goes, with an ext4 file system on it, for scripts/powercut.

A process of its own serves files by the FUSE protocol, each of which is a disk held in memory; a loop device makes one
of them a block device, on which ext4 is mounted. Writes are volatile until the file is synced: that is what the loop
device makes of a flush, and of a write that is to be durable at once. At a cut a new disk is made of the synced state
and of some of the writes since then: none, all, those up to a moment, or each sector of 512 bytes as a coin falls. So
the disk tears, drops and reorders as real ones may, and the kernel's file system, not a model of one, is what stands
between it and the broker. Needs nothing but root, /dev/fuse, loop devices and e2fsprogs.
"""

import ctypes
import errno
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
from pathlib import Path

SECTOR = 512
DISK_BYTES = 24 << 20
MNT_DETACH = 2
HOW = ("none", "all", "prefix", "sectors", "sectors", "most sectors", "few sectors")

# linux/fuse.h
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, INTERRUPT, DESTROY, BATCH_FORGET = 20, 25, 26, 36, 38, 42
FOPEN_DIRECT_IO = 1
FUSE_BIG_WRITES, FUSE_MAX_PAGES = 1 << 5, 1 << 22
WRITE_MAX = 256 << 10
HEADER = struct.Struct("<IIQQIIIHH")
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind, data):
    if LIBC.mount(source.encode(), str(target).encode(), kind.encode(), 0, data.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def why_not():
    """Why this machine cannot do it; None if it can."""
    if os.geteuid() != 0:
        return "it takes root"
    for tool in ("mkfs.ext4", "mount", "umount", "losetup"):
        if not shutil.which(tool):
            return f"there is no {tool}"
    try:
        with tempfile.TemporaryDirectory() as base:
            disk = LossyDisk(Path(base))
            try:
                disk.empty()
            finally:
                disk.close()
    except OSError as error:
        return str(error)
    return None


class Disk:
    """What the device would answer now, and what it would still know without power."""

    def __init__(self, content):
        self.content = content
        self.synced = bytearray(content)
        self.volatile = []  # (offset, bytes) since the last flush, oldest first.

    def write(self, offset, data):
        self.content[offset : offset + len(data)] = data
        self.volatile.append((offset, data))

    def sync(self):
        for offset, data in self.volatile:
            self.synced[offset : offset + len(data)] = data
        self.volatile.clear()

    def after_cut(self, rng):
        """What is there when the power is back, how it was chosen, and how many sectors were kept and lost."""
        content, how = bytearray(self.synced), rng.choice(HOW)
        sectors = [
            (offset + at, data[at : at + SECTOR]) for offset, data in self.volatile for at in range(0, len(data), SECTOR)
        ]
        share = {"none": 0, "all": 1, "sectors": 0.5, "most sectors": 0.9, "few sectors": 0.1}.get(how)
        until = rng.randrange(len(sectors) + 1)
        kept = 0
        for at, (offset, data) in enumerate(sectors):
            if at < until if share is None else rng.random() < share:
                content[offset : offset + len(data)] = data
                kept += 1
        return content, how, kept, len(sectors) - kept


class Server:
    """Serves the disks by the FUSE protocol; node 1 is the directory, 2 the first disk. Obeys one who cuts."""

    def __init__(self, fuse, control):
        self.fuse, self.control = fuse, control
        self.disks = {}
        self.last = 1
        self.written = self.flushes = 0

    def serve(self):
        import select

        poll = select.poll()
        poll.register(self.fuse, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        while True:
            for ready, _ in poll.poll():
                if ready == self.fuse:
                    try:
                        request = os.read(self.fuse, WRITE_MAX + 4096)
                    except OSError as error:
                        if error.errno == errno.ENODEV:
                            return
                        if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                            continue
                        raise
                    self.answer(request)
                else:
                    command = self.control.recv(65536)
                    if not command:
                        return
                    self.control.send(self.obey(command.decode().split()))

    def obey(self, words):
        """`new FILE`: a disk with that content. `cut SEED`: a disk as the newest is without power. `drop`: forgets all but
        the newest. Each is answered with a number, the node of the newest disk, and what else there is to tell."""
        told = ""
        if words[0] == "new":
            content = bytearray(Path(words[1]).read_bytes())
            self.last += 1
            self.disks[self.last] = Disk(content)
        elif words[0] == "cut":
            content, how, kept, lost = self.disks[self.last].after_cut(random.Random(words[1]))
            self.last += 1
            self.disks[self.last] = Disk(content)
            told = f" {kept} {lost} {how}"
        elif words[0] == "drop":
            self.disks = {self.last: self.disks[self.last]}
        return f"{self.last}{told}".encode()

    def reply(self, unique, body=b"", error=0):
        try:
            os.writev(self.fuse, [struct.pack("<IiQ", 16 + len(body), -error, unique), body])
        except OSError as failure:
            if failure.errno != errno.ENOENT:
                raise

    def attributes(self, node):
        is_directory = node == 1
        mode = stat.S_IFDIR | 0o700 if is_directory else stat.S_IFREG | 0o600
        size = 0 if is_directory else DISK_BYTES
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, request):
        _, code, unique, node, *_ = HEADER.unpack_from(request)
        body = memoryview(request)[HEADER.size :]
        disk = self.disks.get(node)
        if code in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        if code == INIT:
            _, minor, _, flags = struct.unpack_from("<IIII", body)
            flags &= FUSE_BIG_WRITES | FUSE_MAX_PAGES
            out = struct.pack("<IIIIHHIIHH", 7, min(minor, 31), WRITE_MAX, flags, 16, 12, WRITE_MAX, 1, WRITE_MAX // 4096, 0)
            self.reply(unique, out + bytes(64 - len(out)))
        elif code == LOOKUP:
            name = bytes(body).rstrip(b"\0").decode()
            found = int(name) if name.isdigit() else 0
            if found not in self.disks:
                self.reply(unique, error=errno.ENOENT)
            else:
                self.reply(unique, struct.pack("<QQQQII", found, 0, 0, 0, 0, 0) + self.attributes(found))
        elif code in (GETATTR, SETATTR):
            self.reply(unique, struct.pack("<QII", 0, 0, 0) + self.attributes(node))
        elif code == OPEN:
            self.reply(unique, struct.pack("<QII", 0, FOPEN_DIRECT_IO, 0))
        elif code == READ and disk:
            _, offset, size = struct.unpack_from("<QQI", body)
            self.reply(unique, bytes(disk.content[offset : offset + size]))
        elif code == WRITE and disk:
            _, offset, size = struct.unpack_from("<QQI", body)
            disk.write(offset, bytes(body[40 : 40 + size]))
            self.reply(unique, struct.pack("<II", size, 0))
        elif code == FSYNC and disk:
            disk.sync()
            self.reply(unique)
        elif code in (FLUSH, RELEASE, DESTROY):
            self.reply(unique)
        elif code == STATFS:
            self.reply(unique, struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 4096, 255, 4096, 0) + bytes(24))
        else:
            self.reply(unique, error=errno.ENOSYS)


class LossyDisk:
    """A place for the store, for scripts/powercut: a mounted file system on a disk whose power can go."""

    def __init__(self, base):
        self.disks, self.mounted, self.image = base / "disks", base / "mounted", base / "image"
        self.path = self.mounted / "store"
        self.cuts, self.lossy_cuts, self.kept, self.lost = 0, 0, 0, 0
        self.is_mounted = False
        self.disks.mkdir()
        self.mounted.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(DISK_BYTES)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        fuse = os.open("/dev/fuse", os.O_RDWR)
        mount("powercut", self.disks, "fuse", f"fd={fuse},rootmode=40000,user_id=0,group_id=0")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = os.fork()
        if self.server == 0:
            code = 1
            try:
                self.control.close()
                Server(fuse, theirs).serve()
                code = 0
            finally:
                os._exit(code)
        os.close(fuse)
        theirs.close()

    def ask(self, *words):
        self.control.send(" ".join(map(str, words)).encode())
        answer = self.control.recv(65536).decode().split()
        if not answer:
            raise OSError("the disk's process ended")
        self.newest = answer[0]
        return answer[1:]

    def mount(self):
        run("mount", "-t", "ext4", "-o", "loop", self.disks / self.newest, self.mounted)
        self.is_mounted = True

    def unmount(self):
        if self.is_mounted:
            run("umount", self.mounted)
            self.is_mounted = False

    def empty(self):
        self.unmount()
        self.ask("new", self.image)
        self.ask("drop")
        self.mount()

    def cut(self, rng):
        kept, lost, *_ = self.ask("cut", rng.random())
        self.cuts += 1
        self.kept += int(kept)
        self.lost += int(lost)
        self.lossy_cuts += int(lost) > 0

    def come_back(self):
        # What is written to the old disk from here on, nobody will see.
        self.unmount()
        self.ask("drop")
        self.mount()

    def told(self):
        return (
            f"{self.cuts} power cuts, {self.lossy_cuts} of which lost something: {self.lost} sectors lost and "
            f"{self.kept} kept of those that were not flushed"
        )

    def close(self):
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.mounted)], check=False)
        LIBC.umount2(str(self.disks).encode(), MNT_DETACH)
        self.control.close()
        os.waitpid(self.server, 0)
