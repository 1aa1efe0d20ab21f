import { crc32 } from 'node:zlib';
import { PgError } from '../../mdm/error.ts';
import { decodeOpening, refuted, type ShownBytes, type ShownTree } from './opening.ts';
import { type Finding, type Forest, type Question, type Step, walk } from './walk.ts';

/**
 * A proof as a file: docs/formats/proof.md. Reading one needs nothing else: no store, no disk, no clock.
 */
const MAGIC = Buffer.from('pgproof\0', 'latin1');
const VERSION = 1;
const HEAD_BYTES = 72;
const HAS_RANGE = 1;
const IS_THERE = 2;
/** Bounds of what a reader takes on. */
export const MAX_NAMES = 4096;
export const MAX_PROOF_BYTES = 2 ** 31 - 1;

/** A proof that holds: what follows from it, once the root is believed. */
export interface Verified extends Finding {
  /** Root of the log, 32 bytes: the position is {claim.epoch, size, root}. */
  root: Uint8Array;
  question: Question;
}

/** The bytes of a proof before its openings. `isThere`: whether the path leads to something. */
export function encodeQuestion(root: Uint8Array, question: Question, isThere: boolean): Buffer {
  const { path, range, firstExtent } = question;
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt16LE(VERSION, 8);
  head.writeUInt8((range === undefined ? 0 : HAS_RANGE) | (isThere ? IS_THERE : 0), 10);
  head.writeUInt32LE(path.length, 12);
  head.writeBigUInt64LE(BigInt(range?.start ?? 0), 16);
  head.writeBigUInt64LE(BigInt(range?.end ?? 0), 24);
  head.writeBigUInt64LE(BigInt(firstExtent), 32);
  head.set(root, 40);
  const names = path.map(({ name, index }) => {
    const bytes = Buffer.alloc(1 + name.length + 4);
    bytes.writeUInt8(name.length, 0);
    bytes.write(name, 1, 'latin1');
    bytes.writeUInt32LE(index, 1 + name.length);
    return bytes;
  });
  return Buffer.concat([head, ...names]);
}

/**
 * Checks a proof. PROOF_REFUTED when it does not hold, PROOF_DAMAGED when it is not as it was written, PROOF_VERSION for one of a newer program. What comes
 * back is true of the log with this root; whether that is the root of anything is for the caller to know.
 */
export function verifyProof(bytes: Buffer): Verified {
  if (bytes.length < HEAD_BYTES + 4 || !bytes.subarray(0, 8).equals(MAGIC))
    throw new PgError('PROOF_DAMAGED', 'this is no proof', { hint: 'pg prove writes one' });
  if (bytes.readUInt16LE(8) > VERSION)
    throw new PgError('PROOF_VERSION', 'the proof was written by a newer pg', { hint: 'update pg on this machine' });
  const end = bytes.length - 4;
  if (crc32(bytes.subarray(0, end)) !== bytes.readUInt32LE(end))
    throw new PgError('PROOF_DAMAGED', 'the proof is not as it was written: its checksum is wrong');
  const { question, isThere, root, at } = decodeQuestion(bytes, end);
  const shown = new ShownForest(bytes.subarray(0, end), at);
  if (Buffer.compare(shown.log.root, root) !== 0) throw refuted('the log has another root than it says');
  const finding = walk(shown, question);
  if ((finding.entry !== undefined) !== isThere) throw refuted('the path is there, or not, against what it says');
  if (question.path.some(({ index }, i) => i > finding.depth && index !== 0))
    throw refuted('names behind a missing one have a place');
  shown.checkUsed();
  return { ...finding, root, question };
}

function decodeQuestion(
  bytes: Buffer,
  end: number,
): { question: Question; isThere: boolean; root: Uint8Array; at: number } {
  const flags = bytes.readUInt8(10);
  const names = bytes.readUInt32LE(12);
  if (bytes.readUInt16LE(8) !== VERSION || flags > (HAS_RANGE | IS_THERE) || bytes[11] !== 0 || names > MAX_NAMES)
    throw refuted('its head cannot be read');
  const [start, stop, firstExtent] = [16, 24, 32].map((at) => Number(bytes.readBigUInt64LE(at))) as [
    number,
    number,
    number,
  ];
  const hasRange = (flags & HAS_RANGE) !== 0;
  const fits = hasRange
    ? start <= stop && stop <= Number.MAX_SAFE_INTEGER
    : start === 0 && stop === 0 && firstExtent === 0;
  if (!fits) throw refuted('its range is none');
  const path: Step[] = [];
  let at = HEAD_BYTES;
  for (let i = 0; i < names; i++) {
    const length = at < end ? bytes[at]! : 0;
    if (at + 1 + length + 4 > end) throw refuted('it ends too early');
    const name = bytes.toString('latin1', at + 1, at + 1 + length);
    if (!isName(name)) throw refuted('its path is none');
    path.push({ name, index: bytes.readUInt32LE(at + 1 + length) });
    at += 1 + length + 4;
  }
  const range = hasRange ? { start, end: stop } : undefined;
  return {
    question: { path, range, firstExtent },
    isThere: (flags & IS_THERE) !== 0,
    root: bytes.subarray(40, 72),
    at,
  };
}

/** Whether a directory can have this name. */
export const isName = (name: string): boolean =>
  name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name) && name.length <= 255;

/** The trees of a proof, which stand in it in the order in which the walk comes to them. */
class ShownForest implements Forest {
  readonly log: ShownTree;
  readonly #bytes: Buffer;
  #at: number;
  readonly #known = new Map<string, ShownTree>();

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
    this.log = this.#next();
  }

  node(root: Uint8Array): ShownBytes {
    return this.#tree(root, 'node');
  }

  content(root: Uint8Array, size: number): ShownBytes {
    const tree = this.#tree(root, size);
    if (tree.size !== size) throw refuted('a content is not as long as it should be');
    return tree;
  }

  /** Every tree was needed, and nothing follows. */
  checkUsed(): void {
    for (const tree of [this.log, ...this.#known.values()]) tree.checkUsed();
    if (this.#at !== this.#bytes.length) throw refuted('something follows its end');
  }

  #tree(root: Uint8Array, kind: number | 'node'): ShownTree {
    const key = treeKey(root, kind);
    let tree = this.#known.get(key);
    if (tree === undefined) {
      tree = this.#next();
      if (Buffer.compare(tree.root, root) !== 0) throw refuted('a tree has another root than the one that names it');
      this.#known.set(key, tree);
    }
    return tree;
  }

  #next(): ShownTree {
    const { tree, end } = decodeOpening(this.#bytes, this.#at);
    this.#at = end;
    return tree;
  }
}

/** What tells the trees of a proof apart: a content by its size too. */
export const treeKey = (root: Uint8Array, kind: number | 'node'): string =>
  `${Buffer.from(root).toString('hex')} ${kind}`;
