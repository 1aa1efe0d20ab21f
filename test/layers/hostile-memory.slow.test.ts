/** What an import of hostile layers takes of memory, however much they say; 200 MiB of it a process takes for any layer. Each in a process of its own. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { constants, zstdCompressSync } from 'node:zlib';
import { digestOf } from '../../layers/transport/digest.ts';
import { noise } from '../store/fixture.ts';
import { END, headerOf, packed, type Piece, some } from './bombs.ts';
import { writeLayout } from './listing.ts';
import { sampleImage, type SampleLayer } from './transport/samples.ts';

const MOST_BYTES = 300 << 20;
const MIB = 1 << 20;

const each = (count: number, piece: (i: number) => Piece): Piece[] => Array.from({ length: count }, (_, i) => piece(i));

/** A frame that wants a window of 128 MiB, and fills it. */
function wideFrame(seed: number): SampleLayer {
  const tar = Buffer.concat([
    headerOf('x', 192 * MIB)[0],
    Buffer.alloc(192 * MIB, noise(3 * MIB + seed, seed)),
    END[0],
  ]);
  const blob = zstdCompressSync(tar, {
    params: { [constants.ZSTD_c_windowLog]: 27, [constants.ZSTD_c_compressionLevel]: 1 },
  });
  return {
    tar,
    blob,
    diffId: digestOf(tar),
    digest: digestOf(blob),
    mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
  };
}

const SAMPLES: Record<string, [most: number, layers: () => SampleLayer[]]> = {
  'a PAX header of a megabyte before each of five hundred files': [
    MOST_BYTES,
    () => [packed([[some([{ name: 'x', pax: [['comment', 'z'.repeat(1_000_000)]] }]), 500], END])],
  ],
  'half a gigabyte behind the end': [
    MOST_BYTES,
    () => [packed([[some([{ name: 'x' }]), 1], END, [Buffer.alloc(MIB), 512]])],
  ],
  'half a gigabyte of headers that wait for the name of a small content': [
    400 * MIB,
    () => [
      packed([
        headerOf('x', 3),
        [Buffer.from('abc'.padEnd(512, '\0')), 1],
        ...each(64, (i) => [
          some([{ name: 'y', pax: [['comment', noise(100_000, i).toString('latin1').padEnd(1_000_000, 'z')]] }]),
          8,
        ]),
        END,
      ]),
    ],
  ],
  'names of sixteen kilobytes that come to twenty bytes': [
    MOST_BYTES,
    () => [
      packed([
        ...each(20, (i) => [
          some(
            Array.from({ length: 500 }, (_, k) => ({
              name: 'x',
              longName: `${'./'.repeat(8000)}a-file-of-some-length-${i}-${k}`,
            })),
          ),
          1,
        ]),
        END,
      ]),
    ],
  ],
  'holes of eight terabytes': [
    MOST_BYTES,
    () => [
      packed([
        [
          some(
            [1, 2].map((i) => ({
              name: `h${i}`,
              pax: [
                ['GNU.sparse.size', `${2 ** 42}`],
                ['GNU.sparse.map', `${2 ** 42},0`],
              ],
            })),
          ),
          1,
        ],
        END,
      ]),
    ],
  ],
  // More than one transaction of the index records, and none like another.
  'seventy thousand files of eight bytes': [
    512 * MIB,
    () => [
      packed([
        ...each(7, (k): Piece => [
          some(
            Array.from({ length: 10_000 }, (_, i) => ({ name: `${k}/${i}`, data: Buffer.from(`${k} ${i}`.padEnd(8)) })),
          ),
          1,
        ]),
        END,
      ]),
    ],
  ],
  'three bombs of gzip at once': [
    MOST_BYTES,
    () =>
      each(3, (i): Piece => [Buffer.from([i]), 1]).map(([id]) =>
        packed([headerOf(`x${id[0]}`, 256 * MIB), [Buffer.alloc(MIB, id[0]), 256], END]),
      ),
  ],
  'three zstd frames with windows of 128 MiB at once': [512 * MIB, () => [1, 2, 3].map(wideFrame)],
};

describe('memory, with layers made to take it', function () {
  this.timeout(300_000);
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  for (const [name, [most, layers]] of Object.entries(SAMPLES)) {
    it(name, async () => {
      const source = await writeLayout(join(dir, 'layout'), sampleImage(layers()));
      const child = join(import.meta.dirname, 'import-child.ts');
      // The young generation as cli/transfer.ts has it.
      const { stdout } = await promisify(execFile)(process.execPath, [
        '--semi-space-growth-factor=1',
        child,
        join(dir, 'root'),
        source,
      ]);
      const { code, message, peakBytes } = JSON.parse(stdout) as { code?: string; message?: string; peakBytes: number };
      assert.equal(code, undefined, message);
      assert.ok(peakBytes < most, `${Math.round(peakBytes / MIB)} MiB`);
    });
  }
});
