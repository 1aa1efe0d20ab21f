import type { Command, Config } from '@oclif/core';
import { listImages } from '../layers/images.ts';
import { entriesOf, isDirectoryMode } from '../layers/tree-path.ts';
import { listContainers } from '../runtime/containers.ts';
import { listPeers } from '../grid/peers.ts';
import type { Roots } from '../store/paths.ts';
import { openStore } from '../store/store.ts';
import { withFilePath } from './image-path.ts';
import { wordOfPath } from './paths.ts';

/** What the first plain word of a command names. */
const IMAGES = new Set(['run', 'create', 'rmi', 'tag', 'export', 'diff']);
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
  else candidates = await namesFor(roots, command.id, before.length - command.id.split(':').length);
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
async function namesFor(roots: Roots, id: string, index: number): Promise<string[]> {
  if (id === 'migrate' && index === 1) return listPeers(roots).map((peer) => peer.name);
  if (id === 'peer:rm') return listPeers(roots).map((peer) => peer.name);
  const severalNames = CONTAINERS.has(id) && id !== 'exec' && id !== 'cp';
  if (index > 0 && !severalNames && id !== 'rmi' && id !== 'diff') return [];
  const names: string[] = [];
  if (IMAGES.has(id) || EITHER.has(id)) names.push(...imageNames(roots));
  if (CONTAINERS.has(id) || EITHER.has(id))
    names.push(...(await listContainers(roots)).map(({ record }) => record.name));
  return names;
}

/** Names of images; behind `IMAGE:/` the paths that begin as `typed` does, a directory with a `/` to go on from. */
async function imagePaths(roots: Roots, typed: string): Promise<string[]> {
  if (!typed.includes(':/')) return imageNames(roots).map((name) => `${name}:/`);
  const directory = typed.slice(0, typed.lastIndexOf('/') + 1);
  return withFilePath(roots, directory, (found, { tree }) =>
    [...entriesOf(tree, found)].map(
      ({ name, inode }) => `${directory}${wordOfPath(name)}${isDirectoryMode(inode.mode) ? '/' : ''}`,
    ),
  );
}

function imageNames(roots: Roots): string[] {
  const store = openStore(roots, { readOnly: true });
  return listImages(store).flatMap((image) => image.names);
}
