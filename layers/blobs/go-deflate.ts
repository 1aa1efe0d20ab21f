/**
 * DEFLATE exactly as Go's compress/flate makes it at levels 4 to 9 (deflate.go, the same since Go 1.7; Copyright The Go Authors,
 * BSD-3-Clause): docker push, containerd, BuildKit and crane pack layers with it, at level 6.
 */
import assert from 'node:assert/strict';
import { GoBlockWriter, LENGTH_SHIFT, MATCH } from './go-huffman.ts';

const WINDOW = 1 << 15;
const WINDOW_MASK = WINDOW - 1;
const MIN_MATCH = 4;
const MAX_MATCH = 258;
const BLOCK_TOKENS = 1 << 14;
const HASH_BITS = 17;
const HASH_MUL = 0x1e35a7bd;
const MAX_HASH_OFFSET = 1 << 24;
const NOWHERE = 0x7fffffff;

/** deflate.go, levels. */
const LEVELS: Readonly<Record<number, readonly [good: number, lazy: number, nice: number, chain: number]>> = {
  4: [4, 4, 16, 16],
  5: [8, 16, 32, 32],
  6: [8, 16, 128, 128],
  7: [8, 32, 128, 256],
  8: [32, 128, 258, 1024],
  9: [32, 258, 258, 4096],
};

/** One stream. How the input is cut into pieces makes no difference to what comes out. */
export class GoDeflate {
  readonly #writer = new GoBlockWriter();
  readonly #good: number;
  readonly #lazy: number;
  readonly #nice: number;
  readonly #chain: number;
  readonly #window = new Uint8Array(2 * WINDOW);
  readonly #head = new Uint32Array(1 << HASH_BITS);
  readonly #prev = new Uint32Array(WINDOW);
  readonly #tokens = new Uint32Array(BLOCK_TOKENS);
  #tokenCount = 0;
  #chainHead = -1;
  #hashOffset = 1;
  #index = 0;
  #end = 0;
  #blockStart = 0;
  #byteAvailable = false;
  #length = MIN_MATCH - 1;
  #offset = 0;
  #maxInsert = 0;
  #foundOffset = 0;

  constructor(level: number) {
    const parameters = LEVELS[level];
    assert.ok(parameters, `level ${level}`);
    [this.#good, this.#lazy, this.#nice, this.#chain] = parameters;
  }

  /** Takes the next bytes; gives what is packed by now. */
  push(bytes: Uint8Array): Buffer {
    for (let at = 0; at < bytes.length;) {
      this.#deflate(false);
      at += this.#fill(bytes.subarray(at));
    }
    return this.#writer.take();
  }

  /** The end of the stream. */
  finish(): Buffer {
    this.#deflate(true);
    this.#writer.storedHeader(0, true);
    this.#writer.flush();
    return this.#writer.take();
  }

  /** fillDeflate. */
  #fill(bytes: Uint8Array): number {
    if (this.#index >= 2 * WINDOW - (MIN_MATCH + MAX_MATCH)) this.#shift();
    const count = Math.min(bytes.length, this.#window.length - this.#end);
    this.#window.set(bytes.subarray(0, count), this.#end);
    this.#end += count;
    return count;
  }

  #shift(): void {
    this.#window.copyWithin(0, WINDOW, 2 * WINDOW);
    this.#index -= WINDOW;
    this.#end -= WINDOW;
    this.#blockStart = this.#blockStart >= WINDOW ? this.#blockStart - WINDOW : NOWHERE;
    this.#hashOffset += WINDOW;
    if (this.#hashOffset <= MAX_HASH_OFFSET) return;
    const delta = this.#hashOffset - 1;
    this.#hashOffset -= delta;
    this.#chainHead -= delta;
    for (const table of [this.#prev, this.#head])
      for (let i = 0; i < table.length; i++) table[i] = table[i]! > delta ? table[i]! - delta : 0;
  }

  #block(index: number): void {
    if (index > 0) {
      const input = this.#blockStart <= index ? this.#window.subarray(this.#blockStart, index) : undefined;
      this.#blockStart = index;
      this.#writer.block(this.#tokens, this.#tokenCount, input);
    }
    this.#tokenCount = 0;
  }

  /** deflate, with lazy matching: all that is in the window but the last bytes, or with `sync` all of it. */
  #deflate(sync: boolean): void {
    if (this.#end - this.#index < MIN_MATCH + MAX_MATCH && !sync) return;
    this.#maxInsert = this.#end - (MIN_MATCH - 1);
    for (;;) {
      const lookahead = this.#end - this.#index;
      if (lookahead < MIN_MATCH + MAX_MATCH) {
        if (!sync) return;
        if (lookahead === 0) return this.#flushTokens();
      }
      if (this.#index < this.#maxInsert) this.#chainHead = this.#insert(this.#index);
      const prevLength = this.#length;
      const prevOffset = this.#offset;
      this.#length = MIN_MATCH - 1;
      this.#offset = 0;
      const minIndex = Math.max(0, this.#index - WINDOW);
      const candidate = this.#chainHead - this.#hashOffset;
      if (candidate >= minIndex && lookahead > prevLength && prevLength < this.#lazy) {
        const found = this.#findMatch(this.#index, candidate, lookahead);
        if (found > 0) {
          this.#length = found;
          this.#offset = this.#foundOffset;
        }
      }
      if (prevLength >= MIN_MATCH && this.#length <= prevLength) this.#takeMatch(prevLength, prevOffset);
      else this.#takeLiteral();
    }
  }

  /** There was a match at the byte before, and none that is better here. */
  #takeMatch(prevLength: number, prevOffset: number): void {
    this.#tokens[this.#tokenCount++] = MATCH + ((prevLength - 3) << LENGTH_SHIFT) + prevOffset - 1;
    const next = this.#index + prevLength - 1;
    let index = this.#index;
    for (index++; index < next; index++) if (index < this.#maxInsert) this.#insert(index);
    this.#index = index;
    this.#byteAvailable = false;
    this.#length = MIN_MATCH - 1;
    if (this.#tokenCount === BLOCK_TOKENS) this.#block(this.#index);
  }

  #takeLiteral(): void {
    if (this.#byteAvailable) {
      const at = this.#index - 1;
      this.#tokens[this.#tokenCount++] = this.#window[at]!;
      if (this.#tokenCount === BLOCK_TOKENS) this.#block(at + 1);
    }
    this.#index++;
    this.#byteAvailable = true;
  }

  #flushTokens(): void {
    if (this.#byteAvailable) {
      this.#tokens[this.#tokenCount++] = this.#window[this.#index - 1]!;
      this.#byteAvailable = false;
    }
    if (this.#tokenCount > 0) this.#block(this.#index);
  }

  /** Puts the string at `index` at the head of its chain; gives the head before. */
  #insert(index: number): number {
    const w = this.#window;
    const word = (w[index]! << 24) | (w[index + 1]! << 16) | (w[index + 2]! << 8) | w[index + 3]!;
    const hash = Math.imul(word, HASH_MUL) >>> (32 - HASH_BITS);
    const before = this.#head[hash]!;
    this.#prev[index & WINDOW_MASK] = before;
    this.#head[hash] = index + this.#hashOffset;
    return before;
  }

  /** The longest match for `pos` along the chain that begins at `head`, its distance in `#foundOffset`; 0 when there is none. */
  #findMatch(pos: number, head: number, lookahead: number): number {
    const window = this.#window;
    const prev = this.#prev;
    const hashOffset = this.#hashOffset;
    const most = Math.min(MAX_MATCH, lookahead);
    const nice = Math.min(most, this.#nice);
    let length = MIN_MATCH - 1;
    let tries = length >= this.#good ? this.#chain >> 2 : this.#chain;
    let found = 0;
    let wEnd = window[pos + length]!;
    const minIndex = pos - WINDOW;
    for (let i = head; tries > 0; tries--) {
      if (wEnd === window[i + length]) {
        let n = 0;
        while (n < most && window[i + n] === window[pos + n]) n++;
        if (n > length && (n > MIN_MATCH || pos - i <= 4096)) {
          length = found = n;
          this.#foundOffset = pos - i;
          if (n >= nice) break;
          wEnd = window[pos + n]!;
        }
      }
      if (i === minIndex) break;
      i = prev[i & WINDOW_MASK]! - hashOffset;
      if (i < minIndex || i < 0) break;
    }
    return found;
  }
}
