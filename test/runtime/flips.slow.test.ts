import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { openLog } from '../../fs/log/log.ts';
import { openStateAt } from '../../fs/history/state-at.ts';
import { openView } from '../../fs/view/open-view.ts';
import { createVolume, volumeLogDir } from '../../fs/volumes.ts';
import { getImage, loadLayer } from '../../layers/images.ts';
import { importImage } from '../../layers/import.ts';
import { recipeTar } from '../../layers/recipe.ts';
import { openTree, type Tree } from '../../layers/tree.ts';
import { scrub, withCheckedStore } from '../../runtime/verify.ts';
import { isPgError } from '../../mdm/error.ts';
import { resolveRoots, type Roots } from '../../store/paths.ts';
import { openStore, type Store } from '../../store/store.ts';
import { type Layer, writeArchive } from '../grid/pair.ts';
import { noise, prose } from '../store/fixture.ts';

const QUIET = { start: (): void => {}, advance: (): void => {}, done: (): void => {} };
const ROOT = { uid: 0, gid: 0, pid: 1 };
const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 3000) / 200);
const SEED = Number(process.env['PG_TEST_SEED'] ?? 1);

/** Everything that can be read, by path; of what cannot be, the error. */
type Reading = Map<string, string | Error>;

describe('a bit that is flipped anywhere in a store', function () {
  this.timeout(600_000);
  let dir: string;
  let roots: Roots;
  let whole: Reading;

  before(async () => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    roots = resolveRoots(join(dir, 'pg'), {}, 0);
    const files: Layer = { 'etc/': null, 'etc/link': 'passwd', big: Buffer.concat([noise(4 << 20, 5), noise(700, 6)]) };
    for (let i = 0; i < 40; i++) files[`usr/${i % 4}/file${i}`] = noise(1 + ((i * 7919) % 9000), i + 1);
    files['text'] = prose(200_000, 3);
    await writeArchive(join(dir, 'image.tar'), 'made:latest', [files, { 'etc/passwd': Buffer.from('root:x:0:0') }]);
    const store = openStore(roots);
    const { image } = await importImage(store, `docker-archive:${join(dir, 'image.tar')}`);
    createVolume(roots, 'notes', 'made:latest', image.treeRoot);
    writeNotes(store, image.treeRoot);
    whole = readEverything(store, roots);
    await store.close();
    assert.ok([...whole.values()].every((bytes) => typeof bytes === 'string'));
    await withCheckedStore(roots, async (checked) => {
      assert.deepEqual((await scrub(roots, checked, [], QUIET)).findings, []);
    });
    cpSync(roots.data, join(dir, 'kept'), { recursive: true });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const kinds: Record<string, RegExp> = {
    'a sector': /^sectors\//,
    'the index': /^index\/data\.mdb$/,
    'a log': /\/log\/log$/,
    'a side file of a log': /\/log\/(?!log$)[^/]+$/,
  };
  for (const [name, pattern] of Object.entries(kinds)) {
    it(`${name}: the same bytes are read, or an error that pg verify tells of`, async () => {
      const paths = filesBelow(roots.data).filter((path) => pattern.test(path));
      assert.ok(paths.length > 0);
      let x = Math.imul(SEED + name.length, 2654435761) >>> 0;
      const random = (below: number): number => (x = (Math.imul(x, 1664525) + 1013904223) >>> 0) % below;
      for (let i = 0; i < CASES; i++) {
        const path = join(roots.data, paths[random(paths.length)]!);
        const kept = readFileSync(join(dir, 'kept', relative(roots.data, path)));
        const at = Math.floor((random(1 << 30) / (1 << 30)) * kept.length);
        const flipped = Buffer.from(kept);
        flipped[at]! ^= 1 << random(8);
        writeFileSync(path, flipped);
        await check(`${relative(roots.data, path)}, byte ${at}: ${kept[at]} to ${flipped[at]}`);
        restore();
      }
    });
  }

  /** Puts every file back as it was: repairs itself, or not, whatever was opened meanwhile. */
  function restore(): void {
    rmSync(roots.data, { recursive: true });
    cpSync(join(dir, 'kept'), roots.data, { recursive: true });
  }

  async function check(what: string): Promise<void> {
    let reading: Reading | undefined;
    let told: string[] = [];
    try {
      await withCheckedStore(roots, async (store) => {
        told = (await scrub(roots, store, [], QUIET)).findings.map(({ message }) => message);
        reading = readEverything(store, roots);
      });
    } catch (error) {
      assert.ok(isPgError(error), `${what}: ${(error as Error).stack}`);
      return;
    }
    for (const [path, bytes] of whole) {
      const now = reading!.get(path);
      const isSame = now === bytes;
      assert.ok(isSame || now instanceof Error || now === undefined, `${what}: ${path} has other bytes`);
      assert.ok(isSame || told.length > 0, `${what}: ${path} cannot be read (${String(now)}), and verify says nothing`);
      const isOurs = isSame || now === undefined || isPgError(now) || (now as Error).name === 'FsError';
      assert.ok(isOurs, `${what}: ${path}: ${now instanceof Error ? now.stack : ''}`);
    }
  }
});

/** A log with small and large files, overwritten in part, a checkpoint, and something after it. */
function writeNotes(store: Store, treeRoot: Uint8Array): void {
  const log = openLog(volumeLogDir({ data: store.roots.data } as Roots, 'notes'), { create: true, base: treeRoot });
  const view = openView(openTree(store, treeRoot), store, log);
  const put = (name: string, bytes: Buffer): void => {
    const { ino } = view.mknod(1, name, 0o100644, 0, ROOT);
    for (let at = 0; at < bytes.length; at += 1 << 20) view.write(ino, at, bytes.subarray(at, at + (1 << 20)), false);
  };
  put('a', noise(5_000_000, 7));
  for (let i = 0; i < 30; i++) put(`small${i}`, noise(100 + i * 301, 100 + i));
  view.write(view.lookup(1, 'big').ino, 4000, noise(9000, 8), false);
  view.flush();
  view.synced(log.written);
  view.checkpoint();
  put('b', noise(70_000, 9));
  view.unlink(1, 'small3');
  view.close();
}

function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) => statSync(join(root, path)).isFile());
}

function readEverything(store: Store, roots: Roots): Reading {
  const found: Reading = new Map();
  const put = (path: string, read: () => string): void => {
    try {
      found.set(path, read());
    } catch (error) {
      found.set(path, error as Error);
    }
  };
  put('image', () => {
    const image = getImage(store, 'made:latest');
    readTree(openTree(store, image.treeRoot), 'image:', put, ({ ref }) => readContent(store, ref!));
    for (const { diffId } of image.layers) {
      put(`layer ${diffId}`, () =>
        Buffer.concat(
          [...recipeTar(store, loadLayer(store, diffId)!.recipe)].map((part) => Buffer.from(part)),
        ).toString('latin1'),
      );
    }
    return image.id;
  });
  put('notes', () => {
    const { treeRoot } = JSON.parse(readFileSync(join(roots.data, 'mounts/notes/mount.json'), 'utf8')) as {
      treeRoot: string;
    };
    const state = openStateAt(store, Buffer.from(treeRoot, 'hex'), volumeLogDir(roots, 'notes'));
    try {
      readTree(state.tree, 'notes:', put, ({ ino, size }) => {
        const bytes = Buffer.alloc(size);
        state.read(ino, 0, bytes);
        return bytes.toString('latin1');
      });
    } finally {
      state.close();
    }
    return 'opened';
  });
  return found;
}

function readContent(store: Store, ref: { root: Uint8Array; size: number }): string {
  const bytes = Buffer.alloc(ref.size);
  store.readContentAt(ref, bytes, 0);
  return bytes.toString('latin1');
}

function readTree(
  tree: Tree,
  prefix: string,
  put: (path: string, read: () => string) => void,
  read: (file: { ino: number; size: number; ref: { root: Uint8Array; size: number } | undefined }) => string,
): void {
  const visit = (ino: number, path: string): void => {
    put(`${path}/`, () => {
      const names: string[] = [];
      for (let index = 0, entry; (entry = tree.entryAt(ino, index)) !== undefined; index++) {
        const inode = tree.get(entry.ino)!;
        const below = `${path}/${entry.name}`;
        names.push(`${entry.name} ${inode.mode}`);
        if ((inode.mode & 0o170000) === 0o040000) visit(entry.ino, below);
        if ((inode.mode & 0o170000) === 0o100000)
          put(below, () => (inode.size === 0 ? '' : read({ ino: entry.ino, size: inode.size, ref: inode.content })));
      }
      return names.join(' ');
    });
  };
  visit(1, prefix);
}
