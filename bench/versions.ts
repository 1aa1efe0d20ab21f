/** The next version of an image of one layer: one file in twenty (by bytes) has other contents. As that layer anew, and as a second layer over the first. */
import { createCipheriv, createHash } from 'node:crypto';
import { closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const BLOCK_BYTES = 512;
/** Of the bytes in files. */
const CHANGED = 0.05;
const LONG_NAME = /[LKx]/;

export interface NextVersion {
  /** docker-archive of one layer. */
  whole: string;
  /** docker-archive of two. */
  above: string;
}

/** Reads the plain tar `layer` and writes both archives into `dir`. */
export function nextVersion(layer: string, dir: string): NextVersion {
  const whole = join(dir, 'whole.tar');
  const above = join(dir, 'above.tar');
  changeSome(layer, whole, above);
  return {
    whole: archiveOf('big-whole:latest', [whole], join(dir, 'big-whole.docker.tar')),
    above: archiveOf('big-above:latest', [layer, above], join(dir, 'big-above.docker.tar')),
  };
}

function changeSome(layer: string, wholePath: string, abovePath: string): void {
  const from = openSync(layer, 'r');
  const [whole, above] = [openSync(wholePath, 'w'), openSync(abovePath, 'w')];
  const noise = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16));
  let [at, seen, changed] = [0, 0, 0];
  const take = (bytes: number): Buffer => {
    const piece = Buffer.alloc(bytes);
    at += readSync(from, piece, 0, bytes, at);
    return piece;
  };
  let before: Buffer[] = [];
  for (let header = take(BLOCK_BYTES); header[0] !== 0; header = take(BLOCK_BYTES)) {
    const size = Number.parseInt(header.toString('latin1', 124, 135), 8);
    const type = header.toString('latin1', 156, 157);
    let data = take(Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES);
    writeSync(whole, header);
    if (LONG_NAME.test(type)) before.push(header, data);
    else {
      seen += size;
      if (size > 0 && changed + size <= seen * CHANGED) {
        changed += size;
        data = noise.update(data).fill(0, size);
        for (const piece of [...before, header, data]) writeSync(above, piece);
      }
      before = [];
    }
    writeSync(whole, data);
  }
  for (const fd of [whole, above]) writeSync(fd, Buffer.alloc(2 * BLOCK_BYTES));
  for (const fd of [from, whole, above]) closeSync(fd);
}

/** What docker save writes of an image of these layers. */
export function archiveOf(name: string, layers: readonly string[], archive: string): string {
  const dir = join(archive, '..');
  const config = JSON.stringify({
    created: '2024-01-01T00:00:00Z',
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['true'] },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => `sha256:${digestOf(layer)}`) },
  });
  const configName = `${createHash('sha256').update(config).digest('hex')}.json`;
  writeFileSync(join(dir, configName), config);
  const names = layers.map((layer) => layer.slice(dir.length + 1));
  writeFileSync(join(dir, 'manifest.json'), JSON.stringify([{ Config: configName, RepoTags: [name], Layers: names }]));
  execFileSync('tar', ['-C', dir, '-cf', archive, 'manifest.json', configName, ...names]);
  return archive;
}

function digestOf(path: string): string {
  return execFileSync('sha256sum', [path], { encoding: 'latin1' }).slice(0, 64);
}
