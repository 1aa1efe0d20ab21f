import koffi from 'koffi';
import { constants } from 'node:os';

/**
 * The system calls that Node does not have, by koffi. Those that may wait have a promise form which runs on libuv's threads.
 */
const libc = koffi.load('libc.so.6');
const c = {
  flock: libc.func('int flock(int fd, int operation)'),
  prctl: libc.func('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)'),
  waitpid: libc.func('int waitpid(int pid, _Out_ int *status, int options)'),
  pipe2: libc.func('int pipe2(_Out_ int *fds, int flags)'),
  fcntl: libc.func('int fcntl(int fd, int command, int argument)'),
  ioctl: libc.func('int ioctl(int fd, unsigned long request, void *argument)'),
  syncfs: libc.func('int syncfs(int fd)'),
  umount2: libc.func('int umount2(const char *target, int flags)'),
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  bind: libc.func('int bind(int fd, void *address, unsigned int length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  accept4: libc.func('int accept4(int fd, void *address, void *length, int flags)'),
  setsockopt: libc.func('int setsockopt(int fd, int level, int name, void *value, unsigned int length)'),
  recvmsg: libc.func('long recvmsg(int fd, void *message, int flags)'),
  shutdown: libc.func('int shutdown(int fd, int how)'),
  close: libc.func('int close(int fd)'),
  mknod: libc.func('int mknod(void *path, unsigned int mode, unsigned long rdev)'),
  openat2: libc.func('long syscall(long number, int dirfd, const char *path, void *how, long size)'),
};

/** A failed call as Node's own errors look: `code` is the errno's name. */
function failed(call: string, detail = ''): NodeJS.ErrnoException {
  const errno = koffi.errno();
  const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
  return Object.assign(new Error(`${call}${detail === '' ? '' : ` ${detail}`}: ${code}`), { errno: -errno, code });
}

export const LOCK_EX = 2;
export const LOCK_NB = 4;

/** flock(2): false when another open file description has the lock and LOCK_NB was given. */
export function flock(fd: number, operation: number): boolean {
  if (c.flock(fd, operation) === 0) return true;
  const error = failed('flock');
  if (error.code === 'EWOULDBLOCK' || error.code === 'EAGAIN') return false;
  throw error;
}

/** PR_SET_CHILD_SUBREAPER (prctl(2)): orphans among our descendants become our children. */
export function becomeSubreaper(): void {
  if (c.prctl(36, 1, 0, 0, 0) !== 0) throw failed('prctl(PR_SET_CHILD_SUBREAPER)');
}

/** How a process ended: its exit code, or 128 + the signal that ended it. */
export interface Exit {
  code: number;
  signal: number;
}

/** waitpid(2) with WNOHANG for one child: undefined while it runs; null when it is no child of ours (any more). */
export function reap(pid: number): Exit | undefined | null {
  const status = [0];
  const got = c.waitpid(pid, status, 1) as number;
  if (got === 0) return undefined;
  if (got < 0) return null;
  const word = status[0]!;
  const signal = word & 0x7f;
  return signal === 0 ? { code: (word >> 8) & 0xff, signal: 0 } : { code: 128 + signal, signal };
}

/** pipe2(2), both ends close-on-exec: real pipes, which a program can open again as /dev/stdout; Node's own are sockets. */
export function pipe(): { read: number; write: number } {
  const fds = [0, 0];
  if (c.pipe2(fds, 0o2000000) !== 0) throw failed('pipe2');
  return { read: fds[0]!, write: fds[1]! };
}

/** dup with close-on-exec (F_DUPFD_CLOEXEC). */
export function duplicate(fd: number): number {
  const copy = c.fcntl(fd, 1030, 3) as number;
  if (copy < 0) throw failed('fcntl(F_DUPFD_CLOEXEC)');
  return copy;
}

/** Sets close-on-exec on an inherited descriptor (F_SETFD). */
export function closeOnExec(fd: number): void {
  if (c.fcntl(fd, 2, 1) !== 0) throw failed('fcntl(F_SETFD)');
}

/** TIOCSWINSZ (ioctl_tty(2)): the terminal's size. Errors are ignored: the terminal may be gone. */
export function setTerminalSize(fd: number, rows: number, columns: number): void {
  const size = Buffer.alloc(8);
  size.writeUInt16LE(rows & 0xffff, 0);
  size.writeUInt16LE(columns & 0xffff, 2);
  c.ioctl(fd, 0x5414, size);
}

/**
 * Turns off what the terminal does to output (OPOST, termios(3)): Node's raw mode leaves it on, and programs in a container that
 * place their cursor themselves would be garbled. Node's own restoring of the terminal undoes this too.
 */
export function passOutputRaw(fd: number): void {
  const termios = Buffer.alloc(64);
  if (c.ioctl(fd, 0x5401, termios) !== 0) return;
  termios.writeUInt32LE((termios.readUInt32LE(4) & ~1) >>> 0, 4);
  c.ioctl(fd, 0x5402, termios);
}

/** syncfs(2) on one of libuv's threads: the filesystem that `fd` is on writes back its dirty pages. */
export function syncfs(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    c.syncfs.async(fd, (error: Error | null, result: number) => {
      if (error !== null) reject(error);
      else if (result !== 0) reject(Object.assign(new Error('syncfs failed'), { code: 'EIO' }));
      else resolve();
    });
  });
}

/** umount2(2) with MNT_DETACH; false when nothing was mounted there. */
export function detachMount(path: string): boolean {
  return c.umount2(path, 2) === 0;
}

/** mknod(2) with a path of bytes, for FIFOs and device nodes; `rdev` as stat(2) has it. */
export function makeNode(path: Buffer, mode: number, rdev: number): void {
  if (c.mknod(Buffer.concat([path, Buffer.alloc(1)]), mode, rdev) !== 0) throw failed('mknod', path.toString());
}

const RESOLVE_IN_ROOT = 0x10;
const SYS_OPENAT2 = 437;

/**
 * openat2(2) with RESOLVE_IN_ROOT, on one of libuv's threads: `path` is looked up as a process with `dirFd` for its root would,
 * symlinks and `..` included, so nothing outside can be reached whatever the container put there. `flags` are O_*.
 * Resolves to a close-on-exec descriptor; rejects with an error whose code is the errno's name.
 */
export function openInRoot(dirFd: number, path: string, flags: number, mode = 0): Promise<number> {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags | 0o2000000), 0);
  how.writeBigUInt64LE(BigInt(mode), 8);
  how.writeBigUInt64LE(BigInt(RESOLVE_IN_ROOT), 16);
  return new Promise((resolve, reject) => {
    // libuv's threads have an errno of their own: the reason is found out again in this thread, where the answer is cached.
    c.openat2.async(SYS_OPENAT2, dirFd, path, how, how.length, (error: Error | null, fd: number) => {
      if (error !== null) reject(error);
      else if (fd >= 0) resolve(fd);
      else {
        const again = c.openat2(SYS_OPENAT2, dirFd, path, how, how.length) as number;
        if (again >= 0) resolve(again);
        else reject(failed('openat2', path));
      }
    });
  });
}

const AF_UNIX = 1;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SCM_RIGHTS = 1;

/**
 * A listening unix socket at `path` (at most 107 bytes), for runc's --console-socket: `receive` waits, on libuv's threads, for one
 * connection and takes the descriptor that it sends (unix(7), SCM_RIGHTS). It gives up after `timeoutMs`, or when `stop` is called.
 */
export function listenForDescriptor(path: string, timeoutMs: number): { received: Promise<number>; stop(): void } {
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(path, 2, 'utf8');
  const fd = c.socket(AF_UNIX, 1 | 0o2000000, 0) as number;
  if (fd < 0) throw failed('socket');
  const timeout = Buffer.alloc(16);
  timeout.writeBigInt64LE(BigInt(Math.floor(timeoutMs / 1000)), 0);
  timeout.writeBigInt64LE(BigInt((timeoutMs % 1000) * 1000), 8);
  c.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length);
  if (c.bind(fd, address, 2 + Buffer.byteLength(path) + 1) !== 0) throw failed('bind', path);
  if (c.listen(fd, 1) !== 0) throw failed('listen', path);
  const receive = async (): Promise<number> => {
    const connection = await callAsync(c.accept4, fd, null, null, 0o2000000);
    c.close(fd);
    if (connection < 0) throw new Error('no console came from the runtime');
    try {
      return await receiveDescriptor(connection);
    } finally {
      c.close(connection);
    }
  };
  const received = receive();
  received.catch(() => {});
  let stopped = false;
  return {
    received,
    // shutdown(2) wakes the accept; the descriptor is closed by who waited on it.
    stop: () => {
      if (!stopped) c.shutdown(fd, 2);
      stopped = true;
    },
  };
}

/** close(2), for descriptors that Node does not know. */
export function closeFd(fd: number): void {
  c.close(fd);
}

interface NativeFunction {
  async(...args: unknown[]): unknown;
}

function callAsync(f: NativeFunction, ...args: unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    f.async(...args, (error: Error | null, result: number | bigint) =>
      error ? reject(error) : resolve(Number(result)),
    );
  });
}

/** recvmsg(2) of one message with one descriptor: struct msghdr, iovec and cmsghdr as x86-64 and arm64 lay them out. */
async function receiveDescriptor(connection: number): Promise<number> {
  const data = Buffer.alloc(4096);
  const control = Buffer.alloc(64);
  const iov = Buffer.alloc(16);
  iov.writeBigUInt64LE(BigInt(koffi.address(data)), 0);
  iov.writeBigUInt64LE(BigInt(data.length), 8);
  const message = Buffer.alloc(56);
  message.writeBigUInt64LE(BigInt(koffi.address(iov)), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(BigInt(koffi.address(control)), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  const MSG_CMSG_CLOEXEC = 0x40000000;
  const got = await callAsync(c.recvmsg, connection, message, MSG_CMSG_CLOEXEC);
  if (got < 0) throw new Error('the runtime closed the console socket');
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) {
    throw new Error('the runtime sent no descriptor on the console socket');
  }
  return control.readInt32LE(16);
}
