"""Mounts on top: bind mounts, idmapped mounts, user namespaces, and an overlayfs that has this filesystem below or above it."""

import ctypes
import os
import signal
import stat

from probe import AT_FDCWD, as_user, attempt, call, check, get, octal, put, run

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442

call("unshare", CLONE_NEWNS)
call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def mount(source, target, kind=None, flags=0, data=None):
    call("mount", source.encode(), target.encode(), kind and kind.encode(), flags, data and data.encode())


def umount(target):
    call("umount2", target.encode(), 2)


@check
def bind_mounts():
    os.mkdir("a"), os.mkdir("b"), put("a/f", b"f"), put("one", b"1"), put("two", b"2")
    mount("a", "b", flags=MS_BIND), mount("one", "two", flags=MS_BIND)
    put("b/new", b"new")
    seen = [sorted(os.listdir("a")), get("two"), attempt(os.unlink, "two"), attempt(os.rename, "a/f", "b/moved"), attempt(os.link, "a/f", "b/linked")]
    mount("none", "b", flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    seen += [attempt(put, "b/no"), attempt(os.chmod, "b/f", 0o600), attempt(os.utime, "b/f"), attempt(put, "a/yes"), get("b/yes")]
    umount("b"), umount("two")
    return seen + [os.listdir("b"), get("two")]


def user_namespace(uid_map):
    """A descriptor of a user namespace with this map."""
    ready, child = os.pipe(), os.fork()
    if child == 0:
        call("unshare", CLONE_NEWUSER)
        os.write(ready[1], b"x")
        signal.pause()
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write(uid_map)
    fd = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    os.kill(child, signal.SIGKILL), os.waitpid(child, 0)
    return fd


@check
def idmapped_mounts():
    os.mkdir("a"), os.mkdir("b"), put("a/root"), put("a/user"), os.chown("a/user", 7, 7), os.mkdir("a/sgid"), os.chown("a/sgid", 5, 5), os.chmod("a/sgid", 0o2777)
    namespace = user_namespace("0 10000 1000")
    tree = call("syscall", OPEN_TREE, AT_FDCWD, b"a", 1 | os.O_CLOEXEC)
    attributes = (ctypes.c_uint64 * 4)(0x100000, 0, 0, namespace)
    call("syscall", MOUNT_SETATTR, tree, b"", 0x1000, attributes, 32)
    call("syscall", MOVE_MOUNT, tree, b"", AT_FDCWD, b"b", 4)
    os.chmod("a", 0o777)
    owner = lambda path: [os.lstat(path).st_uid, os.lstat(path).st_gid]
    seen = [owner("b/root"), owner("b/user"), as_user(10001, lambda: put("b/made", b"m")), owner("b/made"), owner("a/made"), as_user(10001, lambda: os.mkdir("b/dir")), owner("a/dir"),
            as_user(10001, lambda: os.symlink("x", "b/link")), owner("a/link"), as_user(10001, lambda: os.mknod("b/fifo", 0o10600)), owner("a/fifo"), attempt(put, "b/by-root"),
            as_user(10007, lambda: os.chmod("b/user", 0o640)), octal("a/user"), attempt(os.chown, "b/made", 10005, 10006), owner("a/made"), attempt(os.chown, "b/made", 5, 5),
            as_user(10001, lambda: put("b/sgid/f")), owner("a/sgid/f"), as_user(10001, lambda: os.rename("b/dir", "b/moved")), as_user(10001, lambda: os.link("b/fifo", "b/again")),
            as_user(10001, lambda: os.unlink("b/fifo")), as_user(10001, tmpfile), owner("a/named"), as_user(10007, lambda: os.truncate("b/user", 9)), as_user(1, lambda: put("b/unmapped"))]
    put("a/s", b"s", 0o4755), os.chown("a/s", 1, 1), os.chmod("a/s", 0o4777)
    as_user(10002, lambda: append("b/s"))
    return seen + [octal("a/s"), sorted(os.listdir("b"))]


def append(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"+")
    os.close(fd)


def tmpfile():
    fd = os.open("b", os.O_TMPFILE | os.O_RDWR, 0o600)
    call("linkat", AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, b"b/named", 0x400)


@check
def user_namespaces():
    os.chmod(".", 0o777)
    put("root", b"r"), put("mine", b"m", 0o600), os.chown("mine", 1000, 1000), put("shared", b"s", 0o666)
    seen = as_user(1000, in_a_user_namespace)
    return [seen, os.stat("made").st_uid, octal("mine")]


def in_a_user_namespace():
    # Another user's process may write its own maps only if it can be looked at.
    call("prctl", 4, 1)
    seen = [attempt(call, "unshare", CLONE_NEWUSER | CLONE_NEWNS)]
    for name, value in (("setgroups", "deny"), ("uid_map", "0 1000 1"), ("gid_map", "0 1000 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(value)
    return seen + [os.getuid(), os.stat("root").st_uid, os.stat("mine").st_uid, attempt(put, "made"), os.stat("made").st_uid, attempt(os.chown, "mine", 0, 0), attempt(os.chown, "mine", 5, 5),
                   attempt(os.chmod, "root", 0o777), attempt(os.unlink, "shared"), attempt(os.mknod, "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)), attempt(os.setxattr, "mine", "trusted.x", b"1"),
                   attempt(os.setxattr, "mine", "user.x", b"1"), attempt(os.mkdir, "at"), attempt(mount, ".", "at", None, MS_BIND), attempt(get, "at/mine"), attempt(os.chmod, "mine", 0o4755)]


def layered(lower, upper, work, at):
    """Does on an overlayfs what needs whiteouts, opaque directories, copies up, nameless files and attributes of it; what is there afterwards."""
    mount("overlay", at, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=on,index=on,metacopy=off")
    os.unlink(f"{at}/gone"), put(f"{at}/kept", b"changed"), os.chmod(f"{at}/mode", 0o600), os.rename(f"{at}/dir", f"{at}/moved")
    os.remove(f"{at}/opaque/inside"), os.rmdir(f"{at}/opaque"), os.mkdir(f"{at}/opaque"), put(f"{at}/opaque/new", b"new")
    os.link(f"{at}/hard-1", f"{at}/hard-3"), append(f"{at}/hard-2"), os.symlink("kept", f"{at}/link"), os.rename(f"{at}/renamed", f"{at}/other")
    os.setxattr(f"{at}/kept", "user.x", b"1")
    fd = os.open(at, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"tmp")
    call("linkat", AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, f"{at}/tmp".encode(), 0x400)
    os.close(fd)
    seen = tree(at)
    umount(at)
    mount("overlay", at, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=on,index=on,metacopy=off")
    again = tree(at)
    umount(at)
    return [seen, seen == again, sorted(kind_of(f"{upper}/{name}") + name for name in os.listdir(upper))]


def kind_of(path):
    found = os.lstat(path)
    return "whiteout " if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0 else ""


def tree(at):
    seen = []
    for path, directories, files in os.walk(at):
        for name in sorted(directories + files):
            found = os.lstat(f"{path}/{name}")
            content = get(f"{path}/{name}") if stat.S_ISREG(found.st_mode) else ""
            seen.append([f"{path[len(at):]}/{name}", oct(found.st_mode), found.st_nlink if not stat.S_ISDIR(found.st_mode) else 0, content])
    return sorted(seen)


def lower_files(at):
    os.makedirs(f"{at}/dir/sub"), os.mkdir(f"{at}/opaque"), put(f"{at}/dir/sub/f", b"f"), put(f"{at}/opaque/inside")
    for name in ("gone", "kept", "mode", "hard-1", "renamed"):
        put(f"{at}/{name}", name.encode())
    os.link(f"{at}/hard-1", f"{at}/hard-2")


@check
def an_overlayfs_above():
    elsewhere = os.environ["ELSEWHERE"]
    seen = []
    for name, lower, upper in (("below", "l", f"{elsewhere}/u1"), ("above", f"{elsewhere}/l2", "u2"), ("both", "l3", "u3")):
        work, at = upper + "-work", os.path.abspath(name)
        for directory in (lower, upper, work, at):
            os.makedirs(directory)
        lower_files(lower)
        seen.append([name, *layered(*(os.path.abspath(d) for d in (lower, upper, work)), at)])
    return seen


@check
def a_root():
    os.makedirs("root/old"), put("root/f", b"in the root")
    child = os.fork()
    if child == 0:
        call("unshare", CLONE_NEWNS)
        mount("root", "root", flags=MS_BIND)
        os.chdir("root")
        call("pivot_root", b".", b"old")
        os._exit(0 if get("/f") == "in the root" and os.path.exists("/old/proc") else 1)
    return os.waitpid(child, 0)[1]


run()
