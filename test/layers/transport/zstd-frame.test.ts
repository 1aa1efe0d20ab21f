import assert from 'node:assert/strict';
import { constants, createZstdCompress, zstdCompressSync } from 'node:zlib';
import { decompressed } from '../../../layers/transport/decompress.ts';
import { windowBytes } from '../../../layers/transport/zstd-frame.ts';
import { collect } from './checks.ts';

/** A frame whose size its writer did not know: it says a window. */
async function streamed(windowLog: number): Promise<Buffer> {
  const stream = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: windowLog } });
  stream.end(Buffer.alloc(1000, 'abc'));
  return collect(stream);
}

describe('zstd frames', () => {
  it('say how much memory they want', async () => {
    for (const log of [10, 17, 23, 27]) assert.equal(windowBytes(await streamed(log)), 2 ** log);
    for (const size of [0, 1, 255, 256, 70_000, 1_000_000]) {
      const want = windowBytes(zstdCompressSync(Buffer.alloc(size)))!;
      assert.ok(want >= size && want <= Math.max(1024, 2 * size), `${size}: ${want}`);
    }
    assert.equal(windowBytes(Buffer.from([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])), undefined);
    assert.equal(windowBytes((await streamed(17)).subarray(0, 5)), undefined);
  });

  it('with a wide window wait for their turn, others do not', async () => {
    for (const [log, turns] of [
      [25, 0],
      [26, 1],
      [27, 1],
    ] as const) {
      let asked = 0;
      const frames = Buffer.concat([await streamed(20), await streamed(log)]);
      const pieces = async function* (): AsyncGenerator<Uint8Array> {
        yield frames;
      };
      const turn = async (): Promise<void> => void asked++;
      assert.equal((await collect(decompressed(pieces(), 'blob', undefined, turn))).length, 2000);
      assert.equal(asked, turns);
    }
  });
});
