// The slow twin: the same tree as plainly as it can be written, on @noble/hashes. Nothing here shares code with mdm/.
import { blake2b } from '@noble/hashes/blake2.js';

const hash = (...parts: Uint8Array[]): Uint8Array => blake2b(Buffer.concat(parts), { dkLen: 32 });

export const twinLeaf = (data: Uint8Array): Uint8Array => hash(Uint8Array.of(0), data);
export const twinNode = (left: Uint8Array, right: Uint8Array): Uint8Array => hash(Uint8Array.of(1), left, right);

/** RFC 6962's root over `nodes`: split at the largest power of two smaller than their number. */
export function twinFold(nodes: readonly Uint8Array[]): Uint8Array {
  if (nodes.length === 0) return new Uint8Array(32);
  if (nodes.length === 1) return nodes[0]!;
  let split = 1;
  while (split * 2 < nodes.length) split *= 2;
  return twinNode(twinFold(nodes.slice(0, split)), twinFold(nodes.slice(split)));
}

export function twinLeaves(data: Uint8Array): Uint8Array[] {
  const leaves: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += 64) leaves.push(twinLeaf(data.subarray(at, at + 64)));
  return leaves;
}

export const twinRoot = (data: Uint8Array): Uint8Array => twinFold(twinLeaves(data));
