import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Roots } from '../../store/paths.ts';
import { openStore, type ContentRef, type Store } from '../../store/store.ts';

/** Makes a directory for a store, hands out stores on it, and takes everything away again. */
export class Place {
  readonly dir = mkdtempSync('/var/tmp/pg-test-');
  readonly roots: Roots = { data: this.dir, run: join(this.dir, 'run'), config: join(this.dir, 'etc') };
  private readonly stores: Store[] = [];

  open(): Store {
    const store = openStore(this.roots);
    this.stores.push(store);
    return store;
  }

  async remove(): Promise<void> {
    for (const store of this.stores) await store.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Repeatable bytes that do not compress and do not repeat: xorshift32 from `seed`. */
export function noise(size: number, seed: number): Buffer {
  const words = new Int32Array(Math.ceil(size / 4));
  let x = Math.imul(seed, 2654435761) | 1;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return Buffer.from(words.buffer, 0, size);
}

/** Stores `contents` in one import and answers with their names. */
export async function importAll(store: Store, contents: readonly Uint8Array[]): Promise<ContentRef[]> {
  const writer = store.writer('test');
  const sinks = [];
  for (const content of contents) sinks.push(await writer.put(content.length, [content]));
  await writer.finish();
  return Promise.all(sinks.map((sink) => sink.ref));
}

/** A whole content, read back. */
export function readAll(store: Store, ref: ContentRef): Buffer {
  const bytes = Buffer.alloc(ref.size);
  const count = store.readContentAt(ref, bytes, 0);
  return bytes.subarray(0, count);
}

/** Repeatable bytes that compress to less than half: words in an order that does not repeat. */
export function prose(size: number, seed: number): Buffer {
  const words = noise(65_536, seed ^ 0x5eed)
    .toString('hex')
    .match(/.{3,9}/g)!;
  const parts: string[] = [];
  let x = Math.imul(seed, 2654435761) | 1;
  for (let length = 0; length < size;) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    const word = words[(x >>> 0) % 700]!;
    parts.push(word);
    length += word.length + 1;
  }
  return Buffer.from(parts.join(' ').padEnd(size)).subarray(0, size);
}
