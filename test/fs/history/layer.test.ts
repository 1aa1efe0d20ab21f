import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import fc from 'fast-check';
import { layerOf } from '../../../fs/history/layer-of.ts';
import { openImageState, openStateAt, type StateAt } from '../../../fs/history/state-at.ts';
import { commitImage } from '../../../layers/commit.ts';
import { changeConfig } from '../../../layers/config-change.ts';
import { type ImageRecord, loadLayer } from '../../../layers/images.ts';
import { type LayerFile, layerTar } from '../../../layers/layer-tar.ts';
import { recipeTar } from '../../../layers/recipe.ts';
import { openTree } from '../../../layers/tree.ts';
import type { ImageConfig } from '../../../layers/transport/source.ts';
import { isPgError } from '../../../mdm/error.ts';
import { Fixture, type ImageFile, MTIME_SEC, ROOT_CALLER } from '../view/fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from '../view/programs.ts';
import { dumpState } from './dump-state.ts';

const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 2560) / 64);
const CONFIG: ImageConfig = {
  architecture: 'amd64',
  os: 'linux',
  rootfs: { type: 'layers', diff_ids: [] },
  history: [],
};
const NONE: ReadonlySet<string> = new Set();

/** The test programs' image as a layer. */
function* imageLayer(files: readonly ImageFile[]): Generator<LayerFile> {
  for (const file of files) {
    const data = file.kind === 'file' ? file.data : Buffer.alloc(0);
    yield {
      type: file.kind === 'dir' ? 'directory' : file.kind === 'link' ? 'hardlink' : file.kind,
      path: file.path,
      mode: file.kind === 'dir' || file.kind === 'file' ? file.mode : 0o777,
      uid: 0,
      gid: 0,
      mtimeSec: MTIME_SEC,
      mtimeNsec: 5,
      size: data.length,
      linkName: file.kind === 'link' ? file.to : file.kind === 'symlink' ? file.target : '',
      rdev: 0,
      xattrs: file.kind === 'file' ? new Map(Object.entries(file.xattrs ?? {})) : undefined,
      data: () => [data],
    };
  }
}

describe('a layer of what was changed', () => {
  let fixture: Fixture;
  let parent: ImageRecord;
  let logs = 0;
  before(async () => {
    fixture = new Fixture();
    parent = await commitImage(fixture.store, null, layerTar(imageLayer(IMAGE)), CONFIG, [
      'docker.io/library/parent:latest',
    ]);
    fixture.treeRoot = parent.treeRoot;
    fixture.tree = openTree(fixture.store, parent.treeRoot);
  });
  after(() => fixture.remove());

  const stateOf = (name: string): StateAt => openStateAt(fixture.store, fixture.treeRoot, join(fixture.dir, name));

  /** Everything but the root's time, which the top level's entries set. */
  function shown(at: StateAt): string[] {
    const times: string[] = [];
    const visit = (ino: number, path: string): void => {
      const { mtimeSec, mtimeNsec } = at.tree.get(ino)!;
      if (path !== '') times.push(`${path} ${mtimeSec}.${mtimeNsec}`);
      for (let i = 0, entry; (entry = at.tree.entryAt(ino, i)) !== undefined; i++)
        visit(entry.ino, `${path}/${entry.name}`);
    };
    visit(1, '');
    // The kernel changes no symlink's mode; the programs do.
    return [...dumpState(at).map((line) => line.replace(/ 12\d{4} /, ' 120777 ')), ...times];
  }

  it('makes the same files of the image, and the tar comes out again', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (ops) => {
        const name = `layer-${logs++}`;
        const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
        for (const op of ops) pair.run(op);
        pair.view.close();
        const at = stateOf(name);
        const image = await commitImage(fixture.store, parent, layerTar(layerOf(at, NONE)), CONFIG, []);
        assert.deepEqual(shown(openImageState(fixture.store, image.treeRoot)), shown(at));
        at.close();
        assert.deepEqual(
          image.layers.map(({ diffId }) => diffId),
          image.config.rootfs.diff_ids,
        );
        for (const { diffId } of image.layers) {
          const hash = createHash('sha256');
          for (const piece of recipeTar(fixture.store, loadLayer(fixture.store, diffId)!.recipe)) hash.update(piece);
          assert.equal(`sha256:${hash.digest('hex')}`, diffId);
        }
      }),
      { numRuns: CASES },
    );
  });

  it('holds what changed alone, and stores nothing twice', async () => {
    const big = Buffer.alloc(9 << 20, 'sixteen bytes!!\n');
    for (let i = 0; i < big.length; i += 4096) big.writeUInt32LE(i, i);
    const files: ImageFile[] = [
      { path: 'big', kind: 'file', mode: 0o644, data: big },
      { path: 'other', kind: 'file', mode: 0o644, data: Buffer.from('other') },
      { path: 'deep', kind: 'dir', mode: 0o755 },
      { path: 'deep/file', kind: 'file', mode: 0o644, data: Buffer.from('deep') },
    ];
    const below = await commitImage(fixture.store, null, layerTar(imageLayer(files)), CONFIG, []);
    fixture.treeRoot = below.treeRoot;
    fixture.tree = openTree(fixture.store, below.treeRoot);
    const name = `layer-${logs++}`;
    const view = fixture.view(name);
    const ino = view.lookup(1, 'big').ino;
    // In the third sector alone; and what was only read is not changed.
    view.write(ino, 8.5 * 2 ** 20, Buffer.from('changed'), false);
    view.read(view.lookup(1, 'other').ino, 0, Buffer.alloc(5));
    view.rename(1, 'deep', 1, 'moved', 0, ROOT_CALLER);
    const { ino: wide } = view.mknod(1, 'name'.repeat(60), 0o100600, 0, { uid: 3_000_000, gid: 3_000_000, pid: 1 });
    view.setattr(wide, { mtimeSec: -2, mtimeNsec: 250_000_000 }, ROOT_CALLER);
    view.close();
    const at = stateOf(name);
    const before = fixture.store.usage();
    const image = await commitImage(fixture.store, below, layerTar(layerOf(at, new Set(['/absent']))), CONFIG, []);
    const after = fixture.store.usage();
    assert.deepEqual(
      [...layerOf(at, NONE)].map(({ type, path }) => `${type} ${path}`),
      ['file .wh.deep', 'file big', 'directory moved', 'file moved/file', `file ${'name'.repeat(60)}`],
    );
    assert.deepEqual(shown(openImageState(fixture.store, image.treeRoot)), shown(at));
    at.close();
    assert.ok(
      after.sectorBytes - before.sectorBytes < 6 << 20,
      `${after.sectorBytes - before.sectorBytes} bytes for one changed sector`,
    );
  });

  it('refuses names that mean something else in a layer', () => {
    fixture.treeRoot = parent.treeRoot;
    fixture.tree = openTree(fixture.store, parent.treeRoot);
    const name = `layer-${logs++}`;
    const view = fixture.view(name);
    view.mknod(1, '.wh.a', 0o100644, 0, ROOT_CALLER);
    view.close();
    const at = stateOf(name);
    assert.throws(
      () => [...layerOf(at, NONE)],
      (error) => isPgError(error, 'BAD_LAYER_NAME'),
    );
    at.close();
  });
});

describe('pg commit --change', () => {
  const config = {
    Env: ['A=1', 'PATH=/bin'],
    Cmd: ['sh'],
    Entrypoint: ['old'],
    WorkingDir: '/srv',
    Labels: { x: 'y' },
  };

  it('does what the instruction does in a Dockerfile', () => {
    const changed = changeConfig(config, [
      'ENV A=2 B="two words" C=a\\ b',
      'env OLD style of it',
      'LABEL "some.key"=\'v 1\' other=2',
      'EXPOSE 80 53/udp',
      'VOLUME ["/data"]',
      'WORKDIR sub',
      'USER 1000:1000',
      'STOPSIGNAL SIGQUIT',
      'ONBUILD RUN true',
      'CMD ["nginx", "-g", "daemon off;"]',
      'ENTRYPOINT run "this"',
    ]);
    assert.deepEqual(changed, {
      Env: ['A=2', 'PATH=/bin', 'B=two words', 'C=a b', 'OLD=style of it'],
      Cmd: ['nginx', '-g', 'daemon off;'],
      Entrypoint: ['/bin/sh', '-c', 'run "this"'],
      WorkingDir: '/srv/sub',
      Labels: { x: 'y', 'some.key': 'v 1', other: '2' },
      ExposedPorts: { '80/tcp': {}, '53/udp': {} },
      Volumes: { '/data': {} },
      User: '1000:1000',
      StopSignal: 'SIGQUIT',
      OnBuild: ['RUN true'],
    });
    assert.equal(changeConfig(config, ['ENTRYPOINT ["new"]']).Cmd, undefined);
    assert.deepEqual(config.Cmd, ['sh']);
  });

  it('refuses what it does not know', () => {
    for (const change of ['RUN rm -rf /', 'CMD', 'ENV novalue', 'EXPOSE http', '', 'ENV =x'])
      assert.throws(
        () => changeConfig(config, [change]),
        (error) => isPgError(error, 'BAD_CHANGE') && error.hint !== undefined,
        change,
      );
  });
});
