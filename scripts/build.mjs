// Compiles the wasm kernels and the TypeScript of every room into dist/, copies data files, writes oclif's command manifest.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, globSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const home = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(home, 'dist');

execFileSync(process.execPath, ['scripts/build-wasm.mjs'], { cwd: home, stdio: 'inherit' });
rmSync(dist, { recursive: true, force: true });
execFileSync('node_modules/typescript/bin/tsc', ['-p', 'tsconfig.build.json'], { cwd: home, stdio: 'inherit' });
for (const data of globSync('{cli,runtime,fs,layers,mdm,store,grid}/**/*.json', { cwd: home }))
  cpSync(join(home, data), join(dist, data));
const { bundle } = await import('./bundle.mjs');
await bundle(dist);

// Without the manifest oclif would load every command to start one.
rmSync(join(home, 'oclif.manifest.json'), { force: true });
if (existsSync(join(dist, 'cli/commands'))) {
  const { Plugin } = await import('@oclif/core');
  const plugin = new Plugin({ root: home, ignoreManifest: true, errorOnManifestCreate: true });
  await plugin.load();
  writeFileSync(join(home, 'oclif.manifest.json'), JSON.stringify(plugin.manifest));
}
writeFileSync(join(dist, '.built'), '');
