import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Bench, needFuse } from './harness.ts';

const run = promisify(execFile);

/** Makes names, and then fills the disk with attributes of a file, each of which takes the place of the one before. */
const FILL = `
import errno, os, sys
base = sys.argv[1]
os.mkdir(base + '/names')
for i in range(10000): os.close(os.open(base + '/names/name %d' % i, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
open(base + '/file', 'w').close()
count = 0
try:
    while True: os.setxattr(base + '/file', 'user.large', os.urandom(60000)); count += 1
except OSError as e:
    if e.errno != errno.ENOSPC: raise
print(count)
`;

describe('a mount on a disk that is full', function () {
  this.timeout(120_000);
  let bench: Bench;
  let disk: string;

  before(function () {
    needFuse(this);
    bench = new Bench();
    disk = join(bench.dir, 'disk');
    mkdirSync(disk);
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=14m', 'pg-test', disk]).status === 0) return;
    console.error('SKIPPED: a tmpfs cannot be mounted here');
    this.skip();
  });
  after(async () => {
    await bench?.unmountAll();
    spawnSync('umount', [disk]);
    await bench?.clean();
  });

  it('lets a tree be removed, whatever that takes, and has space again', async () => {
    const mount = await bench.mount({ logDir: join(disk, 'log') });
    const { stdout } = await run('python3', ['-c', FILL, bench.at]);
    assert.ok(Number(stdout) > 100, `${stdout} attributes`);
    await run('rm', ['-rf', bench.path('names')]);
    await fs.rm(bench.path('file'));
    await mount.clean();
    await fs.writeFile(bench.path('again'), Buffer.alloc(1 << 20, 'again'));
    await mount.unmount();
    await bench.mount({ logDir: join(disk, 'log') });
    assert.deepEqual(await fs.readdir(bench.at), ['again']);
    assert.ok((await fs.readFile(bench.path('again'))).equals(Buffer.alloc(1 << 20, 'again')));
  });
});
