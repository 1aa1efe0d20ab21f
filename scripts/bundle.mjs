// Puts the programs and threads that a container's start waits for into one file each, in place in dist/: finding and loading a file costs
// more than running it. npm packages stay outside, and so does what a command imports only when it needs it.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { build } from 'esbuild';

const ENTRIES = [
  'runtime/shim.js',
  'fs/mount-process.js',
  'fs/sync-worker.js',
  'fs/disk-worker.js',
  'cli/commands/run.js',
  'cli/early-shim.js',
];
/** Imported on demand by others, but always by the shim. */
const ALWAYS = /\/mount-holder\.js$/;
/** Holds what one of the entries hands to another: there must be one of it. */
const SHARED = /\/early-shim\.js$/;

/** Every source file goes on finding its siblings (siblingModule in store/threads.ts): its `import.meta.url` stays its own. */
const inPlace = (entry) => {
  const from = (path) => `./${relative(dirname(entry), path)}`;
  return {
    name: 'in-place',
    setup(bundle) {
      bundle.onResolve({ filter: /^\./ }, ({ path, kind, resolveDir }) => {
        const outside = SHARED.test(path) || (kind === 'dynamic-import' && !ALWAYS.test(path));
        return kind !== 'entry-point' && outside
          ? { path: from(resolve(resolveDir, path)), external: true }
          : undefined;
      });
      bundle.onLoad({ filter: /\/dist\/.*\.js$/ }, ({ path }) => {
        const url = `new URL(${JSON.stringify(from(path))}, import.meta.url).href`;
        return { contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', url), loader: 'js' };
      });
    },
  };
};

/** Bundles the entries of a built `dist`; all are read before the first is replaced. */
export async function bundle(dist) {
  const results = await Promise.all(
    ENTRIES.map((name) =>
      build({
        entryPoints: [join(dist, name)],
        outfile: join(dist, name),
        allowOverwrite: true,
        write: false,
        bundle: true,
        platform: 'node',
        format: 'esm',
        target: 'node24',
        packages: 'external',
        plugins: [inPlace(join(dist, name))],
        logLevel: 'warning',
      }),
    ),
  );
  for (const { outputFiles } of results) for (const file of outputFiles) writeFileSync(file.path, file.contents);
}
