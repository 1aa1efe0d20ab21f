import { CHECK_BYTES, tableBytes, tableOffset } from '../log/entry.ts';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { deltaOf, isLog, payloadBytesOf } from './run-source.ts';

const FIRST_SECTORS = 64;

/**
 * How many bytes of each sector of the log are needed to read the files as they are now: of every run the blocks that it lies in, and their checksums.
 * What several runs need counts for each of them, so the numbers are upper bounds, and 0 means that nothing in the sector is needed.
 */
export class LiveSectors {
  /** Of all sectors together. */
  total = 0;
  #bytes = new Float64Array(FIRST_SECTORS);

  /** A run of `length` bytes at `place` with this source (run-source.ts) has come (`sign` 1) or gone (-1). */
  count(length: number, place: number, source: number, sign: 1 | -1): void {
    if (!isLog(source)) return;
    const delta = deltaOf(source);
    const payloadBytes = payloadBytesOf(source);
    const payloadAt = place - delta;
    const first = delta - (delta % CHECK_BYTES);
    const end = Math.min(payloadBytes, Math.ceil((delta + length) / CHECK_BYTES) * CHECK_BYTES);
    this.#countRange(payloadAt + first, payloadAt + end, sign);
    this.#countRange(payloadAt - 4, payloadAt, sign);
    if (payloadBytes <= CHECK_BYTES) return;
    const table = payloadAt + tableOffset(payloadBytes);
    this.#countRange(table, table + tableBytes(payloadBytes), sign);
  }

  /** Needed bytes of a sector. */
  of(sector: number): number {
    return this.#bytes[sector] ?? 0;
  }

  /** Needed bytes of the sectors before this one. */
  before(sector: number): number {
    let sum = 0;
    for (let i = 0; i < Math.min(sector, this.#bytes.length); i++) sum += this.#bytes[i]!;
    return sum;
  }

  /** The sectors of which something is needed, in order. */
  sectors(): { sector: number; bytes: number }[] {
    const found: { sector: number; bytes: number }[] = [];
    for (const [sector, bytes] of this.#bytes.entries()) if (bytes > 0) found.push({ sector, bytes });
    return found;
  }

  #countRange(from: number, to: number, sign: 1 | -1): void {
    this.total += sign * (to - from);
    for (let at = from; at < to;) {
      const sector = Math.floor(at / SECTOR_BYTES);
      const until = Math.min(to, (sector + 1) * SECTOR_BYTES);
      if (sector >= this.#bytes.length) this.#grow(sector);
      this.#bytes[sector]! += sign * (until - at);
      at = until;
    }
  }

  #grow(sector: number): void {
    const larger = new Float64Array(Math.max(sector + 1, this.#bytes.length * 2));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}
