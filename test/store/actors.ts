import assert from 'node:assert/strict';
import type { Reachable } from '../../store/collect.ts';
import { contentKey, contentOfKey } from '../../store/content.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import { noise, prose, readAll } from './fixture.ts';

/** Contents that actors bring: small, large, versions of one another, compressible and not. */
export const POOL: Buffer[] = (() => {
  const large = noise(700_000, 1);
  return [
    large,
    Buffer.concat([noise(1000, 2), large.subarray(0, 400_000), noise(9000, 3), large.subarray(400_000)]),
    Buffer.concat([large.subarray(200_000), prose(300_000, 4)]),
    prose(500_000, 5),
    noise(300_000, 6),
    ...Array.from({ length: 8 }, (_, i) => (i % 2 ? noise : prose)(20_000 + 9000 * i, 10 + i)),
  ];
})();
const REFS: ContentRef[] = POOL.map((bytes) => ({ root: bufferRoot(bytes), size: bytes.length }));

/** What an actor may do. */
export type Deed =
  | { kind: 'import'; name: number; contents: number[]; finish: boolean }
  | { kind: 'adopt'; name: number; content: number }
  | { kind: 'remove'; name: number }
  | { kind: 'collect' | 'repack' | 'pack' }
  | { kind: 'read'; name: number };

/** Names that contents are kept under. */
export const NAMES = 6;

/** Each has a store of its own, as each process has. */
export class Actor {
  private readonly store: Store;
  /** Lets another go on. */
  private readonly step: () => Promise<void>;

  constructor(store: Store, step: () => Promise<void>) {
    this.store = store;
    this.step = step;
  }

  async do(one: Deed): Promise<void> {
    const { store, step } = this;
    await step();
    switch (one.kind) {
      case 'import': {
        const writer = store.writer();
        for (const which of one.contents) {
          await writer.put(POOL[which]!.length, [POOL[which]!]);
          await step();
        }
        await writer.flush();
        await step();
        if (!one.finish) return writer.abort();
        return writer.finish(() =>
          putName(
            store,
            one.name,
            one.contents.map((which) => REFS[which]!),
          ),
        );
      }
      case 'adopt': {
        const lease = store.lease('adopt');
        await step();
        const here = store.hasContent(REFS[one.content]!);
        await step();
        if (here) putName(store, one.name, [REFS[one.content]!]);
        return lease.release();
      }
      case 'remove':
        store.table('test-names').remove(String(one.name));
        return;
      case 'collect':
        await store.collect(() => named(store, step));
        return;
      case 'repack':
        await store.repack();
        return;
      case 'pack':
        await store.pack(1);
        return;
      case 'read': {
        // Who reads what may be removed meanwhile holds a lease.
        const lease = store.lease('read');
        const opened = namesOf(store, one.name).map((ref) => store.openContent(ref));
        await step();
        for (const reader of opened) {
          const into = Buffer.alloc(reader.size);
          assert.equal(reader.readAt(into, 0), reader.size);
          assert.ok(Buffer.from(reader.ref.root).equals(bufferRoot(into)));
        }
        return lease.release();
      }
      default:
        one satisfies never;
    }
  }
}

function putName(store: Store, which: number, refs: readonly ContentRef[]): void {
  store.table('test-names').put(String(which), Buffer.concat(refs.map(contentKey)));
}

function namesOf(store: Store, which: number): ContentRef[] {
  const keys = store.table('test-names').get(String(which)) ?? Buffer.alloc(0);
  return Array.from({ length: keys.length / 40 }, (_, i) => contentOfKey(keys.subarray(40 * i, 40 * i + 40)));
}

async function* named(store: Store, step: () => Promise<void>): AsyncGenerator<Reachable> {
  for (let which = 0; which < NAMES; which++) {
    await step();
    for (const ref of namesOf(store, which)) yield { kind: 'content', ref };
  }
}

/** When all is quiet: what is named is there bit for bit, and nothing else. */
export async function settle(store: Store): Promise<void> {
  const quiet = async (): Promise<void> => {};
  await store.collect(() => named(store, quiet));
  await store.repack();
  await store.collect(() => named(store, quiet));
  const kept = new Map<string, ContentRef>();
  for (let which = 0; which < NAMES; which++)
    for (const ref of namesOf(store, which)) kept.set(contentKey(ref).toString('latin1'), ref);
  for (const ref of kept.values())
    assert.ok(readAll(store, ref).equals(POOL[REFS.findIndex(({ root }) => Buffer.compare(root, ref.root) === 0)]!));
  assert.equal(store.usage().contents, kept.size);
  assert.equal(store.usage().sectors === 0, kept.size === 0);
  assert.equal(store.table('condemned').count(), 0);
  assert.deepEqual((await store.verify()).problems, []);
}
