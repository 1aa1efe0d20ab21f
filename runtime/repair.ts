import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { askForCopy } from '../grid/copies.ts';
import type { Connection } from '../grid/connection.ts';
import { dial } from '../grid/dial.ts';
import { listPeers } from '../grid/peers.ts';
import { openStateAt } from '../fs/history/state-at.ts';
import { damagedSidecars } from '../fs/log/verify.ts';
import type { ProgressSink } from '../layers/progress.ts';
import { giveFile, rereadLayers, wantedSizes } from '../layers/reread.ts';
import { openSource } from '../layers/transport/open.ts';
import { isPgError } from '../mdm/error.ts';
import { bufferRoot, ROOT_BYTES } from '../mdm/merkle.ts';
import type { SectorMender } from '../store/mend.ts';
import type { Roots } from '../store/paths.ts';
import type { Store } from '../store/store.ts';
import { lockStopped } from './containers.ts';
import { listWritables, type Writable } from './scrub.ts';
import type { Scrub } from './verify.ts';

const hex = (root: Uint8Array): string => Buffer.from(root).toString('hex');

/**
 * Mends what a scrub has found, as far as somebody has a copy: checksums that are computed anew, the copy of the index, files of containers, the image's
 * source again (`from`), peers. Every sector and node is compared with its root before it replaces anything. `say` is told of what was mended, and of
 * sources that could not be used. What is left is for another scrub to find.
 */
export async function repair(
  roots: Roots,
  store: Store,
  found: Scrub,
  from: readonly string[],
  progress: ProgressSink,
  say: (line: string) => void,
): Promise<void> {
  const mender = store.mender((root, by) => say(`mended: sector ${hex(root)}: ${by}`));
  for (const problem of found.problems) {
    if (problem.kind === 'sector') mender.add(problem.root, found.damaged);
    // What the file says is as good as the entry was.
    const isSector = problem.kind === 'entry' && problem.table === 'sectors' && problem.key.length === ROOT_BYTES;
    if (isSector) mender.add(problem.key, []);
  }
  mender.mendChecksums();
  await store.mendFromCopy(found.problems, ({ message }) => say(`mended from the copy of the index: ${message}`));
  const writables = await listWritables(roots, () => {});
  for (const writable of writables) {
    await dropSidecars(roots, writable, say);
    await fromContainer(store, writable, mender);
  }
  for (const source of from) await fromSource(source, mender, progress);
  await fromPeers(roots, store, found, mender, say);
}

/** Damaged checkpoints and the like of a log that nobody has open: it is opened without them, and they are made anew. */
async function dropSidecars(
  roots: Roots,
  { id, dir, what, isRunning }: Writable,
  say: (line: string) => void,
): Promise<void> {
  if (isRunning || !existsSync(join(dir, 'log'))) return;
  try {
    if (!damagedSidecars(dir).some(({ isNeeded }) => !isNeeded)) return;
    const lock = id === undefined ? undefined : await lockStopped(roots, id);
    try {
      // Looked at again: it may have run in between, and has made them anew.
      for (const { path, message } of damagedSidecars(dir).filter(({ isNeeded }) => !isNeeded)) {
        rmSync(path, { force: true });
        say(`dropped: ${what}: ${message}`);
      }
    } finally {
      lock?.release();
    }
  } catch (error) {
    if (!isPgError(error)) throw error; // a log that cannot be read has been told of
  }
}

/** Files that a container wrote itself, and that are the same as one that is lost. */
async function fromContainer(store: Store, { treeRoot, dir, what }: Writable, mender: SectorMender): Promise<void> {
  if (mender.missing.length === 0 || !existsSync(join(dir, 'log'))) return;
  const sizes = wantedSizes(mender);
  try {
    const state = openStateAt(store, treeRoot, dir);
    try {
      for (const node of state.state.nodes()) {
        if (node.extents === undefined || !sizes.has(node.size)) continue;
        let at = 0;
        const take = (bytes: number): Uint8Array => {
          const piece = Buffer.alloc(bytes);
          state.read(node.ino, at, piece);
          at += bytes;
          return piece;
        };
        await giveFile(node.size, take, mender, `from a file of ${what}`).catch((error: unknown) => {
          if (!isUnreadable(error)) throw error;
        });
      }
    } finally {
      state.close();
    }
  } catch (error) {
    if (!isPgError(error)) throw error;
  }
}

const isUnreadable = (error: unknown): boolean => isPgError(error) || (error as Error).name === 'FsError';

async function fromSource(name: string, mender: SectorMender, progress: ProgressSink): Promise<void> {
  if (mender.missing.length === 0) return;
  const source = await openSource(name, { progress });
  try {
    await rereadLayers(source, mender, progress);
  } finally {
    await source.close();
  }
}

async function fromPeers(
  roots: Roots,
  store: Store,
  found: Scrub,
  mender: SectorMender,
  say: (line: string) => void,
): Promise<void> {
  const nodes = found.problems.flatMap((problem) => (problem.kind === 'node' ? [problem.hash] : []));
  for (const peer of listPeers(roots)) {
    const lost = nodes.filter((hash) => !isWholeNode(store, hash));
    if (mender.missing.length === 0 && lost.length === 0) return;
    let connection: Connection | undefined;
    try {
      connection = await dial(roots, peer);
      for (const root of mender.missing) {
        const bytes = await askForCopy(connection, 'sector', root);
        if (bytes !== undefined) mender.giveSector(root, bytes, `from peer ${peer.name}`);
      }
      for (const hash of lost) {
        const bytes = await askForCopy(connection, 'node', hash);
        if (bytes === undefined || Buffer.compare(bufferRoot(bytes), hash) !== 0) continue;
        store.table('nodes').put(hash, bytes);
        say(`mended: node ${hex(hash)}: from peer ${peer.name}`);
      }
    } catch (error) {
      if (!isPgError(error)) throw error;
      say(`peer ${peer.name} was no help: ${error.message}`);
    } finally {
      connection?.close();
    }
  }
}

function isWholeNode(store: Store, hash: Uint8Array): boolean {
  try {
    const bytes = store.table('nodes').get(hash);
    return bytes !== undefined && Buffer.compare(bufferRoot(bytes), hash) === 0;
  } catch (error) {
    if (isPgError(error, 'CORRUPT_INDEX')) return false;
    throw error;
  }
}
