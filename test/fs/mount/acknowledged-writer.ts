import { mkdirSync, writeSync } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * A program that writes and fsyncs without end below argv[2], and says on stdout what it is about to do (`begin`) and what has been acknowledged
 * (`done`), a JSON array a line: [what, kind, path, version, ...]. Several loops go on at once, each in a directory of its own; argv[3] is the
 * number to begin versions at. Everything it writes can be told from its path and version (`contentOf`).
 */
export const BLOCK_BYTES = 4096;
const BLOCKS = 64;
const NAMES = 8;

export type Word = ['begin' | 'done', 'put' | 'remove' | 'append' | 'block', string, number, number];

/** What version `version` of a file, or of a block of one, holds. */
export function contentOf(path: string, version: number, length: number): Buffer {
  return Buffer.alloc(length, `${path} ${version};`);
}

/** One loop writes more than a room of the log's buffer now and then, twice: a thread that writes full rooms is started at the first. */
const isLarge = (path: string, version: number): boolean =>
  path.startsWith('a/') && (version % 100 === 5 || version % 100 === 10);
export const lengthOf = (path: string, version: number): number =>
  (isLarge(path, version) ? 5 << 20 : 0) + ((version * 7919) % 20_000);
export const appendedLength = (version: number): number => 1 + ((version * 104_729) % 9000);

function say(...words: Word): void {
  writeSync(1, `${JSON.stringify(words)}\n`);
}

async function synced(
  path: string,
  flags: string,
  action: (file: Awaited<ReturnType<typeof open>>) => Promise<unknown>,
) {
  const file = await open(path, flags);
  try {
    await action(file);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function loop(base: string, name: string, first: number): Promise<void> {
  const dir = join(base, name);
  mkdirSync(dir, { recursive: true });
  await synced(base, 'r', async () => {});
  for (let version = first; ; version++) {
    const file = `${name}/f${version % NAMES}`;
    switch (version % 5) {
      case 0:
      case 1: {
        say('begin', 'put', file, version, 0);
        await synced(join(dir, 'new'), 'w', (f) => f.write(contentOf(file, version, lengthOf(file, version))));
        await rename(join(dir, 'new'), join(base, file));
        await synced(dir, 'r', async () => {});
        say('done', 'put', file, version, 0);
        break;
      }
      case 2: {
        const path = `${name}/log`;
        const before = (await stat(join(base, path)).catch(() => undefined))?.size ?? 0;
        say('begin', 'append', path, version, before);
        await synced(join(base, path), 'a', (f) => f.write(contentOf(path, version, appendedLength(version))));
        if (before === 0) await synced(dir, 'r', async () => {});
        say('done', 'append', path, version, before);
        break;
      }
      case 3: {
        const path = `${name}/blocks`;
        const block = (version * 31) % BLOCKS;
        say('begin', 'block', path, version, block);
        await synced(join(base, path), (await stat(join(base, path)).catch(() => undefined)) ? 'r+' : 'w+', (f) =>
          f.write(contentOf(path, version, BLOCK_BYTES), 0, BLOCK_BYTES, block * BLOCK_BYTES),
        );
        await synced(dir, 'r', async () => {});
        say('done', 'block', path, version, block);
        break;
      }
      default: {
        say('begin', 'remove', file, version, 0);
        await rm(join(base, file), { force: true });
        await synced(dir, 'r', async () => {});
        say('done', 'remove', file, version, 0);
      }
    }
  }
}

if (process.argv[2] !== undefined && import.meta.filename === process.argv[1]) {
  const [, , base, first] = process.argv;
  // The filesystem goes away under it: that is its end.
  await Promise.all(['a', 'b', 'c'].map((name) => loop(base!, name, Number(first)))).catch(() => process.exit(0));
}
