import type { ControlClient } from '../runtime/control.ts';
import { spawnShim } from '../runtime/shim-process.ts';
import { resolveRoots, type Roots } from '../store/paths.ts';

/** The shim that was started before the command line had been looked at; `pg run` takes it. */
let early: { shim: ControlClient; run: string } | undefined;

/**
 * `pg run` needs a shim process, which takes longer to load its code than everything else together: it is started first of all,
 * while oclif loads. Nothing when the words are not those of a `run` that will run something. One that is not taken ends with this process.
 */
export function startEarly(words: readonly string[]): void {
  if (words[0] !== 'run' || words.length < 2 || words.includes('--help') || process.getuid?.() !== 0) return;
  const at = words.findIndex((word) => word === '--root' || word.startsWith('--root='));
  const root = at < 0 ? undefined : words[at]!.includes('=') ? words[at]!.slice('--root='.length) : words[at + 1];
  const roots = resolveRoots(root, process.env, 0);
  early = { shim: spawnShim(roots), run: roots.run };
}

/** The early shim if there is one for these directories, else a new one. */
export function takeShim(roots: Roots): ControlClient {
  const found = early;
  early = undefined;
  if (found?.run === roots.run) return found.shim;
  found?.shim.close();
  return spawnShim(roots);
}
