import assert from 'node:assert/strict';
import { CONTENT_KEY_BYTES, contentOfKey, type Extent } from './content.ts';
import { sectorKey } from './content-reader.ts';

/** A record: the content's key, the number of its sector, and its place there; little endian. */
const RECORD_BYTES = CONTENT_KEY_BYTES + 8;
const SECTOR_AT = CONTENT_KEY_BYTES;
const OFFSET_AT = CONTENT_KEY_BYTES + 4;
/** Records that get memory together. */
const CHUNK_RECORDS = 16_384;
/** Instead of a sector's number: it lies in several places. */
const SEVERAL = 0xffff_ffff;
/** A table of slots is at most this full. */
const FULLEST = 0.6;

export interface PlacedContent {
  readonly key: Buffer;
  readonly extents: readonly Extent[];
}

/** Contents of an import whose places in the store are decided, by their keys: 60 bytes each outside of the heap, because a layer may have a million of them. */
export class PlacedContents {
  private readonly chunks: Buffer[] = [];
  private count = 0;
  /** 1 + the number of a record, at the first free slot from where the key's first four bytes say; 0 is free. */
  private slots = new Uint32Array(1024);
  private readonly sectors: Uint8Array[] = [];
  private readonly numbers = new Map<string, number>();
  private readonly several = new Map<number, readonly Extent[]>();

  get size(): number {
    return this.count;
  }

  has(key: Buffer): boolean {
    return this.slots[this.slotOf(key)] !== 0;
  }

  /** Where the content is; undefined if it is none of these. */
  find(key: Buffer): readonly Extent[] | undefined {
    const record = this.slots[this.slotOf(key)]!;
    return record === 0 ? undefined : this.extentsOf(record - 1);
  }

  /** Notes where a content that is none of these yet is. */
  add(key: Buffer, extents: readonly Extent[]): void {
    if (this.count >= this.slots.length * FULLEST) this.widen();
    const slot = this.slotOf(key);
    assert.equal(this.slots[slot], 0, 'a content is placed once');
    const record = this.count++;
    this.slots[slot] = record + 1;
    if (record % CHUNK_RECORDS === 0) this.chunks.push(Buffer.alloc(CHUNK_RECORDS * RECORD_BYTES));
    const chunk = this.chunks.at(-1)!;
    const at = (record % CHUNK_RECORDS) * RECORD_BYTES;
    chunk.set(key, at);
    const [only] = extents;
    if (extents.length === 1 && only!.length === contentOfKey(key).size) {
      chunk.writeUInt32LE(this.numberOf(only!.sector), at + SECTOR_AT);
      chunk.writeUInt32LE(only!.offset, at + OFFSET_AT);
    } else {
      chunk.writeUInt32LE(SEVERAL, at + SECTOR_AT);
      this.several.set(record, extents);
    }
  }

  /** All of them in the order of their keys, at most `most` at a time: an index takes them fastest so, and touches few of its pages for each. */
  *inOrder(most: number): Generator<PlacedContent[]> {
    const prefixes = Float64Array.from({ length: this.count }, (_, record) => this.keyOf(record).readUIntBE(0, 6));
    const order = Uint32Array.from({ length: this.count }, (_, record) => record);
    order.sort((a, b) => prefixes[a]! - prefixes[b]! || Buffer.compare(this.keyOf(a), this.keyOf(b)));
    for (let at = 0; at < order.length; at += most) {
      const records = [...order.subarray(at, at + most)];
      yield records.map((record) => ({ key: this.keyOf(record), extents: this.extentsOf(record) }));
    }
  }

  private keyOf(record: number): Buffer {
    const at = (record % CHUNK_RECORDS) * RECORD_BYTES;
    return this.chunks[Math.floor(record / CHUNK_RECORDS)]!.subarray(at, at + CONTENT_KEY_BYTES);
  }

  private extentsOf(record: number): readonly Extent[] {
    const chunk = this.chunks[Math.floor(record / CHUNK_RECORDS)]!;
    const at = (record % CHUNK_RECORDS) * RECORD_BYTES;
    const number = chunk.readUInt32LE(at + SECTOR_AT);
    if (number === SEVERAL) return this.several.get(record)!;
    const { size } = contentOfKey(this.keyOf(record));
    return [{ sector: this.sectors[number]!, offset: chunk.readUInt32LE(at + OFFSET_AT), length: size }];
  }

  private numberOf(sector: Uint8Array): number {
    const key = sectorKey(sector);
    let number = this.numbers.get(key);
    if (number === undefined) {
      number = this.sectors.push(Uint8Array.from(sector)) - 1;
      this.numbers.set(key, number);
    }
    return number;
  }

  /** The slot of a key, or the free one where it would be. */
  private slotOf(key: Buffer): number {
    const mask = this.slots.length - 1;
    for (let slot = key.readUInt32LE(0) & mask; ; slot = (slot + 1) & mask) {
      const record = this.slots[slot]!;
      if (record === 0 || this.keyOf(record - 1).equals(key)) return slot;
    }
  }

  private widen(): void {
    this.slots = new Uint32Array(this.slots.length * 2);
    for (let record = 0; record < this.count; record++) this.slots[this.slotOf(this.keyOf(record))] = record + 1;
  }
}
