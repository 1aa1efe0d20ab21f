// Reads test/vectors/sia-merkle.json: roots and proofs made by Sia's own code; the generators of its inputs are
// described inside the file.
import { readFileSync } from 'node:fs';

export interface Generator {
  kind: 'affine' | 'onehot' | 'xorshift32' | 'zeros';
  seed: number;
  pos?: number;
  len?: number;
}

interface RangeProof {
  start: number;
  end: number;
  proof: string[];
}

type SectorAction =
  { type: 'append'; root: string } | { type: 'trim'; n: number } | { type: 'swap'; i: number; j: number };

interface Vectors {
  appendProofs: { n: number; k: number; seed: number; oldRoot: string; newRoot: string; subtreeRoots: string[] }[];
  bufferRangeProofs: { gen: Generator; size: number; root: string; proofs: RangeProof[] }[];
  bufferRoots: { gen: Generator; size: number; leaves: number; root: string }[];
  fileRoots: { gen: Generator; size: number; root: string; sectorRoots: string[] }[];
  freeSectorProofs: {
    n: number;
    seed: number;
    freed: number[];
    oldRoot: string;
    newRoot: string;
    leafHashes: string[];
    treeHashes: string[];
  }[];
  leafProofs: {
    gen: Generator;
    size: number;
    leaves: number;
    root: string;
    proofs: { index: number; leafLen: number; proofLeafToRoot: string[]; proofLeftToRight: string[] }[];
  }[];
  metaRoots: { n: number; seed: number; root: string }[];
  multiRangeProofs: {
    gen: Generator;
    size: number;
    leaves: number;
    root: string;
    ranges: [number, number][];
    multiRangeProof: string[];
    diffProof: string[];
    compressedRangeHashes: string[];
  }[];
  primitives: { data64: string; leafHash: string; nodeHash: string; blake2b256: string }[];
  sectorDiffProofs: {
    n: number;
    newN: number;
    seed: number;
    actions: SectorAction[];
    oldRoot: string;
    newRoot: string;
    leafHashes: string[];
    treeHashes: string[];
  }[];
  sectorRangeProofs: { gen: Generator; root: string; proofs: RangeProof[] };
  sectorRootRangeProofs: { n: number; seed: number; root: string; proofs: RangeProof[] }[];
  sectorRoots: { gen: Generator; root: string; subtree4k_first: string; subtree4k_last: string }[];
  shortLeaves: { data: string; leafHash: string }[];
  zeroSubtrees: { height: number; root: string }[];
}

export const vectors = JSON.parse(
  readFileSync(new URL('../vectors/sia-merkle.json', import.meta.url), 'utf8'),
) as Vectors;

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
export const unhex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));

export function generate(gen: Generator, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  if (gen.kind === 'affine') for (let i = 0; i < size; i++) bytes[i] = i * 31 + gen.seed;
  if (gen.kind === 'onehot') bytes[gen.pos ?? 0] = gen.seed;
  if (gen.kind === 'xorshift32') {
    const length = gen.len ?? size;
    let x = gen.seed >>> 0;
    for (let i = 0; i < length; i += 4) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      for (let j = 0; j < 4 && i + j < length; j++) bytes[i + j] = x >>> (8 * j);
    }
  }
  return bytes;
}

/** The `n` roots that `seed` stands for. */
export function generateRoots(seed: number, n: number): Uint8Array[] {
  const bytes = generate({ kind: 'xorshift32', seed }, 32 * n);
  return Array.from({ length: n }, (_, k) => bytes.subarray(32 * k, 32 * k + 32));
}
