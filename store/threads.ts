/**
 * The URL of a sibling module to start as a worker thread or child process: `.ts` when we run from source, `.js` when
 * built. `moduleUrl` is the caller's `import.meta.url`; `name` has no extension: `siblingModule(import.meta.url,
 * './fuse-worker')`.
 */
export function siblingModule(moduleUrl: string, name: string): URL {
  return new URL(name + (moduleUrl.endsWith('.ts') ? '.ts' : '.js'), moduleUrl);
}
