import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { decodeAnchor } from './anchors.ts';
import { type Mark, markKey } from './catalog.ts';
import { contentKey, type ContentRef, decodeExtents } from './content.ts';
import type { Index } from './index-db.ts';
import { decodeSector, TABLES } from './host/records.ts';
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

/** Where things are. */
export interface CollectPlaces {
  leasesDir: string;
  sectorsDir: string;
  temporaryDir: string;
  pathOf(root: Uint8Array): string;
}

type MarkLive = () => Iterable<Reachable> | AsyncIterable<Reachable>;

/** Tables whose entries are collected, with the mark of each. */
const KINDS = [
  ['contents', 'c'],
  ['nodes', 'n'],
  ['sectors', 's'],
] as const satisfies readonly (readonly [string, Mark])[];

/**
 * What is dead is condemned first. It is removed only if it is dead again when everything is marked anew, still
 * condemned, and no lease lives that began before it was condemned: whoever began later saw the mark, and takes it off
 * before relying on the thing (docs/formats/store.md, "Collection").
 */
export async function collect(index: Index, places: CollectPlaces, mark: MarkLive): Promise<CollectResult> {
  const result: CollectResult = { contents: 0, nodes: 0, sectors: 0, bytes: 0, waitingFor: [] };
  const reachNow = async (): Promise<Set<string>> => reach(index, [mark(), hostSectors(index)]);
  condemn(index, places, await reachNow());
  const condemned = index.table('condemned');
  if ([...condemned.keys({ limit: 1 })].length > 0) {
    const { oldest } = look(places);
    const removable = [...condemned.range()].filter(
      ({ key, value }) => key[0] !== UNLINK && value.readDoubleLE(0) < oldest,
    );
    if (removable.length > 0) remove(index, await reachNow(), oldest, result);
    if (result.sectors > 0) removeAnchors(index);
    result.bytes += unlinkMarked(index, places);
  }
  result.bytes += removeTemporaries(places);
  if (condemned.count() > 0) result.waitingFor = look(places).purposes;
  return result;
}

const UNLINK = 'x'.charCodeAt(0);

/** Epoch at which the oldest living lease began (infinite if none lives), and what the leases are for. */
function look(places: CollectPlaces): { oldest: number; purposes: string[] } {
  const leases = livingLeases(places.leasesDir);
  return {
    oldest: Math.min(Infinity, ...leases.map(({ record }) => record.epoch)),
    purposes: [...new Set(leases.map(({ record }) => record.purpose))],
  };
}

/** Names of everything that must stay: the mark's letter, then the key, as latin1. */
async function reach(
  index: Index,
  sources: readonly (Iterable<Reachable> | AsyncIterable<Reachable>)[],
): Promise<Set<string>> {
  const live = new Set<string>();
  const contents = index.table('contents');
  const add = (kind: Mark, key: Uint8Array): void => void live.add(markKey(kind, key).toString('latin1'));
  for (const source of sources) {
    for await (const item of source) {
      switch (item.kind) {
        case 'content': {
          const key = contentKey(item.ref);
          add('c', key);
          const value = contents.get(key);
          for (const { sector } of value ? decodeExtents(value) : []) add('s', sector);
          break;
        }
        case 'node':
          add('n', item.hash);
          break;
        case 'sector':
          add('s', item.root);
          break;
        default:
          item satisfies never;
      }
    }
  }
  return live;
}

/** The sectors of the store that files of the machine's host stand on: they stay whatever the caller names. */
function* hostSectors(index: Index): Generator<Reachable> {
  for (const { value } of index.table(TABLES.sectors).range()) yield { kind: 'sector', root: decodeSector(value).base };
}

/**
 * Puts a mark on everything that is not in `live`, and on sector files that are not in the index; takes it off what
 * lives.
 */
function condemn(index: Index, places: CollectPlaces, live: ReadonlySet<string>): void {
  const condemned = index.table('condemned');
  const isLive = (key: Buffer): boolean => live.has(key.toString('latin1'));
  const strays = strayFiles(index, places);
  const saved = [...condemned.keys()].filter(isLive);
  const dead = KINDS.flatMap(([table, kind]) =>
    [...index.table(table).keys()].map((key) => markKey(kind, key)).filter((key) => !isLive(key)),
  );
  const fresh = [...dead, ...strays.map((root) => markKey('x', root))].filter((key) => !condemned.has(key));
  if (fresh.length === 0 && saved.length === 0) return;
  index.transaction(() => {
    for (const key of saved) condemned.remove(key);
    const epoch = epochBytes(index.counter('epoch', 1));
    for (const key of fresh) condemned.put(key, epoch);
  });
}

/**
 * Takes out of the index what is dead, condemned, and was so before the oldest lease began; marks the files of sectors
 * to be unlinked.
 */
function remove(index: Index, live: ReadonlySet<string>, oldest: number, result: CollectResult): void {
  const condemned = index.table('condemned');
  index.transaction(() => {
    const epoch = epochBytes(index.counter('epoch', 1));
    for (const [table, kind] of KINDS) {
      const old = [...condemned.range({ prefix: kind })].filter(({ value }) => value.readDoubleLE(0) < oldest);
      for (const { key } of old) {
        if (live.has(key.toString('latin1'))) continue;
        condemned.remove(key);
        if (kind === 's') condemned.put(markKey('x', key.subarray(1)), epoch);
        if (index.table(table).remove(key.subarray(1))) result[table]++;
      }
    }
  });
}

/** Takes out the anchors that lead to sectors which are gone. Whoever follows one meanwhile finds that the sector is gone. */
function removeAnchors(index: Index): void {
  const [anchors, sectors] = [index.table('anchors'), index.table('sectors')];
  const leadsNowhere = (value: Buffer | undefined): boolean =>
    value !== undefined && !sectors.has(decodeAnchor(value).sector);
  const dead = [...anchors.range()].filter(({ value }) => leadsNowhere(value)).map(({ key }) => key);
  for (let at = 0; at < dead.length; at += 4096) {
    index.transaction(() => {
      for (const key of dead.slice(at, at + 4096)) if (leadsNowhere(anchors.get(key))) anchors.remove(key);
    });
  }
}

/**
 * Unlinks the files that are marked, unless someone who began before the mark may be about to put one of that name in
 * place; whoever began later takes the mark off before he does (`Catalog.keepFile`), and cannot while we hold the write
 * lock.
 */
function unlinkMarked(index: Index, places: CollectPlaces): number {
  const condemned = index.table('condemned');
  const { oldest } = look(places);
  const marked = [...condemned.range({ prefix: 'x' })].filter(({ value }) => value.readDoubleLE(0) < oldest);
  let bytes = 0;
  for (let at = 0; at < marked.length; at += 256) {
    index.transaction(() => {
      for (const { key } of marked.slice(at, at + 256)) {
        const root = key.subarray(1);
        if (condemned.remove(key) && !index.table('sectors').has(root)) bytes += unlink(places.pathOf(root));
      }
    });
  }
  return bytes;
}

/** Roots of the sector files that are not in the index: of imports that crashed, and of those that are under way. */
function strayFiles(index: Index, places: CollectPlaces): Buffer[] {
  const sectors = index.table('sectors');
  mkdirSync(places.sectorsDir, { recursive: true, mode: 0o700 });
  return readdirSync(places.sectorsDir)
    .filter((shard) => /^[0-9a-f]{2}$/.test(shard))
    .flatMap((shard) => readdirSync(join(places.sectorsDir, shard)))
    .map((name) => Buffer.from(name, 'hex'))
    .filter((root) => root.length === 32 && !sectors.has(root));
}

/**
 * Removes the temporary files of writers that are gone. They are listed before the leases: a lease is there before its
 * files.
 */
function removeTemporaries(places: CollectPlaces): number {
  mkdirSync(places.temporaryDir, { recursive: true, mode: 0o700 });
  const names = readdirSync(places.temporaryDir);
  const living = new Set(livingLeases(places.leasesDir).map(({ id }) => id));
  let bytes = 0;
  for (const name of names) if (!living.has(name.split('-')[0]!)) bytes += unlink(join(places.temporaryDir, name));
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
