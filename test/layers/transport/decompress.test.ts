import assert from 'node:assert/strict';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { decompressed, detectCompression } from '../../../layers/transport/decompress.ts';
import { collect, failure } from './checks.ts';

const SKIPPABLE = Buffer.concat([Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), Buffer.from('skip')]);

async function* inPieces(data: Buffer, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += pieceBytes) yield data.subarray(at, at + pieceBytes);
}

async function* failing(): AsyncGenerator<Uint8Array> {
  yield gzipSync('hello').subarray(0, 10);
  throw new RangeError('the disk is gone');
}

describe('decompression of layers', () => {
  const gzip2 = Buffer.concat([gzipSync('hello '), gzipSync('world')]);
  const zstd3 = Buffer.concat([SKIPPABLE, zstdCompressSync('hello '), SKIPPABLE, zstdCompressSync('world'), SKIPPABLE]);

  for (const [name, packed] of [
    ['gzip members', gzip2],
    ['zstd frames', zstd3],
    ['nothing', Buffer.from('hello world')],
  ] as const) {
    for (const pieceBytes of [1, 2, 3, 7, 1000]) {
      it(`unpacks ${name} in pieces of ${pieceBytes}`, async () => {
        assert.equal((await collect(decompressed(inPieces(packed, pieceBytes), 'blob'))).toString(), 'hello world');
      });
    }
  }

  it('unpacks any data in any pieces', async () => {
    const part = fc.uint8Array({ maxLength: 3000 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 4000 }),
        fc.boolean(),
        async (parts, size, isZstd) => {
          const packed = Buffer.concat(parts.map((bytes) => (isZstd ? zstdCompressSync(bytes) : gzipSync(bytes))));
          const unpacked = await collect(decompressed(inPieces(packed, size), 'blob'));
          assert.ok(unpacked.equals(Buffer.concat(parts)));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('tells by the first bytes', async () => {
    assert.equal(detectCompression(gzip2), 'gzip');
    assert.equal(detectCompression(zstd3), 'zstd');
    assert.equal(detectCompression(zstdCompressSync('x')), 'zstd');
    assert.equal(detectCompression(Buffer.alloc(4)), 'none');
    assert.equal(detectCompression(Buffer.alloc(0)), 'none');
    const detected: string[] = [];
    await collect(decompressed(inPieces(gzip2, 1), 'blob', (compression) => detected.push(compression)));
    assert.deepEqual(detected, ['gzip']);
    assert.equal((await collect(decompressed(inPieces(Buffer.alloc(0), 1), 'blob'))).length, 0);
  });

  for (const [name, packed] of [
    ['gzip', gzipSync(Buffer.alloc(100_000, 'abc'))],
    ['zstd', zstdCompressSync(Buffer.alloc(100_000, 'abc'))],
  ] as const) {
    it(`says that ${name} was cut, wherever it was`, async () => {
      for (let length = 4; length < packed.length; length += 7) {
        const error = await failure(
          () => collect(decompressed(inPieces(packed.subarray(0, length), 50), 'blob X')),
          'BLOB_DAMAGED',
        );
        assert.match(error.message, /blob X does not unpack/);
      }
    });
    it(`refuses ${name} with rubbish after it`, async () => {
      await failure(
        () => collect(decompressed(inPieces(Buffer.concat([packed, Buffer.from('rubbish')]), 64), 'blob')),
        'BLOB_DAMAGED',
      );
    });
  }

  it('stops a bomb when the reader stops', async () => {
    const bomb = gzipSync(Buffer.alloc(64 << 20));
    let fed = 0;
    let isClosed = false;
    async function* counted(): AsyncGenerator<Uint8Array> {
      try {
        for await (const piece of inPieces(bomb, 512)) {
          fed += piece.length;
          yield piece;
        }
      } finally {
        isClosed = true;
      }
    }
    let got = 0;
    for await (const chunk of decompressed(counted(), 'bomb')) {
      got += chunk.length;
      if (got > 1 << 20) break;
    }
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(fed < bomb.length / 4, `fed ${fed} of ${bomb.length}`);
    assert.ok(isClosed);
  });

  it('passes on the error of the source below', async () => {
    await assert.rejects(collect(decompressed(failing(), 'blob')), /the disk is gone/);
  });
});
