import koffi from 'koffi';
import { ftruncateSync } from 'node:fs';

/** Memory that processes share by inheriting its descriptor, and that lives while one of them holds it: memfd_create(2). */

const libc = koffi.load(null);
const cMemfdCreate = libc.func('int memfd_create(const char *, unsigned int)');
const cMmap = libc.func('void *mmap(void *, size_t, int, int, int, int64_t)');
const cMunmap = libc.func('int munmap(void *, size_t)');

const MFD_CLOEXEC = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** New memory of so many bytes, zeros; `name` shows in /proc. Throws as `node:fs` does. */
export function createSharedMemory(name: string, bytes: number): number {
  const fd = cMemfdCreate(name, MFD_CLOEXEC) as number;
  if (fd < 0) throw failed('memfd_create');
  ftruncateSync(fd, bytes);
  return fd;
}

/** The memory behind the descriptor, mapped for as long as this process lives. */
export const mapSharedMemory = (fd: number, bytes: number): ArrayBuffer => koffi.view(map(fd, bytes), bytes);

/** Maps the memory behind the descriptor for as long as `use` takes; nothing of it may be touched afterwards. */
export function useSharedMemory(fd: number, bytes: number, use: (memory: ArrayBuffer) => void): void {
  const address = map(fd, bytes);
  use(koffi.view(address, bytes));
  cMunmap(address, bytes);
}

function map(fd: number, bytes: number): unknown {
  const address = cMmap(null, bytes, PROT_READ_WRITE, MAP_SHARED, fd, 0) as unknown;
  // MAP_FAILED is -1.
  if (koffi.address(address) === 0xffffffffffffffffn) throw failed('mmap');
  return address;
}

function failed(call: string): Error {
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === koffi.errno())?.[0] ?? 'EIO';
  return Object.assign(new Error(`${code}: ${call}`), { code, syscall: call });
}
