import {
  directoryHead,
  decodeRecord,
  decodeRoot,
  type Entry,
  NODE_HEAD,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from '../../layers/trie.ts';
import {
  COMMIT_BYTES,
  getU64,
  HEADER_BYTES,
  LOG_HEADER_BYTES,
  peekLength,
  peekType,
  TYPE_COMMIT,
  TYPE_NAMESPACE,
} from '../log/entry.ts';
import { MAX_NAMESPACE_BYTES, type NamespaceClaim, readClaim } from '../log/claim.ts';
import { IN_CONTENT, IN_LOG, mapCount, readExtent } from './extent-map.ts';
import { refuted, type ShownBytes } from './opening.ts';

/**
 * From a log's root to bytes of a file: the end of the log, the claim there, directory by directory along a path, the file's extents, their bytes. Whoever
 * proves walks over everything and notes what was looked at; whoever verifies walks over what the proof shows. It is the same walk.
 */

/** A name of the path, and where in its directory it is or would be: the verifier need not search. */
export interface Step {
  /** Latin1: a character is a byte. */
  name: string;
  index: number;
}

/** What is to be proved. */
export interface Question {
  /** From the root down; none is the root directory itself. As many as were looked up before one was missing, and the rest without index. */
  path: readonly Step[];
  /** Bytes of the file wanted: [start, end); undefined proves the attributes alone. */
  range: { start: number; end: number } | undefined;
  /** Index of the first extent that ends behind `start`. */
  firstExtent: number;
}

/** The trees that the walk comes upon. Each call with another root is another tree. */
export interface Forest {
  log: ShownBytes;
  node(root: Uint8Array): ShownBytes;
  content(root: Uint8Array, size: number): ShownBytes;
}

/** Part of the range: bytes of a tree, or zeros. */
export interface Segment {
  start: number;
  length: number;
  from?: { tree: ShownBytes; at: number };
}

/** What holds under the log's root. */
export interface Finding {
  claim: NamespaceClaim;
  /** Size of the log whose root it is. */
  size: number;
  /** What the path leads to; undefined: there is nothing. */
  entry: Entry | undefined;
  /** How many names of the path there are. */
  depth: number;
  /** The bytes of the range, in order and without gaps. */
  segments: Segment[];
}

/** Walks. PROOF_REFUTED when something does not fit. */
export function walk(forest: Forest, question: Question): Finding {
  const claim = lastClaim(forest.log);
  const root = forest.node(claim.root);
  let entry = decoded(() => decodeRoot(Buffer.from(root.read(0, root.size)), 'namespace').root);
  let depth = 0;
  for (const { name, index } of question.path) {
    const found = isType(entry, S_IFDIR) ? lookup(forest.node(entry.child!.hash), name, index) : undefined;
    if (found === undefined) {
      if (isType(entry, S_IFLNK)) throw refuted('its path goes on behind a symlink');
      if (index !== 0 && !isType(entry, S_IFDIR)) throw refuted('a name has a place in what is no directory');
      if (question.range !== undefined) throw refuted('there are no bytes of what is not there');
      return { claim, size: forest.log.size, entry: undefined, depth, segments: [] };
    }
    entry = found;
    depth++;
  }
  const segments = question.range === undefined ? [] : segmentsOf(forest, claim, entry, question);
  return { claim, size: forest.log.size, entry, depth, segments };
}

const isType = (entry: Entry, type: number): boolean => (entry.mode & S_IFMT) === type;

/** The claim that the last batch of the log is. The last leaf is a COMMIT which says where the log ends, so a proof cannot lie about the size. */
function lastClaim(log: ShownBytes): NamespaceClaim {
  if (log.size % COMMIT_BYTES !== 0 || log.size < LOG_HEADER_BYTES + 2 * COMMIT_BYTES)
    throw refuted('no log has that size');
  const end = log.size - COMMIT_BYTES;
  const commit = viewOf(log.read(end, COMMIT_BYTES));
  const isCommit =
    peekLength(commit, 0) === COMMIT_BYTES &&
    peekType(commit, 0) === TYPE_COMMIT &&
    getU64(commit, HEADER_BYTES + 8) === log.size;
  const start = getU64(commit, HEADER_BYTES);
  if (!isCommit || !(start >= LOG_HEADER_BYTES && start < end && end - start <= MAX_NAMESPACE_BYTES))
    throw refuted('the log does not end with a claim');
  const bytes = Buffer.from(log.read(start, end - start));
  const view = viewOf(bytes);
  const isClaim = peekLength(view, 0) === bytes.length && peekType(view, 0) === TYPE_NAMESPACE;
  const claim = isClaim ? readClaim(bytes, view, HEADER_BYTES, view.getUint16(12, true)) : undefined;
  if (claim === undefined || claim.size > start) throw refuted('the log does not end with a claim');
  return claim;
}

/** The entry `name` of a directory node; undefined when its neighbours show that there is none. */
function lookup(node: ShownBytes, name: string, index: number): Entry | undefined {
  const { count } = directory(node);
  if (!(index <= count)) throw refuted('a directory has no such place');
  const here = index < count ? record(node, index, count) : undefined;
  if (here?.name === name) return here;
  const before = index > 0 ? record(node, index - 1, count) : undefined;
  const isGap = (before === undefined || before.name < name) && (here === undefined || here.name > name);
  if (!isGap) throw refuted('a name was looked for in the wrong place');
  return undefined;
}

/** Head of a directory node; one that does not say how long it is must be shown whole. */
function directory(node: ShownBytes): { count: number } {
  const head = decoded(() => directoryHead(Buffer.from(node.read(0, NODE_HEAD))));
  if (head.bytes === 0) node.show(0, node.size);
  else if (head.bytes !== node.size) throw refuted('a directory is not as long as it says');
  return head;
}

/** The record of this index: it ends where the next one starts. */
function record(node: ShownBytes, index: number, count: number): Entry {
  const start = offsetOf(node, index);
  const end = index + 1 < count ? offsetOf(node, index + 1) : node.size;
  if (!(start >= NODE_HEAD + 4 * count && start < end)) throw refuted('a directory is out of order');
  const bytes = Buffer.from(node.read(start, end - start));
  return decoded(() => decodeRecord(bytes, 0));
}

const offsetOf = (node: ShownBytes, index: number): number =>
  viewOf(node.read(NODE_HEAD + 4 * index, 4)).getUint32(0, true);

function segmentsOf(forest: Forest, claim: NamespaceClaim, entry: Entry, question: Question): Segment[] {
  const { start, end } = question.range!;
  const first = question.firstExtent;
  if (!isType(entry, S_IFREG) || !(start <= end && end <= entry.size)) throw refuted('the range is not in the file');
  if ((start === end || entry.mapped !== true) && first !== 0) throw refuted('there are no extents to count');
  if (start === end) return [];
  if (entry.root === undefined) throw refuted('a file of some bytes has none');
  if (entry.mapped !== true) {
    const tree = forest.content(entry.root, entry.size);
    tree.show(start, end - start);
    return [{ start, length: end - start, from: { tree, at: start } }];
  }
  return mappedSegments(forest, claim.size, forest.node(entry.root), question);
}

function mappedSegments(forest: Forest, logSize: number, map: ShownBytes, question: Question): Segment[] {
  const { start, end } = question.range!;
  const first = question.firstExtent;
  const count = mapCount(map);
  if (!(first <= count)) throw refuted('a map has no such extent');
  const segments: Segment[] = [];
  let at = start;
  if (first > 0) {
    const before = readExtent(map, first - 1);
    if (before.start + before.length > start) throw refuted('an extent is left out');
  }
  for (let index = first; index < count && at < end; index++) {
    const extent = readExtent(map, index);
    const extentEnd = extent.start + extent.length;
    if (extentEnd <= at || (index > first && extent.start < at)) throw refuted('extents are out of order');
    if (extent.start > at) segments.push({ start: at, length: Math.min(extent.start, end) - at });
    at = Math.min(end, Math.max(at, extent.start));
    const length = Math.min(extentEnd, end) - at;
    if (length <= 0) continue;
    const place = extent.place + (at - extent.start);
    if (extent.kind === IN_LOG || extent.kind === IN_CONTENT) {
      if (extent.kind === IN_LOG && place + length > logSize) throw refuted('an extent lies behind the log');
      const tree = extent.kind === IN_LOG ? forest.log : forest.content(extent.content!.root, extent.content!.size);
      tree.show(place, length);
      segments.push({ start: at, length, from: { tree, at: place } });
    } else segments.push({ start: at, length });
    at += length;
  }
  if (at < end) segments.push({ start: at, length: end - at });
  return segments;
}

/** What was decoded; bytes that cannot be decoded are no proof. */
function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw refuted(`something in it is not what it should be (${(error as Error).message})`);
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
