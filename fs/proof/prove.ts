import { crc32 } from 'node:zlib';
import { PgError } from '../../mdm/error.ts';
import { readNode, type Tree } from '../../layers/tree.ts';
import { DirectoryNode } from '../../layers/trie.ts';
import type { Store } from '../../store/store.ts';
import { isDirectory, isRegular } from '../view/node.ts';
import type { State } from '../view/state.ts';
import { firstEndingBehind } from './extent-map.ts';
import { buildNamespace, type Namespace } from './namespace.ts';
import { encodeOpening, type ShownBytes, Touched } from './opening.ts';
import { encodeQuestion, isName, MAX_NAMES, MAX_PROOF_BYTES, treeKey } from './proof-file.ts';
import { contentSource, type FileSource, memorySource } from './source.ts';
import { type Finding, type Forest, type Question, type Step, walk } from './walk.ts';

/** Symlinks that `follow` goes through, as the kernel counts them. */
const MAX_LINKS = 40;

/** What a path of a container leads to. */
export interface Target {
  /** Names from the root down; shorter or other than what was asked for where symlinks were followed. */
  names: string[];
  /** Directories gone through, and at last what was found; as far as there is something. */
  inos: number[];
}

/**
 * Looks a path up. `follow` goes through symlinks, the last name's too; without it a symlink in the middle is PgError('PROVE_SYMLINK'). A path
 * that does not exist is looked up as far as it does. BAD_PATH.
 */
export function resolveTarget(state: State, path: string, follow: boolean): Target {
  let left = namesOf(path);
  let target: Target = { names: [], inos: [1] };
  for (let links = 0; left.length > 0;) {
    const [name, ...rest] = left as [string, ...string[]];
    left = rest;
    const isMissing = target.inos.length <= target.names.length;
    if (name === '..') {
      const inos = isMissing || target.inos.length === 1 ? target.inos : target.inos.slice(0, -1);
      target = { names: target.names.slice(0, -1), inos };
      continue;
    }
    const parent = target.inos.at(-1)!;
    const ino = isMissing || !isDirectory(state.peek(parent).mode) ? undefined : state.lookup(parent, name);
    const symlink = ino === undefined ? undefined : state.peek(ino).symlink;
    if (symlink !== undefined && (follow || left.length > 0)) {
      const here = `/${[...target.names, name].join('/')}`;
      const to = Buffer.from(symlink).toString('latin1');
      if (!follow) throw symlinkInTheWay(here, to);
      if (++links > MAX_LINKS) throw new PgError('BAD_PATH', `too many symlinks at ${here}`);
      left = [...linkNames(to), ...left];
      if (to.startsWith('/')) target = { names: [], inos: [1] };
      continue;
    }
    target = { names: [...target.names, name], inos: ino === undefined ? target.inos : [...target.inos, ino] };
  }
  if (target.names.length > MAX_NAMES) throw new PgError('BAD_PATH', `the path has more than ${MAX_NAMES} names`);
  return target;
}

function namesOf(path: string): string[] {
  const names = path.split('/').filter((name) => name !== '' && name !== '.');
  const bad = names.find((name) => !isName(name));
  if (bad !== undefined)
    throw new PgError('BAD_PATH', bad === '..' ? 'a path with .. in it proves nothing' : `${bad} cannot be a name`, {
      hint: 'give the path from / down',
    });
  return names;
}

/** Names of a symlink's target, `..` among them. */
const linkNames = (target: string): string[] => target.split('/').filter((name) => name !== '' && name !== '.');

const symlinkInTheWay = (path: string, to: string): PgError =>
  new PgError('PROVE_SYMLINK', `${path} is a symlink to ${to}: what lies behind it has another path`, {
    hint: 'give that path, or --follow',
  });

/** The namespace with what a proof about `target` needs of it. */
export function namespaceFor(state: State, target: Target): Namespace {
  return buildNamespace(state, new Set(target.inos));
}

/** Everything that a proof is made from. */
export interface Evidence {
  store: Store;
  tree: Tree;
  /** The files at the claim's size. */
  state: State;
  namespace: Namespace;
  /** The log, of which the claim is the last batch. */
  log: FileSource;
}

/**
 * A proof that what `target` leads to, and its bytes of `range`, is in the log's root, in pieces one after another; `undefined` proves the attributes alone,
 * or that there is nothing. PgError BAD_RANGE, PROOF_TOO_LARGE.
 */
export function prove(
  evidence: Evidence,
  target: Target,
  range: { start: number; end: number } | undefined,
): { pieces: Uint8Array[]; finding: Finding; root: Uint8Array } {
  const forest = new WholeForest(evidence);
  const question = questionOf(evidence, target, range);
  const finding = walk(forest, question);
  const root = evidence.log.root();
  const pieces: Uint8Array[] = [encodeQuestion(root, question, finding.entry !== undefined)];
  let length = pieces[0]!.length + 4;
  const data = finding.segments.reduce((sum, { from, length: bytes }) => sum + (from === undefined ? 0 : bytes), 0);
  if (data > MAX_PROOF_BYTES) throw tooLarge();
  for (const tree of forest.trees) {
    for (const piece of encodeOpening(tree.size, tree.touched.ranges(), tree.source)) {
      pieces.push(piece);
      length += piece.length;
    }
  }
  if (length > MAX_PROOF_BYTES) throw tooLarge();
  const trailer = Buffer.alloc(4);
  trailer.writeUInt32LE(pieces.reduce((check, piece) => crc32(piece, check), 0));
  return { pieces: [...pieces, trailer], finding, root };
}

const tooLarge = (): PgError =>
  new PgError('PROOF_TOO_LARGE', 'a proof has at most 2 GiB', { hint: 'prove smaller ranges, one after another' });

function questionOf({ state, tree, store, namespace }: Evidence, target: Target, range: Question['range']): Question {
  const path: Step[] = target.names.map((name, i) => {
    const dir = target.inos[i];
    if (dir === undefined || !isDirectory(state.peek(dir).mode)) return { name, index: 0 };
    const made = namespace.ofInode.get(dir);
    const node =
      made === undefined
        ? new DirectoryNode(readNode(store, tree.nodeOf(dir)!.hash))
        : new DirectoryNode(made, 'namespace');
    return { name, index: node.lowerBound(name) };
  });
  const ino = target.inos.length > target.names.length ? target.inos.at(-1) : undefined;
  if (range === undefined) return { path, range, firstExtent: 0 };
  requireRange(ino === undefined ? undefined : state.peek(ino), range);
  const map = range.start === range.end ? undefined : namespace.ofInode.get(ino!);
  return { path, range, firstExtent: map === undefined ? 0 : firstEndingBehind(map, range.start) };
}

/** PgError('BAD_RANGE') unless these are bytes of a file. */
export function requireRange(
  inode: { mode: number; size: number } | undefined,
  { start, end }: { start: number; end: number },
): void {
  if (inode === undefined || !isRegular(inode.mode)) throw new PgError('BAD_RANGE', 'only a file has bytes');
  if (!(start <= end && end <= inode.size)) throw new PgError('BAD_RANGE', `the file has ${inode.size} bytes`);
}

/** A tree of which everything is here; it notes what is looked at. */
class WholeTree implements ShownBytes {
  readonly source: FileSource;
  readonly touched = new Touched();

  constructor(source: FileSource) {
    this.source = source;
  }

  get size(): number {
    return this.source.size;
  }

  read(offset: number, length: number): Uint8Array {
    this.touched.add(offset, length, this.size);
    const bytes = new Uint8Array(length);
    this.source.readAt(bytes, offset);
    return bytes;
  }

  show(offset: number, length: number): void {
    this.touched.add(offset, length, this.size);
  }
}

/** All trees that a walk may come to. */
class WholeForest implements Forest {
  /** Those it came to, in order. */
  readonly trees: WholeTree[];
  readonly log: WholeTree;
  readonly #evidence: Evidence;
  readonly #known = new Map<string, WholeTree>();

  constructor(evidence: Evidence) {
    this.#evidence = evidence;
    this.log = new WholeTree(evidence.log);
    this.trees = [this.log];
  }

  node(root: Uint8Array): ShownBytes {
    return this.#tree(treeKey(root, 'node'), () => {
      const made = this.#evidence.namespace.nodes.get(Buffer.from(root).toString('hex'));
      return memorySource(made ?? readNode(this.#evidence.store, root));
    });
  }

  content(root: Uint8Array, size: number): ShownBytes {
    return this.#tree(treeKey(root, size), () => contentSource(this.#evidence.store, { root, size }));
  }

  #tree(key: string, open: () => FileSource): WholeTree {
    let tree = this.#known.get(key);
    if (tree === undefined) {
      tree = new WholeTree(open());
      this.#known.set(key, tree);
      this.trees.push(tree);
    }
    return tree;
  }
}
