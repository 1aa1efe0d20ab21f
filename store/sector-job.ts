import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { anchorsOfInput } from './anchors.ts';
import { input, type Span } from '../mdm/kernel/kernel.ts';
import { bufferRoot, inputSector, LEAF_BYTES, SECTOR_BYTES } from '../mdm/merkle.ts';
import { findMatches } from './matcher.ts';
import { UnitCache } from './packed.ts';
import { isZeroSector } from './content.ts';
import type { PlacedPiece, SectorJob, SectorResult } from './sector-pool.ts';
import {
  decodeSectorFile,
  diskError,
  isPackedFile,
  SectorFile,
  syncFile,
  writePackedFile,
  writeSectorFile,
  usedBytes,
} from './sector.ts';

const NOTHING: SectorResult = { root: new Uint8Array(0), contentRoots: [], zero: [] };
const ZEROS = Buffer.alloc(SECTOR_BYTES);

function spansOf(pairs: Uint32Array): { offset: number; length: number }[] {
  return Array.from({ length: pairs.length / 2 }, (_, i) => ({ offset: pairs[2 * i]!, length: pairs[2 * i + 1]! }));
}

/**
 * Hashes, writes or checks a sector, in this thread: 10 to 20 ms. DISK_FULL, DISK_ERROR, and what reading a file to be
 * checked throws.
 */
export function runSectorJob(job: SectorJob): SectorResult {
  switch (job.kind) {
    case 'hash': {
      const bytes = new Uint8Array(job.buffer);
      const spans = spansOf(job.spans);
      input.set(job.used === SECTOR_BYTES ? bytes : bytes.subarray(0, job.used));
      const { root, contentRoots } = inputSector(job.used, spans);
      const zero = isZeroSector(root)
        ? spans.map(() => true)
        : spans.map(({ offset, length }) => ZEROS.compare(bytes, offset, offset + length, 0, length) === 0);
      return { root, contentRoots, zero, anchors: spans.map((s) => anchorsOfInput(input, s.offset, s.length)) };
    }
    case 'match':
      return { ...NOTHING, matches: findMatches(Buffer.from(job.buffer), job.items, job.sectors) };
    case 'assemble':
      return { ...NOTHING, root: assembledRoot(job.pieces) };
    case 'write':
      try {
        const bytes = new Uint8Array(job.buffer);
        const packed = job.level !== null && writePackedFile(job.path, bytes, job.used, job.level);
        if (!packed) writeSectorFile(job.path, bytes, job.used);
        return { ...NOTHING, packed };
      } catch (cause) {
        throw diskError(cause, `cannot write sector file ${job.path}`);
      }
    case 'check': {
      const bad = decodeSectorFile(readFileSync(job.path), input);
      if (bad[0] === -1) return { ...NOTHING, bad };
      const spans = spansOf(job.spans);
      // Contents may share bytes: one may end within a leaf of another, which is not to be zeroed behind it.
      const others = spans.map((span) => (endsInZeros(span) ? undefined : bufferRoot(bytesOf(span))));
      const { root, contentRoots } = inputSector(SECTOR_BYTES, spans.filter(endsInZeros));
      const rest = contentRoots.values();
      return {
        ...NOTHING,
        root,
        contentRoots: others.map((known) => known ?? rest.next().value!),
        bad,
        used: usedBytes(input),
      };
    }
    case 'root':
      return { ...NOTHING, root: rootAt(job.path, job.offset) };
    case 'pack':
      return { ...NOTHING, ...pack(job) };
    default:
      return job satisfies never;
  }
}

function rootAt(path: string, offset: number): Uint8Array {
  const fd = openSync(path, 'r');
  try {
    let got = 0;
    for (let more = 1; got < SECTOR_BYTES && more > 0; got += more)
      more = readSync(fd, input, got, SECTOR_BYTES - got, offset + got);
    return got < SECTOR_BYTES ? new Uint8Array(0) : inputSector(SECTOR_BYTES).root;
  } finally {
    closeSync(fd);
  }
}

/** Packs the sector file at `path` into one at `temporary`, durably, if that is worth it and not done yet. Nothing is said of one that does not have its checksums. */
function pack({ path, temporary, used, level }: SectorJob & { kind: 'pack' }): { packed?: boolean } {
  const file = readFileSync(path);
  if (isPackedFile(file)) return { packed: true };
  if (decodeSectorFile(file, input).length > 0) return {};
  try {
    // What is packed takes the place of the file: nothing behind `used` is to be lost, whatever said so.
    const all = Math.max(used, usedBytes(input));
    if (!writePackedFile(temporary, input, all, level)) return { packed: false };
    syncFile(temporary);
    return { packed: true };
  } catch (cause) {
    throw diskError(cause, `cannot write sector file ${temporary}`);
  }
}

const bytesOf = ({ offset, length }: Span): Uint8Array => input.slice(offset, offset + length);

/** Whether only zeros follow a content of the kernel's input in its last leaf. */
function endsInZeros({ offset, length }: Span): boolean {
  const end = offset + length;
  return input.subarray(end, Math.ceil(end / LEAF_BYTES) * LEAF_BYTES).every((byte) => byte === 0);
}

function assembledRoot(pieces: readonly PlacedPiece[]): Uint8Array {
  const bytes = Buffer.alloc(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const { root, path, offset, length } of pieces) {
    // A read may leave more behind the bytes it was asked for.
    if (path === undefined) bytes.fill(0, at, at + length);
    else {
      const file = new SectorFile(path, root, new UnitCache(1));
      try {
        file.read(bytes, at, offset, length);
      } finally {
        file.close();
      }
    }
    at += length;
  }
  return bufferRoot(bytes);
}
