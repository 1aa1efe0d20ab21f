"""Contents: sparse files, fallocate, copies, mappings, direct and appending writes, locks, and who hears of changes."""

import ctypes
import fcntl
import hashlib
import mmap
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading

from probe import AT_FDCWD, as_user, attempt, call, check, get, put, run

IMAGE = "../image"
KEEP, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64


def rw(path, flags=0):
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)


def layout(fd):
    """Where data begins and ends, in order."""
    places, at, end = [], 0, os.fstat(fd).st_size
    while at < end:
        start = attempt(os.lseek, fd, at, os.SEEK_DATA)
        if start == "ENXIO":
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        places.append([start, at])
    return places


@check
def data_and_holes():
    fd = rw("f")
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"a" * 4096, 65536), os.pwrite(fd, b"b" * 4096, 524288)
    seen = [layout(fd), attempt(os.lseek, fd, 1 << 20, os.SEEK_DATA), attempt(os.lseek, fd, 1 << 20, os.SEEK_HOLE), attempt(os.lseek, fd, -1, os.SEEK_HOLE),
            attempt(os.lseek, fd, (1 << 20) - 1, os.SEEK_DATA), attempt(os.lseek, fd, (1 << 20) - 1, os.SEEK_HOLE)]
    os.fsync(fd)
    seen += [layout(fd), os.fstat(fd).st_blocks]
    call("fallocate", fd, KEEP | PUNCH, 65536, 4096)
    seen += [layout(fd), os.fstat(fd).st_blocks]
    os.ftruncate(fd, 524288 + 100), os.ftruncate(fd, 1 << 20)
    return seen + [os.pread(fd, 2, 524288 + 99).hex(), os.lseek(fd, 0, os.SEEK_DATA)]


@check
def fallocate_modes():
    seen = {}
    for name, mode in {"allocate": 0, "keep": KEEP, "punch": KEEP | PUNCH, "punch alone": PUNCH, "zero": ZERO, "zero keep": ZERO | KEEP, "all": 127}.items():
        for offset, length in ((0, 4096), (1000, 3000), (100_000, 100_000), (0, 0), (-1, 5)):
            fd = rw("f", os.O_TRUNC)
            os.write(fd, bytes(range(256)) * 600)
            done = attempt(call, "fallocate", fd, mode, offset, length)
            seen[f"{name} {offset} {length}"] = [done, os.fstat(fd).st_size, hash_of(os.pread(fd, 1 << 20, 0))]
            os.close(fd)
    fd, reader = rw("f"), os.open("f", os.O_RDONLY)
    seen["read only"] = attempt(call, "fallocate", reader, 0, 0, 10)
    seen["a pipe"] = attempt(call, "fallocate", os.pipe()[1], 0, 0, 10)
    seen["too far"] = attempt(call, "fallocate", fd, 0, (1 << 63) - 10, 100)
    seen["of the image"] = [attempt(call, "fallocate", rw(f"{IMAGE}/punched"), KEEP | PUNCH, 4096, 4096), hash_of(get(f"{IMAGE}/punched").encode("latin1"))]
    return seen


def hash_of(content):
    return hashlib.md5(content).hexdigest()


@check
def copies():
    source = rw("source")
    os.write(source, bytes(range(256)) * 4096)
    target = rw("target")
    seen = [os.copy_file_range(source, target, 1 << 20, 0, 0), hash_of(get("target").encode("latin1")), attempt(os.copy_file_range, source, source, 4096, 0, 100),
            attempt(os.copy_file_range, source, source, 4096, 0, 500_000), attempt(os.copy_file_range, source, target, 10, 1 << 21, 0), attempt(os.copy_file_range, source, target, 100, (1 << 20) - 30, 7),
            attempt(os.copy_file_range, os.open("source", os.O_RDONLY), os.open("target", os.O_RDONLY), 5), attempt(os.copy_file_range, source, rw("appended", os.O_APPEND), 5),
            attempt(os.copy_file_range, os.open(".", os.O_RDONLY), target, 5)]
    lower = os.open(f"{IMAGE}/large", os.O_RDONLY)
    size = os.fstat(lower).st_size
    seen += [attempt(os.copy_file_range, lower, target, size, 0, 0), os.fstat(target).st_size, hash_of(get("target").encode("latin1")), os.sendfile(target, source, 0, 100_000)]
    return seen + [attempt(lambda: fcntl.ioctl(target, 0x40049409, source)) in ("EOPNOTSUPP", "ENOTTY", "EXDEV", 0)]


@check
def mappings():
    fd = rw("f")
    os.ftruncate(fd, 1 << 20)
    pages, private = mmap.mmap(fd, 1 << 20), mmap.mmap(fd, 1 << 20, flags=mmap.MAP_PRIVATE)
    pages[5000:5005] = b"hello"
    seen = [os.pread(fd, 5, 5000).decode()]
    os.pwrite(fd, b"WORLD", 9000)
    seen += [pages[9000:9005].decode(), private[9000:9005].decode()]
    private[9000:9005] = b"mine!"
    seen += [os.pread(fd, 5, 9000).decode(), pages[9000:9005].decode()]
    child = os.fork()
    if child == 0:
        pages[0:5] = b"child"
        os._exit(0)
    os.waitpid(child, 0)
    seen.append(os.pread(fd, 5, 0).decode())
    pages.flush()
    os.ftruncate(fd, 4096)
    seen.append(os.WTERMSIG(os.waitpid(touching(pages), 0)[1]))
    lower = mmap.mmap(rw(f"{IMAGE}/mapped"), 0)
    lower[0:3] = b"NEW"
    lower.flush()
    direct = rw("f", os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    page[:] = b"D" * 4096
    os.pwritev(direct, [page], 0)
    return seen + [get(f"{IMAGE}/mapped")[:6], pages[0:3].decode(), attempt(lambda: mmap.mmap(os.open("f", os.O_RDONLY), 4096)) != "ok"]


def touching(pages):
    child = os.fork()
    if child == 0:
        os.close(2)
        pages[9000]
        os._exit(0)
    return child


@check
def direct_writes():
    fd = rw("f", os.O_DIRECT)
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    other = rw("f")
    seen = [os.pwritev(fd, [page], 4096), os.pread(other, 3, 4096).decode()]
    os.pwrite(other, b"buffered", 4096)
    back = mmap.mmap(-1, 4096)
    seen += [os.preadv(fd, [back], 4096), back[:8].decode(), os.fstat(fd).st_size]
    append = os.open("f", os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
    return seen + [os.writev(append, [page]), os.fstat(fd).st_size]


@check
def appending_by_many():
    program = "import os, sys\nfd = os.open('f', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\nfor i in range(300): os.write(fd, (b'%s %d ' % (sys.argv[1].encode(), i)).ljust(99) + b'\\n')"
    writers = [subprocess.Popen([sys.executable, "-c", program, str(n)]) for n in range(4)]
    for writer in writers:
        writer.wait()
    lines = get("f").splitlines()
    return [len(lines), len(set(lines)), {len(line) for line in lines} == {99}]


@check
def huge_and_sparse():
    fd = rw("f")
    os.ftruncate(fd, 8 << 40)
    os.pwrite(fd, b"end", (8 << 40) - 3), os.pwrite(fd, b"middle", 4 << 40)
    os.fsync(fd)
    return [os.pread(fd, 9, (8 << 40) - 3).decode(), os.pread(fd, 6, 4 << 40).decode(), os.pread(fd, 3, 1 << 40).hex(), os.fstat(fd).st_size, os.fstat(fd).st_blocks < 100,
            len(layout(fd)), os.truncate("f", 100), os.stat("f").st_size]


def lock_word(kind, start, length):
    return struct.pack("hhqqi4x", kind, 0, start, length, 0)


def in_child(action):
    return as_user(0, action)


@check
def locks():
    fd = rw("f")
    fcntl.flock(fd, fcntl.LOCK_EX)
    seen = [in_child(lambda: fcntl.flock(rw("f"), fcntl.LOCK_EX | fcntl.LOCK_NB)), in_child(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))]
    fcntl.flock(fd, fcntl.LOCK_SH)
    seen.append(in_child(lambda: fcntl.flock(rw("f"), fcntl.LOCK_SH | fcntl.LOCK_NB)))
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 100)
    seen += [in_child(lambda: fcntl.lockf(rw("f"), fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 104)), in_child(lambda: fcntl.lockf(rw("f"), fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 110))]
    os.close(rw("f"))
    seen.append(in_child(lambda: fcntl.lockf(rw("f"), fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 104)))
    F_OFD_SETLK = 37
    one, two = rw("f"), rw("f")
    fcntl.fcntl(one, F_OFD_SETLK, lock_word(fcntl.F_WRLCK, 0, 50))
    seen += [attempt(lambda: fcntl.fcntl(two, F_OFD_SETLK, lock_word(fcntl.F_WRLCK, 40, 50)) and None), attempt(lambda: fcntl.fcntl(two, F_OFD_SETLK, lock_word(fcntl.F_WRLCK, 50, 50)) and None)]
    os.close(one)
    seen.append(attempt(lambda: fcntl.fcntl(two, F_OFD_SETLK, lock_word(fcntl.F_WRLCK, 0, 50)) and None))
    put("leased")
    reader = os.open("leased", os.O_RDONLY)
    return seen + [attempt(fcntl.fcntl, reader, 1024, fcntl.F_RDLCK)]


@check
def inotify():
    os.mkdir("d"), put("d/f")
    fd = call("inotify_init1", os.O_NONBLOCK)
    call("inotify_add_watch", fd, b"d", 0xFFF)
    put("d/new", b"x"), os.rename("d/new", "d/moved"), os.unlink("d/moved"), os.mkdir("d/sub"), os.chmod("d/f", 0o600), get("d/f"), os.link("d/f", "d/link"), os.listdir("d")
    os.truncate("d/f", 0), os.rmdir("d/sub"), os.unlink("d/f"), os.unlink("d/link"), os.rmdir("d")
    words = os.read(fd, 65536)
    events, at = [], 0
    while at < len(words):
        _, mask, _, length = struct.unpack_from("iIII", words, at)
        events.append([hex(mask), words[at + 16 : at + 16 + length].rstrip(b"\0").decode()])
        at += 16 + length
    return events


@check
def fanotify():
    os.mkdir("d")
    fd = attempt(call, "fanotify_init", 0x2, os.O_RDONLY)
    seen = [isinstance(fd, int)]
    seen.append(attempt(call, "fanotify_mark", fd, 1, ctypes.c_uint64(0x2B | 0x08000000), AT_FDCWD, b"d"))
    put("d/f", b"x"), get("d/f")
    ready, _, _ = select.select([fd], [], [], 2)
    masks, words, at = 0, os.read(fd, 65536) if ready else b"", 0
    while at < len(words):
        length, _, _, _, mask, other, _ = struct.unpack_from("IBBHQii", words, at)
        masks |= mask
        os.close(other)
        at += length
    names = attempt(call, "fanotify_init", 0x2 | 0x200 | 0xC00, os.O_RDONLY)
    marked = attempt(call, "fanotify_mark", names, 1, ctypes.c_uint64(0x300 | 0x40000000 | 0x08000000), AT_FDCWD, b"d")
    put("d/named"), os.unlink("d/named")
    ready, _, _ = select.select([names], [], [], 1)
    return seen + [hex(masks), isinstance(names, int), marked, ready != [] and b"named" in os.read(names, 65536)]


@check
def syncs():
    fd = rw("f", os.O_SYNC)
    os.write(fd, b"x")
    directory = os.open(".", os.O_RDONLY)
    return [attempt(os.fsync, fd), attempt(os.fdatasync, fd), attempt(os.fsync, directory), attempt(call, "syncfs", fd), attempt(os.sync), attempt(call, "sync_file_range", fd, 0, 0, 7),
            attempt(lambda: os.pwritev(fd, [b"y"], 0, os.RWF_DSYNC))]


@check
def handles():
    put("f", b"by handle")
    os.mkdir("d")
    mount = os.open(".", os.O_RDONLY)
    seen = []
    for path in ("f", "d", f"{IMAGE}/plain"):
        handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + b"\0" * 128)
        mount_id = ctypes.c_int()
        if attempt(call, "name_to_handle_at", AT_FDCWD, path.encode(), handle, ctypes.byref(mount_id), 0) != 0:
            seen.append("no handle")
            continue
        fd = attempt(call, "open_by_handle_at", mount, handle, os.O_RDONLY)
        seen.append(isinstance(fd, int) and os.fstat(fd).st_ino == os.stat(path).st_ino)
    os.unlink("f")
    return seen


@check
def writing_beyond():
    fd = rw("f")
    seen = [attempt(os.pwrite, fd, b"x", (1 << 63) - 1), attempt(os.ftruncate, fd, -1), attempt(os.pread, fd, 5, 100).decode()]
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        return [attempt(os.pwrite, fd, b"x" * 200, 0), attempt(os.pwrite, fd, b"x", 100), attempt(os.ftruncate, fd, 101)]
    threads = [threading.Thread(target=os.pwrite, args=(fd, bytes([65 + i]) * 4096, 4096 * i)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen + [in_child(limited), hash_of(get("f").encode("latin1"))]


run()
