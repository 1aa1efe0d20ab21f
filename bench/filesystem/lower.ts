import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { IMAGE_CACHE } from '../../examples/images/build.ts';
import { importImage } from '../../layers/import.ts';
import { openStore } from '../../store/store.ts';
import { run } from '../engines.ts';

const MIB = 1 << 20;
export const BIG_MIB = 1024;
export const CROWD = 100_000;
/** Installed by a row with apt-get from archives that lie in the tree. */
export const PACKAGE = 'python3';

/** What all subjects have below their writable layers: a directory, and the same as an image of pg's. */
export interface Lower {
  tree: string;
  treeRoot: Uint8Array;
  /** Tar archive of `small`, outside. */
  tarball: string;
  /** Files and directories in `small`. */
  files: number;
}

/**
 * Makes the lower tree below `dir`: a Debian with git, sqlite, postgres and redis, and in /bench: `small` (the small files of this machine), `big`
 * (1 GiB that compresses not at all), `crowd` (100,000 empty files in one directory), `repository.git` and `worktree` (of `small`), `node` (a large program).
 */
export async function makeLower(dir: string): Promise<Lower> {
  const tree = join(dir, 'lower');
  run('cp', ['-a', debianRoot(), tree]);
  const bench = join(tree, 'bench');
  const small = join(bench, 'small');
  mkdirSync(small, { recursive: true });
  const sources = ['/usr/share/perl', '/usr/lib/python3', '/usr/include', '/usr/share/doc'].filter((path) =>
    existsSync(path),
  );
  run('cp', ['-a', ...sources, small]);
  const fd = openSync(join(bench, 'big'), 'w');
  for (let i = 0; i < BIG_MIB / 4; i++) writeSync(fd, randomBytes(4 * MIB));
  closeSync(fd);
  copyFileSync(process.execPath, join(bench, 'node'));
  run('chmod', ['755', join(bench, 'node')]);
  mkdirSync(join(bench, 'crowd'));
  for (let i = 0; i < CROWD; i++) closeSync(openSync(join(bench, 'crowd', `name-${i}`), 'w'));
  const git = `git -c user.name=bench -c user.email=bench@localhost -c init.defaultBranch=main -c gc.auto=0`;
  run('sh', [
    '-ec',
    `cp -a ${small} ${bench}/worktree; cd ${bench}/worktree; ${git} init -q; ${git} add -A; ${git} commit -q -m all; ${git} clone -q --bare . ../repository.git`,
  ]);
  const tarball = join(dir, 'small.tar');
  run('tar', ['-C', small, '-cf', tarball, '.']);
  return {
    tree,
    tarball,
    treeRoot: await importTree(dir, tree),
    files: readdirSync(small, { recursive: true }).length,
  };
}

/** A Debian with the programs of the rows and the archives of PACKAGE; made once. */
function debianRoot(): string {
  const root = join(IMAGE_CACHE, 'bench-root');
  if (existsSync(root)) return root;
  mkdirSync(IMAGE_CACHE, { recursive: true });
  rmSync(`${root}.new`, { recursive: true, force: true });
  process.stderr.write('making a Debian for the rows that run programs\n');
  run('sh', [
    '-ec',
    `mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -E '/debian/?$')
     mmdebstrap --quiet --variant=minbase --skip=cleanup/apt --include=git,sqlite3,postgresql,redis-server,redis-tools \\
       --customize-hook='rm -f "$1"/var/cache/apt/archives/*.deb' \\
       --customize-hook='chroot "$1" apt-get -qq -y --no-install-recommends --download-only install ${PACKAGE} >/dev/null' bookworm '${root}.new' "$mirror" >&2`,
  ]);
  renameSync(`${root}.new`, root);
  return root;
}

/** The directory as an image of one layer in a store below `dir`; the root of its trie. */
async function importTree(dir: string, tree: string): Promise<Uint8Array> {
  const archive = join(dir, 'archive');
  const layer = join(archive, 'layer.tar');
  mkdirSync(archive);
  run('tar', ['-C', tree, '--numeric-owner', '-cf', layer, '.']);
  const diffId = createHash('sha256');
  const fd = openSync(layer, 'r');
  const chunk = Buffer.alloc(MIB);
  for (let got = 0; (got = readSync(fd, chunk)) > 0;) diffId.update(chunk.subarray(0, got));
  closeSync(fd);
  const rootfs = { type: 'layers', diff_ids: [`sha256:${diffId.digest('hex')}`] };
  const config = { architecture: 'amd64', os: 'linux', config: {}, rootfs };
  writeFileSync(join(archive, 'config.json'), JSON.stringify(config));
  const manifest = [{ Config: 'config.json', RepoTags: ['bench/fs:1'], Layers: ['layer.tar'] }];
  writeFileSync(join(archive, 'manifest.json'), JSON.stringify(manifest));
  const image = join(dir, 'image.tar');
  run('tar', ['-C', archive, '-cf', image, 'manifest.json', 'config.json', 'layer.tar']);
  rmSync(archive, { recursive: true });
  const store = openStore({ data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') });
  try {
    return (await importImage(store, `docker-archive:${image}`, {})).image.treeRoot;
  } finally {
    await store.close();
    rmSync(image);
  }
}
