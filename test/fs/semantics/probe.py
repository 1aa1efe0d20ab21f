"""What the programs of this directory share: they do things below argv[1] and print what they saw, one JSON object {check: what was seen}."""

import ctypes
import errno
import json
import os
import shutil
import sys
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
CHECKS = []


def call(name, *arguments):
    """A function of libc by name, its numbers as 64 bits; OSError when it answers -1."""
    function = getattr(LIBC, name)
    function.restype = ctypes.c_long
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    # Functions that answer an int leave the upper half of the register as it was.
    result = ctypes.c_int(function(*converted)).value if name != "syscall" else function(*converted)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def attempt(action, *arguments, **named):
    """What an action gives, or the name of its error."""
    try:
        result = action(*arguments, **named)
        return "ok" if result is None else result
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def put(path, content=b"", mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode)
    os.write(fd, content)
    os.close(fd)
    os.chmod(path, mode)
    return path


def get(path):
    with open(path, "rb") as file:
        return file.read().decode("latin1")


def octal(path):
    return oct(os.lstat(path).st_mode)


def as_user(uid, action, groups=(), gid=None):
    """Runs an action in a child process as another user; what it gives, or the name of its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(uid, uid, uid)
            answer = attempt(action)
        except BaseException:
            answer = traceback.format_exc()
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def check(function):
    """Marks a function as one that `run` is to call."""
    CHECKS.append(function)
    return function


def run():
    """Runs each check in a new directory of its name; the image's files are in argv[1]/image."""
    seen = {}
    base = sys.argv[1]
    os.umask(0o022)
    for one in CHECKS:
        directory = os.path.join(base, one.__name__)
        shutil.rmtree(directory, ignore_errors=True)
        os.mkdir(directory)
        os.chdir(directory)
        try:
            seen[one.__name__] = one()
        except Exception:
            seen[one.__name__] = traceback.format_exc()
    os.chdir("/")
    print(json.dumps(seen))
