import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { importImage } from '../../../layers/import.ts';
import { openStore } from '../../../store/store.ts';
import { writeArchive } from '../../grid/pair.ts';
import { noise } from '../../store/fixture.ts';
import { Bench, needFuse } from './harness.ts';

/** Node's readFile takes a short read, which the kernel gives for what comes before an error, for the end of the file. */
async function readAll(path: string): Promise<void> {
  const file = await open(path);
  try {
    while ((await file.read(Buffer.alloc(1 << 17))).bytesRead > 0);
  } finally {
    await file.close();
  }
}

describe('fs: what is damaged on disk', function () {
  this.timeout(60_000);
  let bench: Bench;
  const said: string[] = [];

  before(function () {
    needFuse(this);
  });
  beforeEach(() => {
    bench = new Bench();
    said.length = 0;
  });
  afterEach(async () => bench.clean());

  const isEio = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'EIO';

  it('is EIO, and a message that names path and sector, of the image; the rest is read', async () => {
    await writeArchive(join(bench.dir, 'image.tar'), 'made:latest', [
      { 'usr/': null, 'usr/tool': noise(90_000, 1), 'usr/moved': noise(60_000, 2), 'usr/other': noise(50_000, 3) },
    ]);
    const store = openStore(bench.roots);
    const { image } = await importImage(store, `docker-archive:${join(bench.dir, 'image.tar')}`);
    const roots = [...store.table('sectors').keys()].map((key) => Buffer.from(key));
    for (const root of roots) {
      const file = readFileSync(store.sectorPath(root));
      for (const bytes of [noise(90_000, 1), noise(60_000, 2)]) {
        const at = file.indexOf(bytes.subarray(0, 64));
        if (at >= 0) file[at + 5]! ^= 1;
      }
      writeFileSync(store.sectorPath(root), file);
    }
    await store.close();
    await bench.mount({ treeRoot: image.treeRoot, report: (message) => void said.push(message) });
    mkdirSync(bench.path('new'));
    renameSync(bench.path('usr/moved'), bench.path('new/place'));
    await assert.rejects(readAll(bench.path('usr/tool')), isEio);
    await assert.rejects(readAll(bench.path('new/place')), isEio);
    assert.ok((await readFile(bench.path('usr/other'))).equals(noise(50_000, 3)));
    const words = said.join('\n');
    assert.match(
      words,
      /READ of \/usr\/tool \(inode \d+\): EIO: sector [0-9a-f]{64}: block \d+ does not have its checksum \(\S+\)$/m,
    );
    assert.match(words, /READ of \/new\/place \(inode \d+\): EIO: sector [0-9a-f]{64}/);
  });

  it('is so of what was written, too', async () => {
    const mount = await bench.mount();
    mkdirSync(bench.path('dir'));
    await writeFile(bench.path('dir/file'), noise(70_000, 5), { flush: true });
    await writeFile(bench.path('fine'), noise(30_000, 6), { flush: true });
    await mount.unmount();
    await mount.closed;
    const path = join(bench.logDir, 'log');
    const log = readFileSync(path);
    const at = log.indexOf(noise(70_000, 5).subarray(20_000, 20_064));
    assert.ok(at > 0, 'the bytes are in the log');
    log[at]! ^= 1;
    writeFileSync(path, log);
    await bench.mount({ report: (message) => void said.push(message) });
    await assert.rejects(readAll(bench.path('dir/file')), isEio);
    assert.ok((await readFile(bench.path('fine'))).equals(noise(30_000, 6)));
    assert.match(
      said.join('\n'),
      /READ of \/dir\/file \(inode \d+\): EIO: \S+\/log: bytes at \d+ \(sector 0\) are not what was written/,
    );
  });
});
