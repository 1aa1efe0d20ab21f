// A verifier of its own, written from docs/formats/mdm.md and mdm-json.md alone: plain recursion on @noble/hashes,
// nothing of mdm/. It takes what `pg mdm exec` and `pg mdm prove` print.
import { blake2b } from '@noble/hashes/blake2.js';

const S = 4_194_304;

export interface StateJson {
  root: string;
  size: number;
}
export interface CostJson {
  accesses: number;
  read: number;
  written: number;
  compute: number;
}
export interface StepJson {
  name: string;
  inputs: string;
  proofWanted: boolean;
  payload: string | null;
  output: string;
  proof: string | null;
  state: StateJson;
  cost: CostJson;
}
export interface ResultJson {
  format: string;
  outcome: string;
  initial: StateJson;
  final: StateJson;
  cost: CostJson;
  instructions: StepJson[];
  error?: { code: string; message: string };
}
export interface RangeJson extends StateJson {
  format: string;
  start: number;
  end: number;
  data: string;
  proof: string;
}

const hash = (...parts: Uint8Array[]): Buffer => Buffer.from(blake2b(Buffer.concat(parts), { dkLen: 32 }));
const leafHash = (bytes: Uint8Array): Buffer => hash(Uint8Array.of(0), bytes);
const nodeHash = (a: Uint8Array, b: Uint8Array): Buffer => hash(Uint8Array.of(1), a, b);
const unhex = (text: string | null): Buffer => Buffer.from(text ?? '', 'hex');
const zeros = (height: number): Buffer =>
  height === 0 ? leafHash(Buffer.alloc(64)) : nodeHash(zeros(height - 1), zeros(height - 1));

/** Part of a tree that is known: `leaves` leaves from `at` on, by their root, as one leaf's bytes, or as zeros. */
type Item = { at: number; leaves: number } & ({ hash: Buffer } | { bytes: Buffer } | { zero: true });

/** The root over the leaves [from, to) that `items` are, in the shape of RFC 6962. */
function rootOf(items: Item[], from: number, to: number): Buffer {
  if (from === to) return Buffer.alloc(32);
  const [item] = items;
  if (items.length === 1 && item !== undefined) {
    if (item.at > from || item.at + item.leaves < to) throw new Error('a gap');
    const height = Math.log2(to - from);
    if ('hash' in item && item.at === from && item.leaves === to - from) return item.hash;
    if ('bytes' in item) return leafHash(item.bytes);
    if ('zero' in item && Number.isInteger(height)) return zeros(height);
    if ('hash' in item) throw new Error('a subtree across a split');
  }
  if (items.length === 0) throw new Error('a gap');
  let half = 1;
  while (half * 2 < to - from) half *= 2;
  const middle = from + half;
  return nodeHash(
    rootOf(
      items.filter(({ at }) => at < middle),
      from,
      middle,
    ),
    rootOf(
      items.filter(({ at, leaves }) => at + leaves > middle),
      middle,
      to,
    ),
  );
}

interface Range {
  from: number;
  to: number;
}
const within = (k: number, ranges: Range[]): boolean => ranges.some(({ from, to }) => from <= k && k < to);

/** How [o, o + l) covers the leaves of a file of N bytes. */
function cover(o: number, l: number, N: number): { whole: Range; touched: Range; edges: Range[] } {
  const touched = { from: Math.floor(o / 64), to: Math.ceil((o + l) / 64) };
  const isWhole = (k: number): boolean => o <= 64 * k && Math.min(64 * k + 64, N) <= o + l;
  const from = isWhole(touched.from) ? touched.from : touched.from + 1;
  const to = Math.max(from, isWhole(touched.to - 1) ? touched.to : touched.to - 1);
  const edges = [
    { from: touched.from, to: Math.min(from, touched.to) },
    { from: Math.max(to, touched.from), to: touched.to },
  ].filter((r) => r.from < r.to);
  return { whole: { from, to: Math.min(to, touched.to) }, touched, edges };
}

/** The whole leaves of 64 bytes of a range that is moved, and its others. */
function moved(o: number, l: number): { inner: Range; others: Range[] } {
  const c = cover(o, l, Infinity);
  return { inner: c.whole, others: c.edges };
}

interface Plan {
  shown: Range[];
  output?: Range;
  outputAt?: number;
  cuts: number[];
  capped?: Range[];
  cap?: number;
}

/** Takes a proof apart as the plan says. */
function open(plan: Plan, N: number, proof: Buffer, output: Buffer): Item[] {
  const n = Math.ceil(N / 64);
  const ends = [...plan.shown, ...(plan.capped ?? []), ...(plan.output ? [plan.output] : [])];
  const cuts = [...plan.cuts, ...ends.flatMap(({ from, to }) => [from, to]), n];
  const items: Item[] = [];
  let used = 0;
  const take = (length: number): Buffer => {
    used += length;
    return proof.subarray(used - length, used);
  };
  for (let at = 0; at < n;) {
    const length = Math.min(64, N - 64 * at);
    if (within(at, plan.shown)) items.push({ at, leaves: 1, bytes: take(length) });
    else if (plan.output && within(at, [plan.output])) {
      const start = 64 * at - plan.outputAt!;
      items.push({ at, leaves: 1, bytes: output.subarray(start, start + length) });
    } else {
      const end = Math.min(...cuts.filter((cut) => cut > at));
      const cap = within(at, plan.capped ?? []) ? plan.cap! : Infinity;
      for (; at < end;) {
        let leaves = 1;
        while (leaves * 2 <= end - at && at % (leaves * 2) === 0 && leaves * 2 <= cap) leaves *= 2;
        items.push({ at, leaves, hash: take(32) });
        at += leaves;
      }
      continue;
    }
    at++;
  }
  if (used !== proof.length) throw new Error(`a proof of ${proof.length} bytes, not ${used}`);
  return items;
}

/** The old bytes [o, o + l), which the items show. */
function bytesOf(items: Item[], o: number, l: number): Buffer {
  const bytes = Buffer.alloc(l);
  for (let k = Math.floor(o / 64); k * 64 < o + l; k++) {
    const item = items.find(({ at, leaves }) => at === k && leaves === 1);
    if (item === undefined || !('bytes' in item)) throw new Error(`leaf ${k} is not shown`);
    for (let i = 0; i < item.bytes.length; i++) {
      const position = 64 * k + i - o;
      if (position >= 0 && position < l) bytes[position] = item.bytes[i]!;
    }
  }
  return bytes;
}

/** The items after `bytes` were put at `o`. */
function put(items: Item[], o: number, bytes: Buffer, N: number): Item[] {
  const { touched, whole } = cover(o, bytes.length, N);
  const fresh: Item[] = [];
  for (let at = touched.from; at < touched.to; at++) {
    const length = Math.min(64, N - 64 * at);
    const leaf = within(at, [whole]) ? Buffer.alloc(length) : bytesOf(items, 64 * at, length);
    for (let i = 0; i < length; i++) {
      const position = 64 * at + i - o;
      if (position >= 0 && position < bytes.length) leaf[i] = bytes[position]!;
    }
    fresh.push({ at, leaves: 1, bytes: leaf });
  }
  return [...items.filter(({ at }) => !within(at, [touched])), ...fresh].toSorted((a, b) => a.at - b.at);
}

/** The items after each part was filled from its source in `old`. */
function move(old: Item[], parts: { to: number; from: number }[], l: number, N: number): Item[] {
  let items = old;
  for (const { to, from } of parts) {
    const target = moved(to, l);
    const distance = (from - to) / 64;
    const source = { from: target.inner.from + distance, to: target.inner.to + distance };
    const carried = old.filter(({ at }) => within(at, [source])).map((item) => ({ ...item, at: item.at - distance }));
    items = [...items.filter(({ at }) => !within(at, [target.inner])), ...carried].toSorted((a, b) => a.at - b.at);
    for (const { from: first, to: last } of target.others) {
      const start = Math.max(64 * first, to);
      const end = Math.min(64 * last, to + l);
      items = put(items, start, bytesOf(old, start + from - to, end - start), N);
    }
  }
  return items;
}

function step(before: StateJson, { name, inputs, payload, output, proof }: StepJson): StateJson {
  const [raw, data, given, evidence] = [unhex(inputs), unhex(payload), unhex(output), unhex(proof)];
  const u64 = (at: number): number => Number(raw.readBigUInt64LE(at));
  const N = before.size;
  const n = Math.ceil(N / 64);
  const expect = (root: Buffer, wanted: string): void => {
    if (root.toString('hex') !== wanted) throw new Error(`${name}: the proof has another root`);
  };
  const after = (items: Item[]): StateJson => ({ root: rootOf(items, 0, n).toString('hex'), size: N });
  const none = (): StateJson => {
    if (evidence.length + given.length > 0) throw new Error('a proof of nothing');
    return before;
  };
  if (name !== 'Read' && name !== 'ReadRoot' && given.length > 0) throw new Error('an output of nothing');
  switch (name) {
    case 'Read':
    case 'ReadRoot': {
      const [size, at] = name === 'Read' ? [N, 0] : [S, 32];
      const [o, l] = [u64(at), u64(at + 8)];
      if (l === 0) return none();
      if (given.length !== l || o + l > size) throw new Error('an output of another length');
      const { whole, edges } = cover(o, l, size);
      const items = open({ shown: edges, output: whole, outputAt: o, cuts: [] }, size, evidence, given);
      if (!bytesOf(items, o, l).equals(given)) throw new Error('an output that is not in the file');
      expect(rootOf(items, 0, Math.ceil(size / 64)), name === 'Read' ? before.root : raw.toString('hex', 0, 32));
      return before;
    }
    case 'Write':
    case 'WriteRoot': {
      const sector = name === 'Write' ? 0 : u64(32);
      const [o, l] = name === 'Write' ? [u64(0), u64(8)] : [sector * S + u64(40), u64(48)];
      if (data.length !== l || o + l > N) throw new Error('a payload of another length');
      if (l === 0) return none();
      const { whole, edges } = cover(o, l, N);
      const ends = { from: (sector * S) / 64, to: Math.ceil(Math.min(N, (sector + 1) * S) / 64) };
      const cuts = [whole.from, whole.to, ...(name === 'Write' ? [] : [ends.from, ends.to])];
      const items = open({ shown: edges, cuts }, N, evidence, given);
      expect(rootOf(items, 0, n), before.root);
      if (name === 'WriteRoot') {
        const inside = items
          .filter(({ at }) => within(at, [ends]))
          .map((item) => ({ ...item, at: item.at - ends.from }));
        expect(rootOf(inside, 0, ends.to - ends.from), raw.toString('hex', 0, 32));
      }
      return after(put(items, o, data, N));
    }
    case 'Copy':
    case 'Swap': {
      const [l, a, b] = [u64(0), u64(8), u64(16)];
      if (l === 0 || a === b) return none();
      const [one, other] = [moved(a, l), moved(b, l)];
      const isSwap = name === 'Swap';
      if ((a - b) % 64 === 0) {
        const distance = Math.abs(a - b) / 64;
        let cap = 1;
        while (distance % (cap * 2) === 0) cap *= 2;
        const plan = { shown: [...one.others, ...other.others], capped: [one.inner, other.inner], cap, cuts: [] };
        const items = open(plan, N, evidence, given);
        expect(rootOf(items, 0, n), before.root);
        return after(move(items, [{ to: a, from: b }, ...(isSwap ? [{ to: b, from: a }] : [])], l, N));
      }
      const [to, from] = [cover(a, l, N), cover(b, l, N)];
      const shown = isSwap ? [to.touched, from.touched] : [...to.edges, from.touched];
      const items = open({ shown, cuts: isSwap ? [] : [to.whole.from, to.whole.to] }, N, evidence, given);
      expect(rootOf(items, 0, n), before.root);
      const [bytesOfA, bytesOfB] = [isSwap ? bytesOf(items, a, l) : undefined, bytesOf(items, b, l)];
      const half = put(items, a, bytesOfB, N);
      return after(bytesOfA === undefined ? half : put(half, b, bytesOfA, N));
    }
    case 'Truncate': {
      const M = u64(0);
      if (M === N) return none();
      const end = Math.min(M, N);
      const kept = Math.floor(end / 64);
      const shown = end % 64 === 0 ? [] : [{ from: kept, to: kept + 1 }];
      const items = open({ shown, cuts: [kept, kept + shown.length] }, N, evidence, given);
      expect(rootOf(items, 0, n), before.root);
      const result = items.filter(({ at }) => at < kept);
      const leaf = Buffer.alloc(Math.min(64, M - 64 * kept));
      if (shown.length > 0) bytesOf(items, 64 * kept, end - 64 * kept).copy(leaf);
      if (leaf.length > 0) result.push({ at: kept, leaves: 1, bytes: leaf });
      const [first, full] = [kept + 1, Math.floor(M / 64)];
      if (first < full) result.push({ at: first, leaves: full - first, zero: true });
      if (first <= full && M % 64 > 0) result.push({ at: full, leaves: 1, bytes: Buffer.alloc(M % 64) });
      return { root: rootOf(result, 0, Math.ceil(M / 64)).toString('hex'), size: M };
    }
    default:
      throw new Error(`no such instruction: ${name}`);
  }
}

/** Checks every state of a result; throws where it is wrong. */
export function checkResult(result: ResultJson): void {
  let state = result.initial;
  for (const instruction of result.instructions) {
    state = step(state, instruction);
    if (state.root !== instruction.state.root || state.size !== instruction.state.size)
      throw new Error('another state');
  }
  if (state.root !== result.final.root || state.size !== result.final.size) throw new Error('another final state');
}

/** Checks a proof of segments; throws when it is wrong. */
export function checkRange({ root, size, start, end, data, proof }: RangeJson): void {
  const [bytes, hashes] = [unhex(data), unhex(proof)];
  let at = 0;
  const take = (): Buffer => hashes.subarray(at, (at += 32));
  const recurse = (from: number, to: number): Buffer => {
    if (to <= start || end <= from) return take();
    if (to - from === 1) return leafHash(bytes.subarray(64 * (from - start), 64 * (from - start) + 64));
    let half = 1;
    while (half * 2 < to - from) half *= 2;
    const left = recurse(from, from + half);
    return nodeHash(left, recurse(from + half, to));
  };
  if (bytes.length !== Math.min(64 * end, size) - 64 * start) throw new Error('data of another length');
  if (recurse(0, Math.ceil(size / 64)).toString('hex') !== root) throw new Error('another root');
  if (at !== hashes.length) throw new Error('a proof of another length');
}
