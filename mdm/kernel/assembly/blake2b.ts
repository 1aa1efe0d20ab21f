// BLAKE2b-256 (RFC 7693) of 65-byte messages: a prefix byte and up to 64 bytes of data. Three messages are hashed side
// by side, two in the u64 halves of v128 registers and one in scalar ones: the processor has execution units that only
// take scalar operations, and these would stand idle (measured in docs/decisions/0004-merkle-kernel.md). A message is a
// single block whose words 9 to 15 are always zero, so those additions are left out, and the first column step starts
// from sums known in advance.

/**
 * Twenty u64 pairs: v0..v3 + v4..v7 already added; v12..v15; v8..v11; v4..v7 (the working vector before the first
 * round); h0..h3.
 */
const CONSTANTS = memory.data<u64>([
  0xbb1838e7a0a44bf9, 0xbb1838e7a0a44bf9, 0x566d1711b009135a, 0x566d1711b009135a, 0x5bf2cd1ef9d6b596, 0x5bf2cd1ef9d6b596, 0x0130c253729b586a, 0x0130c253729b586a,
  0x510e527fade682d1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x9b05688c2b3e6c1f, 0xe07c265404be4294, 0xe07c265404be4294, 0x5be0cd19137e2179, 0x5be0cd19137e2179,
  0x6a09e667f3bcc908, 0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1, 0xa54ff53a5f1d36f1,
  0x510e527fade682d1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179, 0x5be0cd19137e2179,
  0x6a09e667f2bdc928, 0x6a09e667f2bdc928, 0xbb67ae8584caa73b, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1, 0xa54ff53a5f1d36f1,
], 16);
/**
 * Byte orders that rotate both u64 halves right by 24 and by 16 bits. Loaded, because V8 builds a v128 literal anew at
 * every use.
 */
const ROTATE_24 = memory.data<u8>([3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10], 16);
const ROTATE_16 = memory.data<u8>([2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9], 16);

/**
 * Hashes the 64 bytes at `p`, `q` and `r` to the 32 bytes at `toP`, `toQ` and `toR`, each behind the byte `prefix`.
 * `length` is the message length with the prefix (65 for a node or a full leaf); bytes past it must be zero. The byte
 * before each input is read (and ignored): one unaligned load gives a message word shifted by the prefix. Everything is
 * read before anything is written; inputs may be the same, and then their outputs too.
 */
export function hashThree(p: usize, q: usize, r: usize, toP: usize, toQ: usize, toR: usize, prefix: u64, length: u64): void {
  const r24 = v128.load(ROTATE_24);
  const r16 = v128.load(ROTATE_16);
  const a0 = v128.load(p - 1), b0 = v128.load(q - 1);
  const a1 = v128.load(p - 1, 16), b1 = v128.load(q - 1, 16);
  const a2 = v128.load(p - 1, 32), b2 = v128.load(q - 1, 32);
  const a3 = v128.load(p - 1, 48), b3 = v128.load(q - 1, 48);
  const first = v128.shuffle<u64>(a0, b0, 0, 2);
  const m0 = v128.or(v128.shl<u64>(v128.shr<u64>(first, 8), 8), i64x2.splat(prefix));
  const m1 = v128.shuffle<u64>(a0, b0, 1, 3);
  const m2 = v128.shuffle<u64>(a1, b1, 0, 2);
  const m3 = v128.shuffle<u64>(a1, b1, 1, 3);
  const m4 = v128.shuffle<u64>(a2, b2, 0, 2);
  const m5 = v128.shuffle<u64>(a2, b2, 1, 3);
  const m6 = v128.shuffle<u64>(a3, b3, 0, 2);
  const m7 = v128.shuffle<u64>(a3, b3, 1, 3);
  const m8 = v128.shr<u64>(v128.load_lane<u64>(q, v128.load_zero<u64>(p, 56), 1, 56), 56);
  const n0 = 0 - ((load<u64>(r - 1) & ~0xff) | prefix);
  const n1 = 0 - load<u64>(r, 7), n2 = 0 - load<u64>(r, 15), n3 = 0 - load<u64>(r, 23), n4 = 0 - load<u64>(r, 31);
  const n5 = 0 - load<u64>(r, 39), n6 = 0 - load<u64>(r, 47), n7 = 0 - load<u64>(r, 55), n8 = 0 - <u64>load<u8>(r, 63);
  let v0: v128, v1: v128, v2: v128, v3: v128, v4: v128, v5: v128, v6: v128, v7: v128;
  let v8: v128, v9: v128, v10: v128, v11: v128, v12: v128, v13: v128, v14: v128, v15: v128;
  let s0: u64, s1: u64, s2: u64, s3: u64, s4: u64, s5: u64, s6: u64, s7: u64;
  let s8: u64, s9: u64, s10: u64, s11: u64, s12: u64, s13: u64, s14: u64, s15: u64;
  /* twelve rounds: scripts/build-wasm.mjs writes them here */
  v0 = v128.xor(v128.xor(v0, v8), v128.load(CONSTANTS, 256));
  v1 = v128.xor(v128.xor(v1, v9), v128.load(CONSTANTS, 272));
  v2 = v128.xor(v128.xor(v2, v10), v128.load(CONSTANTS, 288));
  v3 = v128.xor(v128.xor(v3, v11), v128.load(CONSTANTS, 304));
  v128.store(toP, v128.shuffle<u64>(v0, v1, 0, 2));
  v128.store(toP, v128.shuffle<u64>(v2, v3, 0, 2), 16);
  v128.store(toQ, v128.shuffle<u64>(v0, v1, 1, 3));
  v128.store(toQ, v128.shuffle<u64>(v2, v3, 1, 3), 16);
  store<u64>(toR, s0 ^ s8 ^ load<u64>(CONSTANTS, 256));
  store<u64>(toR, s1 ^ s9 ^ load<u64>(CONSTANTS, 272), 8);
  store<u64>(toR, s2 ^ s10 ^ load<u64>(CONSTANTS, 288), 16);
  store<u64>(toR, s3 ^ s11 ^ load<u64>(CONSTANTS, 304), 24);
}
