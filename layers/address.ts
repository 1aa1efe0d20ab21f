import assert from 'node:assert/strict';
import { base32 } from 'multiformats/bases/base32';

/**
 * Addresses on PromiseGrid: a CIDv1 (github.com/multiformats/cid) of raw bytes with a BLAKE2b-256 multihash, in base32. The digest is the Merkle root that pg knows the bytes by
 * (leaves of 64 bytes, RFC 6962's shape): an image's is that of its trie's root record, and so it depends on nothing but what is in the image.
 */

/** CIDv1, codec raw (0x55), multihash BLAKE2b-256 (0xb220 as a varint), 32 bytes of digest. */
const HEAD = Uint8Array.of(0x01, 0x55, 0xa0, 0xe4, 0x02, 0x20);
const ADDRESS_CHARS = 62;

/** What every address begins with: six bytes are nine characters and a part of the tenth. */
export const ADDRESS_HEAD = base32.encode(HEAD).slice(0, 10);

/** The address of what has this Merkle root (32 bytes). */
export function addressOf(root: Uint8Array): string {
  assert.equal(root.length, 32);
  return base32.encode(Buffer.concat([HEAD, root]));
}

/** The Merkle root that an address names; undefined for what is no address. */
export function rootOfAddress(address: string): Uint8Array | undefined {
  if (address.length !== ADDRESS_CHARS || !isAddressPrefix(address)) return undefined;
  const bytes = base32.decode(address);
  return Buffer.compare(bytes.subarray(0, HEAD.length), HEAD) === 0 ? bytes.subarray(HEAD.length) : undefined;
}

/** Whether an address may begin so, and hardly anything else. */
export function isAddressPrefix(text: string): boolean {
  return text.length <= ADDRESS_CHARS && text.startsWith(ADDRESS_HEAD) && /^[a-z2-7]+$/.test(text);
}
