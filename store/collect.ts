import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Mark, markKey } from './catalog.ts';
import { contentKey, type ContentRef, decodeExtents } from './content.ts';
import type { Index } from './index-db.ts';
import { livingLeases } from './lease.ts';

/** Something that must stay. A content keeps its sectors; a node keeps nothing but itself. */
export type Reachable =
  { kind: 'content'; ref: ContentRef } | { kind: 'node'; hash: Uint8Array } | { kind: 'sector'; root: Uint8Array };

export interface CollectResult {
  /** What was removed. */
  contents: number;
  nodes: number;
  sectors: number;
  /** Disk space that the removed files took. */
  bytes: number;
  /** Purposes of the living leases that kept dead things from being removed now. */
  waitingFor: string[];
}

/** Where sector files are. */
export interface CollectPlaces {
  sectorsDir: string;
  temporaryDir: string;
  pathOf(root: Uint8Array): string;
}

interface Look {
  /** Epoch at which the oldest living lease began; infinite if none lives. */
  oldest: number;
  purposes: string[];
  ids: Set<string>;
  /** Leases ever begun. */
  begun: number;
}

/** Tables whose entries are collected, with the mark of each. */
const KINDS = [
  ['contents', 'c'],
  ['nodes', 'n'],
  ['sectors', 's'],
] as const satisfies readonly (readonly [string, Mark])[];

/**
 * Two steps, so that nothing is lost to someone who works at the same time (docs/formats/store.md, "Collection"). What is dead is condemned first; it is removed
 * once no lease lives that began before that, if it is still dead and still condemned. When no lease lived or began while we marked, both steps are one.
 */
export async function collect(
  index: Index,
  places: CollectPlaces,
  mark: () => Iterable<Reachable> | AsyncIterable<Reachable>,
): Promise<CollectResult> {
  const before = look(index);
  const live = await reach(index, mark());
  const dead = KINDS.map(([table, kind]) => [table, kind, deadOf(index, table, live)] as const);
  const result: CollectResult = { contents: 0, nodes: 0, sectors: 0, bytes: 0, waitingFor: [] };
  index.transaction(() => {
    const now = look(index);
    const alone = before.oldest === Infinity && now.begun === before.begun;
    const condemned = index.table('condemned');
    uncondemnLiving(index, live);
    const epoch = index.counter('epoch', 1);
    for (const [table, kind, keys] of dead) {
      for (const key of keys) {
        const since = condemned.get(markKey(kind, key))?.readDoubleLE(0);
        if (alone || (since !== undefined && since < before.oldest)) {
          if (remove(index, table, kind, key)) result[table]++;
        } else if (since === undefined) condemned.put(markKey(kind, key), epochBytes(epoch));
      }
    }
    if (!alone && dead.some(([, , keys]) => keys.length > 0))
      result.waitingFor = [...new Set([...before.purposes, ...now.purposes])];
  });
  result.bytes += unlinkRemoved(index, places);
  result.bytes += unlinkStrays(index, places);
  return result;
}

function look(index: Index): Look {
  return index.unsyncedTransaction(() => {
    const leases = livingLeases(index.table('leases'));
    return {
      oldest: Math.min(Infinity, ...leases.map(({ record }) => record.epoch)),
      purposes: leases.map(({ record }) => record.purpose),
      ids: new Set(leases.map(({ id }) => id)),
      begun: index.counter('leases begun', 0),
    };
  });
}

/** Names of everything that must stay: the mark's letter, then the key, as latin1. */
async function reach(index: Index, marked: Iterable<Reachable> | AsyncIterable<Reachable>): Promise<Set<string>> {
  const live = new Set<string>();
  const contents = index.table('contents');
  for await (const item of marked) {
    switch (item.kind) {
      case 'content': {
        const key = contentKey(item.ref);
        const name = markKey('c', key).toString('latin1');
        if (live.has(name)) break;
        live.add(name);
        const value = contents.get(key);
        for (const { sector } of value ? decodeExtents(value) : []) live.add(markKey('s', sector).toString('latin1'));
        break;
      }
      case 'node':
        live.add(markKey('n', item.hash).toString('latin1'));
        break;
      case 'sector':
        live.add(markKey('s', item.root).toString('latin1'));
        break;
      default:
        item satisfies never;
    }
  }
  return live;
}

function deadOf(index: Index, table: string, live: ReadonlySet<string>): Buffer[] {
  const kind = KINDS.find(([name]) => name === table)![1];
  return [...index.table(table).keys()].filter((key) => !live.has(markKey(kind, key).toString('latin1')));
}

function uncondemnLiving(index: Index, live: ReadonlySet<string>): void {
  const condemned = index.table('condemned');
  const saved = [...condemned.keys()].filter((key) => live.has(key.toString('latin1')));
  for (const key of saved) condemned.remove(key);
}

/** Takes an entry out of the index; the file of a sector is marked to be unlinked after the commit. */
function remove(index: Index, table: string, kind: Mark, key: Buffer): boolean {
  const condemned = index.table('condemned');
  condemned.remove(markKey(kind, key));
  if (kind === 's') condemned.put(markKey('x', key), epochBytes(0));
  return index.table(table).remove(key);
}

/**
 * Unlinks the files of sectors that are out of the index. While we hold the write lock nobody can take the mark off, as everybody does before a new file of that name is
 * put in place (`Catalog.keepFile`).
 */
function unlinkRemoved(index: Index, places: CollectPlaces): number {
  const condemned = index.table('condemned');
  const marked = [...condemned.keys({ prefix: 'x' })];
  let bytes = 0;
  for (let at = 0; at < marked.length; at += 256) {
    index.unsyncedTransaction(() => {
      for (const key of marked.slice(at, at + 256)) {
        if (!condemned.remove(key)) continue;
        const root = key.subarray(1);
        if (!index.table('sectors').has(root)) bytes += unlink(places.pathOf(root));
      }
    });
  }
  return bytes;
}

/** Unlinks what a crash has left: temporary files of dead leases, and sector files that are not in the index, if nobody may be about to put them there. */
function unlinkStrays(index: Index, places: CollectPlaces): number {
  let bytes = 0;
  mkdirSync(places.temporaryDir, { recursive: true });
  index.unsyncedTransaction(() => {
    const { ids } = look(index);
    for (const name of readdirSync(places.temporaryDir)) {
      if (!ids.has(name.split('-')[0]!)) bytes += unlink(join(places.temporaryDir, name));
    }
    if (ids.size > 0) return;
    const sectors = index.table('sectors');
    for (const shard of readdirSync(places.sectorsDir)) {
      if (!/^[0-9a-f]{2}$/.test(shard)) continue;
      for (const name of readdirSync(join(places.sectorsDir, shard))) {
        if (!sectors.has(Buffer.from(name, 'hex'))) bytes += unlink(join(places.sectorsDir, shard, name));
      }
    }
  });
  return bytes;
}

function unlink(path: string): number {
  const blocks = statSync(path, { throwIfNoEntry: false })?.blocks ?? 0;
  rmSync(path, { force: true });
  return blocks * 512;
}

function epochBytes(epoch: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(epoch);
  return bytes;
}
