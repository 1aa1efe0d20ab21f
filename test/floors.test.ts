import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '..');
/** Imports go to the same room or to a lower floor; `fs` has three rooms of its own: fuse over view over log. */
const FLOOR: Record<string, number> = {
  mdm: 0,
  store: 1,
  layers: 2,
  'fs/log': 2.1,
  'fs/view': 2.3,
  'fs/fuse': 2.5,
  fs: 2.7,
  grid: 3,
  runtime: 4,
  cli: 5,
};
/** Rooms that must not know each other although the floors would allow it (the brief, section 3). */
const NEVER: [string, string][] = [
  ['layers', 'fs'],
  ['fs/log', 'layers'],
  ['fs/fuse', 'fs/log'],
  ['fs/fuse', 'store'],
  ['grid', 'fs/fuse'],
];

function roomOf(file: string): string {
  const parts = relative(HOME, file).split('/');
  const inner = `${parts[0]}/${parts[1]}`;
  return FLOOR[inner] === undefined ? parts[0]! : inner;
}

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter((e) => e.isFile() && e.name.endsWith('.ts') && !e.parentPath.includes('/assembly'))
    .map((e) => join(e.parentPath, e.name));
}

describe('the house', () => {
  const files = ['mdm', 'store', 'layers', 'fs', 'grid', 'runtime', 'cli'].flatMap((room) => sources(join(HOME, room)));

  it('imports go down only', () => {
    const wrong: string[] = [];
    for (const file of files) {
      const from = roomOf(file);
      for (const match of readFileSync(file, 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
        const target = resolve(dirname(file), match[1]!);
        const to = roomOf(target);
        assert.ok(FLOOR[to] !== undefined, `${relative(HOME, file)} imports ${match[1]}, which is in no room`);
        const forbidden = NEVER.some(([a, b]) => from === a && (to === b || to.startsWith(`${b}/`)));
        if (from !== to && (FLOOR[from]! <= FLOOR[to]! || forbidden))
          wrong.push(`${relative(HOME, file)} (${from}) -> ${match[1]} (${to})`);
      }
    }
    assert.deepEqual(wrong, []);
  });

  it('keeps files short enough to read', () => {
    const long = files
      .map((f) => [readFileSync(f, 'utf8').split('\n').length, relative(HOME, f)] as const)
      .filter(([n]) => n > 500);
    assert.deepEqual(long, []);
  });
});
