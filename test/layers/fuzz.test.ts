import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isPgError } from '../../mdm/error.ts';
import type { MergedTree } from '../../layers/merge.ts';
import { mergeTars } from './merging.ts';
import { type RawEntry, tarBytes } from './tar-builder.ts';

/** What may be said of a tar that comes from anywhere. */
const CODES = [
  'IMAGE_TOO_LARGE',
  'TAR_TRUNCATED',
  'TAR_BAD_HEADER',
  'TAR_BAD_PATH',
  'TAR_UNSUPPORTED',
  'HOSTILE_PATH',
  'HARDLINK_TARGET',
];
const RUNS = Number(process.env['PG_TEST_CASES'] ?? 1500);

const component = fc.constantFrom(
  'a',
  'b',
  'c',
  '..',
  '.',
  '',
  '.wh.a',
  '.wh..wh..opq',
  '.wh.',
  'n'.repeat(255),
  '\xff\x80',
);
const path = fc.array(component, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/'));
const keyword = fc.constantFrom(
  'path',
  'linkpath',
  'size',
  'uid',
  'mtime',
  'GNU.sparse.map',
  'GNU.sparse.size',
  'GNU.sparse.major',
  'GNU.sparse.minor',
  'GNU.sparse.realsize',
  'GNU.sparse.offset',
  'GNU.sparse.numbytes',
  'GNU.sparse.numblocks',
  'SCHILY.xattr.user.x',
  'LIBARCHIVE.xattr.%zz%',
);
const value = fc.oneof(
  path,
  fc.integer().map(String),
  fc.constantFrom('', '0', '1', '-1', '0,0', '0,10,5,10', '9'.repeat(19)),
);
const entry: fc.Arbitrary<RawEntry> = fc.record(
  {
    name: path,
    type: fc.constantFrom(...'\x000123456789DKLMNSVXgxz'.split('')),
    linkName: path,
    data: fc.uint8Array({ maxLength: 1200 }).map((bytes) => Buffer.from(bytes)),
    size: fc.oneof(fc.nat(3000), fc.constantFrom(-1, 2 ** 33, 2 ** 40, 2 ** 53)),
    mode: fc.nat(0o7777),
    uid: fc.oneof(fc.nat(), fc.constant(-1)),
    mtime: fc.integer(),
    device: fc.tuple(fc.nat(5000), fc.nat()),
    magic: fc.constantFrom('ustar', 'gnu', 'v7'),
    prefix: path.map((text) => text.slice(0, 155)),
    pax: fc.array(fc.tuple(keyword, value), { maxLength: 4 }),
    longName: path,
    longLink: path,
  },
  { requiredKeys: ['name'] },
);
const mutation = fc.record({ at: fc.nat(), byte: fc.nat(255), kind: fc.constantFrom('set', 'cut', 'insert', 'sum') });

function mutated(tar: Buffer, mutations: readonly { at: number; byte: number; kind: string }[]): Buffer {
  let bytes = Buffer.from(tar);
  for (const { at, byte, kind } of mutations) {
    const where = at % (bytes.length + 1);
    if (kind === 'cut') bytes = bytes.subarray(0, where);
    else if (kind === 'insert')
      bytes = Buffer.concat([bytes.subarray(0, where), Buffer.from([byte]), bytes.subarray(where)]);
    else if (where < bytes.length) bytes[where] = byte;
    if (kind === 'sum') repairSum(bytes, where - (where % 512));
  }
  return bytes;
}

/** Makes the checksum of a changed header right again: else every mutation would end there. */
function repairSum(bytes: Buffer, start: number): void {
  if (start + 512 > bytes.length) return;
  bytes.write('        ', start + 148, 'latin1');
  const sum = bytes.subarray(start, start + 512).reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, start + 148, 'latin1');
}

/** Every name can be a name, every directory has one parent, and the counts of names are right. */
function checkTree(tree: MergedTree): void {
  const names = new Map<number, number>([[0, 1]]);
  const visit = (row: number): void => {
    for (const { name, inode } of tree.sorted(row)) {
      assert.ok(
        name.length >= 1 && name.length <= 255 && !/[/\0]/.test(name) && name !== '.' && name !== '..',
        JSON.stringify(name),
      );
      names.set(inode, (names.get(inode) ?? 0) + 1);
      if (!tree.isDirectory(inode)) continue;
      assert.equal(names.get(inode), 1);
      visit(inode);
    }
  };
  visit(0);
  for (const [row, count] of names) assert.equal(tree.names(row), count);
}

async function survives(tars: readonly Buffer[]): Promise<boolean> {
  try {
    checkTree((await mergeTars(tars)).tree);
    return true;
  } catch (error) {
    if (isPgError(error) && CODES.includes(error.code)) return false;
    throw error;
  }
}

describe('hostile tars', () => {
  it(`end in a tree or in an error that says why (${RUNS} of each kind)`, async function () {
    this.timeout(600_000);
    let whole = 0;
    const tars = fc.array(fc.array(entry, { maxLength: 6 }), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(tars, async (layers) => {
        if (await survives(layers.map((entries) => tarBytes(entries)))) whole++;
      }),
      { numRuns: RUNS },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(entry, { maxLength: 5 }),
        fc.array(mutation, { maxLength: 4 }),
        async (entries, mutations) => {
          if (await survives([mutated(tarBytes(entries), mutations)])) whole++;
        },
      ),
      { numRuns: RUNS },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 3000 }),
        async (bytes) => void (await survives([Buffer.from(bytes)])),
      ),
      { numRuns: RUNS },
    );
    assert.ok(whole > RUNS / 20, `only ${whole} were sound: the generator is too wild to reach anything`);
  });

  it('do not overflow the stack with depth, nor blow up with symlinks', async () => {
    // Each entry goes on where the symlink before it led: deeper than any path.
    const entries: RawEntry[] = [];
    let at = '';
    for (let i = 0; i < 40; i++) {
      const down = `${'d/'.repeat(100)}`;
      entries.push({ name: `${at}${down}`, type: '5' }, { name: `l${i}`, type: '2', linkName: `${at}${down}` });
      at = `l${i}/`;
    }
    assert.equal(
      await survives([tarBytes(entries.map((e) => ({ ...e, longName: e.name, longLink: e.linkName ?? '' })))]),
      false,
    );
    const doubling: RawEntry[] = [{ name: 's0', type: '2', linkName: '.' }];
    for (let i = 1; i < 60; i++) doubling.push({ name: `s${i}`, type: '2', linkName: `s${i - 1}/s${i - 1}` });
    assert.equal(await survives([tarBytes([...doubling, { name: 's59/x' }])]), false);
  });
});
