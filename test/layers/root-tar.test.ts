import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { rootTar } from '../../layers/root-tar.ts';

describe('the tar of a root filesystem', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const bytesOf = async (path: string, freeBytes: number): Promise<number> => {
    let bytes = 0;
    for await (const piece of rootTar({ kind: 'file', path }, () => {}, undefined, { freeBytes, ratio: 10 }))
      bytes += piece.length;
    return bytes;
  };

  it('does not unpack without end', async () => {
    const path = join(dir, 'root.tar.gz');
    writeFileSync(path, gzipSync(Buffer.alloc(2 << 20)));
    assert.equal(await bytesOf(path, 2 << 20), 2 << 20);
    await assert.rejects(bytesOf(path, 1 << 20), { code: 'UNPACKS_TOO_FAR' });
    writeFileSync(path, Buffer.alloc(2 << 20));
    assert.equal(await bytesOf(path, 0), 2 << 20);
  });
});
