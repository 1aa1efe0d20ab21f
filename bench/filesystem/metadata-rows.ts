import { closeSync, mkdirSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../engines.ts';
import { CROWD, type Lower } from './lower.ts';
import { bench, inside, perSecond, type Row } from './row.ts';

const NEW_FILES = 3000;

const statAll = (root: string): string => run('sh', ['-c', `find ${bench(root, 'small')} -printf '%s\\n' | wc -l`]);
const readNames = (root: string): string => run('sh', ['-c', `ls -f ${bench(root, 'crowd')} | wc -l`]);
const du = (root: string): string => run('du', ['-s', bench(root, 'small')]);
const findNew = (root: string): string =>
  run('find', [bench(root, 'small'), '-newer', '/etc/hostname', '-name', '*.zz']);
const gitStatus = (root: string): string =>
  inside(root, 'git -c safe.directory=/bench/worktree -C /bench/worktree status --porcelain');

function smallFiles(dir: string, create: boolean): void {
  const bytes = Buffer.alloc(1024, 'x');
  if (create) mkdirSync(dir);
  for (let i = 0; i < NEW_FILES; i++) {
    const path = join(dir, `file-${i}`);
    if (create) {
      const fd = openSync(path, 'w');
      writeSync(fd, bytes);
      closeSync(fd);
    } else unlinkSync(path);
  }
}

/** Names, attributes and trees. */
export function metadataRows({ files, tarball }: Lower): Row[] {
  const untar = (root: string): string =>
    run('sh', ['-c', `mkdir ${root}/untar && tar -C ${root}/untar -xf ${tarball}`]);
  const both = (name: string, unit: string, amount: number, work: (root: string) => string): Row[] => [
    {
      name: `${name}, cold`,
      unit,
      // git looks into every file once whose inode or ctime is not what its index has: an image's are others than the directory's it was made of.
      prepare: (root) => void work(root),
      cold: true,
      measure: (root) => perSecond(amount, () => work(root)),
    },
    {
      name: `${name}, warm`,
      unit,
      prepare: (root) => void work(root),
      measure: (root) => perSecond(amount, () => work(root)),
    },
  ];
  return [
    ...both('lookup + stat', 'files/s', files, statAll),
    ...both('readdir of 100,000', 'names/s', CROWD, readNames),
    ...both('du', 'files/s', files, du),
    ...both('find', 'files/s', files, findNew),
    ...both('git status', 'files/s', files, gitStatus),
    {
      name: 'create + write 1 KiB',
      unit: 'files/s',
      measure: (root) => perSecond(NEW_FILES, () => smallFiles(join(root, 'new'), true)),
    },
    {
      name: 'unlink',
      unit: 'files/s',
      prepare: (root) => smallFiles(join(root, 'new'), true),
      measure: (root) => perSecond(NEW_FILES, () => smallFiles(join(root, 'new'), false)),
    },
    { name: 'untar', unit: 'files/s', measure: (root) => perSecond(files, () => untar(root)) },
    {
      name: 'rm -rf',
      unit: 'files/s',
      prepare: (root) => void untar(root),
      measure: (root) => perSecond(files, () => run('rm', ['-rf', join(root, 'untar')])),
    },
    {
      name: 'git clone',
      unit: 'files/s',
      measure: (root) =>
        perSecond(files, () =>
          inside(root, 'git -c safe.directory=* clone -q --no-hardlinks /bench/repository.git /bench/clone'),
        ),
    },
  ];
}
