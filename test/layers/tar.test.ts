import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { isPgError } from '../../mdm/error.ts';
import { StreamInput } from '../../layers/tar-input.ts';
import { type TarEntry, TarReader } from '../../layers/tar.ts';
import { base256, paxBytes, type RawEntry, tarBytes } from './tar-builder.ts';

interface Read {
  entries: (TarEntry & { data: Buffer })[];
  /** Headers and data in the order they came: the archive again. */
  all: Buffer;
}

/** Reads a tar that comes in pieces of `pieceBytes`. */
async function read(tar: Buffer, pieceBytes = 1 << 20): Promise<Read> {
  const pieces = Array.from({ length: Math.ceil(tar.length / pieceBytes) }, (_, i) =>
    tar.subarray(i * pieceBytes, (i + 1) * pieceBytes),
  );
  const all: Buffer[] = [];
  const input = new StreamInput(Readable.from(pieces));
  const reader = new TarReader(input, (raw) => void all.push(Buffer.from(raw)));
  const entries: Read['entries'] = [];
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const data: Buffer[] = [];
    await input.copy(entry.bodyBytes, (piece) => void data.push(Buffer.from(piece)));
    all.push(...data);
    entries.push({ ...entry, data: Buffer.concat(data) });
  }
  return { entries, all: Buffer.concat(all) };
}

const only = async (...entries: RawEntry[]): Promise<TarEntry & { data: Buffer }> => {
  const { entries: found } = await read(tarBytes(entries));
  assert.equal(found.length, 1);
  return found[0]!;
};

const fails = async (tar: Buffer, code: string, words: RegExp): Promise<void> => {
  await assert.rejects(read(tar), (error) => isPgError(error, code) && words.test(error.message));
};

const star = (block: Buffer): void => void block.write('tar\0', 508, 'latin1');

const spaces = (block: Buffer): void => void block.write('   644 \0', 100, 'latin1');

const signed = (block: Buffer): void => {
  block.write('        ', 148, 'latin1');
  const sum = block.reduce((total, byte) => total + ((byte << 24) >> 24), 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
};

describe('tar headers', () => {
  it('reads one that GNU tar wrote, byte for byte', async () => {
    // printf x > hello; tar --mode=644 --owner=0 --group=0 --mtime=@1700000000 --format=ustar -cf - hello
    const header = Buffer.alloc(512);
    header.write('hello', 0);
    header.write('0000644\x000000000\x000000000\x0000000000001\x0014524770400\x00', 100);
    header.write('012074\0 0', 148);
    header.write('ustar\x0000root', 257);
    header.write('root', 297);
    header.write('0000000\x000000000\0', 329);
    const data = Buffer.alloc(512);
    data.write('x');
    const { entries } = await read(Buffer.concat([header, data, Buffer.alloc(1024)]));
    assert.deepEqual(
      entries.map(({ name, mode, mtimeSec, size, type }) => ({ name, mode, mtimeSec, size, type })),
      [{ name: 'hello', mode: 0o644, mtimeSec: 1_700_000_000, size: 1, type: 'file' }],
    );
  });

  it('joins the prefix of ustar, and not of others', async () => {
    const prefix = 'p'.repeat(154);
    assert.equal((await only({ name: 'a', prefix })).name, `${prefix}/a`);
    // Where GNU has times; Go before 1.8 wrote a prefix there all the same, and Go reads it.
    assert.equal((await only({ name: 'a', prefix: '00000000000\x0000000000000\0', magic: 'gnu' })).name, 'a');
    assert.equal((await only({ name: 'a', prefix, magic: 'gnu' })).name, `${prefix}/a`);
    assert.equal((await only({ name: 'a', prefix: '\xff'.repeat(154), magic: 'gnu' })).name, 'a');
    assert.equal((await only({ name: 'a', prefix, magic: 'v7' })).name, 'a');
    // star keeps times where ustar has the end of the prefix.
    assert.equal(
      (await only({ name: 'a', prefix: `${'q'.repeat(130)}\0times`, edit: star })).name,
      `${'q'.repeat(130)}/a`,
    );
  });

  it('keeps names as bytes', async () => {
    const name = Buffer.from(Array.from({ length: 255 }, (_, i) => (i === 46 ? 200 : i + 1))).toString('latin1');
    assert.equal((await only({ name: 'x', longName: name })).name, name);
    assert.equal((await only({ name: 'x', pax: [['path', name]] })).name, name);
    assert.equal((await only({ name: name.slice(0, 100) })).name, name.slice(0, 100));
    const utf8 = Buffer.from('schön/日本').toString('latin1');
    assert.equal(
      (
        await only({
          name: 'x',
          pax: [
            ['hdrcharset', 'BINARY'],
            ['path', utf8],
          ],
        })
      ).name,
      utf8,
    );
  });

  it('reads numbers in octal and in base 256', async () => {
    const entry = await only({ name: 'a', uid: 4_000_000_000, gid: 2_097_151, mtime: -5, mode: 0o7777 });
    assert.deepEqual([entry.uid, entry.gid, entry.mtimeSec, entry.mode], [4_000_000_000, 2_097_151, -5, 0o7777]);
    assert.equal((await only({ name: 'a', edit: spaces })).mode, 0o644);
    await fails(
      tarBytes([{ name: 'a', edit: (b) => void b.write('99', 108, 'latin1') }]),
      'TAR_BAD_HEADER',
      /uid is not an octal/,
    );
    await fails(tarBytes([{ name: 'a', uid: -1 }]), 'TAR_BAD_HEADER', /does not fit 32 bits/);
    await fails(tarBytes([{ name: 'a', size: -1 }]), 'TAR_BAD_HEADER', /size/);
    await fails(tarBytes([{ name: 'a', edit: (b) => base256(b, 2 ** 60, 124, 12) }]), 'TAR_BAD_HEADER', /out of range/);
  });

  it('accepts the signed checksum of old implementations', async () => {
    assert.equal((await only({ name: '\xe9\xe9', edit: signed, keepSum: true })).name, '\xe9\xe9');
    await fails(tarBytes([{ name: 'b' }, { name: 'a', keepSum: true }]), 'TAR_BAD_HEADER', /byte 512: checksum/);
  });

  it('lets PAX records override, take back, and be overridden by long names', async () => {
    const pax: [string, string][] = [
      ['path', 'nope'],
      ['path', 'a/b'],
      ['linkpath', 'c'],
      ['uid', '5'],
      ['gid', '3000000000'],
      ['mtime', '12.000000001999'],
      ['uname', 'x=y'],
      ['size', ''],
    ];
    const entry = await only({ name: 'x', type: '2', pax });
    const { name, linkName, uid, gid, mtimeSec, mtimeNsec } = entry;
    assert.deepEqual([name, linkName, uid, gid, mtimeSec, mtimeNsec], ['a/b', 'c', 5, 3_000_000_000, 12, 1]);
    assert.equal((await only({ name: 'x', longName: 'long', pax })).name, 'long');
    // The size of the header is not what counts.
    assert.equal((await only({ name: 'x', pax: [['size', '3']], size: 0, data: 'abc' })).data.toString(), 'abc');
  });

  it('refuses PAX records that cannot be', async () => {
    for (const bad of [
      '0 a=b\n',
      '99 a=b\n',
      '6 a=b',
      '6 abc\n',
      '5 =b\n',
      'x a=b\n',
      '7 a=b\nx',
      '99999999999 a=b\n',
    ]) {
      await fails(paxTar(bad), 'TAR_BAD_HEADER', /PAX record/);
    }
    await fails(tarBytes([{ name: 'a', pax: [['size', '-1']] }]), 'TAR_BAD_HEADER', /PAX size/);
    await fails(tarBytes([{ name: 'a', pax: [['size', '1152921504606846976']] }]), 'TAR_BAD_HEADER', /PAX size/);
    await fails(tarBytes([{ name: 'a', pax: [['mtime', 'now']] }]), 'TAR_BAD_HEADER', /mtime/);
    await fails(tarBytes([{ name: 'x', type: 'x', size: 2 ** 30 }]), 'TAR_BAD_HEADER', /1 MiB/);
    await fails(tarBytes([{ name: 'x', type: 'L', size: 2 ** 30 }]), 'TAR_BAD_HEADER', /1 MiB/);
  });

  it('takes extended attributes from both dialects', async () => {
    const { xattrs } = await only({
      name: 'a',
      pax: [
        ['SCHILY.xattr.user.a', 'x\0\xff\n='],
        ['LIBARCHIVE.xattr.user.a', Buffer.from('other').toString('base64')],
        ['LIBARCHIVE.xattr.user.b%20%3D', Buffer.from('b').toString('base64')],
        ['SCHILY.xattr.user.empty', ''],
      ],
    });
    const pairs = [...xattrs!].map(([name, value]) => [name, Buffer.from(value).toString('latin1')]).toSorted();
    assert.deepEqual(pairs, [
      ['user.a', 'x\0\xff\n='],
      ['user.b =', 'b'],
      ['user.empty', ''],
    ]);
    await fails(
      tarBytes([{ name: 'a', pax: [[`SCHILY.xattr.${'n'.repeat(256)}`, 'x']] }]),
      'TAR_BAD_HEADER',
      /attribute/,
    );
  });
});

describe('a tar as a whole', () => {
  const sample: RawEntry[] = [
    { name: 'd/' },
    { name: 'd/a', data: Buffer.alloc(1000, 'a') },
    { name: 'x', longName: 'n'.repeat(300), data: 'abc' },
    { name: 'l', type: '2', linkName: 'd/a', pax: [['mtime', '1.5']] },
    { name: 'e' },
  ];

  it('comes out again whatever pieces it comes in', async () => {
    const tar = tarBytes(sample, Buffer.concat([Buffer.alloc(10_240), Buffer.from('garbage after the end')]));
    const whole = await read(tar);
    assert.deepEqual(whole.all, tar);
    assert.equal(whole.entries.length, 5);
    for (const pieceBytes of [1, 7, 511, 512, 513, 4096]) assert.deepEqual(await read(tar, pieceBytes), whole);
  });

  it('may end without its end marker, or with half of it', async () => {
    for (const end of [Buffer.alloc(0), Buffer.alloc(512)]) {
      const tar = tarBytes(sample, end);
      assert.deepEqual((await read(tar)).all, tar);
    }
    assert.deepEqual((await read(Buffer.alloc(0))).entries, []);
    await fails(tarBytes(sample, Buffer.alloc(512)).subarray(0, -100), 'TAR_TRUNCATED', /ends at byte/);
    await fails(Buffer.concat([Buffer.alloc(512), tarBytes(sample)]), 'TAR_BAD_HEADER', /one block of zeros/);
  });

  it('says where it is cut off', async () => {
    const tar = tarBytes(sample, Buffer.alloc(0));
    let clean = 0;
    for (let length = 0; length < tar.length; length += 100) {
      const cut = tar.subarray(0, length);
      try {
        assert.deepEqual((await read(cut)).all, cut);
        clean++;
      } catch (error) {
        assert.ok(isPgError(error, 'TAR_TRUNCATED'), String(error));
        assert.match(error.message, new RegExp(`ends at byte ${length},`));
      }
    }
    assert.equal(clean, 6, 'at 0, and within what fills up the block after a file of three bytes');
    // That may be missing at the end, as for Go (and so docker).
    const short = tarBytes([{ name: 'a', data: 'abc' }], Buffer.alloc(0));
    for (const length of [515, 600, 1024]) assert.equal((await read(short.subarray(0, length))).entries.length, 1);
    await fails(short.subarray(0, 514), 'TAR_TRUNCATED', /ends at byte 514/);
  });
});

const paxTar = (data: string): Buffer => tarBytes([{ name: 'x', type: 'x', data }, { name: 'a' }]);
const octal = (value: number): string => `${value.toString(8).padStart(11, '0')}\0`;

const oldGnu = (map: { offset: number; length: number }[], realSize: number, extended: boolean) => (block: Buffer) => {
  map.forEach((run, i) => block.write(octal(run.offset) + octal(run.length), 386 + i * 24, 'latin1'));
  block[482] = extended ? 1 : 0;
  block.write(octal(realSize), 483, 'latin1');
};

describe('sparse files', () => {
  const runs = [
    { offset: 1000, length: 10 },
    { offset: 5000, length: 20 },
  ];
  const data = Buffer.alloc(30, 's');
  const expectSparse = (entry: TarEntry & { data: Buffer }, name = 'a'): void => {
    assert.deepEqual(entry.sparse, { realSize: 6000, runs });
    assert.deepEqual([entry.name, entry.size, entry.bodyBytes, entry.data], [name, 6000, 30, data]);
  };

  it('in all four formats', async () => {
    expectSparse(await only({ name: 'a', type: 'S', magic: 'gnu', data, edit: oldGnu(runs, 6000, false) }));
    const pairs = runs.flatMap((run): [string, string][] => [
      ['GNU.sparse.offset', `${run.offset}`],
      ['GNU.sparse.numbytes', `${run.length}`],
    ]);
    expectSparse(
      await only({ name: 'a', data, pax: [['GNU.sparse.size', '6000'], ['GNU.sparse.numblocks', '2'], ...pairs] }),
    );
    const named: [string, string] = ['GNU.sparse.name', 'real'];
    const map: [string, string] = ['GNU.sparse.map', '1000,10,5000,20'];
    expectSparse(
      await only({ name: 'a', data, pax: [['GNU.sparse.size', '6000'], named, ['GNU.sparse.numblocks', '2'], map] }),
      'real',
    );
    const one: [string, string][] = [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      named,
      ['GNU.sparse.realsize', '6000'],
    ];
    const inData = Buffer.alloc(512);
    inData.write('2\n1000\n10\n5000\n20\n');
    expectSparse(await only({ name: 'a', data: Buffer.concat([inData, data]), pax: one }), 'real');
  });

  it('refuses maps that lie', async () => {
    const with01 = (map: string, size = '6000'): Buffer =>
      tarBytes([
        {
          name: 'a',
          data,
          pax: [
            ['GNU.sparse.size', size],
            ['GNU.sparse.map', map],
          ],
        },
      ]);
    await fails(with01('1000,10,1005,20'), 'TAR_BAD_HEADER', /overlap/);
    await fails(with01('5000,20,1000,10'), 'TAR_BAD_HEADER', /overlap/);
    await fails(with01('1000,10,5990,20'), 'TAR_BAD_HEADER', /leave it/);
    await fails(with01('1000,10,5000,21'), 'TAR_BAD_HEADER', /31 bytes of data/);
    await fails(with01('1000,10,5000'), 'TAR_BAD_HEADER', /middle of a run/);
    await fails(with01('1000,10,,'), 'TAR_BAD_HEADER', /not a number/);
    const endless = tarBytes(
      [{ name: 'a', type: 'S', magic: 'gnu', data, edit: oldGnu(runs, 6000, true) }],
      Buffer.alloc(1 << 22, 0xff),
    );
    await fails(endless, 'TAR_BAD_HEADER', /sparse/);
    const one: [string, string][] = [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.realsize', '6000'],
    ];
    await fails(tarBytes([{ name: 'a', pax: one, data: '999999999\n' }]), 'TAR_BAD_HEADER', /sparse map/);
  });
});

describe('tars of other tools', () => {
  let dir: string;

  before(() => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    mkdirSync(join(dir, 'in', 'd'.repeat(200), 'e'.repeat(120)), { recursive: true });
    const inside = (...parts: string[]): string => join(dir, 'in', ...parts);
    writeFileSync(inside('file'), 'content');
    linkSync(inside('file'), inside('link'));
    symlinkSync('t'.repeat(180), inside('symlink'));
    writeFileSync(Buffer.from(`${dir}/in/bytes-\xff\xfe`, 'latin1'), 'bytes');
    writeFileSync(inside('d'.repeat(200), 'e'.repeat(120), 'deep'), 'deep');
    const sparse = openSync(inside('sparse'), 'w');
    for (let i = 0; i < 40; i++) writeSync(sparse, Buffer.alloc(4096, i + 1), 0, 4096, i * 100_000);
    closeSync(sparse);
    truncateSync(inside('sparse'), 10_000_000);
  });

  after(() => rmSync(dir, { recursive: true, force: true }));

  for (const format of [
    'gnu',
    'posix',
    'posix --sparse-version=0.0',
    'posix --sparse-version=0.1',
    'posix --sparse-version=1.0',
  ]) {
    it(`GNU tar, ${format}`, async () => {
      const tar = execFileSync(
        'tar',
        ['-C', join(dir, 'in'), '-S', '--sort=name', ...`--format=${format}`.split(' '), '-cf', '-', '.'],
        {
          maxBuffer: 1 << 26,
        },
      );
      const { entries, all } = await read(tar, 1000);
      assert.deepEqual(all, tar);
      const byName = new Map(entries.map((entry) => [entry.name, entry]));
      assert.equal(byName.get('./file')!.data.toString(), 'content');
      assert.deepEqual([byName.get('./link')!.type, byName.get('./link')!.linkName], ['hardlink', './file']);
      assert.equal(byName.get('./symlink')!.linkName, 't'.repeat(180));
      assert.equal(byName.get('./bytes-\xff\xfe')!.data.toString(), 'bytes');
      assert.equal(byName.get(`./${'d'.repeat(200)}/${'e'.repeat(120)}/deep`)!.data.toString(), 'deep');
      const sparse = byName.get('./sparse')!;
      assert.equal(sparse.size, 10_000_000);
      const runs = sparse.sparse!.runs;
      assert.ok(runs.length >= 40 && sparse.data.length < 1_000_000);
      let at = 0;
      for (const run of runs) {
        if (run.offset % 100_000 === 0) assert.equal(sparse.data[at], run.offset / 100_000 + 1);
        at += run.length;
      }
    });
  }

  it('Python, with PAX headers and numbers too large for octal', async () => {
    const program = `
import io, sys, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT) as t:
    i = tarfile.TarInfo('ü' * 120); i.size = 3; i.mtime = 1.25; i.uid = 3000000; t.addfile(i, io.BytesIO(b'abc'))
`;
    const tar = execFileSync('python3', ['-c', program], { stdio: ['ignore', 'pipe', 'ignore'] });
    const { entries, all } = await read(tar);
    assert.deepEqual(all, tar);
    const [{ name, size, mtimeSec, mtimeNsec, uid }] = entries as unknown as [TarEntry];
    assert.deepEqual(
      [Buffer.from(name, 'latin1').toString(), size, mtimeSec, mtimeNsec, uid],
      ['ü'.repeat(120), 3, 1, 250_000_000, 3_000_000],
    );
  });
});

it('PAX records count their own length', () => {
  assert.equal(
    paxBytes([
      ['a', 'b'],
      ['path', 'x'.repeat(90)],
    ]).toString(),
    `6 a=b\n99 path=${'x'.repeat(90)}\n`,
  );
});
