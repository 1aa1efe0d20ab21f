/** Go's DEFLATE, byte for byte: against digests of what Go itself made, and against node's decompressor. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import { gzipAgain, gzipHeader } from '../../../layers/blobs/gzip.ts';
import { PROBE_TAR_BYTES, recognise } from '../../../layers/blobs/probe.ts';
import { noise } from '../../store/fixture.ts';
import { goInputs } from './go-inputs.ts';

/** What `gzip.NewWriter` of Go 1.19 writes for an empty header, but for XFL. */
const HEADER = '1f8b08000000000000ff';
const XFL: Readonly<Record<number, string>> = { 9: '02' };

/**
 * By input and level: the first 32 hex digits of the SHA-256 of what this made of it (Go 1.19):
 *
 *     w, _ := gzip.NewWriterLevel(os.Stdout, level); io.Copy(w, os.Stdin); w.Close()
 */
const MADE_BY_GO: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  empty: {
    4: '30e6fa98fb48c2b132824d1ac5e2243c',
    5: '30e6fa98fb48c2b132824d1ac5e2243c',
    6: '30e6fa98fb48c2b132824d1ac5e2243c',
    7: '30e6fa98fb48c2b132824d1ac5e2243c',
    8: '30e6fa98fb48c2b132824d1ac5e2243c',
    9: '10c2221846da8b4250e556aa520c86d6',
  },
  one: {
    4: 'f1a7c8e8de042bc4fa970708757b6204',
    5: 'f1a7c8e8de042bc4fa970708757b6204',
    6: 'f1a7c8e8de042bc4fa970708757b6204',
    7: 'f1a7c8e8de042bc4fa970708757b6204',
    8: 'f1a7c8e8de042bc4fa970708757b6204',
    9: 'fcb0c6c17cdb5fae5e897d85bbdc9f35',
  },
  short: {
    4: '7701341a41d57e61e831c5df9529a8c5',
    5: '7701341a41d57e61e831c5df9529a8c5',
    6: '7701341a41d57e61e831c5df9529a8c5',
    7: '7701341a41d57e61e831c5df9529a8c5',
    8: '7701341a41d57e61e831c5df9529a8c5',
    9: 'ddb9f516142d2ddb869348b2c8f4b1cf',
  },
  zeros: {
    4: '65a64f92492945d3f4fb54ba8b418188',
    5: '65a64f92492945d3f4fb54ba8b418188',
    6: '65a64f92492945d3f4fb54ba8b418188',
    7: '65a64f92492945d3f4fb54ba8b418188',
    8: '65a64f92492945d3f4fb54ba8b418188',
    9: 'de872c97b601961a9303944627f50d08',
  },
  noise: {
    4: '833706fa4589a32d35a4cee6cf9b5862',
    5: '833706fa4589a32d35a4cee6cf9b5862',
    6: '833706fa4589a32d35a4cee6cf9b5862',
    7: '833706fa4589a32d35a4cee6cf9b5862',
    8: '833706fa4589a32d35a4cee6cf9b5862',
    9: 'fdba7260dbd211be8184151e3f7969c5',
  },
  words: {
    4: '2931c553f3351669f8910f6dd21b5a47',
    5: 'faf9f931b83960e5c49c375d8a542c88',
    6: 'dd666050e2cba185a37e1aa8e5ce45bb',
    7: 'a0baed07f34b1ac33de2a5a6bafcee6d',
    8: 'a0baed07f34b1ac33de2a5a6bafcee6d',
    9: '7a71fd2fdd6c39b0e77cf09c56575f87',
  },
  long: {
    6: '850b4bce277c50bf38f4715f33dda9b0',
  },
  mixed: {
    4: '0c084a9bac9b0ee5c3faa2e149e381f9',
    5: 'c37513118ba33b625cc7e4f4ad71c571',
    6: 'a49f7fc100d0fe4115d0544e216e8e64',
    7: 'cb1280c686b652f872211dcb8b740c07',
    8: 'cb1280c686b652f872211dcb8b740c07',
    9: '7dcf1bd71c3c2c6413268a830ee031f3',
  },
};

const headerOf = (level: number): Buffer => Buffer.from(`${HEADER.slice(0, 16)}${XFL[level] ?? '00'}ff`, 'hex');

async function packed(level: number, pieces: Iterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const piece of gzipAgain(headerOf(level), 'go', level, pieces)) parts.push(Buffer.from(piece));
  return Buffer.concat(parts);
}

/** The same bytes in pieces of uneven lengths. */
function* inPieces(bytes: Buffer, seed: number): Generator<Uint8Array> {
  const lengths = noise(4096, seed);
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = 1 + (lengths.readUInt32LE((i * 4) % 4096) % 90_000);
    yield bytes.subarray(at, (at += length));
  }
}

describe("Go's DEFLATE", function () {
  this.timeout(120_000);
  const inputs = goInputs();

  for (const [name, digests] of Object.entries(MADE_BY_GO)) {
    it(`makes of ${name} what Go makes`, async () => {
      for (const [level, digest] of Object.entries(digests)) {
        const blob = await packed(Number(level), [inputs[name]!]);
        assert.equal(createHash('sha256').update(blob).digest('hex').slice(0, 32), digest, `level ${level}`);
        assert.ok(gunzipSync(blob).equals(inputs[name]!));
      }
    });
  }

  it('makes the same however its input is cut', async () => {
    for (const name of ['words', 'mixed', 'noise', 'short']) {
      const whole = await packed(6, [inputs[name]!]);
      for (const seed of [1, 2]) assert.ok((await packed(6, inPieces(inputs[name]!, seed))).equals(whole), name);
    }
  });

  it('is recognised by the beginning of a blob, and by all of a small one', async () => {
    const tar = inputs['words']!;
    for (const level of [6, 9, 4]) {
      const blob = await packed(level, [tar]);
      const packing = { kind: 'gzip', maker: 'go', level, header: headerOf(level).toString('hex') };
      assert.deepEqual(recognise(blob, tar.subarray(0, PROBE_TAR_BYTES), false), packing);
      const small = await packed(level, [tar.subarray(0, 100_000)]);
      assert.deepEqual(recognise(small, tar.subarray(0, 100_000), true), packing);
      // One bit elsewhere, and something behind the end: neither is what Go makes.
      const other = Buffer.from(small);
      other[small.length >> 1]! ^= 1;
      assert.equal(recognise(other, tar.subarray(0, 100_000), true), undefined);
      assert.equal(recognise(Buffer.concat([small, Buffer.from('x')]), tar.subarray(0, 100_000), true), undefined);
    }
    assert.equal(recognise(gzipSync(tar), tar.subarray(0, 100), false), undefined, 'too little to tell');
    assert.equal(gzipHeader(Buffer.from('1f8b')), undefined);
    const named = (bytes: number): Buffer =>
      Buffer.concat([Buffer.from('1f8b08080000000000ff', 'hex'), Buffer.alloc(bytes, 'n'), Buffer.alloc(9)]);
    assert.equal(gzipHeader(named(20))?.length, 31);
    assert.equal(gzipHeader(named(2000)), undefined, 'a record does not hold names of any length');
  });
});
