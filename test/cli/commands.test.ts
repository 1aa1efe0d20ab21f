import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from '@oclif/core';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../..');

describe('every command', () => {
  for (const file of globSync('cli/commands/**/*.ts', { cwd: HOME })) {
    it(`${file} says what it does, with examples, and what each flag and argument is`, async () => {
      const { default: command } = (await import(join(HOME, file))) as { default: Command.Class };
      assert.ok((command.summary ?? '').length > 10, 'a summary');
      assert.ok((command.examples ?? []).length > 0, 'examples');
      for (const [name, flag] of Object.entries(command.flags ?? {})) {
        assert.ok(flag.hidden || flag.summary || flag.description, `--${name} is described`);
      }
      for (const [name, arg] of Object.entries(command.args ?? {})) assert.ok(arg.description, `${name} is described`);
    });
  }
});
