import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import { join } from 'node:path';
import { pack } from 'tar-stream';
import type { Connection, Services } from '../../grid/connection.ts';
import { dial } from '../../grid/dial.ts';
import { loadIdentity } from '../../grid/identity.ts';
import { listen } from '../../grid/listen.ts';
import { addPeer, getPeer } from '../../grid/peers.ts';
import { resolveRoots, type Roots } from '../../store/paths.ts';

/** Two nodes on this machine that know each other, `a` connected to `b`, which answers with `services`. */
export interface Pair {
  dir: string;
  a: Roots;
  b: Roots;
  connection: Connection;
  /** A new connection in place of one that has ended. */
  redial(): Promise<Connection>;
  end(): Promise<void>;
}

export async function startPair(services: (b: Roots) => { services: Services; close(): Promise<void> }): Promise<Pair> {
  const dir = mkdtempSync('/var/tmp/pg-test-');
  const a = resolveRoots(join(dir, 'a'), {}, 0);
  const b = resolveRoots(join(dir, 'b'), {}, 0);
  const closing: Promise<void>[] = [];
  const serve = (_: unknown, connection: () => Connection): Services => {
    const side = services(b);
    queueMicrotask(() => closing.push(connection().closed.then(() => side.close())));
    return side.services;
  };
  const listener = await listen(b, { host: '127.0.0.1', port: 0 }, { serve, log: () => undefined });
  addPeer(a, 'b', `127.0.0.1:${listener.address.port}`, loadIdentity(b).id);
  addPeer(b, 'a', '127.0.0.1:1', loadIdentity(a).id);
  const pair: Pair = {
    dir,
    a,
    b,
    connection: await dial(a, getPeer(a, 'b')),
    redial: async () => {
      pair.connection.close();
      await Promise.all(closing);
      return (pair.connection = await dial(a, getPeer(a, 'b')));
    },
    end: async () => {
      pair.connection.close();
      await listener.close();
      await Promise.all(closing);
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return pair;
}

/** A file of a layer: bytes, a symlink's target, or null for a directory. */
export type Layer = Record<string, Buffer | string | null>;

/** Writes a docker-archive of these layers, lowest first. */
export async function writeArchive(path: string, name: string, layers: Layer[]): Promise<void> {
  const tars = await Promise.all(layers.map(tarOf));
  const config = JSON.stringify({
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: { Cmd: ['sh'] },
    rootfs: { type: 'layers', diff_ids: tars.map((tar) => `sha256:${sha(tar)}`) },
    made: randomBytes(8).toString('hex'),
  });
  const configName = `${sha(config)}.json`;
  const manifest = [{ Config: configName, RepoTags: [name], Layers: tars.map((_, i) => `layer${i}.tar`) }];
  const all: Layer = { 'manifest.json': Buffer.from(JSON.stringify(manifest)), [configName]: Buffer.from(config) };
  for (const [i, tar] of tars.entries()) all[`layer${i}.tar`] = tar;
  writeFileSync(path, await tarOf(all));
}

const sha = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

function tarOf(files: Layer): Promise<Buffer> {
  const tar = pack();
  // Always the same: directories that are equal are to be the same node.
  const mtime = new Date(1_700_000_000_000);
  for (const [name, content] of Object.entries(files)) {
    if (content === null) tar.entry({ name, mtime, type: 'directory' });
    else if (typeof content === 'string') tar.entry({ name, mtime, type: 'symlink', linkname: content });
    else tar.entry({ name, mtime, size: content.length }, content);
  }
  tar.finalize();
  return buffer(tar);
}
