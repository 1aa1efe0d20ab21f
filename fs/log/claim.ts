import { Entry, getU64, HEADER_BYTES, putU64, TYPE_NAMESPACE } from './entry.ts';

/**
 * What a NAMESPACE entry says (docs/formats/log.md): what the files were, as one hash, when the log had `size` bytes. The log keeps it; what the root is
 * made of is docs/formats/proof.md. The entry is a batch of its own, so that it is found, and proved, from the end of that batch.
 */
export interface NamespaceClaim {
  /** Log bytes, up to a commit's end, that made these files. Below the place of the entry itself. */
  size: number;
  /** Ownership epoch of whoever wrote the entry. */
  epoch: number;
  /** Root of the namespace's trie, 32 bytes. */
  root: Uint8Array;
  /** Whose files: `container/ID` or `mount/NAME`, latin1. */
  label: string;
}

const FIXED_BYTES = 48;
const MAX_LABEL_BYTES = 255;

/** The entry that makes this claim, ready for `Log.append` but for its time. */
export function namespaceEntry(claim: NamespaceClaim): Entry {
  const bytes = Buffer.alloc(FIXED_BYTES + claim.label.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  putU64(view, 0, claim.size);
  putU64(view, 8, claim.epoch);
  bytes.set(claim.root, 16);
  bytes.write(claim.label, FIXED_BYTES, 'latin1');
  return Object.assign(new Entry(), { type: TYPE_NAMESPACE, bytes, view, fieldsStart: 0, fieldsEnd: bytes.length });
}

/** The claim that the fields [start, end) of an entry make; undefined when they are none's. */
export function readClaim(bytes: Buffer, view: DataView, start: number, end: number): NamespaceClaim | undefined {
  const label = end - start - FIXED_BYTES;
  if (label < 1 || label > MAX_LABEL_BYTES) return undefined;
  return {
    size: getU64(view, start),
    epoch: getU64(view, start + 8),
    root: Buffer.from(bytes.subarray(start + 16, start + FIXED_BYTES)),
    label: bytes.toString('latin1', start + FIXED_BYTES, end),
  };
}

/** Bytes of the largest NAMESPACE entry. */
export const MAX_NAMESPACE_BYTES = Math.ceil((HEADER_BYTES + FIXED_BYTES + MAX_LABEL_BYTES) / 64) * 64;
