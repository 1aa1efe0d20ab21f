import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

/**
 * A directory of a million names on a mount: made, read with telldir(3) and seekdir(3) while names come and go, looked up, read again by a new mount, removed. A file of 8 TiB. Says
 * what each took. `npm run test:long -- directory [NAMES]`.
 */
const NAMES = Number(process.argv[2] ?? 1_000_000);
const BUILT = new URL('../../dist/fs/mount.js', import.meta.url).href;
const { startMount } = (await import(BUILT)) as typeof import('../../fs/mount.ts');
const run = promisify(execFile);

const SCRIPT = `
import ctypes, os, random, sys, time
base, count, step = sys.argv[1], int(sys.argv[2]), sys.argv[3]
many = base + '/many'
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.readdir.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
def name(entry):
    return ctypes.string_at(entry + 19)
def made(i):
    return b'the name of file number %d' % i
def said(what, start):
    print('%s: %.1f s' % (what, time.time() - start), flush=True)
start = time.time()
if step == 'make':
    os.mkdir(many)
    at = os.open(many, os.O_RDONLY)
    for i in range(count): os.close(os.open(made(i), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=at))
    said('made', start)
elif step == 'scan':
    at = os.open(many, os.O_RDONLY)
    dir = libc.opendir(many.encode())
    seen, i, back = [], 0, 0
    gone = set()
    while True:
        place = libc.telldir(dir)
        entry = libc.readdir(dir)
        if not entry: break
        seen.append(name(entry))
        i += 1
        if i % 1000 == 0:
            # Some go that were passed or are to come, some come, one is renamed; and back a little, by its place.
            for _ in range(3):
                victim = random.randrange(count)
                if victim % 10 == 0 and victim not in gone:
                    gone.add(victim); os.unlink(made(victim), dir_fd=at)
            os.close(os.open(b'new %d' % i, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=at))
            libc.seekdir(dir, place)
            again = name(libc.readdir(dir))
            # What was just passed may be what has just gone: then it is the next one.
            if again != seen[-1]:
                libc.seekdir(dir, place)
                seen.pop()
            back += 1
    said('read while it changes, %d entries, %d times back' % (len(seen), back), start)
    stay = [made(j) for j in range(count) if j % 10 != 0]
    times = {}
    for each in seen: times[each] = times.get(each, 0) + 1
    assert all(times.get(each) == 1 for each in stay), 'a name that stays was not seen once'
    assert max(times.values()) == 1, 'a name was seen twice'
    for j in gone: os.close(os.open(made(j), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=at))
    for each in os.listdir(many.encode()):
        if each.startswith(b'new '): os.unlink(each, dir_fd=at)
elif step == 'list':
    names = os.listdir(many)
    said('listed', start)
    assert len(names) == count and set(names) == set(made(i).decode() for i in range(count))
    start = time.time()
    for i in random.sample(range(count), min(count, 100000)): os.stat(many.encode() + b'/' + made(i))
    said('100,000 looked up', start)
elif step == 'remove':
    at = os.open(many, os.O_RDONLY)
    for entry in os.listdir(many.encode()): os.unlink(entry, dir_fd=at)
    os.rmdir(many)
    said('removed', start)
elif step == 'large':
    fd = os.open(base + '/large', os.O_CREAT | os.O_RDWR)
    size = 8 << 40
    os.ftruncate(fd, size)
    places = [0, 1 << 31, 1 << 32, (1 << 40) + 12345, size - 5]
    for i, place in enumerate(places): os.pwrite(fd, b'at %d' % i, place)
    os.fsync(fd)
    assert os.fstat(fd).st_size == size and os.fstat(fd).st_blocks < 1000
    assert [os.pread(fd, 4, place) for place in places] == [b'at %d' % i for i in range(len(places))]
    assert os.lseek(fd, 4096 * 300, os.SEEK_DATA) // 4096 == (1 << 31) // 4096
    os.ftruncate(fd, 1 << 20); os.ftruncate(fd, size)
    assert os.pread(fd, 4, places[3]) == bytes(4)
    os.unlink(base + '/large')
    said('a file of 8 TiB', start)
`;

const dir = mkdtempSync('/var/tmp/pg-long-dir-');
const at = join(dir, 'mnt');
mkdirSync(at);
const roots = { data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') };
const mountAgain = (): ReturnType<typeof startMount> =>
  startMount({ roots, treeRoot: null, logDir: join(dir, 'log'), mountPoint: at, label: 'directory' });
const step = async (what: string): Promise<void> => {
  const { stdout } = await run('python3', ['-c', SCRIPT, at, String(NAMES), what]);
  process.stdout.write(stdout);
};

let mount = await mountAgain();
try {
  await step('large');
  await step('make');
  await step('scan');
  await step('list');
  await mount.unmount();
  const start = performance.now();
  mount = await mountAgain();
  console.log(`mounted: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  await step('list');
  await step('remove');
  assert.deepEqual((await mount.stats()).inodes, 1);
} finally {
  await mount.unmount(true).catch(() => undefined);
  await mount.closed.catch(() => undefined);
  rmSync(dir, { recursive: true, force: true });
}
