/**
 * Huffman codes and blocks exactly as Go's compress/flate makes them (huffman_code.go, huffman_bit_writer.go; Copyright The Go Authors,
 * BSD-3-Clause): which of several equally short encodings it takes is what makes a blob reproducible.
 */
import assert from 'node:assert/strict';

const LITERALS = 286;
const OFFSETS = 30;
const CODEGENS = 19;
const END_OF_BLOCK = 256;
const LENGTH_CODES_START = 257;
const MAX_STORE_BYTES = 65535;
const BITS_LIMIT = 16;
const BAD_CODE = 255;
const INT32_MAX = 0x7fffffff;
/** Tokens: a literal is its byte; a match has this bit, length - 3 from bit 22 on, distance - 1 below. */
export const MATCH = 1 << 30;
export const LENGTH_SHIFT = 22;
const OFFSET_MASK = (1 << LENGTH_SHIFT) - 1;

/** RFC 1951 section 3.2.7. */
const CODEGEN_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/** RFC 1951 section 3.2.5, lengths less 3 and distances less 1. */
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const LENGTH_BASE = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 255,
];
const OFFSET_EXTRA = Array.from({ length: OFFSETS }, (_, code) => (code < 4 ? 0 : (code >> 1) - 1));
const OFFSET_BASE = Array.from({ length: OFFSETS }, (_, code) =>
  code < 4 ? code : (2 + (code & 1)) << ((code >> 1) - 1),
);
const LENGTH_CODE = codeTable(256, LENGTH_BASE);
const OFFSET_CODE = codeTable(32768, OFFSET_BASE);

function codeTable(size: number, base: readonly number[]): Uint8Array {
  const table = new Uint8Array(size);
  for (let value = 0, code = 0; value < size; value++) {
    while (code + 1 < base.length && base[code + 1]! <= value) code++;
    table[value] = code;
  }
  return table;
}

/** A code for each symbol: its bits, in the order in which they are sent, and how many. */
class Encoder {
  readonly codes: Uint16Array;
  readonly lengths: Uint8Array;

  constructor(size: number) {
    this.codes = new Uint16Array(size);
    this.lengths = new Uint8Array(size);
  }

  set(symbol: number, code: number, length: number): void {
    this.codes[symbol] = reversed(code, length);
    this.lengths[symbol] = length;
  }

  bitLength(frequencies: Int32Array): number {
    let total = 0;
    for (let i = 0; i < frequencies.length; i++) total += frequencies[i]! * this.lengths[i]!;
    return total;
  }

  /** huffman_code.go, generate. */
  generate(frequencies: Int32Array, maxBits: number): void {
    const symbols: number[] = [];
    for (let i = 0; i < frequencies.length; i++) {
      if (frequencies[i] === 0) this.lengths[i] = 0;
      else symbols.push(i);
    }
    if (symbols.length <= 2) {
      for (const [i, symbol] of symbols.entries()) this.set(symbol, i, 1);
      return;
    }
    symbols.sort((a, b) => frequencies[a]! - frequencies[b]! || a - b);
    const sorted = Int32Array.from([...symbols.map((symbol) => frequencies[symbol]!), INT32_MAX]);
    const counts = bitCounts(sorted, symbols.length, maxBits);
    let code = 0;
    let end = symbols.length;
    for (let length = 1; length < counts.length; length++) {
      code <<= 1;
      const count = counts[length]!;
      // Codes go up in the order of symbols, not of frequencies.
      for (const symbol of symbols.slice(end - count, end).toSorted((a, b) => a - b)) this.set(symbol, code++, length);
      end -= count;
    }
  }
}

function reversed(code: number, length: number): number {
  let out = 0;
  for (let i = 0; i < length; i++) out |= ((code >> i) & 1) << (length - 1 - i);
  return out;
}

/** huffman_code.go, bitCounts: how many symbols get 1, 2, ... bits. `freq` ascends and ends with INT32_MAX after its `n`. */
function bitCounts(freq: Int32Array, n: number, limit: number): Int32Array {
  const maxBits = Math.min(limit, n - 1);
  const lastFreq = new Float64Array(BITS_LIMIT + 1);
  const nextChar = new Float64Array(BITS_LIMIT + 1);
  const nextPair = new Float64Array(BITS_LIMIT + 1);
  const needed = new Int32Array(BITS_LIMIT + 1);
  const leaves = Array.from({ length: BITS_LIMIT }, () => new Int32Array(BITS_LIMIT));
  for (let level = 1; level <= maxBits; level++) {
    lastFreq[level] = freq[1]!;
    nextChar[level] = freq[2]!;
    nextPair[level] = level === 1 ? INT32_MAX : freq[0]! + freq[1]!;
    leaves[level]![level] = 2;
  }
  needed[maxBits] = 2 * n - 4;
  for (let level = maxBits; ;) {
    if (nextPair[level] === INT32_MAX && nextChar[level] === INT32_MAX) {
      needed[level] = 0;
      nextPair[level + 1] = INT32_MAX;
      level++;
      continue;
    }
    const before = lastFreq[level]!;
    const own = leaves[level]!;
    if (nextChar[level]! < nextPair[level]!) {
      lastFreq[level] = nextChar[level]!;
      own[level]!++;
      nextChar[level] = freq[own[level]!]!;
    } else {
      lastFreq[level] = nextPair[level]!;
      own.set(leaves[level - 1]!.subarray(0, level));
      needed[level - 1] = 2;
    }
    if (--needed[level]! === 0) {
      if (level === maxBits) break;
      nextPair[level + 1] = before + lastFreq[level]!;
      level++;
    } else while (needed[level - 1]! > 0) level--;
  }
  const top = leaves[maxBits]!;
  assert.equal(top[maxBits], n);
  const counts = new Int32Array(maxBits + 1);
  for (let level = maxBits, bits = 1; level > 0; level--, bits++) counts[bits] = top[level]! - top[level - 1]!;
  return counts;
}

const FIXED_LITERALS = fixedLiterals();
const FIXED_OFFSETS = fixedOffsets();

function fixedLiterals(): Encoder {
  const encoder = new Encoder(LITERALS);
  for (let i = 0; i < LITERALS; i++) {
    if (i < 144) encoder.set(i, i + 48, 8);
    else if (i < 256) encoder.set(i, i + 400 - 144, 9);
    else if (i < 280) encoder.set(i, i - 256, 7);
    else encoder.set(i, i + 192 - 280, 8);
  }
  return encoder;
}

function fixedOffsets(): Encoder {
  const encoder = new Encoder(OFFSETS);
  for (let i = 0; i < OFFSETS; i++) encoder.set(i, i, 5);
  return encoder;
}

/** Writes blocks of tokens. What is written is taken with `take`. */
export class GoBlockWriter {
  #out = Buffer.allocUnsafe(1 << 18);
  #used = 0;
  #bits = 0;
  #bitCount = 0;
  readonly #literalFreq = new Int32Array(LITERALS);
  readonly #offsetFreq = new Int32Array(OFFSETS);
  readonly #codegenFreq = new Int32Array(CODEGENS);
  readonly #codegen = new Uint8Array(LITERALS + OFFSETS + 1);
  readonly #literals = new Encoder(LITERALS);
  readonly #offsets = new Encoder(OFFSETS);
  readonly #codegens = new Encoder(CODEGENS);

  /** The whole bytes written since the last call, in memory of their own. */
  take(): Buffer {
    const taken = Buffer.from(this.#out.subarray(0, this.#used));
    this.#used = 0;
    return taken;
  }

  /** A block in its shortest form; `input` is what the tokens stand for, if it may be stored as it is. */
  block(tokens: Uint32Array, count: number, input: Uint8Array | undefined): void {
    const [literals, offsets] = this.#index(tokens, count);
    const storable = input !== undefined && input.length <= MAX_STORE_BYTES;
    const extra = storable ? this.#extraBits(literals, offsets) : 0;
    let size = 3 + FIXED_LITERALS.bitLength(this.#literalFreq) + FIXED_OFFSETS.bitLength(this.#offsetFreq) + extra;
    this.#generateCodegen(literals, offsets);
    this.#codegens.generate(this.#codegenFreq, 7);
    const dynamic = this.#dynamicSize(extra);
    const isDynamic = dynamic.size < size;
    if (isDynamic) size = dynamic.size;
    if (storable && (input.length + 5) * 8 < size) {
      this.storedHeader(input.length, false);
      this.#bytes(input);
      return;
    }
    if (isDynamic) this.#dynamicHeader(literals, offsets, dynamic.codegens);
    else this.#write(2, 3);
    this.#tokens(tokens, count, isDynamic ? this.#literals : FIXED_LITERALS, isDynamic ? this.#offsets : FIXED_OFFSETS);
  }

  /** The header of a stored block of `length` bytes. */
  storedHeader(length: number, isLast: boolean): void {
    this.#write(isLast ? 1 : 0, 3);
    this.flush();
    this.#write(length, 16);
    this.#write(~length & 0xffff, 16);
  }

  /** Fills up the last byte. */
  flush(): void {
    if (this.#bitCount > 0) this.#byte(this.#bits & 0xff);
    this.#bits = 0;
    this.#bitCount = 0;
  }

  #index(tokens: Uint32Array, count: number): [literals: number, offsets: number] {
    const literalFreq = this.#literalFreq.fill(0);
    const offsetFreq = this.#offsetFreq.fill(0);
    for (let i = 0; i < count; i++) {
      const token = tokens[i]!;
      if (token < MATCH) literalFreq[token]!++;
      else {
        literalFreq[LENGTH_CODES_START + LENGTH_CODE[(token - MATCH) >>> LENGTH_SHIFT]!]!++;
        offsetFreq[OFFSET_CODE[token & OFFSET_MASK]!]!++;
      }
    }
    literalFreq[END_OF_BLOCK]!++;
    let literals = LITERALS;
    while (literalFreq[literals - 1] === 0) literals--;
    let offsets = OFFSETS;
    while (offsets > 0 && offsetFreq[offsets - 1] === 0) offsets--;
    if (offsets === 0) {
      offsetFreq[0] = 1;
      offsets = 1;
    }
    this.#literals.generate(literalFreq, 15);
    this.#offsets.generate(offsetFreq, 15);
    return [literals, offsets];
  }

  #extraBits(literals: number, offsets: number): number {
    let extra = 0;
    for (let code = LENGTH_CODES_START + 8; code < literals; code++)
      extra += this.#literalFreq[code]! * LENGTH_EXTRA[code - LENGTH_CODES_START]!;
    for (let code = 4; code < offsets; code++) extra += this.#offsetFreq[code]! * OFFSET_EXTRA[code]!;
    return extra;
  }

  /** RFC 1951 section 3.2.7: the run lengths of the code lengths; huffman_bit_writer.go, generateCodegen. */
  #generateCodegen(literals: number, offsets: number): void {
    const codegen = this.#codegen;
    const freq = this.#codegenFreq.fill(0);
    codegen.set(this.#literals.lengths.subarray(0, literals));
    codegen.set(this.#offsets.lengths.subarray(0, offsets), literals);
    codegen[literals + offsets] = BAD_CODE;
    let out = 0;
    const put = (code: number, more: number | undefined): void => {
      codegen[out++] = code;
      freq[code]!++;
      if (more !== undefined) codegen[out++] = more;
    };
    let size = codegen[0]!;
    let count = 1;
    for (let i = 1; size !== BAD_CODE; i++) {
      const next = codegen[i]!;
      if (next === size) {
        count++;
        continue;
      }
      if (size !== 0) {
        put(size, undefined);
        count--;
        while (count >= 3) {
          const n = Math.min(6, count);
          put(16, n - 3);
          count -= n;
        }
      } else {
        while (count >= 11) {
          const n = Math.min(138, count);
          put(18, n - 11);
          count -= n;
        }
        if (count >= 3) {
          put(17, count - 3);
          count = 0;
        }
      }
      for (; count > 0; count--) put(size, undefined);
      size = next;
      count = 1;
    }
    codegen[out] = BAD_CODE;
  }

  #dynamicSize(extra: number): { size: number; codegens: number } {
    const freq = this.#codegenFreq;
    let codegens = CODEGENS;
    while (codegens > 4 && freq[CODEGEN_ORDER[codegens - 1]!] === 0) codegens--;
    const header =
      3 + 5 + 5 + 4 + 3 * codegens + this.#codegens.bitLength(freq) + freq[16]! * 2 + freq[17]! * 3 + freq[18]! * 7;
    const body = this.#literals.bitLength(this.#literalFreq) + this.#offsets.bitLength(this.#offsetFreq);
    return { size: header + body + extra, codegens };
  }

  #dynamicHeader(literals: number, offsets: number, codegens: number): void {
    this.#write(4, 3);
    this.#write(literals - 257, 5);
    this.#write(offsets - 1, 5);
    this.#write(codegens - 4, 4);
    for (let i = 0; i < codegens; i++) this.#write(this.#codegens.lengths[CODEGEN_ORDER[i]!]!, 3);
    for (let i = 0; this.#codegen[i] !== BAD_CODE; i++) {
      const code = this.#codegen[i]!;
      this.#write(this.#codegens.codes[code]!, this.#codegens.lengths[code]!);
      if (code === 16) this.#write(this.#codegen[++i]!, 2);
      else if (code === 17) this.#write(this.#codegen[++i]!, 3);
      else if (code === 18) this.#write(this.#codegen[++i]!, 7);
    }
  }

  #tokens(tokens: Uint32Array, count: number, literals: Encoder, offsets: Encoder): void {
    for (let i = 0; i < count; i++) {
      const token = tokens[i]!;
      if (token < MATCH) {
        this.#write(literals.codes[token]!, literals.lengths[token]!);
        continue;
      }
      const length = (token - MATCH) >>> LENGTH_SHIFT;
      const lengthCode = LENGTH_CODE[length]!;
      const symbol = lengthCode + LENGTH_CODES_START;
      this.#write(literals.codes[symbol]!, literals.lengths[symbol]!);
      this.#write(length - LENGTH_BASE[lengthCode]!, LENGTH_EXTRA[lengthCode]!);
      const offset = token & OFFSET_MASK;
      const offsetCode = OFFSET_CODE[offset]!;
      this.#write(offsets.codes[offsetCode]!, offsets.lengths[offsetCode]!);
      this.#write(offset - OFFSET_BASE[offsetCode]!, OFFSET_EXTRA[offsetCode]!);
    }
    this.#write(literals.codes[END_OF_BLOCK]!, literals.lengths[END_OF_BLOCK]!);
  }

  /** `length` (at most 16) bits, the lowest first. */
  #write(value: number, length: number): void {
    this.#bits |= value << this.#bitCount;
    this.#bitCount += length;
    while (this.#bitCount >= 8) {
      this.#byte(this.#bits & 0xff);
      this.#bits >>>= 8;
      this.#bitCount -= 8;
    }
  }

  #byte(value: number): void {
    if (this.#used === this.#out.length) this.#out = Buffer.concat([this.#out], this.#out.length * 2);
    this.#out[this.#used++] = value;
  }

  #bytes(bytes: Uint8Array): void {
    assert.equal(this.#bitCount, 0);
    while (this.#out.length - this.#used < bytes.length) this.#out = Buffer.concat([this.#out], this.#out.length * 2);
    this.#out.set(bytes, this.#used);
    this.#used += bytes.length;
  }
}
