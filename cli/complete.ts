import type { Command, Config } from '@oclif/core';
import { isAddressPrefix } from '../layers/address.ts';
import { completeAddresses, completeEntries, completeIds, completeNames, completeRoots } from '../layers/complete.ts';
import { isDirectoryMode } from '../layers/tree-path.ts';
import { listContainers } from '../runtime/containers.ts';
import { listPeers } from '../grid/peers.ts';
import type { Roots } from '../store/paths.ts';
import { openStore, type Store } from '../store/store.ts';
import { withFilePath } from './image-path.ts';
import { pathOfWord, wordOfPath } from './paths.ts';

/** What the first plain word of a command names. */
const IMAGES = new Set(['run', 'create', 'rmi', 'tag', 'export', 'push', 'diff', 'pin', 'unpin']);
const IMAGE_PATHS = new Set(['ls', 'cat', 'find']);
const CONTAINERS = new Set(
  'start stop restart kill rm wait exec attach logs log prove top stats cp diff port rename migrate'.split(' '),
);
const EITHER = new Set(['inspect', 'mount']);

/**
 * Completions of the last of `words` (those after `pg`; the last may be empty): commands, subcommands, flags, names of images, containers and peers.
 * Nothing that is not known here is offered; then the shell completes file names.
 */
export async function complete(config: Config, roots: Roots, words: readonly string[]): Promise<string[]> {
  const typed = words.at(-1) ?? '';
  const before = words.slice(0, -1).filter((word) => !word.startsWith('-'));
  const commands = config.commands.filter((command) => !command.hidden);
  const command = findCommand(commands, before);
  const deeper = commands
    .map((c) => c.id.split(':'))
    .filter((path) => path.length > before.length && before.every((word, i) => path[i] === word))
    .map((path) => path[before.length]!);
  let candidates: string[];
  if (typed.startsWith('-') && command !== undefined) candidates = flagsOf(command);
  else if (deeper.length > 0) candidates = deeper;
  else if (command === undefined) candidates = [];
  else if (IMAGE_PATHS.has(command.id)) candidates = await imagePaths(roots, typed);
  else if (command.id === 'complete') candidates = await completeBytes(roots, typed);
  else candidates = await namesFor(roots, command.id, before.length - command.id.split(':').length, typed);
  return [...new Set(candidates)].filter((candidate) => candidate.startsWith(typed)).toSorted();
}

function findCommand(commands: Command.Loadable[], words: readonly string[]): Command.Loadable | undefined {
  for (let length = words.length; length > 0; length--) {
    const id = words.slice(0, length).join(':');
    const found = commands.find((command) => command.id === id);
    if (found !== undefined) return found;
  }
  return undefined;
}

function flagsOf(command: Command.Loadable): string[] {
  return Object.values(command.flags).flatMap((flag) =>
    flag.hidden ? [] : [`--${flag.name}`, ...(flag.char === undefined ? [] : [`-${flag.char}`])],
  );
}

/** Names for the argument at `index` of the command. */
async function namesFor(roots: Roots, id: string, index: number, typed: string): Promise<string[]> {
  if (id === 'migrate' && index === 1) return listPeers(roots).map((peer) => peer.name);
  if (id === 'peer:rm') return listPeers(roots).map((peer) => peer.name);
  const severalNames = CONTAINERS.has(id) && id !== 'exec' && id !== 'cp';
  if (index > 0 && !severalNames && id !== 'rmi' && id !== 'diff') return [];
  const names: string[] = [];
  if (IMAGES.has(id) || EITHER.has(id)) names.push(...imageOf(roots, typed));
  if (CONTAINERS.has(id) || EITHER.has(id))
    names.push(...(await listContainers(roots)).map(({ record }) => record.name));
  return names;
}

/** Names of images, and ids and addresses once enough of one has been typed to mean it. */
function imageOf(roots: Roots, typed: string): string[] {
  return withStore(roots, (store) => [
    ...completeNames(store, typed),
    ...(/^(sha256:)?[0-9a-f]+$/.test(typed) ? completeIds(store, typed) : []),
    ...(isAddressPrefix(typed) ? completeAddresses(store, typed) : []),
  ]);
}

/** Behind `NAME:/` the paths that begin so, a directory with a `/` to go on from; before, names of images with the `:/` that goes on. */
async function imagePaths(roots: Roots, typed: string): Promise<string[]> {
  if (typed.includes(':/')) return paths(roots, typed);
  return imageNames(roots, typed).map((name) => `${name}:/`);
}

async function paths(roots: Roots, typed: string): Promise<string[]> {
  const slash = typed.lastIndexOf('/');
  const directory = typed.slice(0, slash + 1);
  const prefix = pathOfWord(typed.slice(slash + 1), false);
  return withFilePath(roots, directory, (found, { tree }) =>
    [...completeEntries(tree, found, prefix)].map(
      ({ name, inode }) => `${directory}${wordOfPath(name)}${isDirectoryMode(inode.mode) ? '/' : ''}`,
    ),
  );
}

function imageNames(roots: Roots, prefix: string): string[] {
  return withStore(roots, (store) => completeNames(store, prefix));
}

function withStore<T>(roots: Roots, look: (store: Store) => T): T {
  const store = openStore(roots, { readOnly: true });
  try {
    return look(store);
  } finally {
    void store.close();
  }
}

/** Roots shown at most: a store has millions. */
const ROOTS_MAX = 100;
/** Hex digits from which on roots of contents are completed: fewer are the beginning of an image's id rather. */
const ROOT_DIGITS = 4;

/**
 * What a byte sequence may become: names, ids and addresses of images, roots of contents, and behind `NAME:/` paths. Each begins with `prefix`; in that order.
 */
export async function completeBytes(roots: Roots, prefix: string): Promise<string[]> {
  if (prefix.includes(':/')) return paths(roots, prefix);
  return withStore(roots, (store) => {
    const digits = /^(sha256:)?[0-9a-f]*$/.test(prefix);
    return [
      ...completeNames(store, prefix),
      ...(digits || 'sha256:'.startsWith(prefix) ? completeIds(store, digits ? prefix : 'sha256:') : []),
      ...completeAddresses(store, prefix),
      ...(/^[0-9a-f]{1,64}$/.test(prefix) && prefix.length >= ROOT_DIGITS
        ? completeRoots(store, prefix, ROOTS_MAX)
        : []),
    ].filter((found) => found.startsWith(prefix));
  });
}
