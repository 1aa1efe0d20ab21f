/** What our reader makes of a tar, against tar-stream, GNU tar and libarchive (bsdtar), where both take it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import tar from 'tar-stream';
import { StreamInput } from '../../layers/tar-input.ts';
import { TarReader } from '../../layers/tar.ts';
import { isPgError } from '../../mdm/error.ts';
import { type RawEntry, tarBytes } from './tar-builder.ts';
import { havePrograms } from './transport/services.ts';

const RUNS = Number(process.env['PG_TEST_CASES'] ?? 1000);
/** Each run of a program is a process. */
const PROGRAM_RUNS = Math.ceil(RUNS / 20);

interface Seen {
  name: string;
  type: string;
  size: number;
  link: string;
}

const component = fc.stringMatching(/^[a-zA-Z0-9_+-]{1,40}$/);
const path = fc.array(component, { minLength: 1, maxLength: 6 }).map((parts) => parts.join('/'));
const long = fc.array(component, { minLength: 20, maxLength: 30 }).map((parts) => parts.join('/').slice(0, 900));
const record = fc.oneof(
  path.map((value): [string, string] => ['path', value]),
  long.map((value): [string, string] => ['path', value]),
  fc.nat(2 ** 31).map((value): [string, string] => ['mtime', `${value}.25`]),
  fc.nat(2 ** 31).map((value): [string, string] => ['uid', `${value}`]),
  fc.constant<[string, string]>(['comment', 'with = and 12 digits\nand lines']),
);
const entry: fc.Arbitrary<RawEntry> = fc
  .record(
    {
      name: path,
      type: fc.constantFrom('0', '0', '0', '1', '2', '5', '6'),
      linkName: path,
      data: fc.uint8Array({ maxLength: 1500 }).map((bytes) => Buffer.from(bytes)),
      mode: fc.nat(0o7777),
      uid: fc.nat(2 ** 31),
      mtime: fc.nat(2 ** 34),
      magic: fc.constantFrom('ustar', 'gnu'),
      pax: fc.array(record, { maxLength: 3 }),
      longName: long,
    },
    { requiredKeys: ['name', 'type'] },
  )
  .map(({ longName, ...e }): RawEntry => {
    // One way of a long name at a time: where two contradict each other, readers differ.
    const named = longName !== undefined && e.magic === 'gnu' && e.pax === undefined ? { longName } : {};
    const links = e.type === '1' || e.type === '2' ? { linkName: e.linkName ?? 'target' } : { linkName: '' };
    return { ...e, ...named, ...links, data: e.type === '0' ? (e.data ?? Buffer.alloc(0)) : Buffer.alloc(0) };
  });
/** Behind byte 344 of a GNU header readers differ by intent: Go (so docker, so we) looks for a prefix there, libarchive for a sparse map. */
const mutation = fc.record({ entry: fc.nat(), at: fc.nat(344), byte: fc.nat(255) });

async function ours(bytes: Buffer): Promise<Seen[] | undefined> {
  const input = new StreamInput(Readable.from([bytes]));
  const reader = new TarReader(input, () => undefined);
  const seen: Seen[] = [];
  try {
    for (let e = await reader.next(); e !== undefined; e = await reader.next()) {
      await input.copy(e.bodyBytes, () => undefined);
      seen.push({ name: e.name.replace(/\/+$/, ''), type: e.type, size: e.size, link: linkOf(e.type, e.linkName) });
    }
    return seen;
  } catch (error) {
    if (isPgError(error)) return undefined;
    throw error;
  }
}

const linkOf = (type: string, link: string): string => (type === 'hardlink' || type === 'symlink' ? link : '');
const TYPES: Record<string, string> = {
  file: 'file',
  'contiguous-file': 'file',
  link: 'hardlink',
  symlink: 'symlink',
  directory: 'directory',
  'character-device': 'char',
  'block-device': 'block',
  fifo: 'fifo',
};

async function tarStream(bytes: Buffer): Promise<Seen[] | undefined> {
  const extract = tar.extract();
  const seen: Seen[] = [];
  try {
    extract.end(bytes);
    for await (const e of extract) {
      const { name, type, size, linkname } = e.header;
      const kind = TYPES[type ?? ''];
      if (kind === undefined) return undefined;
      seen.push({
        name: name.replace(/\/+$/, ''),
        type: kind,
        size: kind === 'file' ? (size ?? 0) : 0,
        link: linkOf(kind, linkname ?? ''),
      });
      e.resume();
    }
    return seen;
  } catch {
    return undefined;
  }
}

/** Names only, as a listing of the program has them. */
function listed(program: string, file: string): string[] | undefined {
  const options = program === 'tar' ? ['--quoting-style=literal', '--absolute-names'] : ['-P'];
  const { status, stdout } = spawnSync(program, [...options, '-tf', file], {
    encoding: 'latin1',
    env: { ...process.env, LC_ALL: 'C' },
  });
  if (status !== 0) return undefined;
  const names = stdout.split('\n').slice(0, -1);
  return (program === 'tar' ? names : names.map(unescaped)).map((line) => line.replace(/\/+$/, ''));
}

/** bsdtar writes what does not print as in C. */
function unescaped(line: string): string {
  const letters: Record<string, string> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };
  return line.replace(/\\([0-7]{3}|.)/g, (_, code: string) =>
    code.length === 3 ? String.fromCharCode(parseInt(code, 8)) : (letters[code] ?? code),
  );
}

/**
 * Whether it may give something that has no body (a link, a directory, a FIFO) a size, or something with a size another type: for Go (so docker, so us) it has no body then either, for GNU tar it has
 * one, for libarchive it depends on the archive's other headers.
 */
const givesBody = ({ at }: { at: number }): boolean => (at >= 124 && at < 136) || at === 156;

describe(`other readers of tars (${RUNS} and ${PROGRAM_RUNS} tars)`, function () {
  this.timeout(600_000);
  let dir: string;
  before(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  after(() => rmSync(dir, { recursive: true, force: true }));

  it('tar-stream sees the same entries', async () => {
    let both = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { maxLength: 6 }), async (entries) => {
        const bytes = tarBytes(entries);
        const [a, b] = [await ours(bytes), await tarStream(bytes)];
        assert.ok(a !== undefined, 'what is sound is taken');
        if (b === undefined) return;
        both++;
        assert.deepEqual(a, b);
      }),
      { numRuns: RUNS },
    );
    assert.ok(both > RUNS / 2, `${both}`);
  });

  for (const program of ['tar', 'bsdtar']) {
    it(`${program} lists the same names, also of what was damaged`, async function () {
      if (!havePrograms(program)) this.skip();
      const file = join(dir, 'x.tar');
      let both = 0;
      await fc.assert(
        fc.asyncProperty(
          fc.array(entry, { minLength: 1, maxLength: 6 }),
          fc.array(mutation, { maxLength: 1 }),
          async (entries, mutations) => {
            const damaged = entries.map((e, i): RawEntry => {
              const mine = mutations.filter((m) => m.entry % entries.length === i);
              return { ...e, edit: (block) => mine.forEach(({ at, byte }) => (block[at] = byte)) };
            });
            const bytes = tarBytes(damaged);
            writeFileSync(file, bytes);
            const [a, b] = [await ours(bytes), listed(program, file)];
            // A line feed in a name makes two lines of it.
            if (a === undefined || b === undefined || a.some(({ name }) => name.includes('\n'))) return;
            both++;
            if (mutations.some(givesBody) && a.some(({ type }) => type !== 'file')) return;
            assert.deepEqual(
              a.map(({ name }) => name),
              b,
            );
          },
        ),
        { numRuns: PROGRAM_RUNS },
      );
      assert.ok(both > PROGRAM_RUNS / 4, `${both}`);
    });
  }
});
