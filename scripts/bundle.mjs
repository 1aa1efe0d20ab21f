// Puts the programs and threads that a container's start waits for into one file each, in place in dist/: finding and loading a file costs
// more than running it. npm packages stay outside, and so does what a command imports only when it needs it.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { build } from 'esbuild';

const ENTRIES = [
  'runtime/shim.js',
  'fs/mount-process.js',
  'fs/sync-worker.js',
  'fs/disk-worker.js',
  'cli/commands/run.js',
  'cli/early-shim.js',
  'cli/commands/import.js',
  'layers/transport/docker-registry.js',
  'store/sector-worker.js',
];
/** A package whose many files take longer to find than all else that a request to a registry takes. */
const WITH = /^undici$/;
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
      bundle.onResolve({ filter: WITH }, ({ path, kind, importer }) =>
        kind === 'import-statement' ? { path: createRequire(importer).resolve(path) } : undefined,
      );
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
        // What CommonJS within asks for of Node.
        banner: {
          js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
        },
        plugins: [inPlace(join(dist, name))],
        logLevel: 'warning',
      }),
    ),
  );
  for (const { outputFiles } of results) for (const file of outputFiles) writeFileSync(file.path, file.contents);
}
