import { closeSync, constants as fsConstants, openSync } from 'node:fs';
import { constants } from 'node:os';
import koffi from 'koffi';
import { PgError } from '../../mdm/error.ts';
import { ERRNO, errnoName, errnoOf } from './errno.ts';

/** The FUSE device and the system calls around it that Node does not have: mount(2), umount2(2), and read(2) without exceptions. */

const libc = koffi.load(null);
const cRead = libc.func('long read(int, void *, size_t)');
const cWrite = libc.func('long write(int, void *, size_t)');
const cPoll = libc.func('int poll(void *, unsigned long, int)');
const cYield = libc.func('int sched_yield()');
const cMount = libc.func('int mount(const char *, const char *, const char *, unsigned long, const char *)');
const cUmount2 = libc.func('int umount2(const char *, int)');

const cDlsym = libc.func('void *dlsym(void *, const char *)');
const cSigaction = libc.func('int sigaction(int, const void *, void *)');
const cGettid = libc.func('int gettid()');
const cTgkill = libc.func('int tgkill(int, int, int)');

/** mount(2) flags. */
const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
/** umount2(2) flags. */
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** read(2) of one request: the bytes read, or the negative of an errno; -EAGAIN when none waits. */
export function readDevice(fd: number, into: Uint8Array): number {
  const result = cRead(fd, into, into.length) as number;
  return result < 0 ? -koffi.errno() : result;
}

/** `struct pollfd` with POLLIN. */
const pollfd = new Int32Array([0, 1]);

/** poll(2): waits until a request can be read; 0 `timeoutMs` only looks, -1 waits for ever. 1, 0 for none, or the negative of an errno. */
export function awaitDevice(fd: number, timeoutMs: number): number {
  pollfd[0] = fd;
  const result = cPoll(pollfd, 1, timeoutMs) as number;
  return result < 0 ? -koffi.errno() : result;
}

/** Two `struct pollfd` with POLLIN. */
const pollfds = new Int32Array([0, 1, 0, 1]);

/** poll(2) of the device and another descriptor (-1: none): true when the device can be read, or tells that it has ended. */
export function awaitDeviceOr(fd: number, other: number, timeoutMs: number): boolean {
  pollfds[0] = fd;
  pollfds[2] = other;
  // In the upper half of the word is what happened.
  pollfds[1] = pollfds[3] = 1;
  return (cPoll(pollfds, 2, timeoutMs) as number) > 0 && pollfds[1] >>> 16 !== 0;
}

/** sched_yield(2): lets other threads that are ready on this processor go first. */
export function yieldProcessor(): void {
  cYield();
}

/** write(2) of the first `length` bytes: the bytes written, or the negative of an errno. The device takes an answer whole or not at all. */
export function writeDevice(fd: number, bytes: Uint8Array, length: number): number {
  const result = cWrite(fd, bytes, length) as number;
  return result < 0 ? -koffi.errno() : result;
}

/** Answers the request of this `unique` without a payload, from any thread: success, or the error of this name. */
export function writeAnswer(fd: number, uniqueLow: number, uniqueHigh: number, error?: string): void {
  const message = new Uint32Array([
    16,
    error === undefined ? 0 : -(errnoOf(error) ?? ERRNO.EIO),
    uniqueLow,
    uniqueHigh,
  ]);
  writeDevice(fd, new Uint8Array(message.buffer), 16);
}

/** `FUSE_NOTIFY_*`, written with unique 0. */
const NOTIFY = { INVAL_INODE: 2, INVAL_ENTRY: 3, RESEND: 7 } as const;

function invalidation(ino: number, offset: number): Buffer {
  const message = Buffer.alloc(16 + 24);
  message.writeUInt32LE(message.length, 0);
  message.writeInt32LE(NOTIFY.INVAL_INODE, 4);
  message.writeBigUInt64LE(BigInt(ino), 16);
  message.writeBigInt64LE(BigInt(offset), 24);
  return message;
}

/**
 * Has the kernel write back its dirty pages of an inode, and drop all its pages; resolves when that is done, or the connection has ended. It is done by WRITE
 * requests, and nothing can end the wait for their answers, not even a kill: so this is no business of the process that serves them. An inode that the
 * kernel does not know has no pages.
 */
export function writeBackInode(fd: number, ino: number): Promise<void> {
  const message = invalidation(ino, 0);
  return new Promise((resolve) => cWrite.async(fd, message, message.length, () => resolve()));
}

/**
 * Whether the kernel holds the inode. Asked by an invalidation of its attributes alone (a negative offset), which it asks for again when it needs them. It may have to wait
 * for an inode that is just being given up: as above, not for the process that serves.
 */
export async function kernelHolds(fd: number, ino: number): Promise<boolean> {
  const message = invalidation(ino, -1);
  const result = await new Promise<number>((resolve) =>
    cWrite.async(fd, message, message.length, (error: Error | null, written: number) =>
      resolve(error === null ? written : 0),
    ),
  );
  // libuv's threads have an errno of their own. An inode that is gone stays gone, and to find that out again takes no wait.
  return result >= 0 || writeDevice(fd, message, message.length) !== -ERRNO.ENOENT;
}

/**
 * Has the kernel queue again, with the highest bit of `unique` set, all requests that were read from this device and not answered (Linux 6.9 and later). Returns 0, or the
 * negative of an errno.
 */
export function resendRequests(fd: number): number {
  const message = Buffer.alloc(16);
  message.writeUInt32LE(message.length, 0);
  message.writeInt32LE(NOTIFY.RESEND, 4);
  return Math.min(0, writeDevice(fd, message, message.length));
}

/** Has the kernel ask again for the attributes of an inode, if it knows it; its pages stay. At once: the thread that serves may call it. */
export function invalidateAttributes(fd: number, ino: number): void {
  const message = invalidation(ino, -1);
  writeDevice(fd, message, message.length);
}

/**
 * Has the kernel forget what it knows of a name (latin1) in a directory, also that there is none. It waits for whoever is at that directory: so not in the process that
 * serves. A directory or name that the kernel does not know needs nothing.
 */
export function invalidateEntry(fd: number, dir: number, name: string): Promise<void> {
  const message = Buffer.alloc(16 + 16 + name.length + 1);
  message.writeUInt32LE(message.length, 0);
  message.writeInt32LE(NOTIFY.INVAL_ENTRY, 4);
  message.writeBigUInt64LE(BigInt(dir), 16);
  message.writeUInt32LE(name.length, 24);
  message.write(name, 32, 'latin1');
  return new Promise((resolve) => cWrite.async(fd, message, message.length, () => resolve()));
}

/** Opens /dev/fuse, reads of which do not block. PgError('NO_FUSE') when this machine or this user has none. */
export function openDevice(): number {
  try {
    return openSync('/dev/fuse', fsConstants.O_RDWR | fsConstants.O_NONBLOCK);
  } catch (cause) {
    throw new PgError('NO_FUSE', `cannot open /dev/fuse: ${(cause as Error).message}`, {
      hint: 'load the module (modprobe fuse), or give the container the device; see pg doctor',
      cause,
    });
  }
}

export interface FuseMountOptions {
  mountPoint: string;
  /** Shows as the source in /proc/mounts. */
  source: string;
  readOnly: boolean;
  noSuid: boolean;
  noDev: boolean;
}

/**
 * mount(2) of the connection behind `fd`. Container roots need device nodes, setuid and every user's access; permission checks are the
 * kernel's (default_permissions). PgError('NOT_ROOT' | 'MOUNT_FAILED').
 */
export function mountDevice(fd: number, options: FuseMountOptions): void {
  const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other`;
  const flags = (options.readOnly ? MS_RDONLY : 0) | (options.noSuid ? MS_NOSUID : 0) | (options.noDev ? MS_NODEV : 0);
  if (cMount(options.source, options.mountPoint, 'fuse.pg', flags, data) === 0) return;
  const errno = koffi.errno();
  if (errno === ERRNO.EPERM) {
    throw new PgError('NOT_ROOT', `mounting on ${options.mountPoint} is not permitted`, { hint: 'run pg as root' });
  }
  throw new PgError('MOUNT_FAILED', `cannot mount on ${options.mountPoint}: ${errnoName(errno)}`);
}

/** umount2(2). `lazy` takes the mount out of the tree though it is busy. Returns the errno's name, or undefined when done. Blocks while the kernel writes back. */
export function unmountPath(mountPoint: string, lazy: boolean): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    cUmount2.async(mountPoint, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW, (error: Error | null, result: number) => {
      if (error !== null) reject(error);
      else resolve(result === 0 ? undefined : errnoName(koffi.errno()));
    });
  });
}

/** umount2(2) with MNT_DETACH, at once: for the moment of exit. */
export function detachPath(mountPoint: string): void {
  cUmount2(mountPoint, MNT_DETACH | UMOUNT_NOFOLLOW);
}

/**
 * The signal that wakes a thread out of poll(2) of the device: it is ignored by default, and nothing else here uses it.
 * FUSE itself offers no way: an invalidation makes no request, and a RETRIEVE wants a regular file that the kernel has cached.
 */
const WAKE_SIGNAL = constants.signals.SIGURG;
/** `struct sigaction` of glibc on 64-bit machines: handler, mask of 128 bytes, flags, restorer. */
const SIGACTION_BYTES = 152;

/**
 * Makes the calling thread one that `wakeThread` can wake: gives the wake signal a handler that does nothing, without SA_RESTART, so that the
 * poll fails with EINTR. Returns the thread's number. The handler is a function of libc, called on the interrupted thread: no JavaScript runs.
 */
export function becomeWakeable(): number {
  const action = Buffer.alloc(SIGACTION_BYTES);
  action.writeBigUInt64LE(koffi.address(cDlsym(null, 'getpid')), 0);
  if (cSigaction(WAKE_SIGNAL, action, null) !== 0) throw new Error(`sigaction: ${errnoName(koffi.errno())}`);
  return cGettid() as number;
}

/**
 * Sends the wake signal to a thread of this process. It may arrive a moment before the thread blocks and so wake nobody: whoever must be sure
 * looks whether he was heard, and sends it again.
 */
export function wakeThread(threadId: number): void {
  cTgkill(process.pid, threadId, WAKE_SIGNAL);
}

/** Closes the device: a connection that nobody else holds ends, and its mount answers ENOTCONN from then on. */
export function closeDevice(fd: number): void {
  closeSync(fd);
}
