"""What a disk may hold after a power cut, made from a trace of recorder.c.

The model is POSIX at its word: a write counts when a sync of its file began after it and returned;
a name (create, rename, remove) counts when its directory was synced. Everything else may be there
or not, a sector of 512 bytes at a time; directories keep their order. The wal-index is left out, or
is rubbish: a power cut is the end of shared memory.
"""

import mmap
import os
import struct

RECORD = struct.Struct("<BQQQQI")
(CREATE, OPEN, WRITE, RESIZE, ALLOCATE, SYNC_BEGIN, SYNC_END, RENAME, REMOVE,
 MKDIR) = range(1, 11)
SECTOR = 512


class File:
    """One inode: what is durable, and what was done to it since, in order."""

    def __init__(self):
        self.durable = bytearray()
        self.pending = []

    @staticmethod
    def apply(data, change):
        kind, at, what = change
        if kind == WRITE:
            if len(data) < at:
                data.extend(bytes(at - len(data)))
            data[at:at + len(what)] = what
        elif kind == RESIZE:
            if at < len(data):
                del data[at:]
            else:
                data.extend(bytes(at - len(data)))
        elif kind == ALLOCATE and at + what > len(data):
            data.extend(bytes(at + what - len(data)))

    def sync(self, n):
        for change in self.pending[:n]:
            self.apply(self.durable, change)
        del self.pending[:n]

    def content(self, choose):
        """CHOOSE(): whether an unsynced sector (or change of size) has reached the disk."""
        data = bytearray(self.durable)
        for kind, at, what in self.pending:
            if kind != WRITE:
                if choose():
                    self.apply(data, (kind, at, what))
                continue
            end = at + len(what)
            while at < end:
                part = min(end, at // SECTOR * SECTOR + SECTOR)
                if choose():
                    self.apply(data, (WRITE, at, what[:part - at]))
                what = what[part - at:]
                at = part
        return data


class Disk:
    def __init__(self, root):
        self.root = root
        self.files = {}      # inode -> File
        self.now = {}        # path -> inode: names as the process sees them
        self.durable = {}    # path -> inode: names that are durable
        self.pending = {}    # directory -> [(op, path, inode or new path)]
        self.dirs = {}       # inode -> path of a directory
        self.begun = {}      # (inode, number) -> how much of what was pending the sync covers
        self.made = {root}   # directories; their making is taken as durable

    def _name(self, op, path, what):
        self.pending.setdefault(os.path.dirname(path), []).append((op, path, what))

    @staticmethod
    def _apply(names, change):
        op, path, what = change
        if op == CREATE:
            names[path] = what
        elif op == REMOVE:
            names.pop(path, None)
        elif op == RENAME and path in names:
            names[what] = names.pop(path)

    def step(self, op, inode, a, b, data):
        if op == CREATE:
            path = os.fsdecode(data)
            self.files[inode] = File()
            self.now[path] = inode
            self._name(CREATE, path, inode)
        elif op == OPEN:
            self.dirs[inode] = os.fsdecode(data)
        elif op == WRITE:
            self.files[inode].pending.append((WRITE, a, data))
        elif op == RESIZE:
            self.files[inode].pending.append((RESIZE, a, None))
        elif op == ALLOCATE:
            self.files[inode].pending.append((ALLOCATE, a, b))
        elif op == SYNC_BEGIN:
            path = self.dirs.get(inode)
            pending = (self.files[inode].pending if inode in self.files
                       else self.pending.get(path, []))
            self.begun[inode, a] = (len(pending), len(pending))
        elif op == SYNC_END:
            self._synced(inode, a)
        elif op == RENAME:
            old, new = (os.fsdecode(x) for x in data.split(b"\0"))
            self._apply(self.now, (RENAME, old, new))
            self._name(RENAME, old, new)
        elif op == REMOVE:
            path = os.fsdecode(data)
            self._apply(self.now, (REMOVE, path, None))
            self._name(REMOVE, path, None)
        elif op == MKDIR:
            self.made.add(os.fsdecode(data))

    def _synced(self, inode, number):
        n, _ = self.begun.pop((inode, number))
        if inode in self.files:
            self.files[inode].sync(n)
        else:
            path = self.dirs[inode]
            changes = self.pending.get(path, [])
            for change in changes[:n]:
                self._apply(self.durable, change)
            del changes[:n]
        for key, (left, all_) in list(self.begun.items()):  # syncs of the same file side by side
            if key[0] == inode:
                self.begun[key] = (max(0, left - n), all_)

    def names(self, how, rng):
        """The names after the cut; a directory keeps a prefix of what was not synced."""
        names = dict(self.durable)
        for changes in self.pending.values():
            n = {"none": 0, "all": len(changes)}.get(how, rng.randint(0, len(changes)))
            for change in changes[:n]:
                self._apply(names, change)
        return names

    def write_image(self, target, how, rng):
        """HOW: none of the unsynced is there, all of it, or some."""
        share = rng.random()
        choose = {"none": lambda: False, "all": lambda: True}.get(
            how, lambda: rng.random() < share)
        for made in self.made:
            os.makedirs(target + made[len(self.root):], exist_ok=True)
        for path, inode in self.names(how, rng).items():
            if path.endswith("-shm"):
                data = rng.randbytes(32768) if how == "some" else b""
            else:
                data = self.files[inode].content(choose)
            with open(target + path[len(self.root):], "wb") as f:
                f.write(data)


def records(trace):
    """(op, inode, ns, a, b, bytes) one by one."""
    with open(trace, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
        at = 0
        while at + RECORD.size <= len(m):
            op, inode, ns, a, b, n = RECORD.unpack_from(m, at)
            at += RECORD.size
            if at + n > len(m):
                return
            yield op, inode, ns, a, b, m[at:at + n]
            at += n


def boundaries(trace):
    """The number of syncs that returned."""
    return sum(1 for r in records(trace) if r[0] == SYNC_END)
