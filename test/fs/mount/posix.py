"""What a Linux program may do to its root that Node has no call for, done in the directory given; ends with an assertion or with "ok"."""

import ctypes
import fcntl
import mmap
import os
import socket
import sys
import threading

AT = sys.argv[1]
LIBC = ctypes.CDLL(None, use_errno=True)


def open_rw(name, flags=0):
    return os.open(f"{AT}/{name}", os.O_RDWR | os.O_CREAT | flags)


def shared_mapping_is_coherent_with_read_and_write():
    fd = open_rw("mapped")
    os.ftruncate(fd, 1 << 20)
    pages = mmap.mmap(fd, 1 << 20)
    pages[5000:5005] = b"hello"
    assert os.pread(fd, 5, 5000) == b"hello"
    os.pwrite(fd, b"WORLD", 9000)
    assert pages[9000:9005] == b"WORLD"
    pages.flush()
    copy = open_rw("copy")
    assert os.copy_file_range(fd, copy, 1 << 20, 0, 0) == 1 << 20
    assert os.pread(copy, 5, 5000) == b"hello"


def append_by_many_writers_loses_nothing():
    def writer(number):
        fd = os.open(f"{AT}/appended", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for line in range(200):
            os.write(fd, (b"%03d %03d " % (number, line)).ljust(63) + b"\n")
        os.close(fd)

    threads = [threading.Thread(target=writer, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = open(f"{AT}/appended", "rb").read().splitlines()
    assert len(lines) == len(set(lines)) == 1600


def data_still_in_the_page_cache_is_no_hole():
    fd = open_rw("sparse")
    os.pwrite(fd, b"x" * 4096, 1 << 30)
    assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 30
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    assert os.lseek(fd, 1 << 30, os.SEEK_HOLE) == (1 << 30) + 4096
    os.posix_fallocate(fd, 0, 1 << 20)
    assert LIBC.fallocate(fd, 3, ctypes.c_long(1 << 30), ctypes.c_long(4096)) == 0
    assert os.pread(fd, 4, 1 << 30) == b"\0" * 4


def files_may_be_huge_and_empty():
    fd = open_rw("huge")
    os.ftruncate(fd, 8 << 40)
    os.pwrite(fd, b"end", (8 << 40) - 3)
    os.fsync(fd)
    assert os.pread(fd, 3, (8 << 40) - 3) == b"end"
    assert os.fstat(fd).st_blocks < 100


def locks_are_there():
    fd = open_rw("locked")
    fcntl.flock(fd, fcntl.LOCK_EX)
    fcntl.lockf(fd, fcntl.LOCK_EX)


def a_nameless_file_may_be_given_a_name():
    fd = os.open(AT, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"tmp")
    root = os.open("/", os.O_RDONLY)
    os.link(f"/proc/self/fd/{fd}", f"{AT}/linked", src_dir_fd=root, follow_symlinks=True)
    assert open(f"{AT}/linked", "rb").read() == b"tmp"


def xattrs_of_all_namespaces():
    open_rw("attributes")
    os.setxattr(f"{AT}/attributes", "user.x", b"1")
    os.setxattr(f"{AT}/attributes", "trusted.y", b"2")
    assert set(os.listxattr(f"{AT}/attributes")) == {"user.x", "trusted.y"}


def special_files():
    os.mkfifo(f"{AT}/fifo")
    os.mknod(f"{AT}/null", 0o20666, os.makedev(1, 3))
    open(f"{AT}/null", "w").write("x")
    socket.socket(socket.AF_UNIX).bind(f"{AT}/socket")


def direct_io():
    fd = open_rw("direct", os.O_DIRECT)
    out, back = mmap.mmap(-1, 8192), mmap.mmap(-1, 8192)
    out[:] = b"z" * 8192
    assert os.pwritev(fd, [out], 4096) == 8192
    assert os.preadv(fd, [back], 4096) == 8192 and back[:] == out[:]


def large_directories_and_long_names():
    os.mkdir(f"{AT}/many")
    for i in range(5000):
        os.close(os.open(f"{AT}/many/{i}", os.O_CREAT | os.O_WRONLY))
    assert len(os.listdir(f"{AT}/many")) == 5000
    os.rename(f"{AT}/many", f"{AT}/moved")
    assert len(os.listdir(f"{AT}/moved")) == 5000
    os.makedirs(f"{AT}/deep/" + "/".join(["n" * 200] * 15))
    open(f"{AT}/" + "n" * 255, "w").close()


for name, check in list(globals().items()):
    if callable(check) and getattr(check, "__module__", None) == "__main__" and name != "open_rw":
        check()
print("ok")
