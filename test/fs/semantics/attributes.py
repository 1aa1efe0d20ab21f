"""Attributes: times, owners, modes and what takes setuid away, extended attributes, ACLs, programs with privileges, filesystems' numbers."""

import ctypes
import mmap
import os
import shutil
import struct
import subprocess
import time

from probe import AT_FDCWD, LIBC, as_user, attempt, call, check, get, octal, put, run

IMAGE = "../image"
NOBODY = 65534


class Statx(ctypes.Structure):
    _fields_ = [("mask", ctypes.c_uint32), ("blksize", ctypes.c_uint32), ("attributes", ctypes.c_uint64), ("nlink", ctypes.c_uint32),
                ("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32), ("mode", ctypes.c_uint16), ("pad", ctypes.c_uint16), ("ino", ctypes.c_uint64),
                ("size", ctypes.c_uint64), ("blocks", ctypes.c_uint64), ("attributes_mask", ctypes.c_uint64), ("times", ctypes.c_uint64 * 8),
                ("more", ctypes.c_uint64 * 20)]


def statx(path):
    found = Statx()
    call("statx", AT_FDCWD, path.encode(), 0, 0xFFF, ctypes.byref(found))
    return found


@check
def birth_time():
    before = time.time()
    put("f", b"x")
    time.sleep(0.02)
    put("f", b"y"), os.utime("f", (1, 1)), os.rename("f", "g")
    found = statx("g")
    born = found.times[2]
    put("h", b"z")
    made = statx("h").times
    order = [made[2], made[3]] <= [made[6], made[7]] and [made[2], made[3]] <= [made[4], made[5]]
    return [order, found.mask & 0x800 != 0, before - 1 < born < time.time() + 1, found.size, oct(found.mode)]


@check
def times_to_the_nanosecond():
    put("f")
    seen = []
    for at in (1_234_567_890_123_456_789, -1_500_000_001, 0, 4_102_444_800_999_999_999, 15_000_000_000_000_000_001):
        os.utime("f", ns=(at, at + 1))
        found = os.stat("f")
        seen.append([found.st_atime_ns == at, found.st_mtime_ns == at + 1])
    os.symlink("f", "link")
    os.utime("link", ns=(5, 6), follow_symlinks=False)
    return seen + [os.lstat("link").st_mtime_ns, os.stat("f").st_mtime_ns > 6]


def moved(action, *paths):
    """Which of the times of the paths an action moves."""
    os.sync()
    before = {path: os.lstat(path) for path in paths}
    time.sleep(0.02)
    action()
    seen = []
    for path, old in before.items():
        new = os.lstat(path)
        seen.append(("m" if new.st_mtime_ns > old.st_mtime_ns else "") + ("c" if new.st_ctime_ns > old.st_ctime_ns else ""))
    return seen


@check
def what_moves_times():
    put("f", b"12345678"), os.mkdir("d"), put("d/x"), put("d/victim")
    fd = os.open("f", os.O_RDWR)
    actions = {
        "write": lambda: os.write(fd, b"a"), "truncate": lambda: os.ftruncate(fd, 3), "same size": lambda: os.truncate("f", 3), "chmod": lambda: os.chmod("f", 0o600),
        "chown": lambda: os.chown("f", 1, 1), "chown to nobody": lambda: os.chown("f", -1, -1), "xattr": lambda: os.setxattr("f", "user.a", b"1"),
        "link": lambda: os.link("f", "d/g"), "unlink": lambda: os.unlink("d/g"), "fallocate": lambda: os.posix_fallocate(fd, 0, 9000),
        "O_TRUNC": lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)), "read": lambda: os.pread(fd, 1, 0), "utime": lambda: os.utime("f", (9, 9)),
        "empty write": lambda: os.write(fd, b""),
    }
    seen = {name: moved(action, "f", "d") for name, action in actions.items()}
    seen["rename"] = moved(lambda: os.rename("d/x", "y"), "d", ".")
    seen["renamed itself"] = moved(lambda: os.rename("y", "z"), "z")
    seen["rename over"] = moved(lambda: os.rename("z", "d/victim"), "d", ".")
    seen["mkdir"] = moved(lambda: os.mkdir("d/sub"), "d")
    seen["rmdir"] = moved(lambda: os.rmdir("d/sub"), "d")
    return seen


@check
def access_times_as_relatime():
    put("f", b"x" * 100)
    os.utime("f", ns=(10**18, 10**18))
    fd = os.open("f", os.O_RDONLY)
    LIBC.posix_fadvise(fd, ctypes.c_long(0), ctypes.c_long(0), 4)
    os.fsync(fd)
    call("posix_fadvise", fd, 0, 0, 4)
    os.read(fd, 100)
    first = os.stat("f").st_atime_ns
    os.utime("f", ns=(first, 10**18))
    quiet = os.open("f", os.O_RDONLY | os.O_NOATIME)
    os.read(quiet, 1)
    return [os.stat("f").st_atime_ns == first]


@check
def who_may_what():
    os.chmod(".", 0o755)
    os.mkdir("sticky"), os.chmod("sticky", 0o1777), put("sticky/root"), put("secret", b"s", 0o600), put("shared", b"s", 0o660), os.chown("shared", 0, 500)
    return [as_user(1000, lambda: os.unlink("sticky/root")), as_user(1000, lambda: os.rename("sticky/root", "sticky/x")), as_user(1000, lambda: get("secret")),
            as_user(1000, lambda: get("shared"), groups=[500]), as_user(1000, lambda: put("sticky/mine", b"m") and os.chown("sticky/mine", 1001, -1)),
            as_user(1000, lambda: os.chmod("secret", 0o777)), as_user(1000, lambda: os.utime("shared")), as_user(1000, lambda: os.mkdir("no")),
            as_user(1000, lambda: os.access("secret", os.R_OK)), as_user(1000, lambda: os.chmod("sticky/mine", 0o6755)) or octal("sticky/mine")]


@check
def groups_are_inherited():
    os.mkdir("d"), os.chown("d", 0, 700), os.chmod("d", 0o2777)
    put("d/f"), os.mkdir("d/sub"), os.mknod("d/fifo", 0o10644), os.symlink("x", "d/link")
    as_user(1000, lambda: put("d/by-user", b"", 0o2755))
    fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o2755)
    return [[os.lstat(f"d/{n}").st_gid, octal(f"d/{n}")] for n in ("f", "sub", "fifo", "link", "by-user")] + [os.fstat(fd).st_gid, oct(os.fstat(fd).st_mode)]


def privileged(mode=0o6777):
    put("p", b"program"), os.chown("p", 0, 0), os.chmod("p", mode)
    os.setxattr("p", "security.capability", struct.pack("<5I", 0x02000001, 1 << 1, 0, 0, 0))


def left():
    return [octal("p"), attempt(lambda: len(os.getxattr("p", "security.capability")))]


def opened(flags, action):
    fd = os.open("p", flags)
    action(fd)
    os.close(fd)


def written_by_mapping(fd):
    pages = mmap.mmap(fd, 7)
    pages[0:1] = b"P"
    pages.flush()


@check
def what_takes_privileges_away():
    RW = os.O_RDWR
    actions = {
        "write": lambda: opened(RW, lambda fd: os.write(fd, b"x")), "truncate": lambda: os.truncate("p", 3), "ftruncate": lambda: opened(RW, lambda fd: os.ftruncate(fd, 3)),
        "O_TRUNC": lambda: opened(RW | os.O_TRUNC, lambda fd: None), "fallocate": lambda: opened(RW, lambda fd: os.posix_fallocate(fd, 0, 9000)),
        "punch": lambda: opened(RW, lambda fd: call("fallocate", fd, 3, 0, 4096)), "append": lambda: opened(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"x")),
        "direct": lambda: opened(RW | os.O_DIRECT, written_directly), "copy": lambda: opened(RW, copied_into), "map": lambda: opened(RW, written_by_mapping),
        "read": lambda: opened(os.O_RDONLY, lambda fd: os.read(fd, 9)), "open": lambda: opened(RW, lambda fd: None),
    }
    seen = {}
    for uid in (1000, 0):
        for mode in (0o6777, 0o2767) if uid else (0o6777,):
            for name, action in actions.items():
                privileged(mode)
                done = as_user(uid, action, gid=uid)
                seen[f"{name} by {uid} of {mode:o}"] = [done, *left()]
    privileged()
    os.chown("p", 5, -1)
    seen["chown by 0"] = left()
    privileged()
    os.chown("p", 1000, 1000), os.chmod("p", 0o6777)
    seen["chown by 1000"] = [as_user(1000, lambda: os.chown("p", -1, 1000), groups=[1000]), *left()]
    os.mkdir("d"), os.chmod("d", 0o6777), os.chown("d", 5, 5)
    seen["chown of a directory"] = octal("d")
    return seen


def written_directly(fd):
    page = mmap.mmap(-1, 4096)
    page[:] = b"d" * 4096
    os.pwritev(fd, [page], 0)


def copied_into(fd):
    source = os.open(f"{IMAGE}/plain", os.O_RDONLY)
    os.copy_file_range(source, fd, 5)


@check
def privileges_of_a_file_of_the_image():
    path = f"{IMAGE}/setuid"
    before = [octal(path), len(os.getxattr(path, "security.capability"))]
    done = as_user(1000, lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)))
    between = octal(path)
    write = as_user(1000, lambda: put_append(path))
    return before + [done, between, write, octal(path), attempt(os.getxattr, path, "security.capability")]


def put_append(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"!")
    os.close(fd)


@check
def programs_get_their_privileges():
    os.chmod(".", 0o755)
    shutil.copy(shutil.which("id"), "id"), os.chown("id", 1234, 4321), os.chmod("id", 0o6755)
    shutil.copy(shutil.which("cat"), "cat"), os.chmod("cat", 0o755), put("secret", b"secret", 0o600)
    os.setxattr("cat", "security.capability", struct.pack("<5I", 0x02000001, 1 << 1, 0, 0, 0))
    output = lambda *command: subprocess.run(command, capture_output=True, check=False).stdout.decode().strip()
    put("script", b"#!/bin/sh\necho ran $0\n", 0o755)
    return [as_user(NOBODY, lambda: output("./id", "-u")), as_user(NOBODY, lambda: output("./id", "-g")), as_user(NOBODY, lambda: output("./cat", "secret")),
            output("./script"), attempt(os.execv, "secret", ["secret"]), busy("id")]


def busy(program):
    shutil.copy(shutil.which("sleep"), "running")
    process = subprocess.Popen(["./running", "5"])
    time.sleep(0.1)
    seen = attempt(os.open, "running", os.O_WRONLY)
    process.kill(), process.wait()
    return seen


@check
def extended_attributes():
    put("f"), os.symlink("f", "link"), os.mkdir("d")
    seen = [attempt(os.setxattr, "f", name, b"v") for name in ("user.a", "trusted.b", "security.c", "trusted.overlay.x", "other.d", "user.", "a", "system.x", "user." + "n" * 250)]
    seen += [attempt(os.setxattr, "f", "user." + "n" * 251, b"v"), attempt(os.setxattr, "f", "user.a", b"w", os.XATTR_CREATE), attempt(os.setxattr, "f", "user.z", b"w", os.XATTR_REPLACE),
             attempt(os.setxattr, "link", "user.l", b"v", follow_symlinks=False), attempt(os.setxattr, "link", "trusted.l", b"v", follow_symlinks=False),
             sorted(os.listxattr("link", follow_symlinks=False)), as_user(1000, lambda: sorted(os.listxattr("f"))), sorted(n for n in os.listxattr("f") if "overlay" not in n and len(n) < 99),
             as_user(1000, lambda: os.getxattr("f", "trusted.b").decode()), as_user(1000, lambda: os.setxattr("f", "user.a", b"x")), attempt(os.removexattr, "f", "user.a"),
             attempt(os.removexattr, "f", "user.a"), attempt(os.getxattr, "f", "user.a"), attempt(os.setxattr, "f", "user.empty", b""), attempt(lambda: os.getxattr("f", "user.empty").decode()),
             attempt(os.setxattr, "d", "user.d", b"1"), attempt(os.setxattr, "f", "user.binary", bytes(range(256))), attempt(lambda: os.getxattr("f", "user.binary") == bytes(range(256)))]
    os.setxattr(f"{IMAGE}/plain", "user.added", b"1")
    seen += [os.getxattr(f"{IMAGE}/plain", "user.from-image").decode(), sorted(os.listxattr(f"{IMAGE}/plain"))]
    os.mkfifo("fifo")
    return seen + [attempt(os.setxattr, "fifo", "user.f", b"1"), attempt(os.setxattr, "fifo", "trusted.f", b"1")]


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, who) for tag, perm, who in entries)


NONE = 0xFFFFFFFF
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


@check
def access_control_lists():
    os.chmod(".", 0o755)
    put("f", b"x", 0o640), os.mkdir("d"), os.mkdir("plain")
    rich = acl((1, 6, NONE), (2, 4, 1000), (4, 0, NONE), (8, 6, 77), (16, 4, NONE), (32, 0, NONE))
    os.setxattr("f", ACCESS, rich)
    seen = [octal("f"), as_user(1000, lambda: get("f")), as_user(1001, lambda: get("f")), as_user(1001, lambda: get("f"), groups=[77]), as_user(1001, lambda: put_append("f"), groups=[77])]
    os.chmod("f", 0o600)
    seen += [as_user(1000, lambda: get("f")), os.getxattr("f", ACCESS).hex()]
    os.setxattr("d", DEFAULT, acl((1, 7, NONE), (2, 7, 1000), (4, 5, NONE), (16, 7, NONE), (32, 5, NONE)))
    os.umask(0o077)
    os.close(os.open("d/f", os.O_CREAT | os.O_WRONLY, 0o666)), os.mkdir("d/sub", 0o777)
    fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o666)
    os.umask(0o022)
    seen += [octal("d/f"), os.getxattr("d/f", ACCESS).hex(), octal("d/sub"), os.getxattr("d/sub", DEFAULT).hex(), oct(os.fstat(fd).st_mode), sorted(os.listxattr("d/sub"))]
    os.setxattr("plain", ACCESS, acl((1, 7, NONE), (4, 5, NONE), (32, 0, NONE)))
    seen += [octal("plain"), os.listxattr("plain"), attempt(os.setxattr, "f", DEFAULT, rich), attempt(os.setxattr, "f", ACCESS, acl((1, 7, NONE))), attempt(os.setxattr, "f", ACCESS, b"abc"),
             attempt(os.removexattr, "f", ACCESS), octal("f"), attempt(os.removexattr, "d", DEFAULT), os.listxattr("d"), as_user(1000, lambda: os.setxattr("f", ACCESS, rich))]
    put("g", b"", 0o2770), os.chown("g", 1000, 77), os.chmod("g", 0o2770)
    seen += [as_user(1000, lambda: os.setxattr("g", ACCESS, rich)), octal("g")]
    return seen


@check
def numbers_of_the_filesystem():
    found = os.statvfs(".")
    return [found.f_namemax, found.f_bsize > 0, found.f_blocks > found.f_bfree >= found.f_bavail > 0, found.f_files > 0, found.f_flag & os.ST_RDONLY,
            os.pathconf(".", "PC_NAME_MAX"), os.pathconf(".", "PC_PATH_MAX"), os.stat(".").st_blksize]


run()
