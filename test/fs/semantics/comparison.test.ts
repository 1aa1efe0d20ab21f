import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startDetachedMount, stopDetachedMount } from '../../../fs/detached.ts';
import { needFuse } from '../mount/harness.ts';
import { Fixture, type ImageFile } from '../view/fixture.ts';

/** `struct vfs_cap_data` with CAP_DAC_OVERRIDE. */
const CAPABILITY = Buffer.from('0100000202000000000000000000000000000000', 'hex');

const IMAGE: readonly ImageFile[] = [
  { path: 'image', kind: 'dir', mode: 0o755 },
  {
    path: 'image/plain',
    kind: 'file',
    mode: 0o644,
    data: Buffer.from('plain'),
    xattrs: { 'user.from-image': Buffer.from('yes') },
  },
  { path: 'image/swap-a', kind: 'file', mode: 0o644, data: Buffer.from('swap') },
  { path: 'image/swap-d', kind: 'dir', mode: 0o755 },
  { path: 'image/swap-d/inside', kind: 'file', mode: 0o644, data: Buffer.from('inside') },
  { path: 'image/tree', kind: 'dir', mode: 0o755 },
  { path: 'image/tree/inside', kind: 'dir', mode: 0o755 },
  { path: 'image/tree/deep', kind: 'dir', mode: 0o755 },
  { path: 'image/tree/deep/f', kind: 'file', mode: 0o644, data: Buffer.from('deep') },
  { path: 'image/hard-1', kind: 'file', mode: 0o644, data: Buffer.from('hard') },
  { path: 'image/hard-2', kind: 'link', to: 'image/hard-1' },
  { path: 'image/unlinked', kind: 'file', mode: 0o644, data: Buffer.from('unlinked') },
  {
    path: 'image/setuid',
    kind: 'file',
    mode: 0o6777,
    data: Buffer.from('program'),
    xattrs: { 'security.capability': CAPABILITY },
  },
  { path: 'image/punched', kind: 'file', mode: 0o644, data: Buffer.alloc(20_000, 'punch') },
  { path: 'image/large', kind: 'file', mode: 0o644, data: Buffer.alloc(3 << 20, 'large ') },
  { path: 'image/mapped', kind: 'file', mode: 0o644, data: Buffer.alloc(9000, 'mapped') },
];

type Seen = Record<string, unknown>;

/** Where programs see something else than on overlayfs: docs/conformance.md says why. By check, and by place or name in what it gives. */
const DIFFERENT: Record<string, Record<string, { ours: unknown; overlayfs: unknown }>> = {
  // A write through a mapping comes here as any write, and takes the capabilities of a program away.
  what_takes_privileges_away: {
    'map by 1000 of 6777': { ours: ['ok', '0o106777', 'ENODATA'], overlayfs: ['ok', '0o106777', 20] },
    'map by 1000 of 2767': { ours: ['ok', '0o102767', 'ENODATA'], overlayfs: ['ok', '0o102767', 20] },
    'map by 0 of 6777': { ours: ['ok', '0o106777', 'ENODATA'], overlayfs: ['ok', '0o106777', 20] },
  },
  // An overlayfs has handles only with nfs_export.
  handles: Object.fromEntries(['0', '1', '2'].map((place) => [place, { ours: true, overlayfs: 'no handle' }])),
};

/** What a program of this directory saw below `at`. */
function seenBy(program: string, at: string): Seen {
  const script = fileURLToPath(new URL(`./${program}`, import.meta.url));
  // A directory of the disk, for what needs one beside.
  const ELSEWHERE = `${at}-elsewhere`;
  const result = spawnSync('python3', ['-B', script, at], {
    encoding: 'utf8',
    timeout: 100_000,
    env: { ...process.env, ELSEWHERE },
  });
  assert.equal(result.status, 0, result.stderr);
  return JSON.parse(result.stdout) as Seen;
}

/** The image's files in a directory, for an overlayfs. */
function unpack(files: readonly ImageFile[], at: string): void {
  for (const file of files) {
    const path = join(at, file.path);
    if (file.kind === 'dir') mkdirSync(path);
    else if (file.kind === 'link') linkSync(join(at, file.to), path);
    else if (file.kind === 'file') {
      writeFileSync(path, file.data);
      for (const [name, value] of Object.entries(file.xattrs ?? {}))
        execFileSync('setfattr', ['-n', name, '-v', `0x${value.toString('hex')}`, path]);
    }
    if (file.kind === 'dir' || file.kind === 'file') chmodSync(path, file.mode);
  }
}

describe('fs: programs see on a mount what they see on overlayfs', function () {
  this.timeout(200_000);
  let fixture: Fixture;
  let ours: string;
  let overlay: string;
  let plain: string;
  let roots: { data: string; run: string; config: string };

  before(async function () {
    needFuse(this);
    fixture = new Fixture();
    roots = { data: join(fixture.dir, 'data'), run: join(fixture.dir, 'run'), config: join(fixture.dir, 'etc') };
    await fixture.image(IMAGE);
    [ours, overlay, plain] = [join(fixture.dir, 'ours'), join(fixture.dir, 'overlay'), join(fixture.dir, 'plain')];
    const [lower, upper, work] = ['lower', 'upper', 'work'].map((name) => join(fixture.dir, name));
    for (const dir of [ours, overlay, plain, lower!, upper!, work!]) mkdirSync(dir);
    unpack(IMAGE, lower!);
    const options = `lowerdir=${lower},upperdir=${upper},workdir=${work},index=on,redirect_dir=on`;
    const result = spawnSync('mount', ['-t', 'overlay', 'overlay', '-o', options, overlay]);
    if (result.status !== 0) {
      console.error(`SKIPPED: overlayfs cannot be mounted on ${dirname(overlay)}`);
      this.skip();
    }
    await startDetachedMount({
      roots,
      treeRoot: fixture.treeRoot,
      logDir: join(fixture.dir, 'log'),
      mountPoint: ours,
      label: 'ours',
    });
  });
  after(async () => {
    spawnSync('umount', ['-l', overlay]);
    await stopDetachedMount(roots, ours).catch(() => undefined);
    await fixture.remove();
  });

  const compare = (program: string, there: string): void => {
    const [seen, expected] = [seenBy(program, ours), seenBy(program, there)];
    assert.deepEqual(Object.keys(seen), Object.keys(expected));
    for (const [check, one] of Object.entries(expected)) {
      const different = DIFFERENT[check] ?? {};
      for (const [what, values] of Object.entries(different)) {
        assert.deepEqual(at(one, what), values.overlayfs, `${check}, ${what}: overlayfs has changed`);
        assert.deepEqual(at(seen[check], what), values.ours, `${check}, ${what}`);
      }
      assert.deepEqual(without(seen[check], different), without(one, different), check);
    }
  };

  it('names: flags of rename, links, nameless and removed files, directories that change', () =>
    compare('names.py', overlay));

  it('attributes: times, owners, privileges, extended attributes, ACLs', () => compare('attributes.py', overlay));

  it('contents: holes, copies, mappings, locks, who hears of changes', () => compare('contents.py', overlay));

  it('mounts on top: as on a directory of the disk', () => compare('mounts.py', plain));
});

/** One observation of a check. */
const at = (seen: unknown, what: string): unknown => (seen as Record<string, unknown>)[what];

function without(seen: unknown, different: Record<string, unknown>): [string, unknown][] {
  return Object.entries(seen as Record<string, unknown>).filter(([what]) => !(what in different));
}
