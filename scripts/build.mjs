// Compiles the wasm kernels and the TypeScript of every room into dist/, then writes oclif's command manifest.
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const home = join(dirname(fileURLToPath(import.meta.url)), '..');
const run = (args) => execFileSync(process.execPath, args, { cwd: home, stdio: 'inherit' });

if (existsSync(join(home, 'scripts/build-wasm.mjs'))) run(['scripts/build-wasm.mjs']);
rmSync(join(home, 'dist'), { recursive: true, force: true });
run(['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json']);
