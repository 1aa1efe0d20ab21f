"""Names: rename flags, links, nameless files, removed and renamed things that are open, directories that change while they are read."""

import ctypes
import os
import socket
import stat

from probe import AT_FDCWD, LIBC, attempt, call, check, get, octal, put, run

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
IMAGE = "../image"


def renameat2(old, new, flags):
    return call("renameat2", AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)


@check
def rename_noreplace():
    put("a", b"a"), put("b", b"b"), os.mkdir("d")
    return [attempt(renameat2, "a", "b", NOREPLACE), attempt(renameat2, "a", "c", NOREPLACE), get("c"), sorted(os.listdir(".")),
            attempt(renameat2, "c", "d", NOREPLACE), attempt(renameat2, "none", "x", NOREPLACE), attempt(renameat2, "b", "b", NOREPLACE)]


@check
def rename_exchange():
    put("a", b"a"), os.makedirs("d/sub"), put("d/sub/f", b"f")
    nlink = os.stat(".").st_nlink, os.stat("d").st_nlink
    seen = [attempt(renameat2, "a", "d", EXCHANGE), get("d"), get("a/sub/f"), attempt(renameat2, "a", "none", EXCHANGE),
            attempt(renameat2, "a", "a/sub", EXCHANGE), attempt(renameat2, "a/sub", "d", EXCHANGE), get("d/f"), get("a/sub"),
            attempt(renameat2, "a", "d", EXCHANGE | NOREPLACE)]
    return seen + [nlink != (0, 0)]


@check
def rename_exchange_of_the_image():
    os.rename(f"{IMAGE}/swap-a", "a"), os.rename(f"{IMAGE}/swap-d", "d")
    return [attempt(renameat2, "a", "d", EXCHANGE), get("d"), get("a/inside"), sorted(os.listdir("a"))]


@check
def directories_of_the_image_move():
    os.rename(f"{IMAGE}/tree", "moved")
    put("moved/new", b"new")
    os.rename("moved/deep", "deep")
    return [sorted(os.listdir("moved")), get("deep/f"), get("moved/new"), os.path.exists(f"{IMAGE}/tree"),
            attempt(os.rename, "moved", "moved/inside"), attempt(os.rmdir, "moved")]


@check
def nameless_files():
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"tmp")
    before = os.fstat(fd).st_nlink
    source = f"/proc/self/fd/{fd}".encode()
    seen = [before, attempt(call, "linkat", AT_FDCWD, source, AT_FDCWD, b"named", 0x400), os.fstat(fd).st_nlink, get("named"), octal("named")]
    seen.append(attempt(call, "linkat", fd, b"", AT_FDCWD, b"by-fd", 0x1000))
    os.unlink("named"), os.unlink("by-fd")
    seen.append(os.fstat(fd).st_nlink)
    excl = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    return seen + [attempt(call, "linkat", AT_FDCWD, f"/proc/self/fd/{excl}".encode(), AT_FDCWD, b"never", 0x400)]


@check
def hard_links_to_files_of_the_image():
    first, second = f"{IMAGE}/hard-1", f"{IMAGE}/hard-2"
    before = os.stat(first).st_nlink
    os.link(first, "third")
    with open("third", "ab") as file:
        file.write(b"+more")
    os.chmod(second, 0o600)
    same = len({os.stat(p).st_ino for p in (first, second, "third")})
    seen = [before, os.stat(second).st_nlink, same, get(first), get(second), octal("third")]
    os.unlink(first)
    return seen + [os.stat("third").st_nlink, get("third")]


@check
def removed_files_stay_while_open():
    fd = os.open("f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"still here")
    os.unlink("f")
    os.pwrite(fd, b"STILL", 0)
    os.fchmod(fd, 0o600), os.ftruncate(fd, 8), os.fsync(fd)
    os.setxattr(fd, "user.gone", b"1")
    lower = os.open(f"{IMAGE}/unlinked", os.O_RDWR)
    os.unlink(f"{IMAGE}/unlinked")
    os.pwrite(lower, b"X", 0)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    return [os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.pread(fd, 99, 0).decode(), os.getxattr(fd, "user.gone").decode(),
            os.fstat(lower).st_nlink, os.pread(lower, 99, 0).decode(), os.read(again, 99).decode(), os.readlink(f"/proc/self/fd/{fd}").endswith("/f (deleted)")]


@check
def replaced_files_stay_while_open():
    put("old", b"old"), put("new", b"new")
    fd = os.open("old", os.O_RDONLY)
    os.rename("new", "old")
    return [os.read(fd, 9).decode(), os.fstat(fd).st_nlink, get("old")]


@check
def directories_move_while_open():
    os.makedirs("a/b"), put("a/b/f", b"f")
    fd = os.open("a/b", os.O_RDONLY)
    os.chdir("a/b")
    os.rename("../../a", "../../z")
    here = os.getcwd()
    os.mkdir("made"), os.rename("made", "../made")
    seen = [here.endswith("z/b"), sorted(os.listdir(fd)), os.listdir("."), os.stat("f", dir_fd=fd).st_size]
    os.chdir("../..")
    os.rename("z/b/f", "f"), os.rmdir("z/b")
    return seen + [attempt(os.mkdir, "x", dir_fd=fd), os.listdir(fd), os.fstat(fd).st_nlink, attempt(os.stat, "..", dir_fd=fd) != "ENOENT"]


LIBC.opendir.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_ulong), ("off", ctypes.c_long), ("len", ctypes.c_ushort), ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


LIBC.readdir.restype = ctypes.POINTER(Dirent)


def next_name(stream):
    entry = LIBC.readdir(ctypes.c_void_p(stream))
    return entry.contents.name.decode() if entry else None


@check
def places_in_a_directory_hold_while_it_changes():
    for i in range(3000):
        put(f"keep-{i}")
    stream = LIBC.opendir(b".")
    seen, places = [], []
    for _ in range(700):
        places.append(LIBC.telldir(ctypes.c_void_p(stream)))
        seen.append(next_name(stream))
    for i in range(1500):
        put(f"new-{i}")
    for i in range(0, 3000, 7):
        os.unlink(f"keep-{i}")
    for i in range(1, 3000, 7):
        os.rename(f"keep-{i}", f"renamed-{i}")
    while (name := next_name(stream)) is not None:
        seen.append(name)
    steady = [f"keep-{i}" for i in range(3000) if i % 7 > 1]
    once = all(seen.count(name) == 1 for name in steady)
    back = []
    for i in (600, 3, 350):
        if seen[i] not in (".", "..") and not (seen[i].startswith("keep-") and int(seen[i][5:]) % 7 > 1):
            continue
        LIBC.seekdir(ctypes.c_void_p(stream), ctypes.c_long(places[i]))
        back.append(next_name(stream) == seen[i])
    LIBC.rewinddir(ctypes.c_void_p(stream))
    count = 0
    while next_name(stream) is not None:
        count += 1
    LIBC.closedir(ctypes.c_void_p(stream))
    return [once, all(back), count, len(os.listdir("."))]


@check
def a_directory_is_emptied_while_it_is_read():
    for i in range(2500):
        put(f"f{i}")
    stream = LIBC.opendir(b".")
    removed = 0
    while (name := next_name(stream)) is not None:
        if name not in (".", ".."):
            os.unlink(name)
            removed += 1
    LIBC.closedir(ctypes.c_void_p(stream))
    return [removed, os.listdir(".")]


@check
def long_names_and_paths():
    put("n" * 255), put("\u00e9" * 127)
    seen = [attempt(put, "n" * 256), attempt(os.mkdir, "d" * 255), attempt(os.symlink, "t" * 4095, "long"), attempt(os.symlink, "t" * 4096, "longer")]
    seen.append(len(os.readlink("long")))
    start = os.getcwd()
    for _ in range(40):
        os.mkdir("p" * 200), os.chdir("p" * 200)
    put("bottom", b"deep")
    seen += [attempt(os.stat, start + ("/" + "p" * 200) * 40 + "/bottom") == "ENAMETOOLONG", get("bottom")]
    os.chdir(start)
    prefix = os.path.abspath(".")
    room = 4095 - len(prefix.encode())
    path = prefix + ("/" + "p" * 200) * ((room - 7) // 201)
    seen.append(os.path.isdir(path + "/." * ((4095 - len(path)) // 2)))
    return seen


@check
def odd_bytes_in_names():
    names = [b"\xff\xfe", b"new\nline", b"tab\t", b"\x01", b" ", b"-rf", b"*", b"\xc3\x28"]
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    return [sorted(os.listdir(b".")) == sorted(names), [os.lstat(name).st_size for name in names]]


@check
def special_files():
    os.mkfifo("fifo", 0o640)
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod("far", stat.S_IFBLK | 0o600, os.makedev(259, 1048575))
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("fifo", os.O_WRONLY)
    os.write(writer, b"through")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket"), server.listen(1)
    client = socket.socket(socket.AF_UNIX)
    client.connect("socket")
    far = os.stat("far").st_rdev
    with open("null", "r+b", buffering=0) as device:
        null = [device.write(b"gone"), device.read(4).decode()]
    return [os.read(reader, 99).decode(), octal("fifo"), octal("socket"), octal("null"), octal("far"), os.major(far), os.minor(far), null,
            attempt(os.open, "socket", os.O_RDONLY)]


@check
def errors_of_names():
    put("f"), os.mkdir("d"), os.symlink("loop", "loop"), os.symlink("none", "dangling")
    return [attempt(os.open, "f/x", os.O_RDONLY), attempt(os.mkdir, "f"), attempt(os.rmdir, "f"), attempt(os.unlink, "d"), attempt(os.open, "loop", os.O_RDONLY),
            attempt(os.open, "d", os.O_RDWR), attempt(os.open, "d", os.O_RDONLY | os.O_CREAT), attempt(os.open, "f", os.O_CREAT | os.O_EXCL),
            attempt(os.open, "dangling", os.O_CREAT | os.O_EXCL), attempt(os.open, "dangling", os.O_CREAT | os.O_WRONLY, 0o644) != "ENOENT",
            sorted(os.listdir(".")), attempt(os.open, "f", os.O_DIRECTORY), attempt(os.open, "dangling", os.O_NOFOLLOW), attempt(os.link, "d", "e"),
            attempt(os.rename, "d", "f"), attempt(os.rename, "f", "d"), attempt(os.rmdir, "."), attempt(os.rmdir, "d/.."), attempt(os.symlink, "", "empty")]


run()
