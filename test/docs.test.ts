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

  for (const page of PAGES) {
    it(`${page} has nothing of a merge left in it`, () => {
      assert.doesNotMatch(readFileSync(join(HOME, page), 'utf8'), /^(<{7}|={7}|>{7})( |$)/m);
    });
  }

  it("the README's table has every command", () => {
    const table = readFileSync(join(HOME, 'README.md'), 'utf8').split('## Commands')[1]!.split('\n## ')[0]!;
    const words = new Set([...table.matchAll(/`([a-z-]+)`/g)].map((m) => m[1]!));
    const commands = globSync('cli/commands/**/*.ts', { cwd: HOME })
      .map((path) => path.slice('cli/commands/'.length, -'.ts'.length).split('/'))
      // The machine's own commands have a document of their own.
      .flatMap(([topic, ...rest]) => (topic === 'mdm' ? [topic] : [topic!, ...rest]))
      .filter((word) => word !== 'index');
    assert.deepEqual(
      [...new Set(commands)].filter((command) => !words.has(command)),
      [],
    );
  });

  it('docs/config.md has every setting', () => {
    const page = readFileSync(join(HOME, 'docs/config.md'), 'utf8');
    const settings = [...readFileSync(join(HOME, 'runtime/settings.ts'), 'utf8').matchAll(/key [!=]== '(\w+)'/g)].map(
      (m) => m[1]!,
    );
    assert.ok(settings.length >= 8);
    assert.deepEqual(
      settings.filter((name) => !new RegExp(`^ +(?:\\[${name}\\]|${name} =)`, 'm').test(page)),
      [],
    );
  });

  it('the index of decisions has all of them, by number and title', () => {
    const index = readFileSync(join(HOME, 'docs/decisions/README.md'), 'utf8');
    for (const file of globSync('0*.md', { cwd: join(HOME, 'docs/decisions') })) {
      const title = readFileSync(join(HOME, 'docs/decisions', file), 'utf8').split('\n')[0]!;
      const number = Number(file.slice(0, 4));
      assert.ok(title.startsWith(`# ${number}. `), `${file}: ${title}`);
      assert.ok(index.includes(`| [${number}](${file}) | ${title.slice(`# ${number}. `.length)} |`), file);
    }
  });

  it('the reading order of the formats has all of them', () => {
    const index = readFileSync(join(HOME, 'docs/formats/README.md'), 'utf8');
    for (const file of globSync('*.md', { cwd: join(HOME, 'docs/formats') }))
      assert.ok(file === 'README.md' || index.includes(`](${file})`), file);
  });
});
