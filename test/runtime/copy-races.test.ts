import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { copyBetween, unpackTo } from '../../runtime/copy/copy.ts';
import type { CopyEntry } from '../../runtime/copy/entry.ts';
import { SafeDir } from '../../runtime/copy/safe-dir.ts';
import { Extractor, walk } from '../../runtime/copy/tree.ts';
import { tarBytes } from '../layers/tar-builder.ts';

const OWN = { uid: process.getuid!(), gid: process.getgid!() };

/** What `pg cp` does when the other side changes the tree under it: it stays in the tree, and opens nothing but files. */
describe('a tree that changes while it is copied', () => {
  let dir: string;
  let secret: string;
  const at = (...parts: string[]): string => join(dir, ...parts);
  beforeEach(() => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    mkdirSync(at('tree/d'), { recursive: true });
    mkdirSync(at('outside'));
    secret = at('outside/secret');
    writeFileSync(secret, 'secret', { mode: 0o600 });
    writeFileSync(at('tree/f'), 'public');
    writeFileSync(at('tree/d/g'), 'public');
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const swaps: Record<string, (path: string) => void> = {
    'a symlink': (path) => symlinkSync(secret, path),
    'a FIFO': (path) => execFileSync('mkfifo', [path]),
    // /dev/zero: reading it would give something.
    'a device': (path) => execFileSync('mknod', [path, 'c', '1', '5']),
  };
  for (const [what, swap] of Object.entries(swaps)) {
    it(`a file that becomes ${what} is not read`, async function () {
      if (process.getuid?.() !== 0) this.skip();
      const tree = await SafeDir.open(dir, '/tree');
      const found = [...walk(tree, 'f', 'f')][0]!;
      rmSync(at('tree/f'));
      swap(at('tree/f'));
      assert.throws(() => [...(found.read() as Iterable<Uint8Array>)], {
        code: what === 'a symlink' ? 'ELOOP' : 'EINVAL',
      });
      assert.equal(tree.readToEnd('f', 100).length, 0);
      tree.close();
    });
  }

  it('a directory that becomes a symlink is not entered', async () => {
    const tree = await SafeDir.open(dir, '/tree');
    const entries = walk(tree, 'd', 'd')[Symbol.iterator]();
    assert.equal((entries.next().value as CopyEntry).kind, 'directory');
    renameSync(at('tree/d'), at('tree/was'));
    symlinkSync(at('outside'), at('tree/d'));
    assert.throws(() => entries.next(), { code: 'ENOTDIR' });
    tree.close();
  });

  it('a copy whose name or directory becomes a symlink changes nothing outside', async () => {
    const base = await SafeDir.open(dir, '/tree');
    const extractor = new Extractor(base, OWN);
    const entry = (path: string, swap: () => void): CopyEntry => ({
      path,
      kind: 'file',
      mode: 0o666,
      uid: 1,
      gid: 1,
      mtimeMs: 1000,
      size: 4,
      linkName: '',
      rdev: 0,
      *read() {
        swap();
        yield Buffer.from('copy');
      },
    });
    await extractor.extract(
      entry('f', () => {
        rmSync(at('tree/f'));
        symlinkSync(secret, at('tree/f'));
      }),
    );
    await extractor.extract(
      entry('d/secret', () => {
        renameSync(at('tree/d'), at('tree/was'));
        symlinkSync(at('outside'), at('tree/d'));
      }),
    );
    assert.equal(readFileSync(at('tree/was/secret'), 'utf8'), 'copy');
    // The next one makes a directory of the symlink.
    await extractor.extract(entry('d/new', () => undefined));
    await extractor.finish();
    base.close();
    assert.ok(lstatSync(at('tree/d')).isDirectory());
    assert.deepEqual(readdirSync(at('outside')), ['secret']);
    assert.equal(readFileSync(secret, 'utf8'), 'secret');
    assert.equal(statSync(secret).mode & 0o777, 0o600);
    assert.notEqual(statSync(secret).mtimeMs, 1000);
  });

  it('gives nobody rights here: no device without -a, no set-user-id bit', async function () {
    if (process.getuid?.() !== 0) this.skip();
    execFileSync('sh', ['-c', 'chmod 6755 f && mkdir dev && mknod dev/zero c 1 5'], { cwd: at('tree') });
    const from = (path: string) => ({ rootPath: at('tree'), path });
    const to = (path: string) => ({ rootPath: '/', path: at(path) });
    await copyBetween(from('/f'), to('plain'), OWN, false);
    assert.equal(statSync(at('plain')).mode & 0o7777, 0o755);
    await copyBetween(from('/f'), to('kept'), 'keep', false);
    assert.equal(statSync(at('kept')).mode & 0o7777, 0o6755);
    await assert.rejects(copyBetween(from('/dev'), to('devices'), OWN, false), {
      code: 'BAD_USAGE',
      message: /is a device/,
    });
    await copyBetween(from('/dev'), to('all'), 'keep', false);
    assert.ok(lstatSync(at('all/zero')).isCharacterDevice());
  });

  it('a tar that names what is outside, by whatever detour, is refused or stays inside', async () => {
    mkdirSync(at('tree/in'));
    symlinkSync(at('outside'), at('tree/in/out'));
    const members: Parameters<typeof tarBytes>[0][] = [
      [{ name: '../outside/x', data: Buffer.from('x') }],
      [{ name: 'a/../../../outside/x', data: Buffer.from('x') }],
      [{ name: 'l', type: '1', linkName: '../../outside/secret' }],
      [{ name: '/outside/x', data: Buffer.from('x') }],
      [{ name: 'out/x', data: Buffer.from('x') }],
      [
        { name: 's', type: '2', linkName: at('outside') },
        { name: 's/x', data: Buffer.from('x') },
      ],
      [
        { name: 's', type: '2', linkName: secret },
        { name: 's', data: Buffer.from('x') },
      ],
      [
        { name: 's', type: '2', linkName: secret },
        { name: 'h', type: '1', linkName: 's' },
        { name: 'h', data: Buffer.from('x') },
      ],
    ];
    for (const entries of members) {
      await unpackTo(
        { rootPath: at('tree'), path: '/in' },
        (async function* () {
          yield tarBytes(entries);
        })(),
        'keep',
      ).catch((error: { code?: string }) =>
        assert.ok(['BAD_ARCHIVE', 'BAD_USAGE'].includes(error.code!), String(error)),
      );
      assert.deepEqual(readdirSync(at('outside')), ['secret'], JSON.stringify(entries));
      assert.equal(readFileSync(secret, 'utf8'), 'secret');
      assert.ok(!existsSync('/outside'));
    }
  });
});
