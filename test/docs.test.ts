import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '..');
const PAGES = ['README.md', 'CHANGELOG.md', ...globSync('docs/**/*.md', { cwd: HOME })];

describe('the documents', () => {
  for (const page of PAGES) {
    it(`${page} names only files that are there`, () => {
      const text = readFileSync(join(HOME, page), 'utf8');
      const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map((m) => join(dirname(page), m[1]!));
      const sources = [
        ...text.matchAll(
          /`((?:cli|runtime|fs|layers|mdm|store|grid|test|examples|bench|scripts)\/[\w/.-]+\.(?:ts|sh|mjs|md))/g,
        ),
      ].map((m) => m[1] ?? 'test');
      assert.deepEqual(
        [...links, ...sources].filter((path) => !existsSync(join(HOME, path))),
        [],
      );
    });
  }

  it("the README's commands are package scripts", () => {
    const scripts = (
      JSON.parse(readFileSync(join(HOME, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
    ).scripts;
    const named = [
      ...readFileSync(join(HOME, 'README.md'), 'utf8').matchAll(/npm (?:run ([a-z]+(?::[a-z]+)*)|test)/g),
    ].map((m) => m[1] ?? 'test');
    assert.ok(named.includes('demo') && named.includes('test'));
    for (const name of named) assert.ok(scripts[name] !== undefined, `npm script ${name}`);
  });
});
